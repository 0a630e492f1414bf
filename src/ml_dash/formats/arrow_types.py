"""What Arrow and our columns share: type mapping, marks in a field's metadata, JSON texts (rules: `arrow.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from ..line import from_line, to_line
from .kinds import BOOL, FLOAT, NULL, TEXT, AnyKind, Integers, Lists, Structs

if TYPE_CHECKING:
    import pyarrow as pa

ENCODING, NULLS, NULL_OF = b"ml_dash.encoding", b"ml_dash.null", b"ml_dash.null_of"
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


def kind_of_array(array: pa.Array) -> AnyKind:
    """The kind whose type an array has, as narrow as its values allow: the way back from `arrow_type`."""
    pa = import_pyarrow()
    kind = array.type
    if pa.types.is_integer(kind):
        return _range_of(array)
    if pa.types.is_fixed_size_list(kind):
        return Lists(kind_of_array(array.flatten()), kind.list_size)
    if pa.types.is_list(kind):
        return Lists(kind_of_array(array.flatten()), None)
    if pa.types.is_struct(kind):
        return Structs(tuple((field.name, kind_of_array(array.field(field.name))) for field in kind))
    return {pa.null(): NULL, pa.bool_(): BOOL, pa.float64(): FLOAT, pa.string(): TEXT}[kind]


def _range_of(array: pa.Array) -> AnyKind:
    import pyarrow.compute as pc

    bounds = pc.min_max(array).as_py()
    return NULL if bounds["min"] is None else Integers(bounds["min"], bounds["max"])


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A chunked column as one array, without a copy where it is one chunk already."""
    pa = import_pyarrow()
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


# ---------------------------------------------------------------- marks in the metadata


def is_json(field: pa.Field) -> bool:
    """Whether a column holds JSON texts."""
    return (field.metadata or {}).get(ENCODING) == b"json"


def nulls_are_recorded(field: pa.Field) -> bool:
    """Whether every null of a column was recorded as null."""
    return (field.metadata or {}).get(NULLS) == b"null"


def null_of(field: pa.Field) -> str | None:
    """The field whose recorded nulls this column marks, or None for an ordinary column."""
    name = (field.metadata or {}).get(NULL_OF)
    return None if name is None else name.decode()


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


def texts(values: Iterable[Any]) -> Any:
    """Values as an array of JSON texts, null where they are ABSENT."""
    pa = import_pyarrow()
    return pa.array([None if value is ABSENT else to_text(value) for value in values], pa.string())
