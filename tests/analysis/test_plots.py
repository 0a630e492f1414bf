"""Plots: what is drawn is what was recorded, gaps are empty, and no spike is lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from ml_dash.analysis.plots import path_cells, plot, trajectory, usual_gap  # noqa: E402
from ml_dash.analysis.quaternions import rotate  # noqa: E402
from ml_dash.analysis.tables import from_numbers  # noqa: E402
from ml_dash.errors import InvalidQuery, InvalidWindow  # noqa: E402
from ml_dash.formats.arrow import table_from_entries  # noqa: E402


def arrays(times: Any, **columns: Any) -> Any:
    """A table of arrays."""
    return pa.table(
        {"timestamp": np.asarray(times, float), **{n: from_numbers(np.asarray(v)) for n, v in columns.items()}}
    )


def lines(figure: Any, panel: int = 0) -> list[Any]:
    """The data of each line in a panel, shape (n, 2)."""
    return [line.get_xydata() for line in figure.axes[panel].lines]


def test_a_panel_for_each_column() -> None:
    """Numbers as lines, one for each item; text and truth values as states; dicts part by part; the rest is named."""
    fields = {"q": [1.0, 2.0], "mode": "a", "on": True, "pose": {"x": 1.0, "n": 2}, "mixed": 1}
    entries = [{"timestamp": n / 10, **fields, "mixed": "x" if n == 2 else 1} for n in range(5)]
    figure = plot(table_from_entries(entries), title="robot/state")
    assert [ax.get_ylabel() for ax in figure.axes] == ["q", "mode", "on", "pose.x", "pose.n"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 1, 1, 1, 1]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["a"]
    assert "not drawn: mixed" in [text.get_text() for text in figure.axes[-1].texts]
    assert figure.axes[0].get_title(loc="left") == "robot/state"


def test_one_spike_in_a_million_is_drawn() -> None:
    """A single sample among a million is in the line, and the line has no more points than its pixels need."""
    times = np.arange(1_000_000) / 1000
    values = np.sin(times)
    values[123_457] = 50.0
    drawn = lines(plot(arrays(times, x=values), ["x"]))[0]
    assert len(drawn) <= 4 * 1200
    assert drawn[:, 1].max() == 50.0


@pytest.mark.parametrize("rate_hz", [100, 100_000])
def test_samples_between_gaps_are_dots(rate_hz: int) -> None:
    """Of a sample with gaps on both sides a line shows nothing: it is a dot, also one among many, and one all alone."""
    steady = np.arange(10 * rate_hz) / rate_hz
    times = np.concatenate([[-20.0], steady, [30.0, 40.0]])
    values = np.concatenate([[-5.0], np.sin(steady), [7.0, 8.0]])
    line, dots = lines(plot(arrays(times, x=values), gap_s=1.0))
    assert dots.tolist() == [[-20.0, -5.0], [30.0, 7.0], [40.0, 8.0]]
    assert np.nanmax(line[:, 1]) == 8.0
    assert lines(plot(arrays([1.0], x=[2.0])))[1].tolist() == [[1.0, 2.0]]


def test_time_without_entries_stays_empty() -> None:
    """A gap of many intervals breaks the line; events have no gaps; a given limit decides otherwise."""
    times = np.concatenate([np.arange(100) / 100, 5 + np.arange(100) / 100])
    drawn = lines(plot(arrays(times, x=np.ones(200))))[0]
    assert np.isnan(drawn[:, 1]).sum() == 1
    whole = lines(plot(arrays(times, x=np.ones(200)), gap_s=10.0))[0]
    assert not np.isnan(whole).any()
    assert usual_gap(np.cumsum(np.random.default_rng(1).exponential(size=100))) is None
    assert usual_gap(np.arange(100) / 100) == pytest.approx(0.05)


def test_a_window_beside_the_track(experiment: Any) -> None:
    """It holds nothing to draw, which is said; a column that is absent in the window leaves its panel empty."""
    track = experiment.tracks("t")
    for number in range(40):
        track.append(x=1.0, _ts=float(number), **({"q": [1.0, 2.0]} if number < 20 else {}))
    for draw in (lambda: track.plot(["q"], start=500.0), lambda: experiment.plot("t", start=500.0)):
        with pytest.raises(InvalidQuery, match="there are no entries to draw"):
            draw()
    figure = track.plot(["timestamp", "x", "q"], start=30.0)
    assert [len(line) for line in lines(figure, 1)] == [0, 0]
    assert "no finite values" in track.slice(500.0, 600.0)._repr_html_()


def test_what_cannot_be_drawn_is_refused() -> None:
    """Unknown columns, mixtures asked for by name, empty tables and sizes of 0 are errors that say so."""
    mixed = table_from_entries([{"timestamp": 0.0, "m": 1}, {"timestamp": 1.0, "m": "x"}])
    for table, columns, options, says in [
        (mixed, ["m"], {}, "mixes types"),
        (mixed, None, {}, "no column to draw: m"),
        (mixed, None, {"width_px": 0}, "size above 0"),
        (arrays([0.0], x=np.ones((1, 100))), ["x"], {}, "100 numbers at each instant"),
    ]:
        with pytest.raises(InvalidQuery, match=says):
            plot(table, columns, **options)
    with pytest.raises(InvalidWindow, match="no column 'y'"):
        plot(arrays([0.0], x=[1.0]), ["y"])


def test_a_path_with_its_axes() -> None:
    """The path, its ends and three coloured axes at each of the chosen entries, turned as the quaternions say."""
    times = np.arange(100) / 100
    places = np.stack([times, np.zeros(100), np.zeros(100)], axis=1)
    half = math.sqrt(0.5)
    turns = np.tile([half, 0.0, 0.0, half], (100, 1))  # a quarter turn about z: the body's x points along y
    figure = trajectory(arrays(times, p=places, quat_wxyz=turns), "p", "quat_wxyz", triads=4)
    assert len(figure.axes[0].lines) == 3 + 3 * 4
    x_axis = np.array(figure.axes[0].lines[3].get_data_3d())
    step = x_axis[:, 1] - x_axis[:, 0]
    np.testing.assert_allclose(step / np.linalg.norm(step), [0, 1, 0], atol=1e-12)
    named = trajectory(arrays(times, p=places, q=turns[:, [1, 2, 3, 0]]), "p", "q", order="xyzw", triads=1)
    np.testing.assert_allclose(np.array(named.axes[0].lines[3].get_data_3d()), x_axis)


def test_a_path_keeps_its_shape_with_fewer_samples() -> None:
    """A slow path of a million samples is drawn with few of them, none further than a cell from the line."""
    angle = np.linspace(0, 2 * math.pi, 1_000_000)
    places = np.stack([np.cos(angle), np.sin(angle), angle], axis=1)
    kept = path_cells(places)
    assert len(kept) < 20_000
    assert kept[0] == 0
    assert kept[-1] == len(places) - 1
    assert np.abs(np.diff(places[kept], axis=0)).max() < 0.01


@pytest.mark.parametrize(
    ("position", "orientation", "says"),
    [
        ("q", None, "a path needs 3 numbers"),
        ("p", "p", "an orientation needs 4 numbers"),
        ("p", "q", "it is never guessed"),
        ("none", None, "holds no position"),
    ],
)
def test_paths_that_make_no_sense(position: str, orientation: str | None, says: str) -> None:
    """Wrong shapes, an order nobody named, and a column of nothing but NaN are errors that say so."""
    table = arrays([0.0, 1.0], p=np.ones((2, 3)), q=np.ones((2, 4)), none=np.full((2, 3), math.nan))
    with pytest.raises(InvalidQuery, match=says):
        trajectory(table, position, orientation)


def test_rotation_by_quaternions() -> None:
    """A third of a turn about (1, 1, 1) takes x to y, whatever the quaternion's norm."""
    turned = rotate(np.array([[0.5, 0.5, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0]]), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(turned, [[0, 1, 0], [0, 1, 0]], atol=1e-12)


def test_tracks_plot_themselves(experiment: Any, tmp_path: Path) -> None:
    """From a track to a PNG and an SVG, windowed; an ending nobody knows is an error."""
    track = experiment.tracks("arm")
    track.extend(_ts=np.arange(200) / 100, p=np.random.default_rng(1).normal(size=(200, 3)))
    track.plot(["p[0]"], 0.5, 1.0, path=tmp_path / "p.png")
    track.plot_path("p", path=tmp_path / "p.svg")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert lines(track.plot(["p"], 0.5, 1.0))[0][:, 0].min() == 0.5
    with pytest.raises(InvalidQuery, match="the endings are"):
        track.plot(path=tmp_path / "p.docx")


def test_several_topics_under_one_time_axis(experiment: Any, tmp_path: Path) -> None:
    """Panels are named topic.column, chosen as for align, and share the time axis."""
    experiment.tracks("robot/state").extend(_ts=np.arange(100) / 100, q=np.ones((100, 2)), n=np.arange(100))
    experiment.tracks("gripper").append(open=True, _ts=0.2).append(open=False, _ts=0.7)
    figure = experiment.plot("robot/state.q", "gripper", start=0.1, path=tmp_path / "both.svg")
    assert [ax.get_ylabel() for ax in figure.axes] == ["robot/state.q", "gripper.open"]
    assert figure.axes[0].get_shared_x_axes().joined(*figure.axes)
    assert (tmp_path / "both.svg").stat().st_size > 1000
    assert len(experiment.plot().axes) == 3
