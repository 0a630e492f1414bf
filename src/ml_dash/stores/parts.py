"""Parquet parts: what compaction writes and the archive keeps, read a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import msgspec

from ..formats.arrow import entries_from_table, from_text, import_pyarrow, null_of, table_from_entries, to_text
from ..formats.parquet import stream_parquet
from ..store import Entry

ROW_GROUP_ENTRIES = 8192
"""A window costs at least one row group; about a MiB of robot state."""


EXACT = b"ml_dash.exact"
"""Marks the column of what the other columns cannot say exactly: the integers among a float column's values."""


class Codec(Protocol):
    """How parts become bytes, and bytes entries again."""

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The bytes of a part; raises NoPart where it cannot hold the entries without loss."""
        ...

    def read(
        self, file: Any, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
    ) -> Iterator[list[Entry]]:
        """The entries that reach into a window, as `read_part`."""
        ...


class ParquetCodec:
    """Parts as Parquet files."""

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """As `encode_part`."""
        return encode_part(entries)

    def read(
        self, file: Any, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
    ) -> Iterator[list[Entry]]:
        """As `read_part`."""
        return read_part(file, start, end, columns, first=first)


class NoPart(ValueError):
    """Entries that no Parquet file holds without loss."""


def encode_part(entries: Sequence[Entry]) -> bytes:
    """Entries as one Parquet file of small row groups; every value comes back with its type, which is checked here.

    Raises:
        NoPart: no Parquet file can hold them (nested too deeply, names too many).
    """
    import pyarrow as pa

    try:
        table = table_from_entries(list(entries))
        table = _with_exact(table, entries)
        return _written(table)
    except (RecursionError, pa.ArrowException, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise NoPart(f"{type(error).__name__}: {error}") from error


def _with_exact(table: Any, entries: Sequence[Entry]) -> Any:
    """The table, with a text column of the fields that the typed columns give back differently; often with none."""
    texts = [_difference(*pair) for pair in zip(entries, entries_from_table(table), strict=True)]
    if not any(texts):
        return table
    pa = import_pyarrow()
    name = "ml_dash:exact"
    while name in table.column_names:
        name += ":"
    return table.append_column(pa.field(name, pa.string(), metadata={EXACT: b"json"}), pa.array(texts, pa.string()))


_packed = msgspec.msgpack.Encoder(order="sorted").encode
"""Equal bytes for equal entries only: 1 and 1.0 differ, and so do 0.0 and -0.0."""


def _difference(entry: Entry, found: Entry) -> str | None:
    if _packed(entry) == _packed(found):
        return None
    if entry.keys() != found.keys():
        raise NoPart(f"fields {sorted(entry.keys() ^ found.keys())} do not come back")
    return to_text({name: value for name, value in entry.items() if _packed(value) != _packed(found[name])})


def _written(table: Any) -> bytes:
    sink = io.BytesIO()
    slices = (table.slice(first, ROW_GROUP_ENTRIES) for first in range(0, table.num_rows, ROW_GROUP_ENTRIES))
    stream_parquet(table.schema, slices, sink)
    return sink.getvalue()


def read_part(
    file: Any, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
) -> Iterator[list[Entry]]:
    """The entries of the row groups that reach into [start, end], one block for each.

    Args:
        file: the bytes of a part, or a seekable file of them.
        columns: the fields to read, or dotted parts of them; None for all.
        first: for sequences, the index of the part's first entry; positions are indices then, and each entry comes as
            `{"timestamp": index, "entry": entry}`.
    """
    import pyarrow.parquet as parquet

    source = import_pyarrow().BufferReader(file) if isinstance(file, bytes) else file
    with parquet.ParquetFile(source, pre_buffer=True) as part:
        names = _needed(part.schema_arrow, columns)
        at = first
        for group in range(part.num_row_groups):
            rows = part.metadata.row_group(group).num_rows
            low, high = _range(part.metadata.row_group(group)) if at is None else (float(at), float(at + rows - 1))
            if high >= start and low <= end:
                table = part.read_row_group(group, columns=names)
                if at is None:
                    yield _entries(_reaching(table, start, end))
                else:
                    yield positioned(_entries(table), at)
            at = None if at is None else at + rows


def _reaching(table: Any, start: float, end: float) -> Any:
    """The ascending rows of a table within a window: making entries costs more than all else."""
    stamps = table.column("timestamp").combine_chunks()
    if not len(stamps) or (stamps[0].as_py() >= start and stamps[-1].as_py() <= end):
        return table
    first = _place(stamps, start, "left")
    return table.slice(first, _place(stamps, end, "right") - first)


def _place(stamps: Any, position: float, side: str) -> int:
    """Where a position belongs among ascending timestamps."""
    import pyarrow.compute as compute

    less = compute.less if side == "left" else compute.less_equal
    return compute.sum(less(stamps, position)).as_py() or 0


def _entries(table: Any) -> list[Entry]:
    """The entries as they were before they became a part."""
    marked = [field.name for field in table.schema if EXACT in (field.metadata or {})]
    if not marked:
        return list(entries_from_table(table))
    texts = table.column(marked[0]).to_pylist()
    plain = entries_from_table(table.drop_columns(marked))
    return [_restored(entry, text) for entry, text in zip(plain, texts, strict=True)]


def _restored(entry: Entry, text: str | None) -> Entry:
    if text is None:
        return entry
    return {**entry, **{name: value for name, value in from_text(text).items() if name in entry}}


def positioned(entries: Iterator[Entry] | Sequence[Entry], first: int) -> list[Entry]:
    """A sequence's entries, each under its index, so that sequences merge as tracks do."""
    return [{"timestamp": float(index), "entry": entry} for index, entry in enumerate(entries, start=first)]


def _range(group: Any) -> tuple[float, float]:
    """The timestamps of a row group: the first column, ascending."""
    statistics = group.column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return float("-inf"), float("inf")
    return statistics.min, statistics.max


def _needed(schema: Any, columns: Sequence[str] | None) -> list[str] | None:
    """The Parquet columns that the fields live in, with the marks of their nulls."""
    if columns is None:
        return None
    wanted = {"timestamp", *chain.from_iterable((column, column.split(".")[0]) for column in columns)}
    return [f.name for f in schema if f.name in wanted or null_of(f) in wanted or EXACT in (f.metadata or {})]
