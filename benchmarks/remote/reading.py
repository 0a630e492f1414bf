"""Windows over HTTP out of tracks of 10^4 to 10^8 entries, and what each asks of database and bucket."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import Any

import httpx2
import orjson
from pymongo import monitoring

from benchmarks.remote.bench import Bench
from benchmarks.remote.grown import (
    AT_ONCE,
    PREFIX,
    TRACK,
    WINDOW,
    Grown,
    archive,
    ends,
    expected,
    grow,
    leave_alone,
    record,
)
from benchmarks.remote.served import Dash
from benchmarks.workload import TOPIC
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.store import Window
from ml_dash.stores.bucket import open_bucket

SEED = 7


class Asked(monitoring.CommandListener):
    """What a client asks of its database: time as the driver sees it, documents and bytes of the answers."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.took_ms, self.documents, self.bytes, self.objects, self.object_bytes = 0.0, 0, 0, 0, 0

    def started(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...

    def succeeded(self, event: Any) -> None:
        """Count an answer."""
        import bson

        cursor = event.reply.get("cursor", {})
        found = [*cursor.get("firstBatch", []), *cursor.get("nextBatch", [])]
        self.took_ms += event.duration_micros / 1e3
        self.documents += len(found)
        self.bytes += sum(len(bson.encode(doc)) for doc in found)


class Counted:
    """A bucket whose ranged reads are counted."""

    def __init__(self, bucket: Any, asked: Asked) -> None:
        self._bucket, self._asked = bucket, asked
        plain = bucket.range

        def counting(key: str, start: int, end: int) -> bytes:
            asked.objects += 1
            asked.object_bytes += end - start
            return plain(key, start, end)

        bucket.range = counting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)


# --- windows ---------------------------------------------------------------------------------------------------------


class Place:
    """One long track: its server, and the same store in this process, which counts what a window asks."""

    def __init__(self, uri: str, bucket_url: str, grown: Grown, server: Dash) -> None:
        self.grown, self.server, self.asked = grown, server, Asked()
        self._client = connect(uri, event_listeners=[self.asked])
        bucket: Any = Counted(open_bucket(bucket_url), self.asked)
        self._store = MongoCatalog(client=self._client, database=grown.database, bucket=bucket).store(PREFIX)

    def read(self, first: int) -> dict[str, float]:
        """What one window asks of database and bucket, and how long the database took, as PyMongo sees it."""
        asked, (start, end) = self.asked, ends(first)
        asked.forget()
        if sum(map(len, self._store.read(TRACK, Window(start, end)))) != WINDOW:
            raise AssertionError("a wrong window")
        found = {"documents": asked.documents, "bytes": asked.bytes, "requests": asked.objects}
        return {"database_ms": asked.took_ms, "object_bytes": asked.object_bytes, **found}

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def windows(bench: Bench) -> None:
    """Every database in turn; a round asks one window of every size, in an order that turns."""
    if bench.s3 is None:
        return bench.note("windows", "no S3 server")
    for name in bench.chosen:
        uri = bench.databases.running[name].uri
        with ExitStack() as stack:
            places = []
            for size in bench.options.sizes:
                grown = grow(uri, bench.s3.url, size, f"bench_grown_{size}")
                folder = bench.folder / f"grown-{name}-{size}"
                server = stack.enter_context(Dash(folder, mongo_uri=uri, database=grown.database, s3=bench.s3))
                places.append(Place(uri, bench.s3.url, grown, server))
                stack.callback(places[-1].close)
            _ask_all(bench, name, places)
    return None


def _ask_all(bench: Bench, name: str, places: list[Place]) -> None:
    draw = random.Random(SEED)
    with httpx2.Client(timeout=60) as client:
        for round_ in range(-2, bench.options.window_rounds):
            for turn in range(len(places)):
                place = places[(round_ + turn) % len(places)]
                first = place.grown.window(draw)
                found = {"ms": timed_window(client, place.server.url, PREFIX, first), **place.read(first)}
                found["ours_ms"] = found["ms"] - found["database_ms"]
                if round_ >= 0:
                    key = f"window_{name}_{place.grown.size}"
                    bench.keep(round_, **{f"{key}_{part}": float(value) for part, value in found.items()})


def timed_window(client: Any, url: str, prefix: str, first: int) -> float:
    """Milliseconds until the answer to one window is here and decoded; a wrong one raises."""
    start, end = ends(first)
    query = {"prefix": prefix, "topic": TOPIC, "start": repr(start), "end": repr(end)}
    began = time.perf_counter()
    answer = client.get(f"{url}/v1/entries", params=query)
    found = orjson.loads(answer.content)
    took = (time.perf_counter() - began) * 1e3
    stamp, q = expected(first)
    if found["count"] != WINDOW or found["entries"][0]["timestamp"] != stamp or found["entries"][0]["q"] != q:
        raise AssertionError(f"a wrong window from {first}: {str(found)[:200]}")
    return took


# --- where the entries are -------------------------------------------------------------------------------------------


def archived(bench: Bench) -> None:
    """A window and everything, from segments as written, from compacted parts, and from the archive."""
    if bench.s3 is None:
        return bench.note("archived", "no S3 server")
    name = next(iter(bench.databases.running))
    uri, count = bench.databases.running[name].uri, bench.options.archive_entries
    catalog = MongoCatalog(uri, "bench_archive", s3_url=bench.s3.url, policy=AT_ONCE)
    for state in ("live", "compacted", "archived"):
        record(catalog, f"bench/places/{state}", count)
    catalog.compact("bench/places/compacted")
    catalog.sweep("bench/places/compacted")
    archive(catalog, "bench/places/archived")
    leave_alone(uri, "bench_archive")
    catalog.close()
    with Dash(bench.folder / "archive", mongo_uri=uri, database="bench_archive", s3=bench.s3) as server:
        _places(bench, server, count)
    return None


def _places(bench: Bench, server: Dash, count: int) -> None:
    draw, states = random.Random(SEED), ("live", "compacted", "archived")
    with httpx2.Client(timeout=600) as client:
        for round_ in range(-1, bench.options.rounds):
            for place in range(len(states)):
                state = states[(round_ + place) % len(states)]
                first = draw.randrange(count - WINDOW)
                took = timed_window(client, server.url, f"bench/places/{state}", first)
                whole = _whole(client, server.url, f"bench/places/{state}", count)
                if round_ >= 0:
                    bench.keep(round_, **{f"place_{state}_window_ms": took, f"place_{state}_full_s": whole})


def _whole(client: Any, url: str, prefix: str, count: int) -> float:
    began, lines = time.perf_counter(), 0
    query = {"prefix": prefix, "topic": TOPIC, "format": "ndjson"}
    with client.stream("GET", f"{url}/v1/entries", params=query) as answer:
        for chunk in answer.iter_bytes():
            lines += chunk.count(b"\n")
    if lines != count:
        raise AssertionError(f"{lines} entries where {count} were recorded")
    return time.perf_counter() - began
