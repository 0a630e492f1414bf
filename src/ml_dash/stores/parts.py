"""Parquet parts: what compaction writes and the archive keeps, read a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import msgspec

from ..formats.arrow import (
    Typing,
    entries_from_table,
    from_text,
    import_pyarrow,
    is_json,
    null_of,
    python_values,
    to_text,
)
from ..formats.blocks import Block
from ..formats.parquet import stream_parquet
from ..store import Entry
from .undecoded import Packed, Run, TableRows, decoded, rows_of, typed

ROW_GROUP_ENTRIES = 8192
"""A window costs at least one row group; about a MiB of robot state."""
ROW_GROUP_BYTES = 4 << 20
"""Of large entries fewer make a row group, by their size as columns."""
PIECE_BYTES = 2 << 20
"""Rows that are decoded at a time, by their size as columns."""
KEPT_BYTES = 16 << 20
"""Columns that are kept from the look at their types until they are written; what is beyond is made twice."""


EXACT = b"ml_dash.exact"
"""Marks the column of what the other columns cannot say exactly: the integers among a float column's values."""


class Codec(Protocol):
    """How parts become bytes, and bytes entries again."""

    def encode(self, blocks: Sequence[Run | Packed]) -> bytes:
        """The bytes of a part; raises NoPart where it cannot hold the entries without loss."""
        ...

    def read(
        self, file: Any, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
    ) -> Iterator[list[Entry]]:
        """The entries that reach into a window, as `read_part`."""
        ...

    def runs(self, file: Any, *, first: int | None = None) -> Iterator[Run]:
        """All entries, as `runs_of_part`."""
        ...


class ParquetCodec:
    """Parts as Parquet files."""

    def encode(self, blocks: Sequence[Run | Packed]) -> bytes:
        """As `encode_part`."""
        return encode_part(*blocks)

    def read(
        self, file: Any, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
    ) -> Iterator[list[Entry]]:
        """As `read_part`."""
        return read_part(file, start, end, columns, first=first)

    def runs(self, file: Any, *, first: int | None = None) -> Iterator[Run]:
        """As `runs_of_part`."""
        return runs_of_part(file, first=first)


class NoPart(ValueError):
    """Entries that no Parquet file holds without loss."""


