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

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..store import Entry
from .arrow_types import ABSENT, arrow_type, from_text, import_pyarrow, is_json, null_of, nulls_are_recorded, to_text
from .blocks import TableBuilder, Typing, batch_from_entries

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "TableBuilder",
    "Typing",
    "arrow_type",
    "batch_from_entries",
    "column_values",
    "entries_from_table",
    "from_text",
    "import_pyarrow",
    "is_json",
    "null_of",
    "python_values",
    "table_from_entries",
    "to_text",
]

BLOCK_ENTRIES = 65_536


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


# ---------------------------------------------------------------- tables to entries


def entries_from_table(table: pa.Table) -> Iterator[Entry]:
    """The entries of a table that `table_from_entries` made, in its order, a batch at a time.

    Guarantees: equal to the entries that went in; integers of a column that also has floats come back as floats.
    """
    masked = {null_of(field): field.name for field in table.schema if null_of(field) is not None}
    for batch in table.to_batches(max_chunksize=BLOCK_ENTRIES):
        columns = {
            field.name: column_values(batch, field, masked.get(field.name))
            for field in table.schema
            if null_of(field) is None
        }
        for values in zip(*columns.values(), strict=True):
            yield {name: value for name, value in zip(columns, values, strict=True) if value is not ABSENT}


def column_values(batch: pa.RecordBatch, field: pa.Field, mask: str | None) -> list[Any]:
    """The Python values of a column, ABSENT where the entry lacked the field."""
    array = batch.column(batch.schema.get_field_index(field.name))
    values = python_values(array)
    if is_json(field):
        return [ABSENT if text is None else from_text(text) for text in values]
    if array.null_count == 0 or nulls_are_recorded(field):
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
