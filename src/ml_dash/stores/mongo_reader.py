"""Reading segments: plan with headers, load bodies when the merge reaches them, plan anew when one has gone.

A reader takes no snapshot and no lock. Compaction publishes first and removes later, by a grace period that covers the
reading of headers; a body that went since then is no error: its entries are in another segment by now, and the read
plans again from the last position it gave out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol

from ..entry import select
from ..errors import MissingExtra, StoreCorrupt, StoreUnavailable
from ..store import MERGED, Entry, TrackInfo, Window, fixed_names
from .bucket import RangeFile
from .merging import count, current, just_after, merged_blocks, within, without_cuts
from .mongo_driver import Doc
from .mongo_tables import Tables
from .parts import Codec, ParquetCodec, positioned
from .segments import (
    LIVE,
    MAX_POSITION,
    PARQUET,
    Header,
    check_body,
    chunk_bytes,
    decode_entries,
    field_types,
    may_hold,
    received,
    united_types,
)
from .undecoded import decoded

PLAN_S = 20.0
PLANS = 5


class Objects(Protocol):
    """Where archived bodies are: `bucket.Bucket`."""

    def open(self, key: str, size: int) -> Any:
        """The object as a seekable file; raises FileNotFoundError where there is none."""
        ...


class BodyGone(Exception):
    """A planned segment's body is not there any more."""

    def __init__(self, header: Header) -> None:
        super().__init__(header["_id"])
        self.header = header


class Reader:
    """Reads series out of segments.

    Args:
        objects: the archive's bucket; None where nothing was archived.
        plan_s: the longest that reading headers may take; shorter than the grace period of upkeep.
        codec: how parts are read.
    """

    def __init__(
        self, tables: Tables, objects: Objects | None = None, *, plan_s: float = PLAN_S, codec: Codec | None = None
    ) -> None:
        self._tables, self._objects, self.plan_s = tables, objects, plan_s
        self._codec = codec or ParquetCodec()

    def read(self, doc: Doc, window: Window, since: float | None = None) -> Iterator[list[Entry]]:
        """Blocks of entries of a series, in order.

        Args:
            since: when the document was asked for, by the tables' monotonic clock; None for just now.
        """
        if doc["kind"] != MERGED:
            yield from self._sequence(doc, window, since)
            return
        low = -MAX_POSITION if window.start is None else window.start
        high = MAX_POSITION if window.end is None else window.end
        for block in self.blocks(doc, low, high, window.columns, since):
            chosen = select(block, window.columns)
            if chosen:
                yield chosen

    def _sequence(self, doc: Doc, window: Window, since: float | None) -> Iterator[list[Entry]]:
        last = MAX_POSITION if window.limit is None else float(window.first + window.limit - 1)
        for block in self.blocks(doc, float(window.first), last, None, since):
            numbered = [{"index": int(entry["timestamp"]), **entry["entry"]} for entry in block]
            chosen = select(numbered, window.columns, fixed_names(doc["kind"]))
            if chosen:
                yield chosen

    def blocks(
        self, doc: Doc, low: float, high: float, columns: Sequence[str] | None, since: float | None = None
    ) -> Iterator[list[Entry]]:
        """Merged blocks of positions in [low, high], planned anew whenever a body went."""
        gone: set[str] = set()
        known: Doc | None = doc
        since = self._tables.monotonic() if since is None else since
        while known is not None and low <= high:
            headers, cuts = self._plan(known, low, high, since)
            needed = [header for header in headers if may_hold(header, columns)]
            try:
                for block in merged_blocks(needed, _Load(self, cuts, low, high, columns)):
                    if block:
                        low = just_after(block)
                        yield block
                return
            except BodyGone as error:
                self._check_gone(error.header, gone)
            since = self._tables.monotonic()
            known = self._tables.series_by_id(doc["_id"])

    def _check_gone(self, header: Header, before: set[str]) -> None:
        """A body may go only after its header stopped being live."""
        now = self._tables.header(header["_id"])
        if now is None or now["st"] != LIVE:
            return
        if header["_id"] in before:
            raise StoreCorrupt(f"segment {header['_id']} is live and its body is missing")
        before.add(header["_id"])

    def _plan(self, doc: Doc, low: float, high: float, since: float) -> tuple[list[Header], list[Header]]:
        """The segments of a window and the deletions, all asked for within the time that nothing goes in.

        The document belongs to it: a part that is longer than its `span` would not be found, and was not there yet
        when the document was read; what it replaces may be gone.
        """
        for _ in range(PLANS):
            lowest = None if low == -MAX_POSITION else low
            highest = None if high == MAX_POSITION else high
            headers = self._tables.live(doc["_id"], lowest, highest, doc["span"])
            cuts = self._cuts(doc, headers)
            if self._tables.monotonic() - since <= self.plan_s:
                return current(headers), cuts
            since = self._tables.monotonic()
            doc = self._tables.series_by_id(doc["_id"]) or doc
        raise StoreUnavailable(f"MongoDB is slow: the headers of {doc['topic']!r} took longer than {self.plan_s:g} s")

    def _cuts(self, doc: Doc, headers: Sequence[Header]) -> list[Header]:
        """The deletions, if the document knows of any, or one that came since then is in what was compacted.

        In that case it has to be applied to the others as well: the newest value of an instant may have gone with it,
        and an older one be there still.
        """
        return self._tables.cuts(doc["_id"]) if doc["cuts"] or any(header.get("k") for header in headers) else []

    # -------------------------------------------------------------- one segment

    def entries(self, header: Header, low: float, high: float, columns: Sequence[str] | None) -> Iterator[list[Entry]]:
        """One segment's entries, wherever its body is; positions are indices for a sequence."""
        first = int(header["lo"]) if "a" in header else None
        if header["enc"] == PARQUET:
            whole = low <= header["lo"] and high >= header["hi"]
            try:
                yield from self._codec.read(self.file(header, whole), low, high, columns, first=first)
            except FileNotFoundError:  # at the first byte of the object, or at a later one
                raise BodyGone(header) from None
            return
        body = self._tables.body(header)
        if body is None:
            raise BodyGone(header)
        entries = decode_entries(header, body)
        yield entries if first is None else positioned(entries, first)

    def file(self, header: Header, whole: bool) -> Any:
        """The bytes of a part, or its object or documents as a file of which only what is read is fetched."""
        archived = header.get("obj")
        if archived is not None:
            if self._objects is None:
                raise MissingExtra(f"the archive's bucket is not given (--s3-url), {archived['key']}", "s3")
            return self._objects.open(archived["key"], archived["size"])
        if header["chunks"] > 1 and not whole:
            return RangeFile(_Chunks(self._tables, header).range, header["size"])
        body = self._tables.body(header)
        if body is None:
            raise BodyGone(header)
        check_body(header, body)
        return body

    # -------------------------------------------------------------- what is known of a series

    def info(self, doc: Doc, headers: Sequence[Header]) -> TrackInfo | None:
        """The summary of a series; None where it has no entries."""
        for _ in range(PLANS):
            try:
                return self._info(doc, current(headers))
            except BodyGone:
                headers = self._tables.live(doc["_id"])
        raise StoreUnavailable(f"{doc['topic']!r} is being compacted faster than it can be counted")

    def _info(self, doc: Doc, headers: Sequence[Header]) -> TrackInfo | None:
        if not headers:
            return None
        size = sum(header["size"] for header in headers)
        cuts = self._cuts(doc, headers)
        revision = _revision(doc, [*headers, *cuts])
        info = self._info_by_reading(doc, size) if cuts else self._info_of_headers(doc, headers, size)
        return info and replace(info, revision=f"{revision}-{info.count}")

    def _info_of_headers(self, doc: Doc, headers: Sequence[Header], size: int) -> TrackInfo:
        columns = united_types(self._fields(header) for header in headers)
        if doc["kind"] != MERGED:
            first, last = min(header["a"] for header in headers), max(header["z"] for header in headers)
            indices = 1 + int(max(header["hi"] for header in headers) - min(header["lo"] for header in headers))
            return TrackInfo(doc["topic"], indices, first, last, columns, size)
        first, last = min(header["lo"] for header in headers), max(header["hi"] for header in headers)
        total = count(headers, _Load(self, [], -MAX_POSITION, MAX_POSITION, ["timestamp"]))
        return TrackInfo(doc["topic"], total, first, last, columns, size)

    def _info_by_reading(self, doc: Doc, size: int) -> TrackInfo | None:
        """What is left after deletions is known only from the entries."""
        info = TrackInfo(doc["topic"], 0, None, None, {}, size)
        for block in self.blocks(doc, -MAX_POSITION, MAX_POSITION, None):
            first = block[0]["timestamp"] if info.first_timestamp is None else info.first_timestamp
            known = list(chain.from_iterable(info.columns.items()))
            columns = united_types([known, field_types(block, limit=None) or []])
            total = info.count + len(block)
            info = replace(info, count=total, first_timestamp=first, columns=columns)
            info = replace(info, last_timestamp=block[-1]["timestamp"])
        return info if info.count else None

    def _fields(self, header: Header) -> list[str]:
        """The columns of a segment, from its body where they are too many for the header."""
        if header["f"] is not None:
            return header["f"]  # type: ignore[no-any-return]
        found: list[list[str]] = []
        for block in self.entries(header, -MAX_POSITION, MAX_POSITION, None):
            plain = [entry["entry"] for entry in block] if "a" in header else block
            found.append(field_types(plain, limit=None) or [])
        return list(chain.from_iterable(united_types(found).items()))


