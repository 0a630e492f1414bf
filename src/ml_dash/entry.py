"""Entries: timestamp rules, the journal body (msgpack), merging and selecting.

An entry travels in two encodings. `append` writes a *body*, msgpack, because it is the fastest exact snapshot.
The drain turns bodies into *lines* (`line.py`), which people and every tool can open.

    body   [id, timestamp, {field: value}]                     one entry
           [id, n, times, {field: [format, shape, bytes] | [values]}]   n entries from arrays (`columns.py`)
"""

from __future__ import annotations

import datetime
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from .errors import InvalidEntry
from .plain import key_text
from .store import Entry
from .unpack import Unpacker

T = TypeVar("T")

MAX_ENTRY_BYTES = 8 << 20
"""Largest encoded entry; beyond it a file or blob store is the right place."""

MAX_EXACT_INT = 1 << 53
"""Integers below it are exact as float64; above lie nanoseconds, which float64 would silently join."""

NS_HINT = "for integer nanoseconds (ROS, time.time_ns) use ml_dash.from_nanoseconds(ns)"


# ---------------------------------------------------------------- timestamps


def check_timestamp(value: Any, topic: str = "") -> float:
    """The timestamp as finite float64 seconds; raises InvalidEntry (a ValueError) for anything else.

    Accepted: float, int below 2^53 in magnitude, NumPy scalars and 0-d arrays of numbers. `-0.0` is `0.0`.
    """
    where = f" on topic {topic!r}" if topic else ""
    number = _plain_number(value)
    if number is None:
        hint = "; use its .timestamp()" if hasattr(value, "timestamp") else ""
        raise InvalidEntry(f"_ts{where} must be a number of seconds, got {type(value).__name__} {_short(value)}{hint}")
    if isinstance(number, int) and abs(number) >= MAX_EXACT_INT:
        shown = _short(number)
        raise InvalidEntry(f"_ts{where} is the integer {shown}, which seconds as float64 cannot hold; {NS_HINT}")
    seconds = float(number)
    if not math.isfinite(seconds):
        raise InvalidEntry(f"_ts{where} must be finite, got {seconds}")
    return seconds + 0.0


def _plain_number(value: Any) -> int | float | None:
    """The Python number behind a number, NumPy scalar or 0-d array; None for bool, text and all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return None
    if getattr(getattr(value, "dtype", None), "kind", "f") not in "iuf":
        return None  # a span of time in nanoseconds gives an int, too
    item = value.item()
    if type(item) in (int, float):
        return item  # type: ignore[no-any-return]
    if type(item).__name__ == "longdouble" and float(item) == item:
        return float(item)
    return None


def missing_timestamp(topic: str, call: str = "append", example: str = "1.0") -> InvalidEntry:
    """The error for an append or extend without `_ts`."""
    return InvalidEntry(
        f"{call} on topic {topic!r} needs _ts, the timestamp in seconds: .{call}(..., _ts={example}); {NS_HINT}"
    )


def from_nanoseconds(ns: Any) -> Any:
    """Timestamps in seconds from integer nanoseconds (ROS stamps, `time.time_ns()`).

    Args:
        ns: an int, or an array or sequence of ints.

    Returns:
        A float, or for an array a float64 NumPy array of the same shape, or for a list or tuple a list; each the
        float64 nearest to the instant, however it was passed (a step of float64 is 238 ns for times since 1970).

    Raises:
        InvalidEntry: a value is not an integer.
    """
    if isinstance(ns, (list, tuple)):
        return [from_nanoseconds(one) for one in ns]
    if getattr(ns, "shape", ()) != ():
        return _array_from_nanoseconds(ns)
    number = _plain_number(ns)
    if not isinstance(number, int):
        raise InvalidEntry(f"from_nanoseconds needs an integer, got {type(ns).__name__} {_short(ns)}")
    return number / 1_000_000_000


def _array_from_nanoseconds(ns: Any) -> Any:
    import numpy as np

    array = np.asarray(ns)
    if array.dtype.kind not in "iu":
        raise InvalidEntry(f"from_nanoseconds needs integers, got an array of {array.dtype}")
    if array.size and max(-int(array.min()), int(array.max())) >= MAX_EXACT_INT:
        # One by one: a quotient of floats would round twice, and an instant would not meet itself.
        return np.array([one / 1_000_000_000 for one in array.ravel().tolist()]).reshape(array.shape)
    return array / 1e9


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # an integer of thousands of digits, or an object whose repr fails
        return "(too long to show)" if isinstance(value, int) else "(no repr)"
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------- body: what append writes


def convert(value: Any) -> Any:
    """What the encoder does not know by itself, as something it does; raises TypeError for the rest."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    converted = _from_array(value)
    if converted is value or type(converted) is type(value):
        raise TypeError(f"{type(value).__module__}.{type(value).__name__} has no form in JSON")
    return converted


