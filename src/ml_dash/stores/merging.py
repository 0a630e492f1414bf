"""Entries of many segments in order, a block at a time, holding only the segments that overlap."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..entry import merge
from ..store import Entry
from .segments import Header, Rank, following, rank
from .undecoded import Run, decoded, ends, part_of, place_in
from .uniform import Alike, interleaved

Load = Callable[[Header], Iterator[list[Entry]]]
"""The entries of one segment in ascending blocks; reading one may fail with whatever the caller's plan is for that."""
LoadRuns = Callable[[Header], Iterator[Run]]
"""The same, not necessarily decoded."""


class _Open:
    """One segment being read: the run at hand, and what comes after it."""

    def __init__(self, header: Header, runs: Iterator[Run]) -> None:
        self.rank = rank(header)
        self._runs = runs
        self.run: Run = []
        self.next_run()

    def next_run(self) -> None:
        """Go on to the next run that has entries; an empty one at the end."""
        self.run = next((run for run in self._runs if len(run)), [])

    @property
    def last(self) -> float:
        """The last position at hand."""
        return ends(self.run)[1]

    def take(self, last: float) -> Run:
        """The entries up to a position, which leave the run."""
        place = place_in(self.run, last, behind=True)
        taken, self.run = part_of(self.run, 0, place), part_of(self.run, place, len(self.run))
        if not len(self.run):
            self.next_run()
        return taken


def merged_blocks(headers: Iterable[Header], load: Load) -> Iterator[list[Entry]]:
    """Ascending blocks of merged entries; where segments share a position, fields of the highest rank win.

    Args:
        headers: segments in any order.
        load: reads one segment; called when the merge reaches its first position.
    """
    return map(decoded, merged_runs(headers, load))


def merged_runs(headers: Iterable[Header], load: LoadRuns) -> Iterator[Run]:
    """The same, with nothing decoded that overlaps with nothing else."""
    pending = sorted(headers, key=lowest, reverse=True)
    active: list[_Open] = []
    while pending or active:
        if not active:
            _begin(pending, active, load)
            continue
        # Whatever lies up to here is at hand in every segment that could hold it.
        safe = min(one.last for one in active)
        if pending and pending[-1]["lo"] <= safe:
            _begin(pending, active, load)
            continue
        run = _take(active, safe)
        active = [one for one in active if len(one.run)]
        yield run


def lowest(header: Header) -> float:
    """The first position of a segment: merging reads segments in this order."""
    return header["lo"]  # type: ignore[no-any-return]


def _begin(pending: list[Header], active: list[_Open], load: LoadRuns) -> None:
    header = pending.pop()
    one = _Open(header, load(header))
    if len(one.run):
        active.append(one)


def _take(active: Sequence[_Open], last: float) -> Run:
    parts = [(one.rank, part) for one in active if len(part := one.take(last))]
    if len(parts) == 1:
        return parts[0][1]
    alike = [part for _, part in parts if isinstance(part, Alike)]
    found = interleaved(alike) if len(alike) == len(parts) else None
    if found is not None:
        return found
    parts.sort(key=_by_rank)
    return merge(entry for _, part in parts for entry in decoded(part))


def _by_rank(part: tuple[Rank, Run]) -> Rank:
    return part[0]


# ---------------------------------------------------------------- windows and deleted windows


def within(blocks: Iterable[list[Entry]], start: float, end: float) -> Iterator[list[Entry]]:
    """Ascending blocks, reduced to positions in [start, end]."""
    for block in blocks:
        if block and block[0]["timestamp"] > end:
            return
        if block and (block[0]["timestamp"] < start or block[-1]["timestamp"] > end):
            block = block[place_in(block, start, behind=False) : place_in(block, end, behind=True)]
        yield block


def without_cuts(header: Header, runs: Iterable[Run], cuts: Sequence[Header]) -> Iterator[Run]:
    """A segment's runs without what was deleted after it was written."""
    later = [cut for cut in cuts if cut["s1"] > header["s1"]]
    hit = [cut for cut in later if cut["lo"] <= header["hi"] and cut["hi"] >= header["lo"]]
    for run in runs:
        for cut in hit:
            run = [entry for entry in decoded(run) if not cut["lo"] <= entry["timestamp"] <= cut["hi"]]
        yield run


# ---------------------------------------------------------------- headers among each other


def is_hit(header: Header, cuts: Sequence[Header]) -> bool:
    """Whether something of the segment was deleted and is still in it."""
    clean = max(header["s1"], header.get("k", 0))
    return any(cut["s1"] > clean and cut["lo"] <= header["hi"] and cut["hi"] >= header["lo"] for cut in cuts)


def overlapping(headers: Sequence[Header]) -> bool:
    """Whether any two segments reach into each other."""
    ordered = sorted(headers, key=lambda header: header["lo"])
    return any(late["lo"] <= early["hi"] for early, late in itertools.pairwise(ordered))


# ---------------------------------------------------------------- sets of parts


def complete_sets(headers: Sequence[Header]) -> list[Header]:
    """The last part of each compaction of which every part is among the headers."""
    found: dict[str, int] = {}
    for header in headers:
        if "set" in header:
            found[header["set"]] = found.get(header["set"], 0) + 1
    return [header for header in headers if header.get("of") and found[header["set"]] == header["parts"]]


def current(headers: Sequence[Header]) -> list[Header]:
    """The headers without those that a complete set among them replaces."""
    replaced = {replaced for header in complete_sets(headers) for replaced in header["of"]}
    return [header for header in headers if header["_id"] not in replaced] if replaced else list(headers)


# ---------------------------------------------------------------- counting


def count(headers: Sequence[Header], load: Load) -> int:
    """How many positions the segments hold together; reads only where two of them really overlap."""
    total, reach = 0, float("-inf")
    cluster: list[Header] = []
    for header in sorted(headers, key=lowest):
        if cluster and header["lo"] > reach:
            total, cluster = total + _cluster(cluster, load), []
        cluster.append(header)
        reach = max(reach, header["hi"])
    return total + (_cluster(cluster, load) if cluster else 0)


def _cluster(cluster: list[Header], load: Load) -> int:
    """The positions in segments that follow each other with shared ends, or overlap."""
    total: int = sum(header["n"] for header in cluster)
    pairs = list(itertools.pairwise(cluster))
    if all(early["hi"] == late["lo"] and early["lo"] < early["hi"] for early, late in pairs):
        return total - len(pairs)  # each shares one instant with the next
    return sum(map(len, merged_blocks(cluster, load)))


def just_after(block: Sequence[Entry]) -> float:
    """Where a read goes on that has given out this block."""
    return following(block[-1]["timestamp"])
