"""Bytes an entry takes in the database: every document, and its keys in every index.

A document counts with its BSON size. An index key is estimated as MongoDB's KeyString writes it: a text with two bytes
around it, a number with nine, and ten more for the record's id and the cell; nothing is taken off for the compression
of prefixes and pages that WiredTiger adds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks import workload
from benchmarks.remote.bench import Bench
from benchmarks.remote.grown import entries
from benchmarks.workload import TOPIC, WIDTHS
from ml_dash.entry import encode_body
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.store import MERGED, Batch, Track
from ml_dash.stores.compactor import Policy
from ml_dash.stores.mongo_tables import INDEXES
from ml_dash.stores.parts import encode_part

Sample = tuple[float, dict[str, Any]]
AT_ONCE = Policy(grace_s=0.0)
"""What was compacted is swept at once; stubs stay for their day."""


def storage(bench: Bench) -> None:
    """The demo's arm at its 100 Hz and at 1 kHz, and full mantissas of noise at 1 kHz; a batch is a second."""
    encode_part(entries(16, 0))  # what is imported at the first one is not compaction's own
    demo = list(_demo(bench))
    noisy = [(e[0], dict(zip(WIDTHS, e[1:], strict=True))) for e in workload.entries(bench.options.noisy_entries)]
    for name, samples, rate in (("demo_100hz", demo, 100), ("demo_1khz", demo, 1000), ("noisy_1khz", noisy, 1000)):
        if samples:
            _measure(bench, name, samples, rate)


def _demo(bench: Bench) -> Iterator[Sample]:
    """The entries of `robot/state` that the demo's simulation gives."""
    try:
        from ml_dash.demo.simulate import PickAndPlace
    except ImportError as missing:
        bench.note("storage_demo", f"the demo's simulation is not installed: {missing}")
        return
    for sample in PickAndPlace(bench.options.cycles).samples():
        if sample.topic == TOPIC:
            yield sample.timestamp, sample.fields


def _measure(bench: Bench, name: str, samples: list[Sample], rate: int) -> None:
    uri = next(iter(bench.databases.running.values())).uri
    client: Any = connect(uri)
    database = client[f"bench_storage_{name}"]
    catalog = MongoCatalog(client=client, database=database.name, policy=AT_ONCE)
    store, track = catalog.store("bench/storage/run"), Track(MERGED, TOPIC)
    for number, first in enumerate(range(0, len(samples), rate), start=1):
        bodies = [encode_body((1, t, fields)) for t, fields in samples[first : first + rate]]
        store.append(Batch("writer", number, {1: track}, bodies))
    count = len(samples)
    written = sum(sizes(database).values())
    used = time.thread_time()
    catalog.compact("bench/storage/run")
    used = time.thread_time() - used
    catalog.sweep("bench/storage/run")
    found = sizes(database)
    bench.keep(0, **{f"storage_{name}_written": written / count, f"storage_{name}": sum(found.values()) / count})
    bench.keep(0, **{f"storage_{name}_{part}": size / count for part, size in found.items()})
    bench.keep(0, **{f"storage_{name}_entries": float(count), f"storage_{name}_compact_us": used / count * 1e6})
    client.drop_database(database.name)
    client.close()


def sizes(database: Any) -> dict[str, int]:
    """Bytes of bodies, headers of live segments, stubs, all other documents, and index keys."""
    import bson

    found = dict.fromkeys(("bodies", "headers", "stubs", "others", "index"), 0)
    for name, indexes in INDEXES.items():
        keys = [["_id"], *([field for field, _ in fields] for fields, _ in indexes)]
        for doc in database[name].find({}):
            part = {"bodies": "bodies", "segments": "headers" if doc.get("st") == "live" else "stubs"}.get(
                name, "others"
            )
            found[part] += len(bson.encode(doc))
            found["index"] += sum(_key_bytes([doc.get(field) for field in fields]) for fields in keys)
    return found


def _key_bytes(values: list[Any]) -> int:
    return 10 + sum(len(value.encode()) + 2 if isinstance(value, str) else 9 for value in values)