def _from_array(value: Any) -> Any:
    if isinstance(value, type):
        return value  # its methods are there, but have nothing to work on
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    names = getattr(value.dtype, "names", None) if kind == "V" else None
    if names:  # a structured array; `tolist` would drop the names
        return {name: value[name] for name in names}
    if kind in ("M", "m"):
        return value.astype(str).tolist()
    if type(value).__name__ in ("longdouble", "float128", "float96"):
        return float(value)
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return tolist()
    if hasattr(value, "__array__"):
        import numpy as np

        array = np.asarray(value)
        return value if array.dtype.kind == "O" and array.shape == () else array.tolist()
    return value


_encoder = msgspec.msgpack.Encoder(enc_hook=convert)
encode_body: Callable[[Any], bytes] = _encoder.encode
"""Encode a body; the encoder's own errors are explained by `refusal`."""

_body_decoder = msgspec.msgpack.Decoder()


def decode_body(body: Any) -> list[Any]:
    """The body as a list (see the module's head for its two shapes); raises ValueError where it is none."""
    try:
        return _body_decoder.decode(body)  # type: ignore[no-any-return]
    except RecursionError:
        return on_fresh_stack(_body_decoder.decode, body)
    except msgspec.MsgspecError:
        return on_fresh_stack(Unpacker(bytes(body), key_text).whole)


def decode_bodies(bodies: Sequence[bytes]) -> list[list[Any]]:
    """Several bodies at once, which saves a call for each."""
    try:
        found: list[list[Any]] = _body_decoder.decode(b"\xdd" + len(bodies).to_bytes(4, "big") + b"".join(bodies))
        return found
    except (RecursionError, msgspec.MsgspecError):
        return [decode_body(body) for body in bodies]


_UINT_WIDTH = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def head_bytes(body: bytes) -> int:
    """How many bytes of a body come before its second element: the array's mark and the track's number."""
    return 2 + _UINT_WIDTH.get(body[1], 0)


def track_number(body: bytes) -> int:
    """The track number of a body without decoding it."""
    return uint_at(body, 1)


def uint_at(body: bytes, at: int) -> int:
    """The integer of at least 0 that stands somewhere in a body."""
    width = _UINT_WIDTH.get(body[at], 0)
    return int.from_bytes(body[at + 1 : at + 1 + width], "big") if width else body[at]


def refusal(topic: str, fields: Mapping[str, Any], error: BaseException) -> InvalidEntry:
    """The error that names topic, field and type for an entry the encoder refused with `error`.

    One that is none of the encoder's, and that no field raises again, came from a signal handler (a timeout): it is
    raised as it is.
    """
    if isinstance(error, InvalidEntry):
        return error
    field, cause = None, error
    for name, value in fields.items():
        try:
            encode_body({name: value})
        except Exception as found:
            field, cause = name, found
            break
    if field is None and not isinstance(error, (TypeError, ValueError, OverflowError, RecursionError, MemoryError)):
        raise error
    if field is None:
        return InvalidEntry(f"entry on topic {topic!r} cannot be recorded: {_reason(cause)}")
    what = type(fields[field]).__name__
    return InvalidEntry(f"field {field!r} on topic {topic!r} ({what}) cannot be recorded: {_reason(cause)}")


