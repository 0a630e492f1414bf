"""Ascending entries in the form they were stored in, which compaction hands on without making them Python's.

    Alike       bodies of one layout, byte by byte (`uniform.py`)
    TableRows   rows of a part's table, where each column has one type and no gaps
    Packed      msgpack; what is neither of the others, between the merge and the part it goes into

Entries that go through compaction as one of the first two cost a tenth of what dicts cost, in time and in memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from ..entry import decode_body
from ..formats.arrow import entries_from_table, is_json, null_of
from ..formats.arrow_types import one_chunk
from ..formats.blocks import Block
from ..formats.regular import Column, Leaf, assemble
from ..store import Entry
from .uniform import Alike, leaf_values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of a table of which each entry has every column, all values of a column have one type, and none is null."""

    table: pa.Table
    times: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def entry_bytes(self) -> int:
        """Of each entry, about."""
        return -(-int(self.table.nbytes) // max(len(self), 1))

    def part(self, first: int, last: int) -> TableRows:
        """Some of the rows, without a copy."""
        return TableRows(self.table.slice(first, last - first), self.times[first:last])

    def entries(self) -> list[Entry]:
        """All of them as they read."""
        return list(entries_from_table(self.table))


@dataclass(frozen=True, slots=True)
class Packed:
    """Some entries as a msgpack array of them."""

    count: int
    raw: bytes

    def __len__(self) -> int:
        return self.count

    def entries(self) -> list[Entry]:
        """All of them as they read."""
        return unpacked(self.raw)


Run = list[Entry] | Alike | TableRows
"""Ascending entries, decoded or not."""
Kept = Alike | TableRows | Packed
"""Entries as they wait for their part."""


def unpacked(raw: bytes) -> list[Entry]:
    """Entries from a msgpack array of them."""
    try:
        return msgspec.msgpack.decode(raw)  # type: ignore[no-any-return]
    except RecursionError:
        return decode_body(raw)


def rows_of(table: pa.Table) -> TableRows | None:
    """A table's rows; None where some column has gaps, or does not say by its type what its values are."""
    if any(table.column(field.name).null_count or not _is_plain(field) for field in table.schema):
        return None
    return TableRows(table, one_chunk(table.column("timestamp")).to_numpy())


def _is_plain(field: pa.Field) -> bool:
    return not is_json(field) and null_of(field) is None and _is_fixed(field.type)


def _is_fixed(kind: pa.DataType) -> bool:
    """Whether values of a type are numbers, texts and bools in the same places in each of them."""
    import pyarrow.types as types

    number = _innermost(kind)
    plain = types.is_boolean(kind) or types.is_string(kind)
    return bool(plain or types.is_int64(number) or types.is_float64(number))


def _innermost(kind: pa.DataType) -> pa.DataType:
    return _innermost(kind.value_type) if hasattr(kind, "list_size") else kind


# ---------------------------------------------------------------- runs, whatever they are


def decoded(run: Run | Packed) -> list[Entry]:
    """The entries, each of them."""
    return run if isinstance(run, list) else run.entries()


def ends(run: Run) -> tuple[float, float]:
    """The first and the last timestamp of a run that is not empty."""
    if isinstance(run, list):
        return run[0]["timestamp"], run[-1]["timestamp"]
    return float(run.times[0]), float(run.times[-1])


def part_of(run: Run, first: int, last: int) -> Run:
    """Some of the entries."""
    return run[first:last] if isinstance(run, list) else run.part(first, last)


def place_in(run: Run, position: float, *, behind: bool) -> int:
    """Where a position belongs, in front of or behind the entry that has it."""
    if not isinstance(run, list):
        return int(run.times.searchsorted(position, "right" if behind else "left"))
    bisect = bisect_right if behind else bisect_left
    return bisect(run, position, key=_position)


def _position(entry: Entry) -> float:
    return entry["timestamp"]  # type: ignore[no-any-return]


# ---------------------------------------------------------------- as columns


def typed(run: Run | Packed) -> Block:
    """The entries as the columns of a table."""
    if isinstance(run, TableRows):
        return Block.of_table(run.table)
    columns = _columns(run) if isinstance(run, Alike) else None
    if columns is not None:
        return Block.of_columns(columns)
    return Block.of_entries(decoded(run))


def sample(run: Run | Packed) -> list[Entry]:
    """Entries that have the fields and types of all of them: one where all are alike."""
    return decoded(run if isinstance(run, list | Packed) else run.part(0, 1))


def _columns(block: Alike) -> dict[str, Column] | None:
    """The fields of bodies that are alike; None where they hold anything that columns do not hold exactly."""
    import pyarrow as pa

    (entry,) = block.part(0, 1).entries()
    if not all(map(_is_regular, entry.values())):
        return None
    leaves: list[Leaf] = [(float, pa.array(block.times.astype("<f8")))]
    for value, found in leaf_values(block):
        if found is not None and found.dtype.str == "<u8":
            return None
        leaves.append((type(value), pa.repeat(value, len(block)) if found is None else pa.array(found)))
    return assemble(entry, leaves)


def _is_regular(value: Any) -> bool:
    """No empty list or dict, and only numbers of one type in any list."""
    if type(value) is dict:
        return bool(value) and all(map(_is_regular, value.values()))
    if type(value) is not list:
        return True
    return bool(value) and len(set(map(type, _flat(value)))) == 1 and all(map(_is_regular, value))


def _flat(value: Any) -> list[Any]:
    return list(chain.from_iterable(map(_flat, value))) if type(value) is list else [value]
