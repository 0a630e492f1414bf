"""Pictures of a track: time series with a panel for each column, and a path in space with its orientation.

Millions of samples are drawn as what their pixels show (`pixels.py`): no extreme is lost. Time without entries stays
empty. Figures are made without pyplot, so nothing global changes and no window opens; save them with
`figure.savefig("track.png")`, or `.svg`, or let a notebook show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InvalidQuery
from ..formats.arrow import is_json
from .pixels import alone, reduce, with_breaks
from .places import Mask
from .quaternions import rotate
from .tables import Floats, as_numbers, column, columns_of, in_rows, numbers, timestamps

WIDTH_PX, PANEL_PX, DPI = 1200, 170, 100
MAX_LINES = 32
GAP_INTERVALS = 5.0
CELLS = 2000
"""A path in space keeps a sample wherever it enters another cell of its extent cut into this many."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One column as it is drawn: lines of shape (n, d), or steps between states with these names."""

    name: str
    times: Floats
    values: Floats
    steps: bool = False
    states: tuple[str, ...] = ()


def plot(
    table: pa.Table,
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    gap_s: float | None = None,
    width_px: int = WIDTH_PX,
    panel_px: int = PANEL_PX,
) -> Figure:
    """A time series, a panel for each column.

    Args:
        table: ascending by timestamp.
        columns: fields, parts and items; by default all that can be drawn (numbers, truth values, text as states).
        gap_s: lines break where the next entry is further away than this; by default 5 usual intervals.
        width_px, panel_px: the size of the figure, and of each panel in it.

    Returns:
        A matplotlib figure.

    Raises:
        InvalidWindow: an unknown column. InvalidQuery: a column that cannot be drawn, or a size that is not above 0.
    """
    _check_entries([table])
    panels, left_out = _panels(table, columns)
    return _figure(panels, left_out, title, gap_s, width_px, panel_px)


def plot_together(
    tables: Mapping[str, pa.Table],
    columns: Mapping[str, Sequence[str]] | None = None,
    *,
    gap_s: float | None = None,
    width_px: int = WIDTH_PX,
    panel_px: int = PANEL_PX,
) -> Figure:
    """Several tracks under one time axis, a panel for each `topic.column`; arguments and errors as for `plot`."""
    _check_entries(tables.values())
    panels: list[_Panel] = []
    left_out: list[str] = []
    for topic, table in tables.items():
        drawn, others = _panels(table, (columns or {}).get(topic))
        panels += [replace(panel, name=f"{topic}.{panel.name}") for panel in drawn]
        left_out += [f"{topic}.{name}" for name in others]
    return _figure(panels, left_out, "", gap_s, width_px, panel_px)


def _check_entries(tables: Iterable[pa.Table]) -> None:
    if not any(len(table) for table in tables):
        raise InvalidQuery("there are no entries to draw; a window may lie beside the track")