def taken(topic: str, field: str) -> InvalidEntry:
    """The error for a field name that the store itself uses."""
    return InvalidEntry(f"field {field!r} on topic {topic!r} is taken: {_TAKEN[field]}; rename the field")


_TAKEN = {
    "timestamp": "every entry has its time under this name",
    "index": "every entry of a sequence has its place under this name",
    "message": "a log line has its text under this name",
}


def too_large(topic: str, fields: Mapping[str, Any], size: int) -> InvalidEntry:
    """The error for an entry of `size` bytes, naming the field that is most of it."""
    sizes = {name: len(encode_body(value)) for name, value in fields.items()}
    field = max(sizes, key=lambda name: sizes[name], default="")
    return InvalidEntry(
        f"entry on topic {topic!r} is {size} bytes encoded, {sizes.get(field, 0)} of them in field {field!r}; "
        f"the limit is {MAX_ENTRY_BYTES} (8 MiB): keep large data in a file and record its name"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or contains itself"
    if isinstance(error, OverflowError):
        is_date = "date" in str(error)
        return f"{error}" if is_date else "an integer beyond 64 bits; store it as text or float"
    if isinstance(error, UnicodeEncodeError):
        return "text with a lone surrogate, which UTF-8 cannot hold"
    if isinstance(error, TypeError):
        return f"{error}; convert it to numbers, text, lists or dicts first"
    return f"{type(error).__name__}: {error}"


_process_limits = threading.RLock()
"""Both limits are the process's: two at once would put back each other's."""


def on_fresh_stack(function: Callable[..., T], *args: Any) -> T:
    """Run on a thread of its own with a deep stack: entries nested as deep as append took them need it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, function(*args)))
        except BaseException as error:
            outcome.extend((False, error))

    with _process_limits:
        limit, size = sys.getrecursionlimit(), threading.stack_size(256 << 20)
        try:
            sys.setrecursionlimit(max(limit * 4, 20_000))
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        finally:
            sys.setrecursionlimit(limit)
            threading.stack_size(size)
    if not outcome[0]:
        raise outcome[1]
    return outcome[1]  # type: ignore[no-any-return]


# ---------------------------------------------------------------- merging and selecting


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Ascending entries, one per timestamp; for each field the later one in the given order wins."""
    merged: dict[float, Entry] = {}
    for entry in entries:
        timestamp = entry["timestamp"]
        known = merged.get(timestamp)
        if known is None:
            merged[timestamp] = entry
        else:
            merged[timestamp] = {**known, **entry}
    return [merged[timestamp] for timestamp in sorted(merged)]


def select(
    entries: Sequence[Entry], columns: Sequence[str] | None, fixed: Sequence[str] = ("timestamp",)
) -> list[Entry]:
    """The entries reduced to the columns; entries that have none of them are left out.

    A column is a field, or `"pose.x"`, a part of one (the result keeps its nesting). A field whose name itself
    contains dots is found by its whole name first. `"timestamp"` selects every instant. The `fixed` names are kept.
    """
    if columns is None:
        return list(entries)
    every = "timestamp" in columns
    wanted = [column for column in columns if column not in fixed]
    chosen = (_project(entry, wanted, fixed) for entry in entries)
    return [entry for entry in chosen if every or len(entry) > len(fixed)]


def _project(entry: Entry, columns: Sequence[str], fixed: Sequence[str]) -> Entry:
    found: Entry = {name: entry[name] for name in fixed}
    for column in columns:
        if column in entry:
            found[column] = entry[column]
        elif "." in column:
            _copy_part(entry, found, column.split("."))
    return found


def _copy_part(source: Mapping[str, Any], target: dict[str, Any], path: list[str]) -> None:
    value: Any = source
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return
        value = value[name]
    for depth, name in enumerate(path[:-1]):
        inner = target.get(name)
        if inner is not None and inner is _at(source, path[: depth + 1]):
            return  # the whole of it is selected already
        target = target.setdefault(name, {})
    target[path[-1]] = value


def _at(source: Mapping[str, Any], path: list[str]) -> Any:
    value: Any = source
    for name in path:
        value = value[name]
    return value
