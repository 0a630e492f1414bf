"""A decoded body's value as what JSON can say: the documented conversions, the non-finite numbers, keys as text."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec

_ESCAPED = {
    "NaN": msgspec.Raw(b'"\\u004eaN"'),
    "Infinity": msgspec.Raw(b'"\\u0049nfinity"'),
    "-Infinity": msgspec.Raw(b'"\\u002dInfinity"'),
}

_NUMBERS = frozenset((float, bool))
"""Integers are no part of it: one of hundreds of digits has no float to ask about."""

_TOKENS = {name: msgspec.Raw(f'"{name}"'.encode()) for name in _ESCAPED}

_encoder = msgspec.json.Encoder()


def plain(value: Any) -> Any:
    """A decoded body's value as what JSON can say, with each conversion that the module promises."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else _TOKENS[_spelling(value)]
    if kind is str:
        return _ESCAPED.get(value, value)
    if kind is list or kind is tuple:
        return _plain_list(value)
    if kind is dict:
        return {key if type(key) is str else key_text(key): plain(item) for key, item in value.items()}
    if kind is bytes:
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, msgspec.msgpack.Ext):
        return {"code": value.code, "data": base64.b64encode(bytes(value.data)).decode()}
    return value


def _plain_list(values: Sequence[Any]) -> Sequence[Any]:
    """Most lists hold numbers only, and are looked at without a call for each."""
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        if all(map(math.isfinite, values)):
            return values
        return [value if math.isfinite(value) else _TOKENS[_spelling(value)] for value in values]
    return [plain(item) for item in values]


def _spelling(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def key_text(key: Any) -> str:
    """A mapping's key as text, as the `json` module does; keys it refuses become the text of their JSON."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    if isinstance(key, float):
        return repr(key) if math.isfinite(key) else _spelling(key)
    text = plain(key)
    return text if isinstance(text, str) else _encoder.encode(text).decode()
