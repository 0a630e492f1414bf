"""Where instants fall among the entries of a track, and the entries at those places: what `align` and `at` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InvalidQuery
from .tables import Floats, from_numbers

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


def check_ascending(times: Floats, what: str) -> None:
    """Raise InvalidQuery with the first timestamp that is below the one before it."""
    if len(times) > 1 and not bool((times[1:] >= times[:-1]).all()):
        first = int(np.flatnonzero(~(times[1:] >= times[:-1]))[0])
        raise InvalidQuery(f"{what} must ascend: {times[first]} is followed by {times[first + 1]}")


@dataclass(frozen=True, slots=True)
class Around:
    """For each instant, the entries around it.

    before: the last entry at or before it, -1 where there is none. exact: that entry is at the instant itself.
    """

    times: Floats
    clock: Floats
    before: Places
    exact: Mask

    @classmethod
    def find(cls, times: Floats, clock: Floats) -> Around:
        before = np.searchsorted(times, clock, "right") - 1
        exact = times[before] == clock if len(times) else np.zeros(len(clock), bool)
        return cls(times, clock, before, exact & (before >= 0))

    def age_s(self) -> tuple[Floats, Mask]:
        """The time since the last entry, and where there is none."""
        missing = self.before < 0
        last = self.times[self.before] if len(self.times) else np.zeros(len(self.clock))
        return np.where(missing, 0.0, self.clock - last), missing

    def held(self, tolerance_s: float | None) -> tuple[Places, Mask]:
        age, missing = self.age_s()
        return self.before, missing if tolerance_s is None else missing | (age > tolerance_s)

    def nearest(self, tolerance_s: float | None) -> tuple[Places, Mask]:
        count = len(self.times)
        if not count:
            return self.before, np.ones(len(self.clock), bool)
        low, high = np.maximum(self.before, 0), np.minimum(self.before + 1, count - 1)
        later = np.abs(self.times[high] - self.clock) < np.abs(self.clock - self.times[low])
        places = np.where(later, high, low)
        if tolerance_s is None:
            return places, np.zeros(len(places), bool)
        return places, np.abs(self.times[places] - self.clock) > tolerance_s

    def between(self, tolerance_s: float | None) -> tuple[Places, Places, Floats, Mask]:
        """The entries on both sides, how far between them the instant lies, and where there is no value."""
        count = len(self.times)
        missing = (self.before < 0) | ((self.before >= count - 1) & ~self.exact)
        low = np.clip(self.before, 0, max(count - 1, 0))
        high = np.where(self.exact, low, np.minimum(low + 1, max(count - 1, 0)))
        if not count:
            return low, high, np.zeros(len(low)), missing
        past, span = self.clock - self.times[low], self.times[high] - self.times[low]
        if tolerance_s is not None:
            missing = missing | (past > tolerance_s) | (span - past > tolerance_s)
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.where(span > 0, past / span, 0.0)
        return low, high, fraction, missing


def take(array: pa.Array, places: Places, missing: Mask | None) -> pa.Array:
    """The values at the places, in the type of the array, null where missing; numbers go by NumPy."""
    if missing is not None and not missing.any():
        missing = None
    values = _plain_numbers(array)
    if values is not None and len(values):
        return from_numbers(values[places], missing)
    return array.take(pa.array(places, mask=missing))


def _plain_numbers(array: pa.Array) -> NDArray[np.generic] | None:
    """A column of numbers, or of lists of one length of them, without any null; None for others."""
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type) and not array.null_count:
        shape.append(array.type.list_size)
        array = array.flatten()
    is_number = pa.types.is_floating(array.type) or pa.types.is_integer(array.type)
    return array.to_numpy().reshape(shape) if is_number and not array.null_count else None
