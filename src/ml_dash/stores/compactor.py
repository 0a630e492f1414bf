"""Compaction: many small segments become few Parquet parts; inputs go only after everybody could notice.

    merge      listed live segments -> parts, inserted under the rank of the newest input; the last part names exactly
               the segments the set replaces
    wait       the grace period, in database time
    sweep      inputs become stubs: header "merged", body removed (`upkeep.py`)

A crash anywhere leaves copies, never a gap: copies merge to the same answer. Two compactors at once cost work only.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import zstd
from .gathering import PART_BYTES, Part, parts_of
from .inputs import Inputs
from .merging import current, is_hit, merged_runs, overlapping, without_cuts
from .mongo_driver import Doc
from .mongo_reader import BodyGone, Reader
from .mongo_tables import Tables
from .parts import Codec, NoPart, ParquetCodec
from .segments import (
    LIVE,
    MAX_POSITION,
    MSGPACK,
    PARQUET,
    Header,
    chunks,
    encode_entries,
    rank,
    received,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """When upkeep does what.

    Args:
        grace_s: between publishing parts and removing what they replace; longer than any reader reads headers.
        stub_s: how long stubs stay, so that a late retry still meets its key; objects without a name stay as long.
        gone_s: how long deleted series linger, so that no request can still be writing to them.
        lease_s: how long a process that died keeps others from looking after a series.
        min_segments: fewer segments than this wait for more,
        idle_s: unless nothing came for so long.
        part_entries: entries of one part.
        max_inputs: segments merged at once.
        archive_after_s: age at which a part moves to the archive; None keeps everything in the database.
        keep_s: age, counted from when they came, at which entries are deleted; at once with all they were compacted
            with, so never earlier. None keeps them for ever.
    """

    grace_s: float = 60.0
    stub_s: float = 86_400.0
    gone_s: float = 3600.0
    lease_s: float = 900.0
    min_segments: int = 16
    idle_s: float = 600.0
    part_entries: int = 65_536
    max_inputs: int = 4096
    archive_after_s: float | None = None
    keep_s: float | None = None


log = logging.getLogger("ml_dash")


class Compactor:
    """Merges the segments of one series at a time.

    Args:
        codec: how parts are written; tests of the order of events take a faster one.
    """

    def __init__(self, tables: Tables, reader: Reader, policy: Policy, *, codec: Codec | None = None) -> None:
        self._tables, self._reader, self._policy = tables, reader, policy
        self._codec = codec or ParquetCodec()

    def compact(self, doc: Doc, *, few: bool = False, whole: bool = False) -> int:
        """Merge what is worth it; the number of segments that will go.

        Args:
            few: also when there are fewer segments than `min_segments`.
            whole: also parts of earlier compactions that overlap, so that a read of a window finds one part.
        """
        total = 0
        while True:
            headers = self._listed(doc)
            # Asked for after the listing, and whatever the series' document said before: a deletion that lies between
            # two of the inputs in rank has to be among these, or merging would bring back what it deleted.
            cuts = self._tables.cuts(doc["_id"])
            runs = self._runs(headers, cuts, few or whole, whole)
            merged = sum(len(run) for run in runs if self._merge(doc, run, cuts))
            total += merged
            if not merged or all(len(run) < self._policy.max_inputs for run in runs):
                return total

    # -------------------------------------------------------------- what to merge

    def _runs(self, headers: list[Header], cuts: list[Header], few: bool, whole: bool) -> list[list[Header]]:
        """Segments to merge together; each run is without gaps in rank, so that merging turns no order around."""
        settled = settled_sets(headers)
        loose = [place for place, header in enumerate(headers) if is_loose(header, settled)]
        limit = self._policy.max_inputs
        if whole and (loose or overlapping(headers)):
            return [headers[:limit]]
        runs = [[header] for header in headers if not is_loose(header, settled) and is_hit(header, cuts)]
        if loose and len(loose) >= (1 if few else self._policy.min_segments):
            first = with_small_ones(headers, loose[0], cuts, self._policy)
            runs.append(headers[first : first + limit])
        return runs

    def _listed(self, doc: Doc) -> list[Header]:
        """Every live segment up to the highest number, by rank, without those a finished set replaces.

        The number first: numbers are given in order, but a listing is no snapshot and may pass a place where a number
        is inserted behind it, then see a later one. Merging around the missing one would turn old values into new ones.
        """
        highest = self._tables.highest(doc["_id"])
        newest = 0 if highest is None else highest["s1"]
        began = self._tables.monotonic()
        seen = [header for header in self._tables.live(doc["_id"]) if header["s1"] <= newest]
        if self._tables.monotonic() - began > self._reader.plan_s:
            return []  # slower than the grace period allows; the next pass tries again
        return sorted(current(seen), key=rank)

    # -------------------------------------------------------------- merging

    def _merge(self, doc: Doc, inputs: list[Header], cuts: list[Header]) -> bool:
        """Publish the parts of one set; False where an input went meanwhile (somebody else compacted it)."""
        newest = max(inputs, key=rank)
        stamp = {
            "t": doc["_id"], "st": LIVE, "s0": min(header["s0"] for header in inputs), "s1": newest["s1"],
            "lv": newest["lv"] + 1, "set": self._tables.new_id(), "b": 0, "c": "",
            "k": max((cut["s1"] for cut in cuts), default=0), "got": max(map(received, inputs)),
        }  # fmt: skip
        replaced = [name for header in inputs for name in (header["_id"], *header.get("of", ()))]
        try:
            self._publish(stamp, self._parts(doc["kind"], inputs, cuts), replaced)
        except BodyGone:
            return False
        return True

    def _parts(self, kind: str, inputs: Sequence[Header], cuts: Sequence[Header]) -> Iterator[Part]:
        """The merged entries, a part at a time."""
        source = Inputs(self._tables, self._reader, self._codec, inputs)
        runs = merged_runs(inputs, lambda header: without_cuts(header, source.load(header), cuts))
        return parts_of(kind, runs, self._policy.part_entries)

    def _publish(self, stamp: Header, parts: Iterator[Part], replaced: list[str]) -> None:
        """Insert the parts one after the other; the last one says that the set is whole and what it replaces."""
        written: list[tuple[Header, bytes]] = []
        number = 0
        for found in map(self._encoded, parts):  # a loop over the parts would keep one while the next is gathered
            if written:
                self._insert(stamp, number, *written.pop(), {})
                number += 1
            written.append(found)
        closing = {"parts": number + 1, "of": replaced}
        self._insert(stamp, number, *(written.pop() if written else _nothing()), closing)

    def _encoded(self, part: Part) -> tuple[Header, bytes]:
        """The part's header and body; what Parquet cannot hold exactly is kept as it was written."""
        try:
            enc, raw, body = PARQUET, part.raw, self._codec.encode(part.blocks())
        except NoPart as error:
            log.info("a part stays %s: %s", MSGPACK, error)
            entries = part.encoded()
            enc, raw, body = MSGPACK, len(entries), zstd.compress(entries)
        return {**part.header(), "enc": enc, "raw": raw, "size": len(body), "crc": zlib.crc32(body)}, body

    def _insert(self, stamp: Header, number: int, header: Header, body: bytes, closing: Header) -> None:
        """Body first, then the header that makes it visible."""
        t, name = stamp["t"], f"{stamp['lv']}/{stamp['s1']}/{stamp['set']}/{number}"
        bid, at = f"{t}/{name}", self._tables.now()
        self._tables.raise_span(t, header["hi"] - header["lo"])
        self._tables.insert_bodies({bid: body}, header["enc"])
        place = {"_id": f"{t}/{name}", "w": stamp["set"], "p": number, "part": number, "bid": bid, "at": at}
        self._tables.insert_headers([{**header, **stamp, **place, "chunks": chunks(header["enc"], body), **closing}])


