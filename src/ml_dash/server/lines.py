"""Lines of JSON that people send, as bodies. A file is read tolerantly, whoever wrote it is gone; a sender is told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from ..entry import encode_body, on_fresh_stack, refusal
from ..errors import InvalidEntry
from ..line import from_line

_ENDS_AS_INFINITY = b"\xf0" + bytes(6)
"""How an infinity ends in msgpack, as do 1.0 and a few more; to find that it is not there takes next to no time."""
_INFINITY = re.compile(rb"\xcb[\x7f\xff]\xf0\x00{6}")
"""An infinity in msgpack; a text may hold the same bytes."""
_SAID = re.compile(rb'(?<=[:,\[\s])"-?Infinity"(?=\s*[,\]}])')
"""An infinity as the format spells it, where a value stands (`line.py`)."""
_NESTED = (dict, list)
_BEYOND = object()


def body_of(line: bytes, topic: str) -> bytes:
    """The body of a line's entry, on track 1 of its batch.

    Raises:
        InvalidEntry: naming the field, where it is one.
    """
    try:
        entry = from_line(line)
        if entry is None:
            raise ValueError
        if not _has_its_colons(line, entry):
            _parsed(line)
        timestamp = entry.pop("timestamp")
        body = encoded(topic, timestamp, entry)
        if _ENDS_AS_INFINITY in body and (found := _INFINITY.findall(body)) and len(found) != len(_SAID.findall(line)):
            check_json(line)
    except RecursionError:
        raise InvalidEntry("nested too deeply") from None
    except InvalidEntry:
        raise
    except ValueError:
        raise InvalidEntry("a line must be a JSON object with a timestamp in seconds") from None
    return body


def _has_its_colons(line: bytes, entry: dict[str, Any]) -> bool:
    """Whether a line has no more colons than its entry accounts for: then no name can be there twice."""
    colons = line.count(b":")
    try:
        return colons == len(entry) or colons == _names(entry) or (b"\\" not in line and colons == _colons(entry))
    except RecursionError:
        return False


def _names(entry: dict[str, Any]) -> int:
    """How many names an entry has, its maps' in each other too; those in lists are not looked for."""
    found = len(entry)
    for part in entry.values():
        if type(part) is dict:
            found += _names(part)
    return found


def _colons(value: Any) -> int:
    """How many colons a value's JSON has at least; just as many where it has no escapes.

    Of long lists of numbers one is looked at.
    """
    if type(value) is dict:
        within = [text.count(":") for text in (*value, *value.values()) if type(text) is str]
        return len(value) + sum(within) + sum([_colons(part) for part in value.values() if type(part) in _NESTED])
    return sum([_colons(part) for part in value if type(part) in _NESTED]) if value and type(value[0]) in _NESTED else 0


def encoded(topic: str, timestamp: float, fields: dict[str, Any]) -> bytes:
    """The body of an entry; raises InvalidEntry naming the field."""
    try:
        return encode_body((1, timestamp, fields))
    except Exception as error:
        raise refusal(topic, fields, error) from None


def check_json(text: bytes) -> None:
    """Nothing in a JSON object would become something else: no name twice, no number that reads as infinity.

    Raises:
        InvalidEntry: naming the field. ValueError: no JSON. RecursionError: nested too deeply.
    """
    found = _parsed(text, _number)
    for name, value in found.items() if isinstance(found, dict) else ():
        if _holds_beyond(value):
            raise InvalidEntry(f'field {name!r:.60} has a number beyond float64; an infinity is the text "Infinity"')


def _parsed(text: bytes, number: Callable[[str], Any] | None = None) -> Any:
    """JSON in which no name is there twice; a function for the numbers makes it slow."""

    def parse() -> Any:
        return json.loads(text, parse_float=number, object_pairs_hook=_object)

    try:
        return parse()
    except RecursionError:
        return on_fresh_stack(parse)


def _number(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _BEYOND


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidEntry(f"field {next(name for name in found if names.count(name) > 1)!r:.60} is there twice")
    return found


def _holds_beyond(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is _BEYOND:
            return True
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return False
