"""Blocks of entries on their way to a table: what types occur, and the columns of each block."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..store import Entry
from .arrow_types import (
    ABSENT,
    ENCODING,
    NULL_OF,
    NULLS,
    arrow_type,
    import_pyarrow,
    is_json,
    kind_of_array,
    null_of,
    nulls_are_recorded,
    one_chunk,
    texts,
)
from .floats import fixed_lists
from .kinds import FLOAT, JSON, NULL, AnyKind, Lists, kind_of, storable, union

if TYPE_CHECKING:
    import pyarrow as pa

    from .regular import Column


@dataclass(slots=True)
class Seen:
    """What is known of one field: its kind, in how many entries it is, in how many of them as null."""

    kind: AnyKind = NULL
    present: int = 0
    nulls: int = 0

    def include(self, other: Seen) -> None:
        self.kind = union(self.kind, other.kind)
        self.present += other.present
        self.nulls += other.nulls


class Typing:
    """The types of a track, learned block by block; `schema()` says what all blocks need together."""

    def __init__(self) -> None:
        self.count = 0
        self.seen: dict[str, Seen] = {}

    def observe(self, entries: Sequence[Entry]) -> None:
        """Learn from a block of entries; pass all of a track once, then convert with `batch_from_entries`."""
        self.include(len(entries), {name: _look(column)[0] for name, column in _pivot(entries).items()})

    def include(self, count: int, seen: dict[str, Seen]) -> None:
        """Learn from a block that was looked at already."""
        self.count += count
        for name, of_block in seen.items():
            self.seen.setdefault(name, Seen()).include(of_block)

    def schema(self) -> pa.Schema:
        """The schema of everything observed so far."""
        pa = import_pyarrow()
        fields = [pa.field("timestamp", pa.float64(), nullable=False)]
        for name, seen in self.seen.items():
            fields += self._fields(name, seen)
        return pa.schema(fields)

    def _fields(self, name: str, seen: Seen) -> list[Any]:
        pa = import_pyarrow()
        kind = storable(seen.kind)
        if kind is JSON:
            return [pa.field(name, pa.string(), metadata={ENCODING: b"json"})]
        data_type = arrow_type(kind)
        if not seen.nulls:
            return [pa.field(name, data_type)]
        if seen.present == self.count:
            return [pa.field(name, data_type, metadata={NULLS: b"null"})]
        mask = pa.field(self._mask_name(name), pa.bool_(), metadata={NULL_OF: name.encode()})
        return [pa.field(name, data_type), mask]

    def _mask_name(self, name: str) -> str:
        mask = f"{name}:null"
        while mask in self.seen:
            mask += ":"
        return mask


def _seen_of(field: pa.Field, array: pa.Array) -> Seen:
    """What a column of a table says of its field, recorded nulls not counted."""
    return Seen(JSON if is_json(field) else kind_of_array(array), len(array) - array.null_count)


@dataclass(slots=True)
class _Column:
    """The values of one field in a block, None also where an entry lacks it (`absent` of them)."""

    values: list[Any]
    absent: int


def _pivot(entries: Sequence[Entry]) -> dict[str, _Column]:
    """The columns of a block, fields in order of appearance; few layouts of keys make this fast."""
    present: Counter[str] = Counter()
    for layout, times in Counter(map(tuple, entries)).items():
        for name in layout:
            present[name] += times
    present.pop("timestamp", None)
    count = len(entries)
    return {name: _Column([entry.get(name) for entry in entries], count - times) for name, times in present.items()}


def _look(column: _Column) -> tuple[Seen, Any]:
    """What a column is, and its array where finding out made it anyway."""
    present = len(column.values) - column.absent
    nulls = column.values.count(None) - column.absent
    array = fixed_lists(column.values)
    if array is not None:
        return Seen(_float_lists(array.type), present, nulls), array
    return Seen(kind_of(column.values), present, nulls), None


def _float_lists(data_type: Any) -> AnyKind:
    return Lists(_float_lists(data_type.value_type), data_type.list_size) if hasattr(data_type, "list_size") else FLOAT


class TableBuilder:
    """Blocks of entries become record batches; their schema is settled when all are known.

    Keeps only the batches, never the entries. For a track larger than memory use `Typing` and
    `batch_from_entries` in two passes.
    """

    def __init__(self) -> None:
        self._typing = Typing()
        self._blocks: list[Block] = []

    def add(self, entries: Sequence[Entry]) -> None:
        """Add a block of ascending entries, all later than the blocks before."""
        if entries:
            self.add_block(Block.of_entries(entries))

    def add_block(self, block: Block) -> None:
        """Add a block that is columns already."""
        self._typing.include(block.count, block.seen)
        self._blocks.append(block)

    def finish(self) -> pa.Table:
        """The table of all blocks; the builder is spent afterwards."""
        pa = import_pyarrow()
        schema = self._typing.schema()
        columns = []
        for field in schema:
            columns.append(pa.chunked_array([block.column(field) for block in self._blocks], type=field.type))
        self._blocks = []
        return pa.Table.from_arrays(columns, schema=schema)


@dataclass(slots=True)
class Block:
    """The columns of one block, each in the type this block alone needs.

    `arrays` holds them, `timestamp` among them; `masks` says where a null was recorded, for fields that have any.
    `proven` are the fields of which the arrays hold each value as it was, so that no look at the values is needed.
    """

    count: int
    seen: dict[str, Seen]
    arrays: dict[str, Any]
    masks: dict[str, Any]
    proven: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def of_entries(cls, entries: Sequence[Entry]) -> Block:
        """The columns of ascending entries."""
        block = cls(len(entries), {}, {"timestamp": _timestamps(entries)}, {})
        for name, column in _pivot(entries).items():
            seen, array = _look(column)
            kind = storable(seen.kind)
            if kind is JSON:
                array = texts(_told_apart(name, column, entries))
            elif array is not None:
                block.proven.add(name)
            block.seen[name] = seen
            block.arrays[name] = array if array is not None else _typed(column.values, arrow_type(kind))
            if seen.nulls:
                block.masks[name] = _mask(name, column, entries)
        return block

    @classmethod
    def of_columns(cls, columns: Mapping[str, Column]) -> Block:
        """Columns that were parsed as such: every entry has each of them, and as null each or none."""
        pa = import_pyarrow()
        count = len(columns["timestamp"].values)
        nulls = {name for name, column in columns.items() if column.kind is NULL}
        seen = {name: Seen(column.kind, count, count * (name in nulls)) for name, column in columns.items()}
        seen.pop("timestamp")
        masks = {name: pa.repeat(True, count) for name in nulls}
        return cls(count, seen, {name: column.values for name, column in columns.items()}, masks, set(columns))

    @classmethod
    def of_table(cls, table: pa.Table) -> Block:
        """A part of a table that came from here, to be joined with other blocks."""
        block = cls(len(table), {}, {}, {})
        for field in table.schema:
            array = one_chunk(table.column(field.name))
            of_field = null_of(field)
            if of_field is not None:
                block.masks[of_field] = array
                continue
            block.arrays[field.name] = array
            if field.name != "timestamp":
                block.seen[field.name] = _seen_of(field, array)
            if nulls_are_recorded(field):
                block.masks[field.name] = array.is_null()
        for name, mask in block.masks.items():
            block.seen[name].nulls = mask.true_count
            block.seen[name].present += mask.true_count
        block.proven = set(block.arrays)
        return block

    def column(self, field: pa.Field) -> Any:
        """This block's part of a column of the whole track."""
        pa = import_pyarrow()
        of_field = null_of(field)
        if of_field is not None:
            mask = self.masks.get(of_field)
            return mask if mask is not None else pa.array([False] * self.count, pa.bool_())
        array = self.arrays.get(field.name)
        if array is None:
            return pa.nulls(self.count, field.type)
        if is_json(field) and storable(self.seen[field.name].kind) is not JSON:
            return self._as_texts(field.name, array)
        return _cast(array, field.type)

    def _as_texts(self, name: str, array: Any) -> Any:
        """A typed column as JSON texts, once another block turned the whole column into a mixture."""
        values = array.to_pylist()
        recorded = self.masks[name].to_pylist() if name in self.masks else [False] * len(values)
        pairs = zip(values, recorded, strict=True)
        return texts([ABSENT if value is None and not null else value for value, null in pairs])


