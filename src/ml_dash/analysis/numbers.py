"""Options that are numbers, checked in one place: text, NaN and truth values never get as far as the arithmetic."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from ..errors import InvalidQuery


def finite(value: Any, name: str) -> float:
    """An option as a float; raises InvalidQuery naming it for anything but a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidQuery(f"{name} must be a number, got {type(value).__name__} {str(value)[:60]!r}")
    if not math.isfinite(value):
        raise InvalidQuery(f"{name} must be finite, got {value}")
    return float(value)


def not_negative(value: Any, name: str) -> float | None:
    """An option that is 0 or more, or None where it is not given; infinity is no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0:
        raise InvalidQuery(f"{name} must be 0 or more, got {value!r}")
    return float(value)


def above_zero(value: Any, name: str) -> float:
    """An option that is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not (math.isfinite(value) and float(value) > 0):
        raise InvalidQuery(f"{name} must be above 0, got {value!r}")
    return float(value)
