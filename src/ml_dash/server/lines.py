"""Lines of JSON that people send, as bodies. A file is read tolerantly, whoever wrote it is gone; a sender is told."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ..entry import encode_body, on_fresh_stack, refusal
from ..errors import InvalidEntry
from ..line import from_line

_MAYBE_BEYOND = re.compile(rb"[eE]\+?0*[1-9]\d\d|\d{200}")
"""What a number has that is beyond float64; few that have it are."""
_BEYOND = object()


def body_of(line: bytes, topic: str) -> bytes:
    """The body of a line's entry, on track 1 of its batch.

    Raises:
        InvalidEntry: naming the field, where it is one.
    """
    try:
        entry = from_line(line)
        if entry is not None and (line.count(b":") != len(entry) or _MAYBE_BEYOND.search(line)):
            check_json(line)  # with as many colons as fields no name can be there twice
    except RecursionError:
        raise InvalidEntry("nested too deeply") from None
    except InvalidEntry:
        raise
    except ValueError:
        entry = None
    if entry is None:
        raise InvalidEntry("a line must be a JSON object with a timestamp in seconds")
    timestamp = entry.pop("timestamp")
    return encoded(topic, timestamp, entry)


def encoded(topic: str, timestamp: float, fields: dict[str, Any]) -> bytes:
    """The body of an entry; raises InvalidEntry naming the field."""
    try:
        return encode_body((1, timestamp, fields))
    except Exception as error:
        raise refusal(topic, fields, error) from None


def may_be_beyond(text: bytes) -> bool:
    """Whether JSON is worth a look for numbers beyond float64."""
    return _MAYBE_BEYOND.search(text) is not None


def check_json(text: bytes) -> None:
    """Nothing in a JSON object would become something else: no name twice, no number that reads as infinity.

    Raises:
        InvalidEntry: naming the field. ValueError: no JSON. RecursionError: nested too deeply.
    """
    try:
        found = _parsed(text)
    except RecursionError:
        found = on_fresh_stack(_parsed, text)
    for name, value in found.items() if isinstance(found, dict) else ():
        if _holds_beyond(value):
            raise InvalidEntry(f'field {name!r:.60} has a number beyond float64; an infinity is the text "Infinity"')


def _parsed(text: bytes) -> Any:
    return json.loads(text, parse_float=_number, object_pairs_hook=_object)


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