def encode_part(*blocks: Run | Packed) -> bytes:
    """Entries as one Parquet file of small row groups; every value comes back with its type, which is checked here.

    Args:
        blocks: the entries in order; a few at a time are decoded, if they are not already.

    Raises:
        NoPart: no Parquet file can hold them (nested too deeply, names too many).
    """
    import pyarrow as pa

    try:
        return _written([_Typed(block) for block in blocks])
    except (RecursionError, pa.ArrowException, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise NoPart(f"{type(error).__name__}: {error}") from error


class _Typed:
    """A block of entries, and its columns while there is room for them."""

    def __init__(self, entries: Run | Packed) -> None:
        self.entries, self.texts = entries, list[str | None]()
        self._columns: Block | None = None
        self._types: dict[str, Any] = {}
        """The type of each column that gives its values back as they were, None for one that does not."""

    def columns(self) -> Block:
        """The entries as columns."""
        return self._columns or typed(self.entries)

    def look(self, typing: Typing, room: int) -> int:
        """Learn the types; the bytes of the columns if they are kept, which fit the room."""
        entries = decoded(self.entries) if isinstance(self.entries, Packed) else self.entries
        columns = typed(entries)
        inexact = _inexact(columns, entries)
        self._types = {name: None if name in inexact else array.type for name, array in columns.arrays.items()}
        typing.include(columns.count, columns.seen)
        size = sum(int(array.nbytes) for array in columns.arrays.values())
        if size > room:
            return 0
        self._columns = columns
        return size

    def compare(self, schema: Any) -> bool:
        """Find the `texts` of what a table of this schema gives back differently; whether there are any."""
        doubtful = {field.name for field in schema if self._is_doubtful(field)}
        if not doubtful:
            return False
        names = [field.name for field in schema if field.name in doubtful or null_of(field) in doubtful]
        own = entries_from_table(self._table(self.columns(), schema).select(names))
        all_of = decoded(self.entries)
        parts = ({name: value for name, value in entry.items() if name in doubtful} for entry in all_of)
        self.texts = [_difference(entry, found) for entry, found in zip(parts, own, strict=True)]
        return any(self.texts)

    def _is_doubtful(self, field: Any) -> bool:
        """Whether only a look at the values tells if a column of the part gives them back."""
        return field.name in self._types and (is_json(field) or self._types[field.name] != field.type)

    def _table(self, columns: Block, schema: Any) -> Any:
        pa = import_pyarrow()
        return pa.Table.from_arrays([columns.column(field) for field in schema], schema=schema)

    def table(self, schema: Any, exact: Any) -> Any:
        """The rows of the part, and with them its column of texts if it has one."""
        pa = import_pyarrow()
        found = self._table(self.columns(), schema)
        self._columns = None
        if exact is None:
            return found
        return found.append_column(exact, pa.array(self.texts or [None] * len(found), pa.string()))


def _inexact(columns: Block, entries: Run | Packed) -> set[str]:
    """The fields of which some value does not come back as it was; the making of most columns rules that out."""
    unproven = columns.arrays.keys() - columns.proven
    found = decoded(entries) if unproven else []
    return {name for name in unproven if not _gives_back(columns.arrays[name], [entry.get(name) for entry in found])}


def _gives_back(array: Any, values: list[Any]) -> bool:
    return _packed(values) == _packed(python_values(array))


_packed = msgspec.msgpack.Encoder(order="sorted").encode
"""Equal bytes for equal entries only: 1 and 1.0 differ, and so do 0.0 and -0.0."""


def _difference(entry: Entry, found: Entry) -> str | None:
    if _packed(entry) == _packed(found):
        return None
    if entry.keys() != found.keys():
        raise NoPart(f"fields {sorted(entry.keys() ^ found.keys())} do not come back")
    return to_text({name: value for name, value in entry.items() if _packed(value) != _packed(found[name])})


def _written(blocks: Sequence[_Typed]) -> bytes:
    """The file: first the types, then what they cannot say, then row group by row group."""
    typing, room = Typing(), KEPT_BYTES
    for block in blocks:
        room -= block.look(typing, room)
    schema = typing.schema()
    differ = [block.compare(schema) for block in blocks]
    exact = _exact_field(schema) if any(differ) else None
    sink = io.BytesIO()
    tables = (block.table(schema, exact) for block in blocks)
    stream_parquet(schema if exact is None else schema.append(exact), _row_groups(tables), sink)
    return sink.getvalue()


def _exact_field(schema: Any) -> Any:
    """The text column of the fields that the typed columns give back differently; often there is none."""
    pa = import_pyarrow()
    name = "ml_dash:exact"
    while name in schema.names:
        name += ":"
    return pa.field(name, pa.string(), metadata={EXACT: b"json"})


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """The rows of some tables as tables of the size of a row group."""
    pa = import_pyarrow()
    held: list[Any] = []
    for table in tables:
        for piece in _cut(table, ROW_GROUP_ENTRIES - sum(map(len, held))):
            held.append(piece)
            if sum(map(len, held)) >= ROW_GROUP_ENTRIES or sum(one.nbytes for one in held) >= ROW_GROUP_BYTES:
                yield pa.concat_tables(held).combine_chunks()
                held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _cut(table: Any, room: int) -> Iterator[Any]:
    """A table's rows, first as many as there is room for."""
    yield table.slice(0, room)
    for first in range(room, len(table), ROW_GROUP_ENTRIES):
        yield table.slice(first, ROW_GROUP_ENTRIES)


def runs_of_part(file: Any, *, first: int | None = None) -> Iterator[Run]:
    """All entries of a part: rows of its table where these say all, else decoded; a sequence's under their indices."""
    import pyarrow.parquet as parquet

    source = import_pyarrow().BufferReader(file) if isinstance(file, bytes) else file
    with parquet.ParquetFile(source, pre_buffer=True) as part:
        for group in range(part.num_row_groups):
            table = part.read_row_group(group, use_threads=False)
            rows = _rows(table) if first is None else None
            if rows is not None:
                yield rows
                continue
            for piece in _pieces(table):
                entries = _entries(piece)
                yield entries if first is None else positioned(entries, first)
                first = None if first is None else first + len(entries)


def _rows(table: Any) -> TableRows | None:
    """The rows, where the table alone says what is in them."""
    marked = [field.name for field in table.schema if EXACT in (field.metadata or {})]
    if any(table.column(name).null_count < len(table) for name in marked):
        return None
    return rows_of(table.drop_columns(marked))


def _pieces(table: Any) -> Iterator[Any]:
    """A table's rows, few enough at a time to be decoded."""
    count = max(1, len(table) * PIECE_BYTES // max(table.nbytes, 1))
    return (table.slice(first, count) for first in range(0, len(table), count))


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
