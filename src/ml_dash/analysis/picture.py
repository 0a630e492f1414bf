"""A track in a notebook: one line for each column with its type, its range and a small picture."""

from __future__ import annotations

from html import escape

import numpy as np
import pyarrow as pa

from ..errors import InvalidQuery
from ..formats.arrow import is_json, null_of
from ..formats.arrow_types import one_chunk
from .pixels import reduce
from .tables import Floats, as_numbers, in_rows, timestamps

WIDTH, HEIGHT = 240, 28
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")


def html(table: pa.Table, title: str) -> str:
    """A table as HTML: its extent, then name, type, range and picture of each column."""
    times = timestamps(table)
    lines = [_line(field, one_chunk(table.column(field.name)), times) for field in table.schema if _shown(field)]
    extent = f"{times[0]:g} s to {times[-1]:g} s" if len(times) else "empty"
    return (
        f"<div><b>{escape(title)}</b> {len(times):,} entries, {extent}"
        f"<table><tr><th>column</th><th>type</th><th>range</th><th></th></tr>{''.join(lines)}</table></div>"
    )


def _shown(field: pa.Field) -> bool:
    return field.name != "timestamp" and null_of(field) is None


def _line(field: pa.Field, array: pa.Array, times: Floats) -> str:
    kind = "mixed (JSON)" if is_json(field) else str(field.type)
    try:
        values = in_rows(as_numbers(field, array))
        limits, drawn = _range(values), svg(times, values)
    except InvalidQuery:
        limits, drawn = f"{len(array) - array.null_count:,} values", ""
    cells = (escape(field.name), escape(kind), escape(limits), drawn)
    return "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>"


def _range(values: Floats) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.min():.4g} … {finite.max():.4g}" if len(finite) else "no finite values"


def svg(times: Floats, values: Floats) -> str:
    """The columns of `values`, shape (n, d), over `times` as one small SVG picture, true to every extreme."""
    finite = values[np.isfinite(values)]
    if not len(finite) or not len(times):
        return ""
    low, high = float(finite.min()), float(finite.max())
    span, length = (high - low) or 1.0, float(times[-1] - times[0]) or 1.0
    lines = []
    for number in range(min(values.shape[1], len(COLOURS))):
        x, y = reduce(times, values[:, number], WIDTH)
        across, down = (x - times[0]) / length * WIDTH, HEIGHT - 2 - (y - low) / span * (HEIGHT - 4)
        lines.append(f"<path d='{_path(across, down)}' fill='none' stroke='{COLOURS[number]}'/>")
    return f"<svg width='{WIDTH}' height='{HEIGHT}' role='img'>{''.join(lines)}</svg>"


def _path(across: Floats, down: Floats) -> str:
    """Line segments with a new start after each gap."""
    steps, pen = [], "M"
    for x, y in zip(across, down, strict=True):
        if not np.isfinite(y):
            pen = "M"
            continue
        steps.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(steps)
