"""The entries around a time, read from the store a small stretch at a time and kept for the next question."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from ..store import Entry, Window

MOST_ENTRIES = 4096
FIRST_SPAN_S = 0.25
WIDEST_SPAN_S = 1e6
INFINITY = float("inf")


class Stretch:
    """Answers for single times; asking in order costs one small read for thousands of questions.

    Args:
        blocks: gives the entries of a window in ascending blocks.
        start, end: bounds of the slice in seconds.
    """

    __slots__ = ("_blocks", "_end", "_entries", "_high", "_low", "_span", "_start", "_times")

    def __init__(
        self, blocks: Callable[[Window], Iterable[list[Entry]]], start: float | None, end: float | None
    ) -> None:
        self._blocks = blocks
        self._start = -INFINITY if start is None else start
        self._end = INFINITY if end is None else end
        self._span = FIRST_SPAN_S
        self._entries: list[Entry] = []  # all there are from _low to _high
        self._times: list[float] = []
        self._low, self._high = INFINITY, -INFINITY

    def last_at(self, time: float) -> Entry | None:
        """The last entry at or before the time, inside the bounds."""
        time = min(time, self._end)
        found, span = self._known(time), self._span
        while found is None and time >= self._start:
            low = time - span if span <= WIDEST_SPAN_S else -INFINITY
            self._read(max(low, self._start), time, min(time + self._span, self._end))
            found = self._known(time)
            if found is None and self._low <= self._start:
                return None
            span *= 8  # wider for this question only: what lies beyond a gap may be dense
        return found

    def nearest(self, time: float, tolerance_s: float | None = None) -> Entry | None:
        """The closest entry inside the bounds, the earlier one of two, if it is near enough."""
        around = [entry for entry in (self.last_at(time), self._first_after(time)) if entry is not None]
        found = min(around, key=lambda entry: abs(entry["timestamp"] - time), default=None)
        if found is None or tolerance_s is None or abs(found["timestamp"] - time) <= tolerance_s:
            return found
        return None

    def _known(self, time: float) -> Entry | None:
        place = bisect_right(self._times, time) - 1
        return self._entries[place] if place >= 0 and self._low <= time <= self._high else None

    def _first_after(self, time: float) -> Entry | None:
        place = bisect_right(self._times, time)
        if place < len(self._entries) and self._low <= time:
            return self._entries[place]
        entries = chain.from_iterable(self._blocks(_window(max(time, self._start), self._end)))
        return next((entry for entry in entries if entry["timestamp"] > time or time < self._start), None)

    def _read(self, low: float, time: float, high: float) -> None:
        """Know the entries of a stretch; of a dense one only those next to the time, so that memory stays bounded."""
        before: deque[Entry] = deque(maxlen=MOST_ENTRIES)
        after: list[Entry] = []
        for block in self._blocks(_window(low, high)):
            split = bisect_right([entry["timestamp"] for entry in block], time)
            before.extend(block[:split])
            after.extend(block[split:])
            if len(after) > MOST_ENTRIES:
                high = after[-1]["timestamp"]
                break
        if len(before) == MOST_ENTRIES:
            low = before[0]["timestamp"]
        self._entries = [*before, *after]
        self._times = [entry["timestamp"] for entry in self._entries]
        self._low, self._high = low, high
        if len(self._times) >= 8:
            self._span = (self._times[-1] - self._times[0]) / len(self._times) * (MOST_ENTRIES / 4)


def _window(low: float, high: float) -> Window:
    return Window(None if low == -INFINITY else low, None if high == INFINITY else high)
