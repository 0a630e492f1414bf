"""Every query the MongoDB store sends, and the indexes that serve them.

Collections: `experiments`, `tracks` (one document a series), `segments` and `bodies` (`segments.py`), `writers` (the
last batch of each), `documents` (params and the like), `doomed` (objects about to be deleted). Writes wait for the
majority's journals, reads see only what a majority has: what was acknowledged survives a change of the primary, and
what may be rolled back is never built upon.
"""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import StoreCorrupt
from ..store import Track
from .mongo_driver import Clock, Doc, answering, insert, insert_many
from .segments import CUT, LIVE, MAX_POSITION, MSGPACK, STUB, Header, chunk_id, chunk_ids, chunked

INDEXES: dict[str, list[tuple[list[tuple[str, int]], bool]]] = {
    "experiments": [([("gone", 1), ("prefix", 1)], True)],
    "tracks": [([("x", 1), ("kind", 1), ("topic", 1), ("gone", 1)], True), ([("due", 1)], False)],
    "segments": [
        ([("t", 1), ("w", 1), ("b", 1), ("p", 1)], True),
        ([("t", 1), ("st", 1), ("hi", 1), ("lo", 1)], False),
        ([("t", 1), ("lv", 1), ("s1", 1)], False),
    ],
    "bodies": [],
    "writers": [],
    "documents": [([("d", 1), ("v", 1)], False)],
    "doomed": [],
}
"""Keys and uniqueness of every index besides `_id`."""

_NUMBER_S = 86_400.0


class Found(NamedTuple):
    """What the database holds of a batch in one series: the piece, its checksum and that of the whole batch."""

    t: str
    p: int
    n: int
    c: str


