"""Where a journal's bodies are cut into batches: between two instants, so that the parts of one stay together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate

from .entry import track_number
from .journal_files import Mark
from .journal_reader import Piece
from .stores.grouping import timestamp_of

LARGE_BODY = 1 << 20
"""A body this large (from `extend`) is a batch of its own, so that a store can apply it in slices."""

RECENT = 1024
"""How many bodies before a cut are looked at for instants that go on behind it."""


def apart(piece: Piece) -> Iterator[Piece]:
    """A piece with its large bodies by themselves."""
    first = 0
    for place, size in enumerate(map(len, piece.bodies)):
        if size >= LARGE_BODY:
            if place > first:
                yield Piece(piece.segment, piece.bodies[first:place], piece.ends[first:place])
            yield Piece(piece.segment, [piece.bodies[place]], [piece.ends[place]])
            first = place + 1
    if first < len(piece.bodies):
        yield Piece(piece.segment, piece.bodies[first:], piece.ends[first:]) if first else piece


class Group:
    """Bodies that will be batches, and where they can be cut without splitting an instant."""

    def __init__(self, start: Mark) -> None:
        self.start = start
        self.bodies: list[bytes] = []
        self.size = 0
        self._segments: list[int] = []
        self._ends: list[int] = []

    @property
    def mark(self) -> Mark:
        """Behind the last body."""
        return self._mark(-1) if self.bodies else self.start

    def _mark(self, place: int) -> Mark:
        return Mark(self._segments[place], self._ends[place])

    def extend(self, segment: int, bodies: list[bytes], ends: list[int]) -> None:
        """Add bodies that follow."""
        self.bodies += bodies
        self._segments += [segment] * len(ends)
        self._ends += ends
        self.size += sum(map(len, bodies))

    def take(self, count: int) -> tuple[list[bytes], Mark]:
        """The first bodies and the mark behind them; the others stay."""
        bodies, self.start = self.bodies[:count], self._mark(count - 1)
        self.bodies, self._segments, self._ends = self.bodies[count:], self._segments[count:], self._ends[count:]
        self.size -= sum(map(len, bodies))
        return bodies, self.start

    def take_all(self) -> Iterator[tuple[list[bytes], Mark]]:
        """Everything, if there is anything."""
        if self.bodies:
            yield self.take(len(self.bodies))

    def cut(self, batch_bytes: int, soft: Mark | None, pace: Callable[[], None], *, hurry: bool = False) -> int:
        """After how many bodies to cut: the first place behind `soft`, or behind `batch_bytes`, where a new instant
        begins for every track; 0 to wait for more.

        In a hurry, or a quarter beyond `batch_bytes`, where a new instant of one track begins, or at the end.
        """
        first = bisect_right(range(len(self.bodies)), soft, key=self._mark) if soft is not None else 0
        if soft is None or first == len(self.bodies):
            first = self._behind(batch_bytes)
        newest: dict[int, float] = {}
        newest_of_all = float("-inf")
        second_best = 0
        for place in range(max(0, first - RECENT), len(self.bodies)):
            if place % 32 == 0:
                pace()
            track, stamp = track_number(self.bodies[place]), timestamp_of(self.bodies[place])
            stamp = float("inf") if stamp is None else stamp
            if place >= max(first, 1):
                if stamp > newest_of_all:
                    return place
                if not second_best and stamp > newest.get(track, float("-inf")):
                    second_best = place
            newest[track] = max(stamp, newest.get(track, stamp))
            newest_of_all = max(stamp, newest_of_all)
        hurry = hurry or bool(batch_bytes and self.size >= batch_bytes * 5 // 4)
        return (second_best or len(self.bodies)) if hurry else 0

    def _behind(self, size: int) -> int:
        """How many bodies the first `size` bytes are."""
        return min(len(self.bodies), bisect_left(list(accumulate(map(len, self.bodies))), size) + 1 if size > 0 else 0)
