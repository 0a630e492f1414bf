"""Where an entry's time goes between a program and the database: every stage alone, in CPU time of this thread.

The code is the product's own; a batch of 28,000 entries is what a client with a backlog sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.remote.bench import Bench
from benchmarks.workload import TOPIC, WIDTHS
from ml_dash import wire
from ml_dash.entry import encode_body
from ml_dash.journal import Journal
from ml_dash.journal_files import Mark
from ml_dash.journal_reader import Stream
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.sending import BACKLOG_BYTES, BACKLOG_ENTRIES, ranges
from ml_dash.server.ingest import batch_of, check_digest
from ml_dash.store import MERGED, Batch, Track
from ml_dash.stores.mongo import MongoStore
from ml_dash.zstd import compress, decompress

TRACK = Track(MERGED, TOPIC)
TRACKS = {1: TRACK}
REPEATS = 5


def stages(bench: Bench) -> None:
    """Microseconds an entry of each stage, the least of some repeats."""
    entries = workload.entries(bench.options.ingest_entries)
    bodies = _timed(bench, "stage_encode_us", lambda: [_body(entry) for entry in entries])
    stream = _journal(bench.folder / "stages", bodies)
    found = _timed(bench, "stage_cut_us", lambda: list(_ranges(stream)))
    batches = [Batch("w", number, TRACKS, one.bodies) for number, one in enumerate(found, start=1)]
    sent = _timed(bench, "stage_pack_us", lambda: [_packed(batch) for batch in batches])
    bench.keep(0, wire_bytes=sum(len(body) for body, _ in sent) / len(entries))
    raw = _timed(bench, "stage_unpack_us", lambda: [_unpacked(*pair) for pair in sent])
    checked = _timed(bench, "stage_check_us", lambda: [batch_of(one, wire.BATCH, {})[0] for one in raw])
    _storing(bench, checked, len(entries))


def _body(entry: workload.EntryTuple) -> bytes:
    return encode_body((1, entry[0], dict(zip(WIDTHS, entry[1:], strict=True))))


def _journal(folder: Path, bodies: list[bytes]) -> Stream:
    journal = Journal(folder)
    assert journal.track_id(TRACK) == 1
    for body in bodies:
        journal.write(body)
    stream = Stream(journal.path)
    journal.close()
    return stream


def _ranges(stream: Stream) -> Any:
    return ranges(stream, Mark(0, 0), None, None, BACKLOG_ENTRIES, BACKLOG_BYTES, lambda: None)


def _packed(batch: Batch) -> tuple[bytes, str]:
    body = compress(wire.encode_batch(batch))
    return body, wire.digest(body)


def _unpacked(body: bytes, digest: str) -> bytes:
    check_digest(body, digest)
    return decompress(body, wire.LIMITS.raw)


def _storing(bench: Bench, batches: list[Batch], entries: int) -> None:
    """The store's own CPU time with each database, which includes PyMongo's encoding of what it inserts."""
    for name, database in bench.databases.running.items():
        catalog = MongoCatalog(database.uri, f"bench_stages_{name}")
        for repeat in range(REPEATS):
            store: MongoStore = catalog.store(f"bench/stages/run-{repeat}")
            began, cpu = time.perf_counter(), time.thread_time()
            for batch in batches:
                store.append(batch)
            used, took = time.thread_time() - cpu, time.perf_counter() - began
            bench.keep(repeat, **{f"stage_store_{name}_us": used / entries * 1e6})
            bench.keep(repeat, **{f"stage_database_{name}_us": (took - used) / entries * 1e6})
        catalog.close()


def _timed(bench: Bench, key: str, run: Callable[[], Any]) -> Any:
    found: Any = None
    for repeat in range(REPEATS):
        began = time.thread_time()
        found = run()
        bench.keep(repeat, **{key: (time.thread_time() - began) / bench.options.ingest_entries * 1e6})
    return found
