"""Fewer samples, the same picture: per pixel the first, lowest, highest and last one, never every n-th."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .tables import Floats


def reduce(
    times: Floats, values: Floats, width: int, start: float | None = None, end: float | None = None
) -> tuple[Floats, Floats]:
    """The samples that draw the same line on `width` pixels.

    Args:
        times: seconds, ascending, shape (n,).
        values: shape (n,); NaN breaks the line.
        width: pixels from `start` to `end`, by default from the first time to the last.

    Returns:
        Samples of the given ones, ascending, at most 4 for each pixel; all of them where they are that few already.

    Guarantees: each pixel keeps its lowest and highest value, and its first and last sample, so that the lines to its
        neighbours are the same too. A break shorter than a pixel may close.
    """
    start = float(times[0]) if start is None and len(times) else start
    end = float(times[-1]) if end is None and len(times) else end
    if len(times) <= 4 * width or start is None or end is None or not end > start:
        return times, values
    edges = np.searchsorted(times, start + (end - start) / width * np.arange(1, width))
    bounds = np.unique(np.concatenate([[0], edges, [len(times)]]))
    return _kept(times, values, bounds)


def _kept(times: Floats, values: Floats, bounds: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[Floats, Floats]:
    gaps = np.isnan(values)
    broken = bool(gaps.any())
    low = np.where(gaps, np.inf, values) if broken else values
    high = np.where(gaps, -np.inf, values) if broken else values
    places = [bounds[:-1], bounds[1:] - 1]
    places.append(np.array([first + low[first:stop].argmin() for first, stop in pairwise(bounds.tolist())]))
    places.append(np.array([first + high[first:stop].argmax() for first, stop in pairwise(bounds.tolist())]))
    kept = np.unique(np.concatenate(places))
    return times[kept], values[kept]


def alone(values: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The samples with nothing beside them, of which a line shows nothing."""
    edge = np.concatenate([[True], np.isnan(values), [True]])
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = ~edge[1:-1] & edge[:-2] & edge[2:]
    return found


def with_breaks(times: Floats, values: Floats, longest_s: float | None) -> tuple[Floats, Floats]:
    """The samples with a NaN in the middle of every stretch without samples that is longer than this."""
    if longest_s is None or len(times) < 2:
        return times, values
    before = np.flatnonzero(np.diff(times) > longest_s)
    middle = (times[before] + times[before + 1]) / 2
    return np.insert(times, before + 1, middle), np.insert(values, before + 1, np.nan, axis=0)
