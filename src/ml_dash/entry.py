"""Entries: timestamp rules, the journal body (msgpack), the line in `data.jsonl` (strict JSON), merging.

An entry travels in two encodings. `append` writes a *body*, msgpack, because it is the fastest exact snapshot.
The drain turns bodies into *lines*, which people and every tool can open. What is read always comes from a
line, or went through one, so that an entry reads the same from the journal and from the file.

    body   [id, timestamp, {field: value}]                     one entry
           [id, n, times, {field: [format, shape, bytes] | [values]}]   n entries from arrays (`columns.py`)
    line   {"timestamp": 1.0, "q": [0.1, 0.2]}

NaN and the infinities are the strings "NaN", "Infinity", "-Infinity" in a line (the proto3 JSON mapping), and a
text that spells one of them carries a JSON escape ("\\u004eaN"): strict JSON, and the reader tells them apart.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import operator
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import orjson

from .errors import InvalidEntry
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
        raise InvalidEntry(f"_ts{where} must be a number of seconds, got {type(value).__name__} {_short(value)}")
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


def missing_timestamp(topic: str) -> InvalidEntry:
    """The error for an append without `_ts`."""
    return InvalidEntry(
        f"append on topic {topic!r} needs _ts, the timestamp in seconds: .append(..., _ts=1.0); {NS_HINT}"
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
    converted = _from_array(value)
    if converted is value or type(converted) is type(value):
        raise TypeError(f"{type(value).__module__}.{type(value).__name__} cannot be recorded")
    return converted


def _from_array(value: Any) -> Any:
    if isinstance(value, type):
        return value  # its methods are there, but have nothing to work on
    kind = getattr(getattr(value, "dtype", None), "kind", None)
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
        return on_fresh_stack(Unpacker(bytes(body), _key).whole)


def decode_bodies(bodies: Sequence[bytes]) -> list[list[Any]]:
    """Several bodies at once, which saves a call for each."""
    try:
        found: list[list[Any]] = _body_decoder.decode(b"\xdd" + len(bodies).to_bytes(4, "big") + b"".join(bodies))
        return found
    except (RecursionError, msgspec.MsgspecError):
        return [decode_body(body) for body in bodies]


def refusal(topic: str, fields: Mapping[str, Any], error: BaseException) -> InvalidEntry:
    """The error that names topic, field and type for an entry the encoder refused with `error`."""
    if isinstance(error, InvalidEntry):
        return error
    field, cause = None, error
    for name, value in fields.items():
        try:
            encode_body({name: value})
        except Exception as found:
            field, cause = name, found
            break
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


def on_fresh_stack(function: Callable[..., T], *args: Any) -> T:
    """Run on a thread of its own with a deep stack: entries nested as deep as append took them need it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, function(*args)))
        except BaseException as error:
            outcome.extend((False, error))

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


# ---------------------------------------------------------------- line: what data.jsonl holds

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ESCAPED = {
    "NaN": msgspec.Raw(b'"\\u004eaN"'),
    "Infinity": msgspec.Raw(b'"\\u0049nfinity"'),
    "-Infinity": msgspec.Raw(b'"\\u002dInfinity"'),
}
# Inside a JSON string every quote follows a backslash, so a quote after one of these opens a string that is a value.
_TOKEN = re.compile(rb'(?<=[:,\[\s])"(NaN|-?Infinity)"(?=\s*[,\]}])')

_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_TIMESTAMP = operator.itemgetter("timestamp")
_BOM = b"\xef\xbb\xbf"
_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()


def to_line(timestamp: float, fields: Mapping[str, Any]) -> bytes:
    """One line of `data.jsonl`, with its newline: strict JSON (RFC 8259), the timestamp first."""
    try:
        line = orjson.dumps({"timestamp": timestamp, **fields}, option=_LINE)
    except (TypeError, orjson.JSONEncodeError):
        return _slow_line(timestamp, fields)
    return _slow_line(timestamp, fields) if _needs_care(line) else line


def to_lines(entries: Sequence[tuple[float, Mapping[str, Any]]]) -> bytes:
    """The lines of several entries, looked at together for what needs the careful way."""
    dumps, option = orjson.dumps, _LINE
    try:
        lines = b"".join([dumps({"timestamp": stamp, **fields}, option=option) for stamp, fields in entries])
    except (TypeError, orjson.JSONEncodeError):
        return b"".join([_slow_line(timestamp, fields) for timestamp, fields in entries])
    if _needs_care(lines):
        return b"".join([to_line(timestamp, fields) for timestamp, fields in entries])
    return lines


