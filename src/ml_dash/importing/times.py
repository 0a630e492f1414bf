"""The timestamp of a file: which column it is, in which unit, and its values in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, SupportsFloat

from ..entry import MAX_EXACT_INT
from ..errors import InvalidFile
from ..names import offer
from .model import ABSENT, UNITS, Frame

_NAMES = (
    "timestamp", "_ts", "ts", "time", "__time", "t", "stamp", "time_stamp", "datetime", "date_time", "date",
    "epoch", "seconds", "secs", "sec", "header.stamp", "header/stamp", "elapsed", "elapsed_time", "sim_time",
)  # fmt: skip
"""What timestamps are called, the likeliest first."""

_UNIT_OF = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "ms": "ms", "msec": "ms", "millis": "ms", "milliseconds": "ms",
    "us": "us", "usec": "us", "µs": "us", "micros": "us", "microseconds": "us",
    "ns": "ns", "nsec": "ns", "nanos": "ns", "nanosec": "ns", "nanoseconds": "ns",
}  # fmt: skip
_BRACKETS = re.compile(r"\s*[\[(]\s*([^\])]*?)\s*[\])]\s*$")

_LEAST = (("ns", 1e17), ("us", 1e14), ("ms", 1e11))
"""Counts since 1970 are this large from 1973 on; smaller ones are taken for seconds."""


def base_name(name: str) -> tuple[str, str | None]:
    """A column's name without what it says of the unit, and that unit: `timestamp [ns]`, `time_ms`, `t(s)`."""
    name = name.strip().lstrip("#").strip()
    found = _BRACKETS.search(name)
    if found:
        return name[: found.start()].strip(), _UNIT_OF.get(found[1].lower())
    stem, _, suffix = name.rpartition("_")
    if stem and suffix.lower() in _UNIT_OF:
        return stem, _UNIT_OF[suffix.lower()]
    return name, None


def find_column(names: Sequence[str], wanted: str | None) -> str:
    """The timestamp's column.

    Raises:
        InvalidFile: the wanted one does not exist, or none is called like a timestamp.
    """
    if wanted is not None:
        return _wanted(names, wanted)
    bases = {name: base_name(name)[0].lower() for name in names}
    for likely in _NAMES:
        for name, base in bases.items():
            if likely in (base, name.strip().lower()):
                return name
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise InvalidFile(f"no column is called like a timestamp; name it (time=, --time). Columns: {shown}")


def _wanted(names: Sequence[str], wanted: str) -> str:
    for name in names:
        if wanted in (name, name.strip(), base_name(name)[0]):
            return name
    raise InvalidFile(f"no column {wanted!r} for the timestamp; {offer(wanted, names)}")


def guess_unit(name: str, values: Sequence[Any]) -> str:
    """The unit that the column's name says, or that its first values look like."""
    said = base_name(name)[1]
    if said is not None:
        return said
    value = next((value for value in values if value is not ABSENT and value is not None), 0.0)
    if isinstance(value, str):
        return "iso"
    if hasattr(values, "dtype") and values.dtype.kind == "M":
        return "iso"
    if not isinstance(value, SupportsFloat):
        return "s"  # reading it tells what is wrong
    size = abs(float(value))
    return next((unit for unit, least in _LEAST if size >= least), "s")


def to_seconds(name: str, unit: str, frame: Frame) -> Sequence[float]:
    """The timestamps of a frame in seconds, float64; integers are divided exactly.

    Raises:
        InvalidFile: a row without a timestamp, or with one that is no finite number (or date).
    """
    values = frame.columns[name]
    if getattr(getattr(values, "dtype", None), "kind", "") == "M":
        return _from_datetimes(name, values, frame)
    per_second = UNITS.get(unit)
    if per_second == 1 and getattr(getattr(values, "dtype", None), "kind", "") in ("f", "i"):
        return _from_seconds(name, unit, values, frame)
    plain = values.tolist() if hasattr(values, "tolist") else values
    try:
        if bool in set(map(type, plain)):
            raise TypeError("true and false are no timestamps")
        if per_second is None:
            return [_from_date(value) for value in plain]
        seconds = [value / per_second for value in plain]
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise _first_bad(name, unit, plain, frame) from None
    if not all(map(math.isfinite, seconds)) or (per_second == 1 and max(map(abs, seconds), default=0) >= MAX_EXACT_INT):
        raise _first_bad(name, unit, plain, frame)
    return _like(values, seconds)


def _like(values: Any, seconds: list[float]) -> Sequence[float]:
    """As NumPy where the values came so."""
    if not hasattr(values, "dtype"):
        return seconds
    import numpy as np

    return np.array(seconds, np.float64)  # type: ignore[return-value]


def _from_seconds(name: str, unit: str, values: Any, frame: Frame) -> Sequence[float]:
    """NumPy's numbers, which are seconds already."""
    import numpy as np

    seconds = values.astype(np.float64)
    if not np.isfinite(seconds).all() or (len(seconds) and np.abs(seconds).max() >= MAX_EXACT_INT):
        raise _first_bad(name, unit, values.tolist(), frame)
    return seconds  # type: ignore[no-any-return]


def _from_datetimes(name: str, values: Any, frame: Frame) -> list[float]:
    """NumPy's dates, whatever their step."""
    import numpy as np

    bad = np.flatnonzero(np.isnat(values))
    if len(bad):
        raise InvalidFile(f"{frame.row(int(bad[0]))} has no timestamp in column {name!r}")
    return [count / UNITS["ns"] for count in values.astype("M8[ns]").astype(np.int64).tolist()]


def _from_date(value: Any) -> float:
    if isinstance(value, datetime):
        when = value
    else:
        when = datetime.fromisoformat(value.strip())
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _first_bad(name: str, unit: str, values: Sequence[Any], frame: Frame) -> InvalidFile:
    what = "a date" if unit == "iso" else f"a number ({unit})"
    for number, value in enumerate(values):
        if not _is_time(value, unit):
            shown = (
                "no timestamp" if value is ABSENT or value is None else f"the timestamp {value!r}, which is not {what}"
            )
            return InvalidFile(f"{frame.row(number)} has {shown} in column {name!r}")
    return InvalidFile(f"column {name!r} holds no timestamps in {unit}")


def _is_time(value: Any, unit: str) -> bool:
    try:
        if unit == "iso":
            _from_date(value)
            return True
        return (
            type(value) is not bool
            and math.isfinite(value / UNITS[unit])
            and (unit != "s" or abs(value) < MAX_EXACT_INT)
        )
    except (TypeError, ValueError, AttributeError, OverflowError):
        return False
