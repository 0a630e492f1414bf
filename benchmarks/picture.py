"""Draws the main measures as one SVG, one panel each: `python -m benchmarks.picture RESULT.json PICTURE.svg`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.catalogue import OURS
from benchmarks.report import ROWS, Row, median, number, rounds

PANELS = (
    "append_p50_us",
    "durable_us",
    "extend_us",
    "tick_call_p999_us",
    "window_ms",
    "full_ms",
    "column_warm_ms",
    "parquet_cold_ms",
    "disk_bytes",
    "fast_survive",
    "import_ms",
    "memory_1x_mb",
)
ACCENT, PLAIN, QUIET, INK = "#0b6e4f", "#8a97a6", "#d5dae0", "#1f2933"


def main(result_file: str, target: str) -> int:
    """Deterministic for one result: fixed ids, no date, text as text."""
    result = json.loads(Path(result_file).read_text())
    mpl.rcParams.update({"svg.hashsalt": "performance", "svg.fonttype": "none", "font.size": 8, "text.color": INK})
    rows = [row for key in PANELS for row in ROWS if row.key == key]
    figure = Figure(figsize=(11, 2.35 * -(-len(rows) // 3)), layout="constrained")
    for axes, row in zip(figure.subplots(-(-len(rows) // 3), 3).flat, rows, strict=False):
        panel(axes, result, row)
    figure.savefig(target, metadata={"Date": None, "Creator": None})
    return 0


def panel(axes: Any, result: dict[str, Any], row: Row) -> None:
    """Median as a dot, lowest to highest as a line, the number beside it; log scale unless it is a share."""
    names = [name for name in result["products"] if median(result, name, row.key) is not None]
    names.sort(key=lambda name: median(result, name, row.key) or 0.0, reverse=not row.higher)
    for place, name in enumerate(names):
        values, middle = rounds(result, name, row.key).values(), median(result, name, row.key) or 0.0
        colour = ACCENT if name == OURS else PLAIN
        axes.plot([min(values), max(values)], [place, place], color=colour, lw=3, alpha=0.4, solid_capstyle="round")
        axes.plot([middle], [place], "o", color=colour, ms=5)
        axes.annotate(
            number(middle),
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontweight="bold" if name == OURS else "normal",
        )
    better = "more is better" if row.higher else "less is better"
    axes.set_title(f"{row.title} [{row.unit}]", loc="left", fontsize=9, color=INK)
    axes.set_xlabel(better, fontsize=7, color=INK)
    axes.set_yticks(range(len(names)), [result["products"][name]["title"] for name in names])
    axes.set_ylim(-0.6, max(len(names), 1) - 0.4)
    axes.set_xscale("linear" if row.higher else "symlog" if row.key == "memory_1x_mb" else "log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(axis="x", color=QUIET, lw=0.5)
    axes.tick_params(length=0, colors=INK)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
