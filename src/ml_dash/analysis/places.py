"""Where instants fall among the entries of a track, and the entries at those places: what `align` and `at` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InvalidQuery
from .tables import Floats, from_numbers, plain_numbers

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


def check_ascending(times: Floats, what: str) -> None:
    """Raise InvalidQuery with the first timestamp that is below the one before it."""
    if len(times) > 1 and not bool((times[1:] >= times[:-1]).all()):
        first = int(np.flatnonzero(~(times[1:] >= times[:-1]))[0])
        raise InvalidQuery(f"{what} must ascend: {times[first]} is followed by {times[first + 1]}")


def rounding(times: Floats) -> float:
    """By how much the difference of two ascending timestamps may be off: two steps of float64 at their size."""
    return 2 * float(np.spacing(max(abs(times[0]), abs(times[-1])))) if len(times) else 0.0


def last_at(times: Floats, clock: Floats) -> Places:
    """For each instant the last of the ascending times at or before it, -1 where there is none.

    Recordings are nearly regular, so a straight guess is right, or one too high, for most instants; it is verified,
    and the others are searched for. That takes a third of searching for all of them.
    """
    count = len(times)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        pace = (count - 1) / (times[-1] - times[0]) if count > 1 else np.inf
        guess = (clock - times[0]) * pace if np.isfinite(pace) else None
    if guess is None or not np.isfinite(guess).all():
        found: Places = np.searchsorted(times, clock, "right") - 1
        return found
    places: Places = np.clip(guess, 0, count - 2).astype(np.int64)
    places -= (times[places] > clock) & (places > 0)
    wrong = np.flatnonzero((times[places] > clock) | (clock >= times[places + 1]))
    if len(wrong):
        places[wrong] = np.searchsorted(times, clock[wrong], "right") - 1
    return places


@dataclass(frozen=True, slots=True)
class Around:
    """For each instant, the entries around it.

    low: the last entry at or before it, or the first where there is none before. past: how long ago that was, in
    seconds; below 0 where there is none before. Both are empty arrays for a track without entries.
    """

    times: Floats
    clock: Floats
    low: Places
    past: Floats

    @classmethod
    def find(cls, times: Floats, clock: Floats) -> Around:
        """Look the instants up; both arrays ascend."""
        if not len(times):
            return cls(times, clock, np.zeros(len(clock), np.int64), np.full(len(clock), -np.inf))
        low = last_at(times, clock)
        np.maximum(low, 0, out=low)
        return cls(times, clock, low, clock - times[low])

    def held(self, tolerance_s: float | None) -> tuple[Places, Mask]:
        """The last entry at or before each instant, and where there is none."""
        missing = self.past < 0
        return self.low, missing if tolerance_s is None else missing | (self.past > tolerance_s)

    def nearest(self, tolerance_s: float | None) -> tuple[Places, Mask]:
        """The closest entry, the earlier one of two, and where there is none."""
        if not len(self.times):
            return self.low, self.past < 0
        high = self._high()
        ahead = np.abs(self.times[high] - self.clock)
        later = ahead < np.abs(self.past)
        distance = np.where(later, ahead, np.abs(self.past))
        return np.where(later, high, self.low), distance > (np.inf if tolerance_s is None else tolerance_s)

    def between(self, tolerance_s: float | None) -> tuple[Places, Places, Floats, Mask]:
        """The entries on both sides, how far between them the instant lies, and where there is no value."""
        if not len(self.times):
            return self.low, self.low, np.zeros(len(self.low)), self.past < 0
        high, past = self._high(), self.past
        span = self.times[high] - self.times[self.low]
        missing = (past < 0) | (past > span)
        if tolerance_s is not None:
            missing |= (past != 0) & ((past > tolerance_s) | (span - past > tolerance_s))
        inside = (span > 0) & ~missing
        return self.low, high, np.divide(past, span, out=np.zeros(len(past)), where=inside), missing

    def _high(self) -> Places:
        return np.minimum(self.low + 1, len(self.times) - 1)


def take(array: pa.Array, places: Places, missing: Mask | None) -> pa.Array:
    """The values at the places, in the type of the array, null where missing; numbers go by NumPy."""
    if missing is not None and not missing.any():
        missing = None
    values = plain_numbers(array)
    if values is not None and len(values):
        return from_numbers(values[places], missing)
    return array.take(pa.array(places, mask=missing))
