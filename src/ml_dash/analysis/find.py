"""Windows of time in which an expression is true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .evaluate import evaluate
from .numbers import not_negative
from .places import Mask, Places, rounding
from .tables import Floats


class Found(NamedTuple):
    """A window: from the first to the last instant of an unbroken stretch, and how many instants it holds."""

    start: float
    end: float
    instants: int


def find(
    tables: Mapping[str, pa.Table],
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
) -> list[Found]:
    """The windows in which an expression is true at every recorded instant.

    Args:
        tables: ascending tables by topic.
        expression: as in `expression.py`; compared at the timestamps of its topic, or of all of its topics together,
            each with its last value.
        topic: the topic whose columns may stand alone.
        for_s: only windows that last at least this long, from their first to their last instant. 3.05 - 3.00 counts as
            0.05, though float64 makes it a hair less.
        max_gap_s: a window ends where the next instant is further away than this.

    Returns:
        Windows in order of time; they do not touch each other.

    Raises:
        InvalidQuery: the expression or an option makes no sense. TrackNotFound, InvalidWindow: unknown names.
    """
    start, end, instants = windows(tables, expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)
    return [Found(*one) for one in zip(start.tolist(), end.tolist(), instants.tolist(), strict=True)]


def windows(
    tables: Mapping[str, pa.Table],
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
) -> tuple[Floats, Floats, Places]:
    """As `find`, as arrays: start, end and number of instants of each window."""
    for_s, max_gap_s = not_negative(for_s, "for_s") or 0.0, not_negative(max_gap_s, "max_gap_s")
    times, true = evaluate(expression, tables, topic)
    first, last = stretches(times, true, max_gap_s)
    long_enough = times[last] - times[first] >= for_s - rounding(times)
    first, last = first[long_enough], last[long_enough]
    return times[first], times[last], last - first + 1


def stretches(times: Floats, true: Mask, max_gap_s: float | None = None) -> tuple[Places, Places]:
    """The first and the last place of each unbroken stretch of true."""
    starts = true.copy()
    starts[1:] &= ~true[:-1]
    ends = true.copy()
    ends[:-1] &= ~true[1:]
    if max_gap_s is not None:
        far = np.diff(times) > max_gap_s + rounding(times)
        starts[1:] |= true[1:] & far
        ends[:-1] |= true[:-1] & far
    return np.flatnonzero(starts), np.flatnonzero(ends)
