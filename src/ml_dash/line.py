"""Lines of `data.jsonl` and the small documents beside them: strict JSON (RFC 8259), written and read.

    line   {"timestamp": 1.0, "q": [0.1, 0.2]}

NaN and the infinities are the strings "NaN", "Infinity", "-Infinity" in a line (the proto3 JSON mapping), and a
text that spells one of them carries a JSON escape ("\\u004eaN"): strict JSON, and the reader tells them apart.
What is read always comes from a line, or went through one, so that an entry reads the same from the journal and
from the file.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from .entry import MAX_EXACT_INT, decode_body, encode_body, on_fresh_stack, refusal
from .plain import plain
from .store import Entry

# Inside a JSON string every quote follows a backslash, so a quote after one of these opens a string that is a value.
_TOKEN = re.compile(rb'(?<=[:,\[\s])"(NaN|-?Infinity)"(?=\s*[,\]}])')

_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]")
"""NaN and the infinities in msgpack; where other bytes look like them, the careful way is taken for nothing."""

_VALUES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_PLAIN_LISTS = frozenset((float, int, bool, type(None)))

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


def to_lines(entries: Sequence[tuple[float, Mapping[str, Any]]], bodies: Sequence[bytes] | None = None) -> bytes:
    """The lines of several entries, looked at together for what needs the careful way.

    Args:
        bodies: what the entries were decoded from, where that is at hand: it tells a null that is None from one that
            stands for NaN, which saves optional fields the careful way.
    """
    dumps, option = orjson.dumps, _LINE
    try:
        lines = b"".join([dumps({"timestamp": stamp, **fields}, option=option) for stamp, fields in entries])
    except (TypeError, orjson.JSONEncodeError):
        return b"".join([_slow_line(timestamp, fields) for timestamp, fields in entries])
    if not _needs_care(lines):
        return lines
    if bodies is None:
        return b"".join([to_line(timestamp, fields) for timestamp, fields in entries])
    if not _spells_a_token(lines) and not any(map(_NOT_FINITE.search, bodies)):
        return lines
    return b"".join([_line_of(*entry, body) for entry, body in zip(entries, bodies, strict=True)])


def _line_of(timestamp: float, fields: Mapping[str, Any], body: bytes) -> bytes:
    line = orjson.dumps({"timestamp": timestamp, **fields}, option=_LINE)
    sound = not _spells_a_token(line) and (b"null" not in line or not _NOT_FINITE.search(body))
    return line if sound else _slow_line(timestamp, fields)


def _needs_care(lines: bytes) -> bool:
    """Whether a null (orjson writes NaN as one, without a word) or a text that spells a token may be in there.

    A search for one letter is many times faster than for a word, and field names rarely hold them all.
    """
    return (b"u" in lines and b"l" in lines and b"null" in lines) or _spells_a_token(lines)


def _spells_a_token(lines: bytes) -> bool:
    """Whether NaN or an infinity may be in there, as a token or as a text of that spelling."""
    return (b"N" in lines and b'NaN"' in lines) or (b"I" in lines and b'Infinity"' in lines)


def _slow_line(timestamp: float, fields: Mapping[str, Any]) -> bytes:
    def encode() -> bytes:
        return _json_encoder.encode({"timestamp": timestamp, **plain(fields)}) + b"\n"

    try:
        return encode()
    except RecursionError:
        return on_fresh_stack(encode)


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
    with_tokens = _spells_a_token(block)
    if not with_tokens or b"\\u" not in block:  # without an escape, a string that reads like a token is one
        try:
            entries: list[Entry] = _json_decoder.decode_lines(block)
            if not entries or set(map(type, map(_TIMESTAMP, entries))) == {float}:
                return [_valued(entry) for entry in entries] if with_tokens else entries
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
    found = (from_line(line) for line in block.split(b"\n") if line.strip())
    return [entry for entry in found if entry is not None]


def _valued(value: Any) -> Any:
    """Decoded JSON with its tokens as the floats they stand for; most lists hold plain floats and stay as they are."""
    kind = type(value)
    if kind is str:
        return _VALUES.get(value, value)
    if kind is dict:
        return {name: part if type(part) is float else _valued(part) for name, part in value.items()}
    if kind is list and not _PLAIN_LISTS.issuperset(map(type, value)):
        return [part if type(part) is float else _valued(part) for part in value]
    return value


def _tolerant(line: bytes) -> Any:
    """Lines msgspec does not take: bare NaN (other writers), integers of any size, very deep nesting."""
    try:
        return json.loads(_TOKEN.sub(rb"\1", line))
    except RecursionError:
        return on_fresh_stack(json.loads, _TOKEN.sub(rb"\1", line))
    except ValueError:
        return None


# ---------------------------------------------------------------- documents


def to_document(fields: Mapping[str, Any], name: str = "document") -> bytes:
    """Any mapping append would take as one JSON object, by the same rules as a line; else InvalidEntry."""
    try:
        decoded = decode_body(encode_body(fields))
    except Exception as error:
        raise refusal(name, fields, error) from error

    def encode() -> bytes:
        return msgspec.json.format(_json_encoder.encode(plain(decoded)), indent=2) + b"\n"

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
