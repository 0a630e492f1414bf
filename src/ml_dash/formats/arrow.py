"""Entries as an Arrow table and back, without loss: the one home of the typing rules (`kinds.py` decides them).

    values of a field across the track            column
    float; int and float, each int exact          double
    int                                           int64, or uint64 where some lie above int64
    bool; str                                     bool; string
    lists of one length (also nested)             fixed_size_list[n]
    lists of several lengths                      list
    dicts with the same keys in every entry       struct
    null only                                     null
    anything else, and mixtures                   string, JSON text, field metadata `ml_dash.encoding: json`

The first column is `timestamp`, float64 seconds, ascending. NaN and the infinities are real floats.

*Absent and null stay apart.* An Arrow null means that the entry lacks the field, unless the field's metadata says
`ml_dash.null: null`: then every one of its nulls was recorded as null. Where both occur, a bool column, named after
the field with `:null` and marked `ml_dash.null_of: <field>`, is true where a null was recorded. A JSON text column
needs none of this: a recorded null is the text `null`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..entry import from_line, to_line
from ..errors import MissingExtra
from ..store import Entry
from .floats import fixed_lists
from .kinds import BOOL, FLOAT, JSON, NULL, TEXT, AnyKind, Integers, Lists, Structs, kind_of, storable, union

if TYPE_CHECKING:
    import pyarrow as pa

ENCODING, NULLS, NULL_OF = b"ml_dash.encoding", b"ml_dash.null", b"ml_dash.null_of"
BLOCK_ENTRIES = 65_536
INT64_MAX = (1 << 63) - 1


class _Absent:
    """Stands for a field that an entry lacks."""


ABSENT: Any = _Absent()


def import_pyarrow(what: str = "pyarrow") -> Any:
    """The pyarrow module; raises MissingExtra where it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra(what, "parquet") from None
    return pyarrow


# ---------------------------------------------------------------- entries to tables


def table_from_entries(entries: Iterable[Entry], block_entries: int = BLOCK_ENTRIES) -> pa.Table:
    """One Arrow table of merged, ascending entries, typed by the rules at the head of this module.

    Args:
        entries: `{"timestamp": float, field: value}`; consumed once, in blocks, so a generator is fine.
        block_entries: how many entries become one chunk of the table.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    builder = TableBuilder()
    for block in _blocks(entries, block_entries):
        builder.add(block)
    return builder.finish()


def _blocks(entries: Iterable[Entry], size: int) -> Iterator[Sequence[Entry]]:
    if isinstance(entries, list):
        yield from (entries[first : first + size] for first in range(0, len(entries), size))
        return
    block: list[Entry] = []
    for entry in entries:
        block.append(entry)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


@dataclass(slots=True)
class _Seen:
    """What is known of one field: its kind, in how many entries it is, in how many of them as null."""

    kind: AnyKind = NULL
    present: int = 0
    nulls: int = 0

    def include(self, other: _Seen) -> None:
        self.kind = union(self.kind, other.kind)
        self.present += other.present
        self.nulls += other.nulls


class Typing:
    """The types of a track, learned block by block; `schema()` says what all blocks need together."""

    def __init__(self) -> None:
        self.count = 0
        self.seen: dict[str, _Seen] = {}

    def observe(self, entries: Sequence[Entry]) -> None:
        """Learn from a block of entries; pass all of a track once, then convert with `batch_from_entries`."""
        self.include(len(entries), {name: _look(column)[0] for name, column in _pivot(entries).items()})

    def include(self, count: int, seen: dict[str, _Seen]) -> None:
        """Learn from a block that was looked at already."""
        self.count += count
        for name, of_block in seen.items():
            self.seen.setdefault(name, _Seen()).include(of_block)

    def schema(self) -> pa.Schema:
        """The schema of everything observed so far."""
        pa = import_pyarrow()
        fields = [pa.field("timestamp", pa.float64(), nullable=False)]
        for name, seen in self.seen.items():
            fields += self._fields(name, seen)
        return pa.schema(fields)

    def _fields(self, name: str, seen: _Seen) -> list[Any]:
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


def _look(column: _Column) -> tuple[_Seen, Any]:
    """What a column is, and its array where finding out made it anyway."""
    present = len(column.values) - column.absent
    nulls = column.values.count(None) - column.absent
    array = fixed_lists(column.values)
    if array is not None:
        return _Seen(_float_lists(array.type), present, nulls), array
    return _Seen(kind_of(column.values), present, nulls), None


def _float_lists(data_type: Any) -> AnyKind:
    return Lists(_float_lists(data_type.value_type), data_type.list_size) if hasattr(data_type, "list_size") else FLOAT


class TableBuilder:
    """Blocks of entries become record batches; their schema is settled when all are known.

    Keeps only the batches, never the entries. For a track larger than memory use `Typing` and
    `batch_from_entries` in two passes.
    """

    def __init__(self) -> None:
        self._typing = Typing()
        self._blocks: list[_Block] = []

    def add(self, entries: Sequence[Entry]) -> None:
        """Add a block of ascending entries, all later than the blocks before."""
        if entries:
            block = _Block(entries)
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


class _Block:
    """The columns of one block, each in the type this block alone needs."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.count = len(entries)
        self.seen: dict[str, _Seen] = {}
        self.arrays: dict[str, Any] = {"timestamp": _timestamps(entries)}
        self.masks: dict[str, Any] = {}
        for name, column in _pivot(entries).items():
            seen, array = _look(column)
            kind = storable(seen.kind)
            if kind is JSON:
                array = _texts(_told_apart(name, column, entries))
            self.seen[name] = seen
            self.arrays[name] = array if array is not None else _typed(column.values, arrow_type(kind))
            if seen.nulls:
                self.masks[name] = _mask(name, column, entries)

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
        return _texts([ABSENT if value is None and not null else value for value, null in pairs])


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
            arrays.append(_texts(_told_apart(name, column, entries)))
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


