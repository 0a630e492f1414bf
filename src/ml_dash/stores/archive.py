"""The archive: parts as objects in S3, or in any bucket obstore knows.

    kind=tracks/owner=ada/project=arm/experiment=run-1/topic=robot%2Fstate/<series>-<sha256>.parquet

The names between the slashes let an engine prune by path; values are percent-encoded. The key holds the content's
hash, so putting an object twice is putting it once. Segment headers in the database say which objects count: an
object is there before its header, and goes only after no header named it for a day (`collect`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import StoreUnavailable
from ..store import KINDS
from .bucket import Bucket
from .merging import current, is_hit, overlapping
from .mongo_driver import Doc
from .mongo_tables import Tables
from .segments import LIVE, PARQUET, Header, check_body

LONGEST = 180
"""Of a name in a key. Four of them, what stands around them and a folder of the bucket's URL fit into a key."""


PAGE = 500
"""Keys that the janitor looks at together."""


class ArchivedObject(NamedTuple):
    """One object that belongs to a series now: its key in the bucket, what it holds, its bytes."""

    key: str
    topic: str
    first: float
    last: float
    entries: int
    size_bytes: int


def folder_of(prefix: str, kind: str, topic: str | None = None) -> str:
    """Where the objects of a series are, or with no topic those of all series of a kind."""
    owner, project, *rest = prefix.split("/")
    names = {"kind": kind, "owner": owner, "project": project, "experiment": "/".join(rest)}
    if topic is not None:
        names["topic"] = topic
    return "/".join(f"{name}={_encoded(value)}" for name, value in names.items())


def _encoded(value: str) -> str:
    """Percent-encoded; a long one is cut and ends in `~hash`, so that a key has at most 1,024 bytes, as S3 demands."""
    text = quote(value, safe="")
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    return f"{re.sub('%.?$', '', text[: LONGEST - 17])}~{digest}"


class ArchivedSeries(NamedTuple):
    """The objects of one series.

    `exact` says that they are the series as a store reads it: nothing is in the database only, no two of them hold
    the same instant, and nothing in them was deleted.
    """

    topic: str
    kind: str
    exact: bool
    objects: list[ArchivedObject]


class Archive:
    """Moves parts out of the database, and knows which objects count.

    Args:
        bucket: where to.
    """

    def __init__(self, tables: Tables, bucket: Bucket) -> None:
        self._tables, self.bucket = tables, bucket

    # -------------------------------------------------------------- storing

    def wants(self, header: Header) -> bool:
        """Whether a segment is a part that may move: compacted, and what it replaced is gone."""
        return header["lv"] > 0 and header["enc"] == PARQUET and "obj" not in header and bool(header.get("swept"))

    def store(self, doc: Doc, *, older_than: float = float("inf")) -> int:
        """Copy a series' parts to the bucket and publish them there; the copies in the database go later.

        Raises:
            StoreUnavailable: the bucket did not answer; nothing is lost, the next pass goes on.
        """
        headers = current(self._tables.live(doc["_id"]))
        moving = [header for header in headers if self.wants(header) and header["at"] <= older_than]
        prefix = self._tables.prefix_of(doc["x"]) if moving else None
        if prefix is None:
            return 0
        return sum(self._store_one(doc, prefix, header) for header in moving)

    def _store_one(self, doc: Doc, prefix: str, header: Header) -> bool:
        body = self._tables.body(header)
        if body is None:
            return False  # compacted again meanwhile
        check_body(header, body)
        digest = hashlib.sha256(body).hexdigest()
        key = f"{folder_of(prefix, doc['kind'], doc['topic'])}/{doc['_id']}-{digest[:40]}.parquet"
        if self._tables.is_doomed(key):
            return False  # an earlier copy is about to be deleted; once it is, this one can be stored
        self.bucket.put(key, body)
        if self.bucket.size(key) != len(body):
            raise StoreUnavailable(f"archive {self.bucket.url}: {key} is not there after it was stored")
        self._publish(header, {"key": key, "size": len(body), "sha256": digest})
        return True

    def _publish(self, header: Header, obj: dict[str, Any]) -> None:
        name, level = self._tables.new_id(), header["lv"] + 1
        place = {"_id": f"{header['t']}/{level}/{header['s1']}/{name}/0", "lv": level, "st": LIVE, "w": name}
        closing = {"set": name, "p": 0, "part": 0, "parts": 1, "of": [header["_id"]], "swept": False}
        kept = {key: value for key, value in header.items() if key != "bid"}
        self._tables.insert_headers([{**kept, **place, **closing, "bid": "", "chunks": 0, "obj": obj,
                                      "at": self._tables.now(), "since": header["at"]}])  # fmt: skip

    def is_safe(self, header: Header) -> bool:
        """Whether the object will stay, so that its copy in the database may go."""
        obj = header["obj"]
        return not self._tables.is_doomed(obj["key"]) and self.bucket.size(obj["key"]) == obj["size"]

    # -------------------------------------------------------------- what there is

    def series(self, doc: Doc) -> ArchivedSeries:
        """The objects that make up the archived part of a series now, for engines that read the bucket directly."""
        headers = current(self._tables.live(doc["_id"]))
        cuts = self._tables.cuts(doc["_id"]) if doc["cuts"] else []
        stored = sorted((header for header in headers if "obj" in header), key=lambda header: header["lo"])
        whole = len(stored) == len(headers) and not any(is_hit(header, cuts) for header in stored)
        objects = [_archived(doc["topic"], header) for header in stored]
        return ArchivedSeries(doc["topic"], doc["kind"], whole and not overlapping(stored), objects)

    # -------------------------------------------------------------- the janitor

    def collect(self, wait_s: float) -> int:
        """Delete objects that nothing names, in two steps at least `wait_s` apart; the number deleted.

        The first step marks an object, the second takes the mark over and looks once more before it deletes. Whoever
        removes the database's copy looks for the mark after publishing the header: one of the two sees the other.
        """
        deleted = 0
        for page in self._pages():
            named = self._named([_series_of(key) for key in page])
            self._tables.spare([key for key in page if key in named])
            for key in page:
                if key not in named and self._tables.doom(key, wait_s):
                    deleted += self._delete_unnamed(key)
        return deleted

    def _pages(self) -> Iterator[list[str]]:
        """The keys of the bucket, some hundred at a time: one question to the database for all of them."""
        keys = chain.from_iterable(self.bucket.keys(f"kind={kind}") for kind in KINDS)
        while page := list(islice(keys, PAGE)):
            yield page

    def _delete_unnamed(self, key: str) -> bool:
        going = key not in self._named([_series_of(key)])
        if going:
            self.bucket.delete(key)
        self._tables.undoom(key)
        return going

    def _named(self, series: Sequence[str]) -> set[str]:
        found = chain.from_iterable(self._tables.of_series(sorted(set(series))).values())
        return {header["obj"]["key"] for header in found if "obj" in header}


def _series_of(key: str) -> str:
    """The id of the series whose object it is."""
    return key.rsplit("/", 1)[-1].split("-")[0]


def _archived(topic: str, header: Header) -> ArchivedObject:
    first, last = ("a", "z") if "a" in header else ("lo", "hi")
    obj = header["obj"]
    return ArchivedObject(obj["key"], topic, header[first], header[last], header["n"], obj["size"])