def batch_from_entries(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    """A block of entries as a record batch of a schema that `Typing` learned from a track with these entries."""
    pa = import_pyarrow()
    columns = _pivot(entries)
    nothing = _Column([None] * len(entries), len(entries))
    arrays = []
    for field in schema:
        name = null_of(field) or field.name
        column = columns.get(name, nothing)
        if name == "timestamp":
            arrays.append(_timestamps(entries))
        elif null_of(field) is not None:
            arrays.append(_mask(name, column, entries))
        elif is_json(field):
            arrays.append(texts(_told_apart(name, column, entries)))
        else:
            arrays.append(_typed(column.values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _timestamps(entries: Sequence[Entry]) -> Any:
    pa = import_pyarrow()
    return pa.array([entry["timestamp"] for entry in entries], pa.float64())


def _told_apart(name: str, column: _Column, entries: Sequence[Entry]) -> list[Any]:
    """The column's values with ABSENT where an entry lacks the field."""
    if not column.absent:
        return column.values
    return [entry.get(name, ABSENT) for entry in entries]


def _mask(name: str, column: _Column, entries: Sequence[Entry]) -> Any:
    """True where a null was recorded."""
    pa = import_pyarrow()
    return pa.array([value is None for value in _told_apart(name, column, entries)], pa.bool_())


def _typed(values: list[Any], data_type: pa.DataType) -> Any:
    array = fixed_lists(values) if hasattr(data_type, "list_size") else None
    return array if array is not None and array.type == data_type else import_pyarrow().array(values, data_type)


def _cast(array: Any, data_type: pa.DataType) -> Any:
    """The array in a wider type; casts that Arrow does not know go through Python values."""
    pa = import_pyarrow()
    if array.type == data_type:
        return array
    try:
        return array.cast(data_type)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array(array.to_pylist(), data_type)
