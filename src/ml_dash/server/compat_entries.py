"""What the existing client sends and expects, as our entries and parameters, and the other way round."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..errors import InvalidEntry
from ..params import merged

Body = dict[str, Any]
_LEVELS = {"warn": "warning", "fatal": "critical"}


# ---------------------------------------------------------------- parameters: flat there, nested here


def nested(flat: Mapping[str, Any]) -> Body:
    """`{"model.lr": 0.1}` as `{"model": {"lr": 0.1}}`."""
    found: Body = {}
    for name, value in flat.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        found = merged(found, value)
    return found


def flat(document: Mapping[str, Any], above: str = "") -> Body:
    """The other way round."""
    found: Body = {}
    for name, value in document.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found


# ---------------------------------------------------------------- their entries as ours


def timed(entry: Any) -> tuple[float, Body]:
    """An entry of a track; raises InvalidEntry."""
    if not isinstance(entry, dict) or isinstance(entry.get("timestamp"), bool):
        raise InvalidEntry("an entry is an object with a timestamp in seconds")
    fields = dict(entry)
    stamp = fields.pop("timestamp", None)
    if not isinstance(stamp, (int, float)) or (isinstance(stamp, int) and abs(stamp) >= 1 << 53):
        raise InvalidEntry(f"an entry needs a timestamp in seconds, got {stamp!r:.40}")
    return float(stamp) + 0.0, fields


def free_of_names(value: Any) -> Body:
    """The fields of a metric; names that are ours get an underscore."""
    if not isinstance(value, dict):
        raise InvalidEntry("a data point is an object")
    return {f"{name}_" if name in ("timestamp", "index") else name: one for name, one in value.items()}


def logged(entry: Any) -> tuple[float, Body]:
    """A line of the log; raises InvalidEntry."""
    if not isinstance(entry, dict):
        raise InvalidEntry("a log entry is an object")
    try:
        stamp = datetime.fromisoformat(str(entry.get("timestamp")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        stamp = time.time()
    level = str(entry.get("level", "info"))
    fields: Body = {"level": _LEVELS.get(level, level), "message": str(entry.get("message", ""))}
    metadata = entry.get("metadata")
    return stamp, {**fields, "metadata": metadata} if metadata else fields
