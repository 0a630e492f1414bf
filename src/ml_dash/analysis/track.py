"""What a track offers after the recording: `TrackBuilder` inherits it. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidWindow
from ..store import Entry, Window
from .slices import TrackSlice, window_bounds
from .tabular import Tabular, needs

if TYPE_CHECKING:
    from os import PathLike

    import pyarrow as pa
    from matplotlib.figure import Figure


class TrackAnalysis(Tabular):
    """Tables and slices of one track; whoever inherits gives `topic` and `blocks(window)`."""

    __slots__ = ()

    topic: str

    def blocks(self, window: Window = Window()) -> Iterable[list[Entry]]:
        """The entries of a window in ascending blocks."""
        raise NotImplementedError

    def to_arrow(
        self, columns: Sequence[str] | None = None, start: float | None = None, end: float | None = None
    ) -> pa.Table:
        """The track, or a window of it, as an Arrow table: `timestamp` first, then a column for each field.

        Args:
            columns: fields, parts of dicts (`"pose.x"`) and items of lists (`"q[0]"`); entries with none of them are
                left out, unless `"timestamp"` is among them.
            start, end: inclusive bounds in seconds.

        Raises:
            InvalidWindow: an unknown column; the message names the nearest.
            MissingExtra: pyarrow is not installed.

        Source: types as in `formats/arrow.py`: lists of one length are fixed-size lists.
        """
        start, end = window_bounds(start, end)
        needs("pyarrow")
        table = self.table(Window(start, end, _fields(columns)))
        if columns is None:
            return table
        tables = needs(".tables")
        try:
            return tables.select(table, columns)
        except InvalidWindow:
            # The window may just hold no entry with it; the whole track knows its columns, or what is nearest to them.
            from ..columnar import cut

            whole = self.table(Window())
            return tables.select(cut(whole, start, end), columns)

    def table(self, window: Window = Window()) -> pa.Table:
        """The fields of a window as a table; whoever has columns at hand gives those."""
        from ..formats.arrow import table_from_entries

        return table_from_entries(entry for block in self.blocks(window) for entry in block)

    def count(self, window: Window = Window()) -> int:
        """The number of entries in a window."""
        return sum(len(block) for block in self.blocks(Window(window.start, window.end)))

    def slice(self, start: float | None = None, end: float | None = None) -> TrackSlice:
        """The entries from `start` to `end`, both inclusive, to iterate or to ask by time.

        Args:
            start, end: seconds; None leaves that side open.

        Returns:
            A `TrackSlice`: iterable in constant memory, `len()`, `at(t)`, `nearest(t)`, `findByTime(t)`, and every
            form of table.
        """
        start, end = window_bounds(start, end)
        return TrackSlice(self, start, end)

    def plot(
        self,
        columns: Sequence[str] | None = None,
        start: float | None = None,
        end: float | None = None,
        *,
        path: str | PathLike[str] | None = None,
        gap_s: float | None = None,
        width_px: int = 1200,
    ) -> Figure:
        """A picture of the track over time, a panel for each column; no extreme is lost, gaps stay empty.

        Args:
            columns: fields, parts and items; by default all that can be drawn.
            start, end: inclusive bounds in seconds.
            path: a file to save it to; its ending says the format (`.png`, `.svg`, `.pdf`).
            gap_s: lines break where the next entry is further away than this; by default 5 usual intervals.
            width_px: of the picture.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            InvalidWindow, InvalidQuery: a column that does not exist or cannot be drawn; an ending nobody knows.
            MissingExtra: matplotlib is not installed.
        """
        plots = needs(".plots")
        table = self.to_arrow(columns, start, end)
        figure: Figure = plots.plot(table, columns, title=self.topic, gap_s=gap_s, width_px=width_px)
        return plots.save(figure, path)  # type: ignore[no-any-return]

    def plot_path(
        self,
        position: str,
        orientation: str | None = None,
        start: float | None = None,
        end: float | None = None,
        *,
        order: str | None = None,
        triads: int = 20,
        path: str | PathLike[str] | None = None,
    ) -> Figure:
        """A picture of a path in 3D, with the body's axes along it (x red, y green, z blue).

        Args:
            position: a column of 3 numbers. orientation: a column of quaternions.
            start, end: inclusive bounds in seconds.
            order: of the quaternions, "wxyz" or "xyzw", where the column's name does not say it.
            triads: how many times the axes are drawn.
            path: a file to save it to.

        Raises:
            InvalidWindow, InvalidQuery: columns that do not exist or have another shape; an order that nobody named.
            MissingExtra: matplotlib is not installed.
        """
        plots = needs(".plots")
        columns = [position] if orientation is None else [position, orientation]
        table = self.to_arrow(["timestamp", *columns], start, end)
        figure = plots.trajectory(table, position, orientation, order=order, triads=triads, title=self.topic)
        return plots.save(figure, path)  # type: ignore[no-any-return]


def _fields(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """The fields to read for these columns; which brackets belong to a name only the table tells."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise InvalidWindow(f"columns must be a list of names, got the text {columns!r}; write [{columns!r}]")
    if not isinstance(columns, Iterable):
        raise InvalidWindow(f"columns must be a list of names, got {type(columns).__name__}")
    for name in columns:
        if not isinstance(name, str):
            raise InvalidWindow(f"columns must be a list of names, got {type(name).__name__} {name!r} in it")
    return tuple(dict.fromkeys(name for column in columns for name in (column, column.partition("[")[0])))
