"""Compaction: many small segments become few Parquet parts; inputs go only after everybody could notice.

    merge      listed live segments -> parts, inserted under the rank of the newest input; the last part names exactly
               the segments the set replaces
    wait       the grace period, in database time
    sweep      inputs become stubs: header "merged", body removed (`upkeep.py`)

A crash anywhere leaves copies, never a gap: copies merge to the same answer. Two compactors at once cost work only.

What is merged together may be chosen freely as long as it turns no order around. Every segment holds, of each value it
holds, the newest up to its number s1. A merge keeps that true if no segment is left out that is newer than an input, no
newer than the newest one, and holds what that input holds:

    newest     never some of the segments of one number s1: parts of one compaction share it, and those archived or
               rewritten since then differ in level only. All of them come along, or none.
    oldest     any of them may stay out: what is older than every input is below what becomes of them, as it should be
    between    what overlaps no input may stay out
"""

from __future__ import annotations

import logging
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .. import zstd
from .gathering import PART_BYTES, Part, parts_of
from .inputs import Inputs
from .merging import complete_sets, current, is_hit, lowest, merged_runs, without_cuts
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
        max_inputs: segments merged at once, besides parts of earlier compactions, of which few are open at a time.
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
        total, reached, goal = 0, 0, None
        while True:
            listed = self._listed(doc)
            goal = listed.newest if goal is None else goal
            # Asked for after the listing, and whatever the series' document said before: a deletion that lies between
            # two of the inputs in rank has to be among these, or merging would bring back what it deleted.
            cuts = self._tables.cuts(doc["_id"])
            run = overlapping_run(listed, self._policy) if whole else self._loose_run(listed, cuts, few)
            went = bool(run) and self._merge(doc, run, cuts)
            total += len(run) if went else 0
            total += sum(self._merge(doc, [header], cuts) for header in hit_alone(listed, run, cuts))
            # Each round reaches a higher number, up to the highest there was at first, or is the last one: whatever
            # else writes or compacts meanwhile, this ends.
            if not went or not reached < run[-1]["s1"] < goal:
                return total
            reached = run[-1]["s1"]

    # -------------------------------------------------------------- what to merge

    def _loose_run(self, listed: Listed, cuts: list[Header], few: bool) -> list[Header]:
        """Loose segments and all between them, without gaps in rank; empty where there are too few."""
        headers = listed.headers
        loose = [place for place, header in enumerate(headers) if is_loose(header, listed.settled)]
        if len(loose) < (1 if few else self._policy.min_segments):
            return []
        taken = headers[: end_of_number(headers, loose[0] + self._policy.max_inputs)]
        return taken[with_small_ones(taken, loose[0], cuts, self._policy) :]

    def _listed(self, doc: Doc) -> Listed:
        """Every live segment up to the highest number, by rank, without those a finished set replaces.

        The number first: numbers are given in order, but a listing is no snapshot and may pass a place where a number
        is inserted behind it, then see a later one. Merging around the missing one would turn old values into new ones.
        """
        highest = self._tables.highest(doc["_id"])
        newest = 0 if highest is None else highest["s1"]
        began = self._tables.monotonic()
        seen = [header for header in self._tables.live(doc["_id"]) if header["s1"] <= newest]
        if self._tables.monotonic() - began > self._reader.plan_s:
            return Listed([], set())  # slower than the grace period allows; the next pass tries again
        return Listed(sorted(current(seen), key=rank), settled_sets(seen))

    # -------------------------------------------------------------- merging

    def _merge(self, doc: Doc, inputs: list[Header], cuts: list[Header]) -> bool:
        """Publish the parts of one set; False where an input went meanwhile (somebody else compacted it)."""
        newest = max(inputs, key=rank)
        stamp = {
            "t": doc["_id"], "st": LIVE, "s0": min(header["s0"] for header in inputs), "s1": newest["s1"],
            "lv": newest["lv"] + 1, "set": self._tables.new_id(), "b": 0, "c": "",
            "k": max((cut["s1"] for cut in cuts), default=0), "got": max(map(received, inputs)),
        }  # fmt: skip
        try:
            self._publish(stamp, self._parts(doc["kind"], inputs, cuts), replaced_by(inputs))
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
        bid = f"{t}/{name}"
        self._tables.raise_span(t, header["hi"] - header["lo"])
        self._tables.insert_bodies({bid: body}, header["enc"])
        at = self._tables.now()  # of the header and not of its body, which may take long: the grace period counts it
        place = {"_id": f"{t}/{name}", "w": stamp["set"], "p": number, "part": number, "bid": bid, "at": at}
        self._tables.insert_headers([{**header, **stamp, **place, "chunks": chunks(header["enc"], body), **closing}])


