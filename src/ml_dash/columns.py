"""Whole arrays as one journal body: what `extend` writes, and its entries again.

    body   [id, n, times, {field: [format, shape, bytes] or [values]}]

`times` is n little-endian float64. A numeric array travels as its bytes with the `struct` format of one element and the
shape of one entry's value; anything else as the list of its n values. Reading back needs no NumPy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Set
from typing import Any

import orjson

from .entry import MAX_ENTRY_BYTES, MAX_EXACT_INT, NS_HINT, check_timestamp, encode_body, refusal, too_large
from .errors import InvalidEntry

MAX_BODY_BYTES = 1 << 31
"""One call of `extend` is one journal record, which is what makes it atomic; its length is 32 bits."""

SLICE = 128
"""Entries that are expanded at a time, so that memory stays bounded whatever the array's length."""

MAX_DIMENSIONS = 31
"""Of one entry's value: what NumPy 1 takes, the axis of time excluded."""

_NUMERIC = {"b": "?", "i": "bhiq", "u": "BHIQ", "f": "fd"}
_ITEMSIZE = {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4, "d": 8}
_FORMATS = {(kind, _ITEMSIZE[code]): code for kind, codes in _NUMERIC.items() for code in codes}


def encode_columns(topic: str, track_id: int, times: Any, fields: Mapping[str, Any]) -> tuple[int, bytes]:
    """The number of entries and the body; raises InvalidEntry naming the field whose length or value does not fit."""
    stamps = _times(topic, times)
    n = len(stamps) // 8
    columns = {name: _column(topic, name, values, n) for name, values in fields.items()}
    try:
        body = encode_body((track_id, n, stamps, columns))
    except Exception as error:
        raise refusal(topic, fields, error) from error
    if len(body) > max(n, 1) * MAX_ENTRY_BYTES:
        raise too_large(topic, columns, len(body) // max(n, 1))
    if len(body) >= MAX_BODY_BYTES:
        raise InvalidEntry(f"extend on topic {topic!r}: {len(body)} bytes in one call, the limit is 2 GiB; split it")
    return n, body


def _times(topic: str, times: Any) -> bytes:
    array = _as_array(times)
    if array is None:
        return _times_from_list(topic, times)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise InvalidEntry(f"_ts on topic {topic!r} must be a 1-d array of numbers, got {array.dtype} {array.shape}")
    import numpy as np

    if array.dtype.kind in "iu" and array.size and max(-int(array.min()), int(array.max())) >= MAX_EXACT_INT:
        raise InvalidEntry(f"_ts on topic {topic!r} has integers that seconds as float64 cannot hold; {NS_HINT}")
    with np.errstate(over="ignore"):
        seconds = array.astype("<f8") + 0.0
    bad = np.flatnonzero(~np.isfinite(seconds))
    if bad.size:
        raise InvalidEntry(f"_ts[{bad[0]}] on topic {topic!r} must be finite, got {seconds[bad[0]]}")
    if array.dtype.itemsize > 8 and bool((seconds != array).any()):
        raise InvalidEntry(f"_ts on topic {topic!r} is an array of {array.dtype} that float64 cannot hold exactly")
    return seconds.tobytes()  # type: ignore[no-any-return]


def _times_from_list(topic: str, times: Any) -> bytes:
    if isinstance(times, (str, bytes, Mapping, Set)) or not hasattr(times, "__iter__"):
        raise InvalidEntry(f"extend on topic {topic!r} needs _ts as an array of seconds, got {type(times).__name__}")
    import struct

    seconds = [_time(topic, place, one) for place, one in enumerate(times)]
    return struct.pack(f"<{len(seconds)}d", *seconds)


def _time(topic: str, place: int, value: Any) -> float:
    try:
        return check_timestamp(value, topic)
    except InvalidEntry as error:
        raise InvalidEntry(f"_ts[{place}]{str(error).removeprefix('_ts')}") from None


def _as_array(values: Any) -> Any:
    """The NumPy array behind an array-like (tensors included), or None where the value is none."""
    if not hasattr(values, "__array__") or not hasattr(values, "shape"):
        return None
    import numpy as np

    if isinstance(values, np.ma.MaskedArray):
        return None  # its list has None where a value is masked, as in `append`
    try:
        return np.asarray(values)
    except (RuntimeError, TypeError):
        return None  # a tensor on a GPU, with a gradient or of a type NumPy lacks; its list is fine, as in `append`


def _column(topic: str, name: str, values: Any, n: int) -> list[Any]:
    array = _as_array(values)
    where = f"field {name!r} on topic {topic!r}"
    if array is not None and array.ndim == 0:
        raise InvalidEntry(f"{where}: extend needs one value for each of the {n} timestamps, got a single one")
    if array is None and (isinstance(values, (str, bytes, Mapping, Set)) or not hasattr(values, "__len__")):
        raise InvalidEntry(f"{where}: extend needs an array or list of {n} values, got {type(values).__name__}")
    length = len(values) if array is None else array.shape[0]
    if length != n:
        raise InvalidEntry(f"{where} has {length} values for {n} timestamps; the first axis of an array is time")
    return _packed(array) if array is not None else [_as_list(topic, name, values)]


def _as_list(topic: str, name: str, values: Any) -> list[Any]:
    try:
        return values.tolist() if hasattr(values, "tolist") else list(values)
    except Exception as error:
        raise refusal(topic, {name: values}, error) from error


def _packed(array: Any) -> list[Any]:
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype("<f8")
    code = _FORMATS.get((array.dtype.kind, array.dtype.itemsize))
    if code is None or 0 in array.shape:
        if array.dtype.names:
            return [list(array)]  # a structured one keeps its names where each element is converted (`entry.convert`)
        return [array.astype(str).tolist() if array.dtype.kind in "Mm" else array.tolist()]
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return [code, list(array.shape[1:]), little.tobytes()]


def is_columns(body: list[Any]) -> bool:
    """Whether a decoded body holds whole columns rather than one entry."""
    return len(body) == 4


def expand(
    body: list[Any], start: float | None = None, end: float | None = None
) -> Iterator[list[tuple[float, dict[str, Any]]]]:
    """The entries of a decoded column body within [start, end], in the given order, at most SLICE at a time."""
    _, n, stamps, columns = body
    names = list(columns)
    for first in range(0, n, SLICE):
        last = min(first + SLICE, n)
        times = _unpack("d", [], stamps, first, last)
        values = [_values(columns[name], first, last) for name in names]
        rows = zip(times, zip(*values, strict=True) if names else [()] * len(times), strict=True)
        if start is None and end is None:
            yield [(stamp, dict(zip(names, row, strict=True))) for stamp, row in rows]
        else:
            yield [
                (stamp, dict(zip(names, row, strict=True)))
                for stamp, row in rows
                if (start is None or stamp >= start) and (end is None or stamp <= end)
            ]


def times_of(body: list[Any]) -> list[float]:
    """The timestamps of a decoded column body, as they were given."""
    return list(_unpack("d", [], body[2], 0, body[1]))


def in_order(body: list[Any], times: list[float]) -> list[Any]:
    """The body with its entries ascending; those of one timestamp stay as they are."""
    track, n, stamps, columns = body
    order = sorted(range(n), key=times.__getitem__)
    return [track, n, _taken(stamps, order), {name: _reordered(column, order) for name, column in columns.items()}]


def _reordered(column: list[Any], order: list[int]) -> list[Any]:
    if len(column) == 1:
        return [[column[0][place] for place in order]]
    code, shape, raw = column
    return [code, shape, _taken(raw, order)]


def _taken(raw: bytes, order: list[int]) -> bytes:
    """Items of one size in another order."""
    size = len(raw) // len(order)
    return b"".join([raw[place * size : (place + 1) * size] for place in order])


def ascending_texts(body: list[Any]) -> Iterator[tuple[bytes, float, float, int]] | None:
    """The lines of a decoded column body as text straight from its arrays, with first and last timestamp and count.

    None where that is not exact: values that are no finite numbers, timestamps that do not ascend, NumPy missing.
    """
    _, n, stamps, columns = body
    if not columns or any(len(column) == 1 for column in columns.values()) or sys.byteorder == "big":
        return None
    try:
        import numpy as np
    except ImportError:
        return None
    times = np.frombuffer(stamps)
    arrays = {name: _frombuffer(np, column, n) for name, column in columns.items()}
    sound = all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
    return _texts(times, arrays) if sound and bool((np.diff(times) > 0).all()) else None


def _frombuffer(np: Any, column: list[Any], n: int) -> Any:
    code, shape, raw = column
    array = np.frombuffer(raw, dtype=np.dtype(code)).reshape([n, *shape])
    return array.astype("<f8") if code == "f" else array  # a float32 is written as the float64 it is, as append does


def _texts(times: Any, arrays: Mapping[str, Any]) -> Iterator[tuple[bytes, float, float, int]]:
    names = b"".join(
        b","
        + orjson.dumps(name).replace(b"%", b"%%")
        + b":"
        + b"[" * (array.ndim - 1)
        + b"%b"
        + b"]" * (array.ndim - 1)
        for name, array in arrays.items()
    )
    line = b'{"timestamp":%b' + names + b"}\n"
    for first in range(0, len(times), SLICE):
        part = times[first : first + SLICE]
        columns = [_row_texts(array[first : first + SLICE]) for array in arrays.values()]
        rows = zip(_row_texts(part), *columns, strict=True)
        yield b"".join(map(line.__mod__, rows)), float(part[0]), float(part[-1]), len(part)


def _row_texts(array: Any) -> list[bytes]:
    """The JSON of each row without its outer brackets."""
    depth = array.ndim
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[depth:-depth].split(b"]" * (depth - 1) + b"," + b"[" * (depth - 1))


def _values(column: list[Any], first: int, last: int) -> list[Any]:
    if len(column) == 1:
        return column[0][first:last]  # type: ignore[no-any-return]
    code, shape, raw = column
    return _unpack(code, shape, raw, first, last)


def _unpack(code: str, shape: list[int], raw: bytes, first: int, last: int) -> list[Any]:
    """Rows first..last of packed little-endian values as (nested) lists."""
    size = _ITEMSIZE[code] * math.prod(shape)
    part = memoryview(raw)[first * size : last * size]
    if sys.byteorder == "big" and _ITEMSIZE[code] > 1:
        import array

        swapped = array.array(code, bytes(part))
        swapped.byteswap()
        part = memoryview(swapped).cast("B")
    return part.cast(code, [last - first, *shape]).tolist() if last > first else []  # type: ignore[call-overload]


def cut_out(body: list[Any], first: int, last: int) -> bytes:
    """The body of entries first..last of a decoded column body: what a store takes when the whole is too large."""
    track_id, _, stamps, columns = body
    parts: dict[str, list[Any]] = {}
    for name, column in columns.items():
        if len(column) == 1:
            parts[name] = [column[0][first:last]]
            continue
        code, shape, raw = column
        size = _ITEMSIZE[code] * math.prod(shape)
        parts[name] = [code, shape, memoryview(raw)[first * size : last * size]]
    return encode_body((track_id, last - first, memoryview(stamps)[8 * first : 8 * last], parts))


def is_column(column: Any, n: int) -> bool:
    """Whether one decoded column of a body from elsewhere is what `expand` can read as n values."""
    if type(column) is not list or len(column) not in (1, 3):
        return False
    if len(column) == 1:
        return type(column[0]) is list and len(column[0]) == n
    code, shape, raw = column
    if type(code) is not str or code not in _ITEMSIZE or type(raw) is not bytes or type(shape) is not list:
        return False
    if len(shape) > MAX_DIMENSIONS or not all(type(side) is int and 0 < side < 1 << 32 for side in shape):
        return False
    return len(raw) == n * _ITEMSIZE[code] * math.prod(shape)
