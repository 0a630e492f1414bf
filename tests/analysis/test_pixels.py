"""Fewer samples draw the same picture: no extreme of any pixel is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")

from ml_dash.analysis.pixels import reduce, with_breaks  # noqa: E402


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.floats(0, 1e3), st.floats(-1e6, 1e6)), max_size=300))
def test_each_pixel_keeps_its_extremes_and_ends(width: int, samples: list[tuple[float, float]]) -> None:
    """In every pixel: the lowest, highest, first and last sample; at most four of them; nothing invented."""
    samples.sort(key=lambda sample: sample[0])
    times = np.array([time for time, _ in samples], float)
    values = np.array([value for _, value in samples], float)
    kept_times, kept = reduce(times, values, width)
    given = list(zip(times, values, strict=True))
    assert all(sample in given for sample in zip(kept_times, kept, strict=True))
    if len(times) <= 4 * width or times[0] == times[-1]:
        assert len(kept) == len(values)
        return
    assert len(kept) <= 4 * width
    edges = times[0] + (times[-1] - times[0]) / width * np.arange(1, width)
    before, after = np.searchsorted(edges, times, "right"), np.searchsorted(edges, kept_times, "right")
    for pixel in np.unique(before):
        whole, part = values[before == pixel], kept[after == pixel]
        assert (part.min(), part.max()) == (whole.min(), whole.max())
        assert (part[0], part[-1]) == (whole[0], whole[-1])


def test_one_spike_in_a_million_survives() -> None:
    """A single sample among a million, which taking every n-th would miss, is in the picture."""
    values = np.zeros(1_000_000)
    values[123_457] = 9.0
    _, kept = reduce(np.arange(1e6), values, 800)
    assert kept.max() == 9.0
    assert len(kept) <= 3200


def test_a_long_break_stays_a_break() -> None:
    """NaN over several pixels breaks the reduced line as well, and values beside it are kept."""
    values = np.sin(np.arange(100_000) / 100.0)
    values[30_000:50_000] = np.nan
    times, kept = reduce(np.arange(100_000) / 1000.0, values, 100)
    inside = (times > 31) & (times < 49)
    assert inside.any()
    assert np.isnan(kept[inside]).all()
    assert np.nanmax(kept) == np.nanmax(values)


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_a_time_without_samples_becomes_a_break(shape: Any) -> None:
    """Between samples further apart than asked lies a NaN."""
    times, values = with_breaks(np.array([0.0, 0.1, 5.0, 5.1]), np.ones(shape), 1.0)
    assert times.tolist() == pytest.approx([0.0, 0.1, 2.55, 5.0, 5.1])
    assert np.isnan(values[2]).all()
    assert np.isfinite(np.delete(values, 2, axis=0)).all()