def _nothing() -> tuple[Header, bytes]:
    """The part of inputs of which deletions left nothing; it only says what it replaces."""
    raw = encode_entries([])
    body = zstd.compress(raw)
    ends = {"lo": MAX_POSITION, "hi": MAX_POSITION, "n": 0, "f": []}
    return {**ends, "enc": MSGPACK, "raw": len(raw), "size": len(body), "crc": zlib.crc32(body)}, body


# ---------------------------------------------------------------- which segments


class Listed(NamedTuple):
    """The segments of a series at some time.

    Args:
        headers: by rank, without those a finished set replaces.
        settled: the finished sets. One of which a part was compacted again is no less finished: taking its other
            parts for loose ones would write them anew, and all above them.
    """

    headers: list[Header]
    settled: set[str]

    @property
    def newest(self) -> int:
        """The highest number that any of them holds."""
        return self.headers[-1]["s1"] if self.headers else 0


def replaced_by(inputs: Sequence[Header]) -> list[str]:
    """What a merge makes superfluous: its inputs, and what they replaced in their turn.

    The latter for whole sets only. Of a set of which some parts stay out, these parts hold the rest of what it
    replaced; a listing that began before they were there may miss them, and must not do without what they are made of.
    """
    of_theirs = [name for closing in complete_sets(inputs) for name in closing["of"]]
    return [header["_id"] for header in inputs] + of_theirs


def end_of_number(headers: Sequence[Header], end: int) -> int:
    """Where a choice of the first `end` segments may end: behind all that have the number of the last one of them.

    However many these are, they cost a merge no memory but for their headers: segments of one number are parts, which
    follow each other within their set, and sets of one number are as few as the compactors that met or died there.
    """
    while 0 < end < len(headers) and headers[end]["s1"] == headers[end - 1]["s1"]:
        end += 1
    return end


def overlapping_run(listed: Listed, policy: Policy) -> list[Header]:
    """The oldest segments that are loose or reach into older ones, and what they have to be merged with; by rank.

    The settled ones below them, none of which reaches into another, stay where they are: all but those within the
    range of the others, and small ones next to it.
    """
    headers = listed.headers
    first = tidy(listed)
    if first == len(headers):
        return []
    others = headers[first : end_of_number(headers, first + policy.max_inputs)]
    below = sorted(headers[:first], key=lowest)
    low, high = min(map(lowest, others)), max(header["hi"] for header in others)
    start = next((place for place, header in enumerate(below) if header["hi"] >= low), len(below))
    end = next((place for place, header in enumerate(below) if header["lo"] > high), len(below))
    while start > 0 and _is_small(below[start - 1], policy):
        start -= 1
    while end < len(below) and _is_small(below[end], policy):
        end += 1
    return sorted([*below[start:end], *others], key=rank)


def tidy(listed: Listed) -> int:
    """How many segments, beginning with the oldest, are settled and do not reach into each other."""
    lows, highs = list[float](), list[float]()
    for place, header in enumerate(listed.headers):
        at = bisect_right(lows, header["lo"])
        reaches = (at > 0 and highs[at - 1] >= header["lo"]) or (at < len(lows) and lows[at] <= header["hi"])
        if (reaches and header["n"]) or is_loose(header, listed.settled):
            return place  # one of which deletions left nothing reaches nowhere
        lows.insert(at, header["lo"])
        highs.insert(at, header["hi"])
    return len(listed.headers)


def hit_alone(listed: Listed, run: Sequence[Header], cuts: Sequence[Header]) -> list[Header]:
    """The settled segments with deleted entries in them that are not merged anyway: each is rewritten by itself."""
    taken = {header["_id"] for header in run}
    settled = [header for header in listed.headers if not is_loose(header, listed.settled)]
    return [header for header in settled if header["_id"] not in taken and is_hit(header, cuts)]


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


def _is_small(header: Header, policy: Policy) -> bool:
    """Whether a part, also one in the archive, could be one with another of its size: few large objects cost less."""
    return not _is_large(header, policy)


def _is_large(header: Header, policy: Policy) -> bool:
    """Whether a part has more than half of what it may have, in entries or bytes."""
    bytes_of = max(header["raw"], 2 * header["size"])
    return bool(header["lv"]) and (2 * header["n"] > policy.part_entries or 2 * bytes_of > PART_BYTES)
