"""A window of a track: iterate it in constant memory, and ask what was known at a time.

Single times are answered from a small stretch of entries around them, read from the store; lists of times by one
search over the window's table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

from ..entry import check_timestamp
from ..errors import InvalidEntry, InvalidQuery
from ..store import Entry, Window
from .numbers import not_negative
from .stretch import Stretch
from .tabular import Tabular, needs

if TYPE_CHECKING:
    import pyarrow as pa

Times = Sequence[float]


class Sliced(Protocol):
    """What a slice needs of its track."""

    topic: str

    def blocks(self, window: Window = ...) -> Iterable[list[Entry]]:
        """The entries of a window in ascending blocks."""
        ...

    def count(self, window: Window = ...) -> int:
        """The number of entries in a window."""
        ...

    def to_arrow(
        self, columns: Sequence[str] | None = None, start: float | None = None, end: float | None = None
    ) -> pa.Table:
        """A window as a table."""
        ...


class TrackSlice(Tabular):
    """The entries of one track from `start` to `end`, both inclusive.

    Args:
        track: whose entries.
        start, end: bounds in seconds; None leaves that side open.

    What is appended while the slice is used may be seen or not; take a new slice to be sure.
    """

    __slots__ = ("_stretch", "_track", "_whole", "end", "start")

    def __init__(self, track: Sliced, start: float | None = None, end: float | None = None) -> None:
        self._track, self.start, self.end = track, start, end
        self._stretch = Stretch(track.blocks, start, end)
        self._whole: pa.Table | None = None

    # -------------------------------------------------------------- as a sequence

    def __iter__(self) -> Iterator[Entry]:
        """The entries, ascending; memory stays constant however long the slice is."""
        for block in self._track.blocks(Window(self.start, self.end)):
            yield from block

    def __len__(self) -> int:
        """The number of entries."""
        return self._track.count(Window(self.start, self.end))

    def __bool__(self) -> bool:
        """Whether there is any entry."""
        return next(iter(self), None) is not None

    def __repr__(self) -> str:
        return f"<{self._track.topic!r} from {_bound(self.start)} to {_bound(self.end)}>"

    # -------------------------------------------------------------- by time

    @overload
    def at(self, time: float) -> Entry | None: ...
    @overload
    def at(self, time: Times) -> pa.Table: ...
    def at(self, time: float | Times) -> Entry | pa.Table | None:
        """What was last recorded at a time: the last entry at or before it.

        Args:
            time: seconds, or a list or array of them in any order.

        Returns:
            The entry, None where there is none; for a list an Arrow table with the asked times as `at`, the
            `timestamp` of each entry and its fields, null where there is none.

        Raises:
            InvalidQuery: a time that is no finite number.
        """
        if _is_many(time):
            return self._many(time, None, "held")
        return self._stretch.last_at(_checked(time))

    @overload
    def nearest(self, time: float, tolerance_s: float | None = None) -> Entry | None: ...
    @overload
    def nearest(self, time: Times, tolerance_s: float | None = None) -> pa.Table: ...
    def nearest(self, time: float | Times, tolerance_s: float | None = None) -> Entry | pa.Table | None:
        """The entry closest to a time, the earlier one of two; none where it is further away than `tolerance_s`.

        Arguments, result and errors are those of `at`.
        """
        not_negative(tolerance_s, "tolerance_s")
        if _is_many(time):
            return self._many(time, tolerance_s, "nearest")
        return self._stretch.nearest(_checked(time), tolerance_s)

    @overload
    def findByTime(self, timestamp: float) -> Entry: ...
    @overload
    def findByTime(self, timestamp: Times) -> list[Entry]: ...
    def findByTime(self, timestamp: float | Times) -> Entry | list[Entry]:
        """As `at`, in the spelling of the existing product: a list of entries for a list of times.

        Raises:
            LookupError: a time before the first entry.
        """
        if _is_many(timestamp):
            return [self.findByTime(one) for one in timestamp]  # type: ignore[union-attr]
        found = self._stretch.last_at(_checked(timestamp))
        if found is None:
            raise LookupError(f"no entry of {self._track.topic!r} at or before {timestamp} in this slice")
        return found

    def _many(self, times: Any, tolerance_s: float | None, how: str) -> pa.Table:
        if self._whole is None:
            self._whole = self.to_arrow()
        found: pa.Table = needs(".lookup").lookup(self._whole, times, how, tolerance_s)
        return found

    # -------------------------------------------------------------- as a table

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The slice as an Arrow table; see `Tabular.to_arrow`."""
        return self._track.to_arrow(columns, self.start, self.end)

    def slice(self, start: float | None = None, end: float | None = None) -> TrackSlice:
        """The part of this slice from `start` to `end`, both inclusive."""
        start, end = window_bounds(start, end)
        first = self.start if start is None else start if self.start is None else max(start, self.start)
        last = self.end if end is None else end if self.end is None else min(end, self.end)
        return TrackSlice(self._track, first, last)


def window_bounds(start: Any, end: Any) -> tuple[float | None, float | None]:
    """The bounds as floats; raises InvalidQuery for what is no number."""
    return (None if start is None else _checked(start, "start")), (None if end is None else _checked(end, "end"))


def _checked(time: Any, what: str = "time") -> float:
    try:
        return check_timestamp(time)
    except InvalidEntry as error:
        raise InvalidQuery(f"{what}{str(error).removeprefix('_ts')}") from None


def _is_many(time: Any) -> bool:
    return not isinstance(time, (str, bytes)) and hasattr(time, "__len__") and getattr(time, "shape", None) != ()


def _bound(value: float | None) -> str:
    return "..." if value is None else f"{value:g} s"