def _figure(
    panels: Sequence[_Panel], left_out: Sequence[str], title: str, gap_s: float | None, width_px: int, panel_px: int
) -> Figure:
    if not (width_px > 0 and panel_px > 0):
        raise InvalidQuery(f"a plot needs a size above 0, got {width_px} x {panel_px} pixels")
    if not panels:
        raise InvalidQuery("there is no column to draw" + (f": {', '.join(left_out)}" if left_out else ""))
    figure = Figure(figsize=(width_px / DPI, (panel_px * len(panels) + 60) / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, ax in zip(panels, axes, strict=True):
        _draw(panel, ax, width_px, gap_s)
    axes[-1].set_xlabel("time (s)")
    if title:
        axes[0].set_title(title, loc="left", fontsize=10)
    if left_out:
        said = f"not drawn: {', '.join(left_out)}"
        axes[-1].annotate(said, (1, 0), (0, -30), "axes fraction", "offset points", ha="right", fontsize=8)
    return figure


def _panels(table: pa.Table, columns: Sequence[str] | None) -> tuple[list[_Panel], list[str]]:
    if columns is not None:
        wanted = [name for name in columns if name != "timestamp"]
        return [panel for name in wanted for panel in _panels_of(table, name)], []
    panels: list[_Panel] = []
    left_out: list[str] = []
    for name in columns_of(table):
        try:
            panels += _panels_of(table, name)
        except InvalidQuery:
            left_out.append(name)
    return panels, left_out


def _panels_of(table: pa.Table, name: str) -> list[_Panel]:
    field, array = column(table, name)
    if pa.types.is_struct(field.type):
        return [panel for part in field.type for panel in _panels_of(table, f"{name}.{part.name}")]
    times = timestamps(table)
    if array.null_count:
        valid = array.is_valid()
        times, array = times[valid.to_numpy(zero_copy_only=False)], array.filter(valid)
    if pa.types.is_string(field.type) and not is_json(field):
        return [_states(name, times, array)]
    values = in_rows(as_numbers(field, array))
    if values.shape[1] > MAX_LINES:
        raise InvalidQuery(f"column {name!r} has {values.shape[1]} numbers at each instant; name some, as {name}[0]")
    is_steps = pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
    return [_Panel(name, times, values, is_steps, ("false", "true") if pa.types.is_boolean(field.type) else ())]


def _states(name: str, times: Floats, texts: pa.Array) -> _Panel:
    coded = pc.dictionary_encode(texts)
    if len(coded.dictionary) > MAX_LINES:
        raise InvalidQuery(f"column {name!r} has {len(coded.dictionary)} different texts, too many to draw")
    values = coded.indices.to_numpy().astype(np.float64).reshape(-1, 1)
    return _Panel(name, times, values, True, tuple(coded.dictionary.to_pylist()))


def _draw(panel: _Panel, ax: Axes, width_px: int, gap_s: float | None) -> None:
    if gap_s is None and not panel.steps:
        gap_s = usual_gap(panel.times)
    times, values = with_breaks(panel.times, panel.values, gap_s)
    count = values.shape[1]
    for item in range(count):
        x, y = reduce(times, values[:, item], width_px)
        label = f"{panel.name}[{item}]" if count > 1 else None
        (drawn,) = ax.plot(x, y, linewidth=0.9, drawstyle="steps-post" if panel.steps else "default", label=label)
        dots = alone(y)
        if dots.any():
            ax.plot(x[dots], y[dots], "o", markersize=2.5, color=drawn.get_color())
    ax.set_ylabel(panel.name, rotation=0, ha="right", va="center", fontsize=9)
    ax.grid(alpha=0.25)
    ax.margins(x=0)
    if panel.states:
        ax.set_yticks(range(len(panel.states)), panel.states)
    if 1 < count <= 10:
        lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
        names = [f"[{item}]" for item in range(count)]
        ax.legend(lines, names, ncols=count, fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.99), frameon=False)


def usual_gap(times: Floats) -> float | None:
    """What counts as a gap: 5 usual intervals of a regular track; None for one that records events."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    if len(steps) < 10:
        return None
    usual = float(np.median(steps))
    return GAP_INTERVALS * usual if float(np.median(np.abs(steps - usual))) <= usual / 2 else None


def save(figure: Figure, path: str | PathLike[str] | None) -> Figure:
    """Write the figure to a file whose ending says the format; returns the figure."""
    if path is not None:
        known = figure.canvas.get_supported_filetypes()
        ending = Path(path).suffix.removeprefix(".").lower()
        if ending not in known:
            raise InvalidQuery(f"cannot save a picture as {str(path)!r}; the endings are {', '.join(sorted(known))}")
        figure.savefig(path)
    return figure


# ---------------------------------------------------------------- a path in space


def trajectory(
    table: pa.Table,
    position: str,
    orientation: str | None = None,
    *,
    order: str | None = None,
    triads: int = 20,
    title: str = "",
    size_px: int = 800,
) -> Figure:
    """A path in 3D from its start (circle) to its end (square), with the body's axes along it: x red, y green, z blue.

    Args:
        position: a column of 3 numbers.
        orientation: a column of quaternions.
        order: "wxyz" or "xyzw"; may be left out where the column's name says it (`quat_wxyz`), else it is an error.
        triads: how many times the axes are drawn, evenly over the entries.

    Raises:
        InvalidQuery: columns of another shape, an order that nobody named, no position at all.
    """
    places = numbers(table, position)
    if places.ndim != 2 or places.shape[1] != 3:
        raise InvalidQuery(f"a path needs 3 numbers at each instant, {position!r} has shape {places.shape[1:] or 1}")
    finite = _finite(places)
    if not finite.any():
        raise InvalidQuery(f"column {position!r} holds no position to draw")
    figure = Figure(figsize=(size_px / DPI, size_px / DPI), dpi=DPI, layout="constrained")
    ax: Any = figure.add_subplot(projection="3d")
    thin = places[path_cells(places)]
    ax.plot(*thin.T, linewidth=0.9, color="0.25")
    ax.plot(*places[finite][:1].T, "o", color="0.25")
    ax.plot(*places[finite][-1:].T, "s", color="0.25")
    if orientation is not None:
        _triads(ax, places, _wxyz(table, orientation, order), finite, triads)
    _same_scale(ax, places[finite])
    ax.set(xlabel="x", ylabel="y", zlabel="z", title=title)
    return figure


def path_cells(places: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The samples at which a path enters another cell, its ends, and every break: the picture needs no others."""
    finite = _finite(places)
    low, high = places[finite].min(axis=0), places[finite].max(axis=0)
    size = float((high - low).max()) / CELLS or 1.0
    cells = np.where(finite[:, None], np.floor((places - low) / size), -1)
    keep = np.ones(len(places), bool)
    keep[1:-1] = (cells[1:-1] != cells[:-2]).any(axis=1) | (cells[1:-1] != cells[2:]).any(axis=1)
    return np.flatnonzero(keep)


def _finite(places: Floats) -> Mask:
    whole: Mask = np.isfinite(places.sum(axis=1))
    return whole


def _wxyz(table: pa.Table, name: str, order: str | None) -> Floats:
    field, array = column(table, name)
    if pa.types.is_struct(field.type) and {part.name for part in field.type} == set("wxyz"):
        return np.stack([numbers(table, f"{name}.{part}") for part in "wxyz"], axis=1)
    values = as_numbers(field, array)
    if values.ndim != 2 or values.shape[1] != 4:
        raise InvalidQuery(
            f"an orientation needs 4 numbers at each instant, {name!r} has shape {values.shape[1:] or 1}"
        )
    order = order or next((one for one in ("wxyz", "xyzw") if one in name.lower()), None)
    if order not in ("wxyz", "xyzw"):
        raise InvalidQuery(f"say the order of {name!r}, order='wxyz' or 'xyzw'; it is never guessed")
    return values if order == "wxyz" else values[:, [3, 0, 1, 2]]


def _triads(ax: Any, places: Floats, turns: Floats, finite: Mask, count: int) -> None:
    good = np.flatnonzero(finite & np.isfinite(turns).all(axis=1) & (np.abs(turns).sum(axis=1) > 0))
    if not len(good) or count < 1:
        return
    chosen = good[np.unique(np.linspace(0, len(good) - 1, count).astype(int))]
    span = float((places[finite].max(axis=0) - places[finite].min(axis=0)).max()) or 1.0
    for axis, colour in zip(np.eye(3), ("#d62728", "#2ca02c", "#1f77b4"), strict=True):
        ends = places[chosen] + 0.06 * span * rotate(turns[chosen], axis)
        for start, end in zip(places[chosen], ends, strict=True):
            ax.plot(*np.stack([start, end]).T, color=colour, linewidth=1.2)


def _same_scale(ax: Any, places: Floats) -> None:
    """A metre is as long in each direction."""
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    half = float((places.max(axis=0) - places.min(axis=0)).max()) / 2 * 1.1 or 0.5
    ax.set(
        xlim=(middle[0] - half, middle[0] + half),
        ylim=(middle[1] - half, middle[1] + half),
        zlim=(middle[2] - half, middle[2] + half),
    )
    ax.set_box_aspect((1, 1, 1))
