"""Columns of a track's table: by name, by part (`pose.x`, `q[0]`), as Arrow or as NumPy numbers.

A column whose name itself contains dots or brackets is found by its whole name first, as everywhere else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..entry import MAX_EXACT_INT
from ..errors import InvalidQuery, InvalidWindow, TrackNotFound
from ..formats.arrow import from_text, is_json, null_of, table_from_entries
from ..formats.arrow_types import one_chunk
from ..names import offer

Floats = NDArray[np.float64]
Path = tuple[str | int, ...]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(-?\d+)\]")


# ---------------------------------------------------------------- names


def columns_of(table: pa.Table) -> list[str]:
    """The fields of a table: no timestamp, and no marks of recorded nulls."""
    return [field.name for field in table.schema if field.name != "timestamp" and null_of(field) is None]


def split_reference(reference: str, topics: Collection[str]) -> tuple[str, str | None]:
    """The topic and the column of `topic` or `topic.column`; raises TrackNotFound with the nearest topics."""
    if reference in topics:  # asking for one is cheap where listing all of them is not
        return reference, None
    for cut in sorted((m.start() for m in re.finditer(r"[.\[]", reference)), reverse=True):
        if reference[:cut] in topics:
            return reference[:cut], reference[cut:].removeprefix(".")
    raise TrackNotFound(f"no topic {reference!r}; {offer(reference, sorted(topics))}")


def resolve(schema: pa.Schema, column: str) -> Path:
    """The field and the steps inside it that a column's name means; raises InvalidWindow for unknown fields."""
    if column in schema.names:
        return (column,)
    for cut in sorted((m.start() for m in _STEP.finditer(column)), reverse=True):
        steps = _steps(column[cut:])
        if column[:cut] in schema.names and steps is not None:
            return (column[:cut], *steps)
    known = [field.name for field in schema if null_of(field) is None]
    raise InvalidWindow(f"no column {column!r}; {offer(column, known)}")


def _steps(text: str) -> Path | None:
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            return None
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    return tuple(steps)


# ---------------------------------------------------------------- columns


def column(table: pa.Table, name: str) -> tuple[pa.Field, pa.Array]:
    """A column or a part of one, with a field of that name; null where the entry lacks it.

    Raises:
        InvalidWindow: the field or the part does not exist; the message names the nearest.
    """
    field_name, *steps = resolve(table.schema, name)
    field = table.schema.field(field_name)
    array = one_chunk(table.column(field_name))
    if steps and is_json(field):
        return _part_of_json(array, steps, name)
    for depth, step in enumerate(steps):
        array = _part(array, step, name, resolve_name(field_name, steps[:depth]))
    return (pa.field(name, array.type) if steps else field), array


def resolve_name(field: str | int, steps: Sequence[str | int]) -> str:
    """How a path is written."""
    return str(field) + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in steps)


def _part(array: pa.Array, step: str | int, name: str, whole: str) -> pa.Array:
    if isinstance(step, str):
        if not pa.types.is_struct(array.type):
            raise InvalidWindow(f"no column {name!r}: {whole!r} is {array.type}, which has no parts by name")
        parts = [field.name for field in array.type]
        if step not in parts:
            raise InvalidWindow(f"no column {name!r}: {whole!r} has no part {step!r}; {offer(step, parts)}")
        return pc.struct_field(array, parts.index(step))
    return _item(array, step, name, whole)


def _item(array: pa.Array, index: int, name: str, whole: str) -> pa.Array:
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        if not -size <= index < size:
            raise InvalidWindow(f"no column {name!r}: {whole!r} has {size} items")
        return pc.list_element(array, index % size)
    if not pa.types.is_list(array.type):
        raise InvalidWindow(f"no column {name!r}: {whole!r} is {array.type}, which has no items by number")
    if index < 0:
        raise InvalidWindow(f"no column {name!r}: the lists of {whole!r} differ in length, so count from the front")
    return _item_where_long_enough(array, index)


def _item_where_long_enough(array: pa.Array, index: int) -> pa.Array:
    """The item of each list, null for the lists that are too short."""
    long_enough = pc.fill_null(pc.greater(pc.list_value_length(array), index), False)
    found = pc.list_element(array.filter(long_enough), index)
    places = np.full(len(array), -1)
    places[long_enough.to_numpy(zero_copy_only=False)] = np.arange(len(found))
    return found.take(pa.array(places, mask=places < 0))