def arrow_type(kind: AnyKind) -> pa.DataType:
    """The Arrow type of a kind that is not JSON."""
    pa = import_pyarrow()
    if isinstance(kind, Integers):
        return pa.int64() if kind.high <= INT64_MAX else pa.uint64()
    if isinstance(kind, Lists):
        item = pa.field("item", arrow_type(kind.item))
        return pa.list_(item, kind.size) if kind.size else pa.list_(item)
    if isinstance(kind, Structs):
        return pa.struct([(name, arrow_type(field)) for name, field in kind.fields])
    return {NULL: pa.null(), BOOL: pa.bool_(), FLOAT: pa.float64(), TEXT: pa.string()}[kind]


# ---------------------------------------------------------------- JSON text: a line of one field, without its frame

_HEAD, _TAIL = b'{"timestamp":0.0,"v":', b"}\n"


def to_text(value: Any) -> str:
    """A value as strict JSON, NaN and the infinities spelled as in `data.jsonl`."""
    return to_line(0.0, {"v": value})[len(_HEAD) : -len(_TAIL)].decode()


def from_text(text: str) -> Any:
    """The value of a text that `to_text` wrote."""
    entry = from_line(_HEAD + text.encode() + _TAIL)
    if entry is None:
        raise ValueError(f"no JSON text: {text[:80]!r}")
    return entry["v"]


def _texts(values: Iterable[Any]) -> Any:
    pa = import_pyarrow()
    return pa.array([None if value is ABSENT else to_text(value) for value in values], pa.string())


# ---------------------------------------------------------------- tables to entries


def is_json(field: pa.Field) -> bool:
    """Whether a column holds JSON texts."""
    return (field.metadata or {}).get(ENCODING) == b"json"


def null_of(field: pa.Field) -> str | None:
    """The field whose recorded nulls this column marks, or None for an ordinary column."""
    name = (field.metadata or {}).get(NULL_OF)
    return None if name is None else name.decode()


def entries_from_table(table: pa.Table) -> Iterator[Entry]:
    """The entries of a table that `table_from_entries` made, in its order, a batch at a time.

    Guarantees: equal to the entries that went in; integers of a column that also has floats come back as floats.
    """
    masked = {null_of(field): field.name for field in table.schema if null_of(field) is not None}
    for batch in table.to_batches(max_chunksize=BLOCK_ENTRIES):
        columns = {
            field.name: _values(batch, field, masked.get(field.name))
            for field in table.schema
            if null_of(field) is None
        }
        for values in zip(*columns.values(), strict=True):
            yield {name: value for name, value in zip(columns, values, strict=True) if value is not ABSENT}


def _values(batch: pa.RecordBatch, field: pa.Field, mask: str | None) -> list[Any]:
    """The Python values of a column, ABSENT where the entry lacked the field."""
    array = batch.column(batch.schema.get_field_index(field.name))
    values = python_values(array)
    if is_json(field):
        return [ABSENT if text is None else from_text(text) for text in values]
    if array.null_count == 0 or (field.metadata or {}).get(NULLS) == b"null":
        return values
    if mask is None:
        return [ABSENT if value is None else value for value in values]
    recorded = batch.column(batch.schema.get_field_index(mask)).to_pylist()
    return [ABSENT if value is None and not null else value for value, null in zip(values, recorded, strict=True)]


def python_values(array: Any) -> list[Any]:
    """The Python values of an Arrow array, None for its nulls; number columns and lists of them go by NumPy."""
    pa = import_pyarrow()
    flat, shape = array, [len(array)]
    while pa.types.is_fixed_size_list(flat.type) and flat.null_count == 0:
        shape.append(flat.type.list_size)
        flat = flat.flatten()
    if flat.null_count or not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        return array.to_pylist()  # type: ignore[no-any-return]
    return flat.to_numpy(zero_copy_only=False).reshape(shape).tolist()  # type: ignore[no-any-return]