def _revision(doc: Doc, headers: Sequence[Header]) -> str:
    """Every append and deletion takes the next number, and compaction keeps the highest. The time tells numbers apart
    that were given again to others after a backup was restored. What expires shows in the number of entries alone."""
    number = max(max(header["s1"], header.get("k", 0)) for header in headers)
    return f"{doc['_id']}-{number}-{max(map(received, headers)):.6f}"


class _Chunks:
    """A part's body in the database, of which each document is fetched once, when it is needed."""

    def __init__(self, tables: Tables, header: Header) -> None:
        self._tables, self._header = tables, header
        self._fetched: dict[int, bytes] = {}

    def range(self, start: int, end: int) -> bytes:
        """Some of its bytes."""
        size = chunk_bytes(self._header["enc"])
        first, last = start // size, (end - 1) // size
        found = b"".join(self._chunk(number) for number in range(first, last + 1))
        return found[start - first * size : end - first * size]

    def _chunk(self, number: int) -> bytes:
        if number not in self._fetched:
            body = self._tables.chunk(self._header, number)
            if body is None:
                raise BodyGone(self._header)
            self._fetched[number] = body
        return self._fetched[number]


class _Load:
    """Loads segments for one window."""

    def __init__(
        self, reader: Reader, cuts: list[Header], low: float, high: float, columns: Sequence[str] | None
    ) -> None:
        self._reader, self._cuts, self._low, self._high, self._columns = reader, cuts, low, high, columns

    def __call__(self, header: Header) -> Iterator[list[Entry]]:
        blocks = self._reader.entries(header, self._low, self._high, self._columns)
        return within(map(decoded, without_cuts(header, blocks, self._cuts)), self._low, self._high)