def _part_of_json(texts: pa.Array, steps: Sequence[str | int], name: str) -> tuple[pa.Field, pa.Array]:
    """A part of a mixed column: typed by what the part itself holds, absent where it cannot be reached."""
    entries: list[dict[str, Any]] = []
    for text in texts.to_pylist():
        entries.append({"timestamp": 0.0})
        try:
            value = from_text(text) if text is not None else None
            for step in steps:
                value = value[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            continue
        entries[-1]["part"] = value
    typed = table_from_entries(entries)
    if "part" not in typed.schema.names:
        raise InvalidWindow(f"no column {name!r}: no entry has this part")
    field = typed.schema.field("part")
    return field.with_name(name), one_chunk(typed.column("part"))


def select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """A table of the named columns and parts, each under the name that was asked for.

    Entries with none of them are left out; `"timestamp"` among the columns keeps every instant.
    """
    if columns is None:
        return table
    names = [name for name in dict.fromkeys(columns) if name != "timestamp"]
    fields, arrays, present = [table.schema.field("timestamp")], [one_chunk(table.column("timestamp"))], None
    for name in names:
        field, array = column(table, name)
        here = _present(table, field, array)
        present = here if present is None else pc.or_(present, here)
        for one, data in [(field, array), *_marks(table, field.name)]:
            fields.append(one)
            arrays.append(data)
    selected = pa.Table.from_arrays(arrays, schema=pa.schema(fields, table.schema.metadata))
    if present is None or "timestamp" in columns or pc.all(present).as_py() in (True, None):
        return selected
    return selected.filter(present)


def _marks(table: pa.Table, name: str) -> list[tuple[pa.Field, pa.Array]]:
    return [(field, one_chunk(table.column(field.name))) for field in table.schema if null_of(field) == name]


def _present(table: pa.Table, field: pa.Field, array: pa.Array) -> pa.Array:
    """True where an entry has the column, be it as null."""
    valid = pc.is_valid(array)
    if (field.metadata or {}).get(b"ml_dash.null") == b"null":
        return pc.or_(valid, True)
    for _, mark in _marks(table, field.name):
        valid = pc.or_(valid, mark)
    return valid


# ---------------------------------------------------------------- numbers


def timestamps(table: pa.Table) -> Floats:
    """The timestamps in seconds, shape (n,), without a copy where possible."""
    array: Floats = one_chunk(table.column("timestamp")).to_numpy(zero_copy_only=False)
    return array


def numbers(table: pa.Table, name: str) -> Floats:
    """A column as float64, NaN where absent: shape (n,), or (n, d, ...) for lists of one length.

    Raises:
        InvalidWindow: no such column.
        InvalidQuery: it holds text, dicts or lists of several lengths.
    """
    field, array = column(table, name)
    return as_numbers(field, array)


def as_numbers(field: pa.Field, array: pa.Array) -> Floats:
    """As `numbers`, of a column that is at hand."""
    if is_json(field):
        return _numbers_of_json(field.name, array)
    if pa.types.is_list(array.type):
        array = _regular(field.name, array)
    shape = [len(array)]
    missing = None
    while pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        missing = _or_missing(missing, array, size)
        shape.append(size)
        array = array.values.slice(array.offset * size, len(array) * size)
    flat = _flat(field.name, array)
    if missing is not None:
        flat = np.where(missing, np.nan, flat)
    return flat.reshape(shape)


def in_rows(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers of any shape (n, ...) as shape (n, d), also where n is 0."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _or_missing(missing: NDArray[np.bool_] | None, lists: pa.Array, size: int) -> NDArray[np.bool_] | None:
    """Which items to leave out, because a list around them is null."""
    if lists.null_count:
        here = lists.is_null().to_numpy(zero_copy_only=False)
        missing = here if missing is None else missing | here
    return None if missing is None else np.repeat(missing, size)


def _flat(name: str, array: pa.Array) -> Floats:
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_struct(kind):
        parts = ", ".join(f"{name}.{field.name}" for field in kind)
        raise InvalidQuery(f"column {name!r} has parts, name one of them: {parts}")
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise InvalidQuery(f"column {name!r} holds {_plainly(kind)}, numbers are needed")
    return array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)  # type: ignore[no-any-return]


def _plainly(kind: pa.DataType) -> str:
    return "text" if pa.types.is_string(kind) else str(kind)


def _regular(name: str, lists: pa.Array) -> pa.Array:
    """Lists as fixed-size lists, where they happen to have one length (in this window)."""
    lengths = pc.min_max(pc.list_value_length(lists)).as_py()
    low, high = lengths["min"], lengths["max"]
    if low is None:
        return pa.nulls(len(lists))
    if low != high:
        raise InvalidQuery(f"column {name!r} has lists of {low} to {high} items; name one item, as {name}[0]")
    return lists.cast(pa.list_(lists.type.value_field, low))


def _numbers_of_json(name: str, texts: pa.Array) -> Floats:
    values = [None if text is None else from_text(text) for text in texts.to_pylist()]
    types = Counter(type(value).__name__ for value in values if value is not None)
    if not set(types) <= {"int", "float", "bool"}:
        shares = ", ".join(f"{times} {kind}" for kind, times in types.most_common())
        raise InvalidQuery(f"column {name!r} mixes types ({shares}), numbers are needed")
    return np.array([np.nan if value is None else float(value) for value in values])


def to_numpy(table: pa.Table, name: str) -> NDArray[Any]:
    """A column as NumPy: numbers as `numbers` gives them, text as an object array with None where absent.

    Integers that float64 would round stay integers.
    """
    field, array = column(table, name)
    if pa.types.is_string(array.type) and not is_json(field):
        return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    return as_numbers(field, array) if fit_floats(array) else _integers(name, array)


def fit_floats(array: pa.Array) -> bool:
    """Whether float64 holds every integer of a column: not so for stamps in nanoseconds."""
    while pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    if not pa.types.is_integer(array.type):
        return True
    bounds = pc.min_max(array).as_py()
    return bounds["min"] is None or (bounds["min"] >= -MAX_EXACT_INT and bounds["max"] <= MAX_EXACT_INT)


def _integers(name: str, array: pa.Array) -> NDArray[Any]:
    """Integers as they are, where float64 would round them."""
    whole = plain_numbers(array)
    if whole is None:
        raise InvalidQuery(
            f"column {name!r} has integers beyond 2**53, which float64 would round, and is absent in some entries: "
            "take it with to_arrow()"
        )
    return whole


def plain_numbers(array: pa.Array) -> NDArray[np.generic] | None:
    """A column of numbers, or of lists of one length of them, without any null; None for others."""
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type) and not array.null_count:
        shape.append(array.type.list_size)
        array = array.flatten()
    is_number = pa.types.is_floating(array.type) or pa.types.is_integer(array.type)
    return array.to_numpy().reshape(shape) if is_number and not array.null_count else None


