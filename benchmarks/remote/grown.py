"""A track of any length in the archive, made without recording it.

One part is recorded, compacted, swept and archived by the product; its header is the pattern of all others, so a track
of 10^8 entries has its 1,526 segment documents, each with its own range, number and key. The parts that windows are
asked from hold their own entries. All others name one object that is there and is never read: what came from it would
be a wrong answer, and answers are checked.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from dataclasses import dataclass
from typing import Any

from benchmarks import workload
from benchmarks.workload import PERIOD_S, TOPIC, WIDTHS
from ml_dash.entry import encode_body
from ml_dash.mongo_catalog import MongoCatalog, connect, majority
from ml_dash.store import MERGED, Batch, Entry, Track
from ml_dash.stores.bucket import Bucket, open_bucket
from ml_dash.stores.compactor import Policy
from ml_dash.stores.mongo_tables import Tables
from ml_dash.stores.parts import encode_part

PART = 65_536
BATCHES = 66
REAL = 4
"""Parts of a track that windows are asked from."""
WINDOW = 1_000
PREFIX = "bench/grown/run"
AT_ONCE = Policy(grace_s=0.0, stub_s=0.0, archive_after_s=0.0)
NEVER = 4e9
TRACK = Track(MERGED, TOPIC)


def entries(count: int, first: int) -> list[Entry]:
    """Entries as they read."""
    return [{"timestamp": e[0], **dict(zip(WIDTHS, e[1:], strict=True))} for e in workload.entries(count, first)]


def record(catalog: MongoCatalog, prefix: str, count: int, batch: int = 2_000) -> None:
    """A track as a client's batches leave it."""
    store = catalog.store(prefix)
    for number, first in enumerate(range(0, count, batch), start=1):
        made = workload.entries(min(batch, count - first), first)
        bodies = [encode_body((1, e[0], dict(zip(WIDTHS, e[1:], strict=True)))) for e in made]
        store.append(Batch("writer", number, {1: TRACK}, bodies))


def archive(catalog: MongoCatalog, prefix: str) -> None:
    """Compact and move everything to the bucket now."""
    catalog.compact(prefix)
    catalog.sweep(prefix)
    catalog.archive(prefix)
    catalog.sweep(prefix)


@dataclass
class Grown:
    """A track of `size` entries in a database of its own."""

    size: int
    database: str
    places: list[int]
    """The parts that windows may be asked from."""

    def window(self, draw: random.Random) -> int:
        """The number of the first entry of a window that lies in one part."""
        part = draw.choice(self.places)
        return part * PART + draw.randrange(max(1, min(PART, self.size - part * PART) - WINDOW))


def grow(uri: str, bucket_url: str, size: int, database: str) -> Grown:
    """Make a track of that many entries."""
    client: Any = connect(uri)
    bucket = open_bucket(bucket_url)
    catalog = MongoCatalog(client=client, database=database, bucket=bucket, policy=AT_ONCE)
    record(catalog, PREFIX, min(size, PART))
    archive(catalog, PREFIX)
    catalog.upkeep()
    tables = Tables(majority(client, database))
    parts = -(-size // PART)
    places = sorted({round(place * (parts - 1) / max(1, REAL - 1)) for place in range(REAL)})
    _add_parts(tables, bucket, size, parts, places)
    client.close()
    leave_alone(uri, database)
    # A last part of few entries holds no whole window.
    return Grown(size, database, [place for place in places if min(PART, size - place * PART) > WINDOW])


def leave_alone(uri: str, database: str) -> None:
    """Have no server's upkeep change what is being measured."""
    client: Any = connect(uri)
    client[database]["tracks"].update_many({}, {"$set": {"due": NEVER}})
    client.close()


def _add_parts(tables: Tables, bucket: Bucket, size: int, parts: int, places: list[int]) -> None:
    pattern = next(header for header in tables.segments.find({"st": "live"}) if "obj" in header)
    folder = pattern["obj"]["key"].rsplit("/", 1)[0]
    made = []
    for number in range(1, parts):
        count = min(PART, size - number * PART)
        stamps = workload.timestamps(number * PART, 1)[0], workload.timestamps(number * PART + count - 1, 1)[0]
        header = _like(tables, pattern, number, count, (float(stamps[0]), float(stamps[1])))
        made.append(header | (_real(bucket, folder, header, count, number) if number in places else {}))
    for first in range(0, len(made), 500):
        tables.insert_headers(made[first : first + 500])


def _like(
    tables: Tables, pattern: dict[str, Any], number: int, count: int, ends: tuple[float, float]
) -> dict[str, Any]:
    name, s1 = tables.new_id(), (number + 1) * BATCHES
    place = {"_id": f"{pattern['t']}/{pattern['lv']}/{s1}/{name}/0", "s0": s1 - BATCHES + 1, "s1": s1}
    return {**pattern, **place, "w": name, "set": name, "n": count, "lo": ends[0], "hi": ends[1]}


def _real(bucket: Bucket, folder: str, header: dict[str, Any], count: int, number: int) -> dict[str, Any]:
    body = encode_part(entries(count, number * PART))
    digest = hashlib.sha256(body).hexdigest()
    key = f"{folder}/{header['t']}-{digest[:40]}.parquet"
    bucket.put(key, body)
    return {"size": len(body), "crc": zlib.crc32(body), "obj": {"key": key, "size": len(body), "sha256": digest}}


def expected(first: int) -> tuple[float, list[float]]:
    """Timestamp and `q` of the first entry of a window."""
    made = workload.entries(1, first)[0]
    return made[0], made[1]


def ends(first: int, count: int = WINDOW) -> tuple[float, float]:
    """The timestamps between which a window's entries lie."""
    return float(workload.timestamps(first, 1)[0]) - PERIOD_S / 4, float(workload.timestamps(first + count - 1, 1)[0])