class Tables:
    """The database, as the few questions and changes the store needs.

    Args:
        monotonic: measures how long something took.
        new_id: makes ids; their random first characters spread series over the shards.
    """

    def __init__(
        self,
        database: Any,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._database = database
        self.monotonic, self.new_id = monotonic, new_id
        self.clock = Clock(database, monotonic)
        self.experiments, self.tracks = database["experiments"], database["tracks"]
        self.segments, self.bodies = database["segments"], database["bodies"]
        self.writers, self.documents = database["writers"], database["documents"]
        self.doomed = database["doomed"]

    def create_indexes(self) -> None:
        """Declare the indexes; those that exist already cost nothing."""
        with answering():
            for name, indexes in INDEXES.items():
                for keys, unique in indexes:
                    self._database[name].create_index(keys, unique=unique)

    def now(self) -> float:
        """Database time."""
        return self.clock.now()

    # -------------------------------------------------------------- experiments

    def experiment(self, prefix: str) -> Doc | None:
        """The experiment that has this prefix now."""
        return self.experiments.find_one({"prefix": prefix, "gone": 0})  # type: ignore[no-any-return]

    def create_experiment(self, prefix: str) -> Doc:
        """The experiment of this prefix, made where there was none."""
        doc = {"_id": self.new_id(), "prefix": prefix, "gone": 0, "created": self.now()}
        if insert(self.experiments, doc):
            return doc
        return self.experiment(prefix) or self.create_experiment(prefix)

    def note_heard(self, prefix: str) -> bool:
        """Who records this experiment was heard of; False where there is none."""
        found = self.experiments.update_one({"prefix": prefix, "gone": 0}, {"$set": {"heard": self.now()}})
        return bool(found.matched_count)

    def prefix_of(self, x: str) -> str | None:
        """The prefix of an experiment that was not deleted."""
        doc = self.experiments.find_one({"_id": x})
        return None if doc is None or doc["gone"] else str(doc["prefix"])

    def experiments_from(self, beginning: str) -> list[Doc]:
        """The experiments whose prefix begins with a text, sorted."""
        query: Doc = {"gone": 0}
        if beginning:
            query["prefix"] = {"$gte": beginning, "$lt": beginning + chr(0x10FFFF)}
        return sorted(self.experiments.find(query), key=lambda doc: str(doc["prefix"]))

    def count_series(self, x: str, kind: str) -> int:
        """How many series of a kind there are."""
        return int(self.tracks.count_documents({"x": x, "kind": kind, "gone": 0}))

    # -------------------------------------------------------------- series

    def series(self, x: str, tracks: Sequence[Track]) -> dict[Track, Doc]:
        """The documents of those of the tracks that exist."""
        kinds, topics = sorted({track.kind for track in tracks}), sorted({track.topic for track in tracks})
        found = self.tracks.find({"x": x, "kind": {"$in": kinds}, "topic": {"$in": topics}, "gone": 0})
        return {Track(doc["kind"], doc["topic"]): doc for doc in found}

    def series_of_kind(self, x: str, kind: str) -> list[Doc]:
        """The documents of every series of a kind."""
        return list(self.tracks.find({"x": x, "kind": kind, "gone": 0}))

    def create_series(self, x: str, track: Track, span: float) -> Doc:
        """The document of a series, made where there was none."""
        doc = {
            "_id": self.new_id(), "x": x, "kind": track.kind, "topic": track.topic, "gone": 0, "span": span,
            "cuts": False, "due": self.now(), "lease": 0.0,
        }  # fmt: skip
        if insert(self.tracks, doc):
            return doc
        return self.series(x, [track]).get(track) or self.create_series(x, track, span)

    def series_by_id(self, t: str) -> Doc | None:
        """A series' document as it is now; None where it was deleted."""
        doc = self.tracks.find_one({"_id": t})
        return None if doc is None or doc["gone"] else doc

    def raise_span(self, t: str, span: float) -> None:
        """Readers look this far to the right of a window's end for segments that reach into it."""
        self.tracks.update_one({"_id": t, "span": {"$lt": span}}, {"$set": {"span": span}})

    def alive(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Those of the series that are not deleted."""
        found = self.tracks.find({"_id": {"$in": list(counts)}})
        return {doc["_id"]: counts[doc["_id"]] for doc in found if not doc["gone"]}

    def insert_writer(self, doc: Doc) -> bool:
        """A writer's first claim; False where it has one."""
        return insert(self.writers, doc)

    # -------------------------------------------------------------- documents

    def document(self, key: str) -> Doc | None:
        """The newest version of a document."""
        while True:
            found = next(iter(self.documents.find({"d": key}).sort([("v", -1)]).limit(1)), None)
            if found is None or "body" in found:
                return found

    def replace_document(self, key: str, known: Doc | None, body: bytes) -> bool:
        """Add the version after the one that was read; False where another one came first.

        Versions are inserted, so that the unique key decides. Old ones lose their body, but keep their number for a
        day: a writer that was asleep must not get it a second time.
        """
        version, now = (known["v"] + 1 if known else 1), self.now()
        if not insert(self.documents, {"_id": f"{key}/{version}", "d": key, "v": version, "body": body, "at": now}):
            return False
        self.documents.update_one({"_id": f"{key}/{version - 2}"}, {"$unset": {"body": 1}})
        if version % 32 == 0:
            self.documents.delete_many({"d": key, "v": {"$lt": version - 2}, "at": {"$lt": now - _NUMBER_S}})
        return True

    # -------------------------------------------------------------- segments

    def live(self, t: str, lo: float | None = None, hi: float | None = None, span: float = 0.0) -> list[Header]:
        """The live segments of a series that overlap [lo, hi].

        With both sides given, `span` (the longest segment's) closes the scan of the index on its far side.
        """
        query: Doc = {"t": t, "st": LIVE}
        if lo is not None:
            query["hi"] = {"$gte": lo} if hi is None else {"$gte": lo, "$lte": min(hi + span, MAX_POSITION)}
        if hi is not None:
            query["lo"] = {"$lte": hi}
        return list(self.segments.find(query))

    def of_series(self, ts: Sequence[str]) -> dict[str, list[Header]]:
        """All live segments of several series."""
        grouped: dict[str, list[Header]] = {t: [] for t in ts}
        for header in self.segments.find({"t": {"$in": list(ts)}, "st": LIVE}) if ts else ():
            grouped[header["t"]].append(header)
        return grouped

    def cuts(self, t: str) -> list[Header]:
        """The deleted windows of a series."""
        return list(self.segments.find({"t": t, "st": CUT}))

    def highest(self, t: str) -> Header | None:
        """The written segment with the highest number, live or not."""
        found = self.segments.find({"t": t, "lv": 0}).sort([("s1", -1)]).limit(1)
        return next(iter(found), None)

    def of_batch(self, ts: Sequence[str], writer: str, number: int) -> list[Found]:
        """What the series hold of a batch."""
        found = self.segments.find({"t": {"$in": list(ts)}, "w": writer, "b": number})
        return [Found(doc["t"], doc["p"], doc["n"], doc["c"]) for doc in found]

    def insert_headers(self, headers: Sequence[Header]) -> set[int]:
        """Insert all that can be; the places of those that some unique key refused."""
        return insert_many(self.segments, headers)

    def header(self, segment_id: str) -> Header | None:
        """One segment's header."""
        return self.segments.find_one({"_id": segment_id})  # type: ignore[no-any-return]

    # -------------------------------------------------------------- bodies

    def insert_bodies(self, bodies: Mapping[str, bytes], enc: str = MSGPACK) -> None:
        """Keep bodies under ids that are new with every attempt: an old attempt's may be collected at any time."""
        at = self.now()
        insert_many(self.bodies, [doc for bid, body in bodies.items() for doc in chunked(bid, enc, body, at)])

    def body(self, header: Header) -> bytes | None:
        """A segment's body, or None where it went since the header was read."""
        parts = [self.bodies.find_one({"_id": chunk}) for chunk in chunk_ids(header)]
        if any(part is None for part in parts):
            return None
        return b"".join(bytes(part["body"]) for part in parts)

    def small_bodies(self, headers: Sequence[Header]) -> dict[str, bytes]:
        """The bodies of several segments that are one document each, by their ids; those that went are missing."""
        found = self.bodies.find({"_id": {"$in": [header["bid"] for header in headers]}})
        return {doc["_id"]: bytes(doc["body"]) for doc in found}

    def chunk(self, header: Header, number: int) -> bytes | None:
        """One document's share of a segment's body, checked; None where it went."""
        part = self.bodies.find_one({"_id": chunk_id(header["bid"], number)})
        if part is None:
            return None
        body = bytes(part["body"])
        if zlib.crc32(body) != part["crc"]:
            raise StoreCorrupt(f"the body of segment {header['_id']} is damaged")
        return body

    # -------------------------------------------------------------- upkeep

    def due(self, now: float, limit: int) -> list[Doc]:
        """Series that need a look, the longest waiting first."""
        return list(self.tracks.find({"due": {"$lte": now}}).sort([("due", 1)]).limit(limit))

    def lease(self, t: str, now: float, until: float) -> bool:
        """Take a series for a while; False where another process has it."""
        found = self.tracks.update_one({"_id": t, "lease": {"$lt": now}}, {"$set": {"lease": until}})
        return bool(found.matched_count)

    def release(self, doc: Doc, due: float) -> None:
        """Give a series back and say when it is due again, unless somebody asked for a look meanwhile."""
        self.tracks.update_one({"_id": doc["_id"], "due": doc["due"]}, {"$set": {"due": due}})
        self.tracks.update_one({"_id": doc["_id"]}, {"$set": {"lease": 0.0}})

    def stub(self, ids: Sequence[str], now: float) -> int:
        """Turn live segments into stubs: first their headers, then their bodies; how many were live."""
        headers = list(self.segments.find({"_id": {"$in": list(ids)}}))
        change = {"$set": {"st": STUB, "off": now}}
        count = self.segments.update_many({"_id": {"$in": list(ids)}, "st": LIVE}, change).modified_count
        self._delete_bodies(headers)
        return int(count)

    def mark_swept(self, ids: Sequence[str]) -> None:
        """What these parts replaced is gone."""
        self.segments.update_many({"_id": {"$in": list(ids)}}, {"$set": {"swept": True}, "$unset": {"of": 1}})

    def stubs(self, t: str) -> list[Header]:
        """The stubs of a series."""
        return list(self.segments.find({"t": t, "st": STUB}))

    def _delete_bodies(self, headers: Sequence[Header]) -> None:
        chunks = [chunk for header in headers for chunk in chunk_ids(header)]
        if chunks:
            self.bodies.delete_many({"_id": {"$in": chunks}})

    def delete_segments(self, headers: Sequence[Header]) -> None:
        """Remove stubs for good."""
        self._delete_bodies(headers)
        self.segments.delete_many({"_id": {"$in": [header["_id"] for header in headers]}})

    def delete_orphans(self, t: str, before: float) -> int:
        """Remove bodies that no live header names and that are older than any request; their number.

        A header comes within one request of its body, so one that the listing misses has a younger body.
        """
        there = {doc["_id"] for doc in self.bodies.find(_below(t), {"_id": 1})}
        named = {chunk for header in self.live(t) for chunk in chunk_ids(header)}
        orphans = {"_id": {"$in": sorted(there - named)}, "at": {"$lte": before}}
        return int(self.bodies.delete_many(orphans).deleted_count) if there - named else 0

    def mark_checked(self, t: str, now: float) -> None:
        """Bodies without a header were looked for."""
        self.tracks.update_one({"_id": t}, {"$set": {"checked": now}})

    def delete_series(self, t: str) -> int:
        """Remove everything of a series; the number of its segments."""
        self.bodies.delete_many(_below(t))
        count = self.segments.delete_many({"t": t}).deleted_count
        self.tracks.delete_one({"_id": t})
        return int(count)

    def end_experiment(self, x: str, now: float) -> None:
        """Delete an experiment and its series for readers and writers; the space is freed later."""
        self.experiments.update_one({"_id": x, "gone": 0}, {"$set": {"gone": now}})
        self.tracks.update_many({"x": x, "gone": 0}, {"$set": {"gone": now, "due": now}})

    def gone_experiments(self, before: float) -> list[Doc]:
        """Experiments deleted before a time."""
        return list(self.experiments.find({"gone": {"$gt": 0, "$lte": before}}))

    def delete_experiment(self, x: str, now: float) -> None:
        """Remove what is left of an experiment; series that appeared during its deletion go the usual way."""
        self.end_experiment(x, now)
        self.documents.delete_many(_below(x))
        self.writers.delete_many(_below(x))
        self.experiments.delete_one({"_id": x})

    # -------------------------------------------------------------- objects about to go

    def is_doomed(self, key: str) -> bool:
        """Whether an object is marked for deletion."""
        return self.doomed.find_one({"_id": key}) is not None

    def doom(self, key: str, wait_s: float) -> bool:
        """Mark an object, or take over a mark that is old enough; True where it may go after one more look.

        One process at a time holds a mark it took over; another one takes it after `wait_s` again.
        """
        now = self.now()
        if insert(self.doomed, {"_id": key, "at": now, "going": False}):
            return False
        mark = self.doomed.find_one({"_id": key})
        if mark is None or mark["at"] + wait_s > now:
            return False
        taken = self.doomed.update_one({"_id": key, "at": mark["at"]}, {"$set": {"going": True, "at": now}})
        return bool(taken.modified_count)

    def spare(self, keys: Sequence[str]) -> None:
        """These objects are named; marks on them go, except one taken over, which stays until its owner has looked."""
        marked = [mark["_id"] for mark in self.doomed.find({"_id": {"$in": list(keys)}}) if not mark["going"]]
        if marked:
            self.doomed.delete_many({"_id": {"$in": marked}, "going": False})

    def undoom(self, key: str) -> None:
        """Whoever took the mark over has deleted the object, or seen that it is named."""
        self.doomed.delete_one({"_id": key})


def _below(name: str) -> Doc:
    """The ids that begin with a name and a slash."""
    return {"_id": {"$gte": f"{name}/", "$lt": f"{name}0"}}