def _nothing() -> tuple[Header, bytes]:
    """The part of inputs of which deletions left nothing; it only says what it replaces."""
    raw = encode_entries([])
    body = zstd.compress(raw)
    ends = {"lo": MAX_POSITION, "hi": MAX_POSITION, "n": 0, "f": []}
    return {**ends, "enc": MSGPACK, "raw": len(raw), "size": len(body), "crc": zlib.crc32(body)}, body


# ---------------------------------------------------------------- which segments


def settled_sets(headers: Sequence[Header]) -> set[str]:
    """The compactions that finished: all of their parts are here, or what they replaced is gone already."""
    found = Counter(header["set"] for header in headers if "set" in header)
    return {
        header["set"]
        for header in headers
        if "set" in header and (header.get("swept") or header.get("parts") == found[header["set"]])
    }


def is_loose(header: Header, settled: set[str]) -> bool:
    """Whether a segment waits for compaction: as written, or left by a compaction that died."""
    return header["lv"] == 0 or header["set"] not in settled


def with_small_ones(headers: Sequence[Header], first: int, cuts: Sequence[Header], policy: Policy) -> int:
    """Take parts before the loose ones along while they are small beside them: each entry moves few times.

    A part that is large stays: taking it along would gain nothing, and what had grown by it would take the next one,
    so that every pass would write the whole series anew.
    """
    total = sum(header["n"] for header in headers[first:])
    while first > 0:
        before = headers[first - 1]
        if "obj" in before or before["n"] > total or _is_large(before, policy) or is_hit(before, cuts):
            break
        first, total = first - 1, total + before["n"]
    return first


def _is_large(header: Header, policy: Policy) -> bool:
    """Whether a part has half of what it may have, in entries or bytes."""
    bytes_of = max(header["raw"], 2 * header["size"])
    return bool(header["lv"]) and (2 * header["n"] >= policy.part_entries or 2 * bytes_of >= PART_BYTES)
