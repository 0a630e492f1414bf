"""Tracks as Arrow tables: from the columnar sidecar where the store keeps one, else from the entries.

Everything that wants columns (Parquet export, NumPy, the analysis) asks `track_table`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .entry import merge
from .formats.arrow import entries_from_table, import_pyarrow, null_of, table_from_entries
from .formats.blocks import Block, TableBuilder
from .store import MERGED, Entry, Store, Track, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from .view import View


class Journaled(Protocol):
    """What a track is read from: a store with journals before it. Sessions and the catalog's stores are this."""

    @property
    def store(self) -> Store: ...

    @property
    def view(self) -> View: ...

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]: ...


def track_table(
    session: Journaled, track: Track, window: Window = Window(), columns: Sequence[str] | None = None
) -> pa.Table:
    """A track, or a window of it, as an Arrow table: `timestamp` first, then a column for each field.

    Args:
        session: an open experiment.
        track: of kind `tracks`; one that nobody recorded gives an empty table.
        window: bounds in seconds. Its own `columns` are used where `columns` is None.
        columns: fields to load. `"pose.x"` and `"q[0]"` load the whole of `pose` and `q`; names nobody recorded are
            passed over. Entries with none of the fields are left out, unless `"timestamp"` is among the columns.

    Returns:
        Ascending, one entry per timestamp, typed by the rules of `formats/arrow.py`. Memory-mapped where a sidecar
        fits: its pages are read when they are looked at.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    import_pyarrow()
    columns = window.columns if columns is None else tuple(columns)
    bounds = Window(window.start, window.end)
    blocks = session.read(track, bounds)  # raises where the run is closed; reads nothing yet
    table_of = getattr(session.store, "table", None)
    if table_of is None or track.kind != MERGED:
        return select_fields(table_from_entries(entry for block in blocks for entry in block), columns)
    # Journals first: what a drain moves in between is then found twice, and merges with its twin.
    waiting = merge(session.view.pending(track))
    table = _with(table_of(track), waiting)
    return select_fields(cut(table, window.start, window.end), columns)


def parquet_table(session: Journaled, track: Track, window: Window = Window()) -> pa.Table:
    """What a Parquet file of a track holds: the columns of the sidecar.

    Where a column names a part of a field (`"pose.x"`), each entry is reduced to that part instead.
    """
    import_pyarrow()
    if window.columns is not None and any("." in column for column in window.columns):
        return table_from_entries(entry for block in session.read(track, window) for entry in block)
    return track_table(session, track, window)


def _with(table: pa.Table | None, waiting: list[Entry]) -> pa.Table:
    """The table with ascending newer entries merged in; what lies before the first of them is not looked at."""
    if not waiting:
        return table_from_entries([]) if table is None else table
    builder = TableBuilder()
    if table is not None:
        first = _place(table, waiting[0]["timestamp"], bisect_left)
        if first:
            builder.add_block(Block.of_table(table.slice(0, first)))
        waiting = merge([*entries_from_table(table.slice(first)), *waiting])
    builder.add(waiting)
    return builder.finish()


def cut(table: pa.Table, start: float | None, end: float | None) -> pa.Table:
    """The entries from start to end, both inclusive, without a copy; the table ascends."""
    first = 0 if start is None else _place(table, start, bisect_left)
    last = len(table) if end is None else _place(table, end, bisect_right)
    return table.slice(first, max(last - first, 0))


def _place(table: pa.Table, timestamp: float, bisect: Any) -> int:
    stamps = table.column("timestamp")
    found: int = bisect(range(len(stamps)), timestamp, key=lambda number: stamps[number].as_py())
    return found


def select_fields(table: pa.Table, columns: Iterable[str] | None) -> pa.Table:
    """The table reduced to the fields that the columns name (see `track_table`), without a copy where possible."""
    if columns is None:
        return table
    columns = list(columns)
    kept = {field for column in columns if (field := field_of(table.schema, column)) is not None}
    names = [field.name for field in table.schema if _belongs(field, kept)]
    table = table.select(["timestamp", *names])
    if "timestamp" in columns:
        return table
    present = _present(table)
    return table if present is None else table.filter(present)


def field_of(schema: pa.Schema, column: str) -> str | None:
    """The field that a column name reaches into: itself, or the longest name before one of its dots or brackets."""
    cut = len(column)
    while cut > 0:
        name = column[:cut]
        if name != "timestamp" and name in schema.names:
            return name
        cut = max(name.rfind("."), name.rfind("["))
    return None


def _belongs(field: pa.Field, kept: set[str]) -> bool:
    return field.name in kept or null_of(field) in kept


def _present(table: pa.Table) -> Any:
    """True where an entry has one of the fields, be it as null; None where every entry has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: Any = None
    for field in table.schema:
        if field.name == "timestamp":
            continue
        column = table.column(field.name)
        recorded_nulls = (field.metadata or {}).get(b"ml_dash.null") == b"null"
        if null_of(field) is None and (recorded_nulls or column.null_count == 0):
            return None
        here = column if null_of(field) is not None else pc.is_valid(column)
        found = here if found is None else pc.or_(found, here)
    return pa.array([False] * len(table), pa.bool_()) if found is None else found