def from_numbers(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """NumPy numbers of shape (n,) or (n, d, ...) as an Arrow array, null where missing (shape (n,))."""
    if missing is not None and not missing.any():
        missing = None
    if values.ndim == 1:
        return pa.array(values, mask=missing)
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:1:-1]:
        array = pa.FixedSizeListArray.from_arrays(array, size)
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(array, values.shape[1], mask=mask)


def flattened(table: pa.Table) -> pa.Table:
    """Each number of a fixed-size list, and each part of a dict, as a column of its own: `q[0]`, `pose.x`."""
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []
    for field in table.schema:
        for part, array in _flattened(field, one_chunk(table.column(field.name))):
            fields.append(part)
            arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, table.schema.metadata))


def _flattened(field: pa.Field, array: pa.Array) -> list[tuple[pa.Field, pa.Array]]:
    if pa.types.is_struct(field.type):
        parts = [(f"{field.name}.{part.name}", pc.struct_field(array, at)) for at, part in enumerate(field.type)]
    elif pa.types.is_fixed_size_list(field.type):
        parts = [(f"{field.name}[{at}]", pc.list_element(array, at)) for at in range(field.type.list_size)]
    else:
        return [(field, array)]
    return [leaf for name, part in parts for leaf in _flattened(pa.field(name, part.type), part)]