def _needs_care(lines: bytes) -> bool:
    """Whether a null (orjson writes NaN as one, without a word) or a text that spells a token may be in there.

    A search for one letter is many times faster than for a word, and field names rarely hold them all.
    """
    return (b"u" in lines and b"l" in lines and b"null" in lines) or _spells_a_token(lines)


def _spells_a_token(lines: bytes) -> bool:
    """Whether NaN or an infinity may be in there, as a token or as a text of that spelling."""
    return (b"N" in lines and b'NaN"' in lines) or (b"I" in lines and b'Infinity"' in lines)


def to_document(fields: Mapping[str, Any], name: str = "document") -> bytes:
    """Any mapping append would take as one JSON object, by the same rules as a line; else InvalidEntry."""
    try:
        decoded = decode_body(encode_body(fields))
    except Exception as error:
        raise refusal(name, fields, error) from error

    def encode() -> bytes:
        return msgspec.json.format(_json_encoder.encode(_plain(decoded)), indent=2) + b"\n"

    try:
        return encode()
    except RecursionError:
        return on_fresh_stack(encode)


def checked_document(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as a document will give it back; raises InvalidEntry, naming the document, where it cannot."""
    return from_document(to_document(fields, name)) or {}


def from_document(raw: bytes) -> dict[str, Any] | None:
    """The mapping that `to_document` wrote, or None where the bytes are no JSON object."""
    found = _tolerant(raw)
    return found if isinstance(found, dict) else None


def _slow_line(timestamp: float, fields: Mapping[str, Any]) -> bytes:
    def encode() -> bytes:
        return _json_encoder.encode({"timestamp": timestamp, **_plain(fields)}) + b"\n"

    try:
        return encode()
    except RecursionError:
        return on_fresh_stack(encode)


def _plain(value: Any) -> Any:
    """A decoded body's value as what JSON can say, with each conversion that the module promises."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else msgspec.Raw(f'"{_spelling(value)}"'.encode())
    if kind is str:
        return _ESCAPED.get(value, value)
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    if kind is dict:
        return {_key(key): _plain(item) for key, item in value.items()}
    if kind is bytes:
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, msgspec.msgpack.Ext):
        return {"code": value.code, "data": base64.b64encode(bytes(value.data)).decode()}
    return value


def _spelling(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _key(key: Any) -> str:
    """A mapping's key as text, as the `json` module does; keys it refuses become the text of their JSON."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    if isinstance(key, float):
        return repr(key) if math.isfinite(key) else _spelling(key)
    plain = _plain(key)
    return plain if isinstance(plain, str) else _json_encoder.encode(plain).decode()


def from_line(line: bytes) -> Entry | None:
    """The entry of one line, or None where the line is no entry (a person's edit, a torn tail)."""
    if line.startswith(_BOM):
        line = line[len(_BOM) :]
    try:
        if b'NaN"' in line or b'Infinity"' in line:
            entry = json.loads(_TOKEN.sub(rb"\1", line))
        else:
            entry = _json_decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec.DecodeError is a ValueError
        entry = _tolerant(line)
    return _checked(entry)


def _tolerant(line: bytes) -> Any:
    """Lines msgspec does not take: bare NaN (other writers), integers of any size, very deep nesting."""
    try:
        return json.loads(_TOKEN.sub(rb"\1", line))
    except RecursionError:
        return on_fresh_stack(json.loads, _TOKEN.sub(rb"\1", line))
    except ValueError:
        return None


def _checked(entry: Any) -> Entry | None:
    if not isinstance(entry, dict):
        return None
    timestamp = entry.get("timestamp")
    if type(timestamp) is float and math.isfinite(timestamp):
        return entry
    if type(timestamp) is int and abs(timestamp) < MAX_EXACT_INT:
        return {**entry, "timestamp": float(timestamp)}
    return None


def from_lines(block: bytes) -> list[Entry]:
    """The entries of a block of whole lines, in the file's order; lines that are no entry are left out."""
    if not _spells_a_token(block):
        try:
            entries: list[Entry] = _json_decoder.decode_lines(block)
            if not entries or set(map(type, map(_TIMESTAMP, entries))) == {float}:
                return entries
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
    found = (from_line(line) for line in block.split(b"\n") if line.strip())
    return [entry for entry in found if entry is not None]


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
