"""The numbers of a track, for pictures and statistics: each part of each column by itself.

Read from the columnar sidecar where pyarrow and NumPy are installed, else entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import reading

if TYPE_CHECKING:
    from ..store import Store, Track, Window

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


@dataclass(frozen=True, slots=True)
class Series:
    """`times` in seconds, ascending, of a sequence its indexes; for each part (`q[0]`, `pose.x`) as many values, None
    where absent.

    NumPy arrays where the table could be read, lists elsewhere; `absent` counts what an array shows as NaN.
    """

    times: Sequence[float]
    columns: Mapping[str, Sequence[float | None]]
    absent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """The least, mean and greatest of a column's finite values, and how many are absent or not finite."""

    absent: int
    infinite: int
    low: float | None
    mean: float | None
    high: float | None


def series_of(store: Store, track: Track, window: Window) -> Series:
    """The numbers of a track, a metric or the log in a window; booleans are 0 and 1, text and the like is left out."""
    try:
        import numpy  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        series = _from_entries(store, track, window)
    else:
        series = _from_table(reading.table_of(store, track, window))
    return series if track.kind == "tracks" else _by_index(series)


def _by_index(series: Series) -> Series:
    columns = {name: values for name, values in series.columns.items() if name != "index"}
    indexes: Any = series.columns.get("index", ())
    return Series(indexes, columns, series.absent)


def _from_table(table: Any) -> Series:
    from ..analysis import tables
    from ..errors import InvalidQuery

    flat = tables.flattened(table)
    columns: dict[str, Any] = {}
    for name in tables.columns_of(flat):
        try:
            columns[name] = tables.numbers(flat, name)
        except InvalidQuery:
            continue  # text
    return Series(tables.timestamps(flat), columns, {name: flat.column(name).null_count for name in columns})  # type: ignore[arg-type]


def _from_entries(store: Store, track: Track, window: Window) -> Series:
    times: list[float] = []
    columns: dict[str, list[float | None]] = {}
    for block in reading.blocks_of(store, track, window):
        for entry in block:
            for name, value in entry.items():
                for part, number in _numbers(name, value) if name != "timestamp" else ():
                    values = columns.setdefault(part, [])
                    values.extend([None] * (len(times) - len(values)))
                    values.append(number)
            times.append(entry["timestamp"])
    for values in columns.values():
        values.extend([None] * (len(times) - len(values)))
    return Series(times, columns, {name: values.count(None) for name, values in columns.items()})


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)):
        yield name, float(value)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _numbers(f"{name}[{number}]", item)
    elif isinstance(value, dict):
        for part, item in value.items():
            yield from _numbers(f"{name}.{part}", item)


def summary(series: Series, name: str) -> Summary:
    """What is known of one column's values."""
    finite, absent = _finite(series.columns[name]), series.absent[name]
    infinite = len(series.times) - absent - len(finite)
    if not len(finite):
        return Summary(absent, infinite, None, None, None)
    if hasattr(finite, "dtype"):
        return Summary(absent, infinite, float(finite.min()), float(finite.mean()), float(finite.max()))
    return Summary(absent, infinite, min(finite), math.fsum(finite) / len(finite), max(finite))


def _finite(values: Any) -> Any:
    if hasattr(values, "dtype"):
        import numpy as np

        return values[np.isfinite(values)]
    return [value for value in values if value is not None and math.isfinite(value)]


def sparkline(series: Series, name: str, width: int, *, unicode: bool = True) -> str:
    """The course of a column in one line: the mean of each stretch of time, blank where there is none."""
    start, span = (series.times[0], series.times[-1] - series.times[0]) if len(series.times) else (0.0, 0.0)
    means = _means(series.times, series.columns[name], float(start), width / span if span else 0.0, width)
    levels = [mean for mean in means if mean is not None] or [0.0]
    return "".join(_glyph(mean, min(levels), max(levels), unicode) for mean in means).rstrip()


def _means(times: Any, values: Any, start: float, scale: float, width: int) -> list[float | None]:
    """The mean of the finite values in each of `width` stretches of time."""
    if hasattr(values, "dtype"):
        import numpy as np

        finite = np.isfinite(values)
        places = np.minimum((times[finite] - start) * scale, width - 1).astype(np.int64)
        sums: Any = np.bincount(places, values[finite], width)
        counts: Any = np.bincount(places, minlength=width)
    else:
        sums, counts = [0.0] * width, [0] * width
        for time, value in zip(times, values, strict=True):
            if value is not None and math.isfinite(value):
                place = min(int((time - start) * scale), width - 1)
                sums[place] += value
                counts[place] += 1
    return [float(total) / int(count) if count else None for total, count in zip(sums, counts, strict=True)]


def _glyph(value: float | None, low: float, high: float, unicode: bool) -> str:
    glyphs = BLOCKS if unicode else ASCII_BLOCKS
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.4
    return glyphs[min(int(share * len(glyphs)), len(glyphs) - 1)]


@dataclass(frozen=True, slots=True)
class Pace:
    """How regularly a track was logged. Seconds; `gaps` are (start, length) of the longest holes, longest first."""

    rate_hz: float | None
    usual_step_s: float | None
    least_step_s: float | None
    greatest_step_s: float | None
    gaps: tuple[tuple[float, float], ...]


GAP_STEPS = 5
"""A hole is a step longer than this many usual ones."""


def pace_of(times: Sequence[float]) -> Pace:
    """Rate, usual step and holes of ascending timestamps."""
    times = times.tolist() if hasattr(times, "tolist") else times
    steps = [later - earlier for earlier, later in pairwise(times)]
    if not steps:
        return Pace(None, None, None, None, ())
    usual = sorted(steps)[len(steps) // 2]
    holes = [(step, time) for time, step in zip(times, steps, strict=False) if step > GAP_STEPS * usual]
    gaps = tuple((time, step) for step, time in sorted(holes, reverse=True))
    return Pace(len(steps) / (times[-1] - times[0]), usual, min(steps), max(steps), gaps)
