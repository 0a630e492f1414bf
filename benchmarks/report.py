"""From samples to text: medians with their spread, ratios paired by round, targets, and where a peer is ahead.

Nothing here is typed in: every figure comes from the run's own samples.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.catalogue import BASELINE, OURS
from benchmarks.percentiles import percentile
from benchmarks.reasons import reason

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of the table: its figure's key, the job that takes it, and which direction is better."""

    key: str
    title: str
    unit: str
    job: str
    higher: bool = False


GROUPS: dict[str, tuple[Row, ...]] = {
    "Recording": (
        Row("append_p50_us", "append, tight loop, p50", "us", "record"),
        Row("append_p99_us", "append p99", "us", "record"),
        Row("append_p999_us", "append p99.9", "us", "record"),
        Row("append_max_us", "append max", "us", "record"),
        Row("loop_us", "whole recording loop, an entry", "us", "record"),
        Row("durable_us", "append until durable, an entry", "us", "record"),
        Row("extend_us", "NumPy arrays until durable, an entry", "us", "extend"),
    ),
    "1 kHz loop on ten topics": (
        Row("tick_call_p999_us", "1 kHz: call p99.9", "us", "ticking"),
        Row("tick_call_max_us", "1 kHz: call max", "us", "ticking"),
        Row("tick_late_p999_us", "wake-up lateness p99.9", "us", "ticking"),
        Row("tick_empty_late_p999_us", "the empty loop beside it: lateness p99.9", "us", "ticking"),
        Row("tick_late_2ms_percent", "ticks later than 2 ms", "%", "ticking"),
        Row("tick_empty_late_2ms_percent", "the empty loop beside it: later than 2 ms", "%", "ticking"),
    ),
    "Safety and footprint": (
        Row("paced_survive", "left after SIGKILL in a 500 Hz loop", "%", "paced_survivors", higher=True),
        Row("fast_survive", "left after SIGKILL 0.1 s into a tight loop", "%", "fast_survivors", higher=True),
        Row("long_survive", "left after SIGKILL 2 s into a tight loop", "%", "long_survivors", higher=True),
        Row("long_salvage", "the same after the product's repair", "%", "long_survivors", higher=True),
        Row("stored_percent", "left after a clean close", "%", "record", higher=True),
        Row("disk_bytes", "disk, an entry (raw: 176)", "B", "record"),
        Row("memory_1x_mb", "peak memory beyond start", "MB", "memory"),
        Row("memory_3x_mb", "peak memory, three times the entries", "MB", "memory"),
        Row("import_ms", "import, beyond Python's start", "ms", "imports"),
    ),
    "Reading": (
        Row("window_ms", "1 % window as dicts", "ms", "read"),
        Row("window_first_ms", "the first window of a process", "ms", "read"),
        Row("sparse_short_ms", "100 entries out of the short recording", "ms", "sparse"),
        Row("sparse_long_ms", "100 entries out of the long recording", "ms", "sparse"),
        Row("full_ms", "everything as dicts", "ms", "read"),
        Row("full_nogc_ms", "everything as dicts, collector off for all", "ms", "read"),
        Row("column_warm_ms", "one column as NumPy, warm", "ms", "read"),
        Row("column_cold_ms", "one column as NumPy, cold", "ms", "read"),
        Row("parquet_warm_ms", "Parquet export, warm", "ms", "read"),
        Row("parquet_cold_ms", "Parquet export, cold", "ms", "read"),
        Row("build_columns_ms", "building the columnar file", "ms", "read"),
    ),
}
ROWS = tuple(row for rows in GROUPS.values() for row in rows)

NOT_COMPARED = {"tick_empty_late_p999_us", "tick_empty_late_2ms_percent", "memory_3x_mb", "long_salvage"}
"""Rows that describe the machine or repeat another row: nobody is ahead in them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: one of our figures, alone or divided by another figure of the same round, against a limit.

    Where `noisy`, the limit is the upper quartile of the baseline's own ratios if that is larger: what a loop without
    any recorder's thread beside it shows is the machine's doing.
    """

    title: str
    key: str
    limit: float
    over: tuple[str, str] | None = None
    at_least: bool = False
    noisy: bool = False


TARGETS = (
    Target("append p50 / baseline", "append_p50_us", 1.5, (BASELINE, "append_p50_us")),
    Target("whole recording loop / baseline", "loop_us", 1.5, (BASELINE, "loop_us")),
    Target("extend / append, until durable", "extend_us", 0.5, (OURS, "durable_us")),
    Target("1 kHz: call p99.9, us", "tick_call_p999_us", 100),
    Target(
        "1 kHz: lateness p99.9 / empty loop", "tick_late_p999_us", 1.1, (OURS, "tick_empty_late_p999_us"), noisy=True
    ),
    Target("append until durable / baseline", "durable_us", 3.0, (BASELINE, "durable_us")),
    Target("1 % window, ms", "window_ms", 3.0),
    Target("100 entries: long / short recording", "sparse_long_ms", 3.0, (OURS, "sparse_short_ms")),
    Target("full read / orjson.loads, collector on", "full_ms", 1.1, (BASELINE, "full_ms")),
    Target("full read / orjson.loads, collector off", "full_nogc_ms", 1.1, (BASELINE, "full_nogc_ms")),
    Target("writer's extra memory, MB", "memory_1x_mb", 32),
    Target("the same at three times the length, MB", "memory_3x_mb", 32),
    Target("left after SIGKILL at 500 Hz, %", "paced_survive", 100, at_least=True),
    Target("left after SIGKILL at full speed, %", "fast_survive", 100, at_least=True),
    Target("left after SIGKILL at full speed, 2 s, %", "long_survive", 100, at_least=True),
    Target("import, ms", "import_ms", 60),
    Target("column warm / memory-mapped Arrow", "column_warm_ms", 1.5, (BASELINE, "column_warm_ms")),
    Target("column cold / orjson parse of the file", "column_cold_ms", 1.5, (BASELINE, "column_cold_ms")),
    Target("Parquet warm / pyarrow", "parquet_warm_ms", 1.3, (BASELINE, "parquet_warm_ms")),
    Target("Parquet cold / orjson + pandas", "parquet_cold_ms", 0.5, (BASELINE, "parquet_cold_ms")),
    Target("building the columns / DuckDB read_json", "build_columns_ms", 1.5, (BASELINE, "build_columns_ms")),
)


# --- figures ---------------------------------------------------------------------------------------------------------


def rounds(result: Result, product: str, key: str) -> dict[str, float]:
    """The samples of one figure by round (rounds are text once they come from a file)."""
    found = result["samples"].get(product, {}).get(key, {})
    return {str(number): value for number, value in found.items()}


def median(result: Result, product: str, key: str) -> float | None:
    """The median over the rounds; None when there is no sample."""
    found = rounds(result, product, key)
    return statistics.median(found.values()) if found else None


def paired(result: Result, key: str, product: str, over: tuple[str, str]) -> list[float]:
    """The figure divided by another one of the same round, round by round."""
    above, below = rounds(result, product, key), rounds(result, *over)
    return [above[number] / below[number] for number in above if below.get(number)]


def best(result: Result, row: Row) -> str | None:
    """Who is ahead in a row, by median; None when nobody has a figure."""
    found = {name: median(result, name, row.key) for name in result["products"]}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return None
    return (max if row.higher else min)(known, key=lambda name: known[name])


def number(value: float) -> str:
    """Two or three significant digits; what is just below 100 (a share that survived) is never rounded up to it."""
    if value in (0, 100):
        return f"{value:.0f}"
    if 99 < value < 100:
        return f"{math.floor(value * 1e4) / 1e4:.4f}".rstrip("0").rstrip(".")
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def spread(values: Iterable[float]) -> str:
    """Median and range: `1.79 (1.70..1.93)`; one value stands alone."""
    found = list(values)
    middle = number(statistics.median(found))
    return middle if len(found) == 1 else f"{middle} ({number(min(found))}..{number(max(found))})"


def why_missing(result: Result, product: str, row: Row) -> str:
    """The reason for an empty cell."""
    refused = result["products"][product]["refused"]
    notes = result["notes"].get(product, {})
    return refused or notes.get(row.key) or notes.get(row.job) or "not measured in this run"


# --- text ------------------------------------------------------------------------------------------------------------


def text_table(result: Result) -> str:
    """The table for a terminal: medians, and ratios to the baseline where both were measured."""
    names = list(result["products"])
    head = ["median of the rounds", "unit", *(result["products"][name]["title"] for name in names)]
    lines = [head]
    for group, rows in GROUPS.items():
        lines.append([f"-- {group}", *[""] * (len(head) - 1)])
        lines += [[row.title, row.unit, *(_short_cell(result, name, row) for name in names)] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    shown = [
        "  ".join([f"{line[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join([*shown, "", *_target_lines(result), "", *_missing_lines(result)])


def page(result: Result) -> str:
    """`docs/performance.md`, whole."""
    parts = [
        "# Performance",
        f"Made by `{result['options']['command']} --docs` from one run's own output; nothing is edited by hand.",
        "![Medians of the main measures, one panel each](performance.svg)",
        _conditions(result),
        *(_markdown_group(result, group, rows) for group, rows in GROUPS.items()),
        "## Targets\n\n" + _markdown_targets(result),
        "## Where another product is ahead\n\n" + _ahead(result),
        "## What is missing, and why\n\n" + "\n".join(f"* {line}" for line in _missing_lines(result)),
        "## How it is measured\n\nSee [benchmarks/README.md](../benchmarks/README.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _short_cell(result: Result, product: str, row: Row) -> str:
    value = median(result, product, row.key)
    if value is None:
        return "-"
    ratios = paired(result, row.key, product, (BASELINE, row.key))
    shown = "" if product == BASELINE or not ratios or row.higher else f" {number(statistics.median(ratios))}x"
    return number(value) + shown


def _target_lines(result: Result) -> list[str]:
    if OURS not in result["products"]:
        return []
    lines = [f"{'target':<44}{'ours':>28}{'limit':>14}"]
    return lines + [f"{title:<44}{shown:>28}{limit:>14}  {state}" for title, shown, limit, state in judged(result)]


def judged(result: Result) -> list[tuple[str, str, str, str]]:
    """Each target with our figure, the limit, and whether it is met (a survival target by its worst round)."""
    lines = []
    for target in TARGETS:
        found = list(rounds(result, OURS, target.key).values())
        if target.over:
            found = paired(result, target.key, OURS, target.over)
        bound = target.limit
        if target.noisy and target.over:
            noise = paired(result, target.key, BASELINE, (BASELINE, target.over[1]))
            bound = max(bound, percentile(noise, 0.75)) if noise else bound
        limit = ("at least " if target.at_least else "") + number(bound)
        if not found:
            lines.append((target.title, "-", limit, "not measured"))
            continue
        middle = statistics.median(found)
        met = min(found) >= bound if target.at_least else middle <= bound
        lines.append((target.title, spread(found), limit, "met" if met else "MISSED"))
    return lines


def _missing_lines(result: Result) -> list[str]:
    lines = []
    for name, product in result["products"].items():
        missing: dict[str, list[str]] = {}
        for row in ROWS:
            if median(result, name, row.key) is None:
                missing.setdefault(why_missing(result, name, row), []).append(row.title)
        for why, titles in missing.items():
            what = "everything" if len(titles) == len(ROWS) else ", ".join(titles)
            lines.append(f"{product['title']}: {what}: {why}")
    return lines


def _conditions(result: Result) -> str:
    machine, options = result["machine"], result["options"]
    loads = " and ".join(f"{load[0]:.2f}" for load in machine["load"])
    products = result["products"].values()
    fewer = [f"{p['title']} {p['share']:.0%}" for p in products if p["share"] < 1 and options["share"]]
    versions = ", ".join(f"{p['title']} ({p['version']})" for p in products if p["version"])
    sentences = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"{machine['date']}; {machine['seconds'] / 60:.0f} minutes; load average {loads} at start and end.",
        f"Versions: {versions}; ml_dash at commit {machine['commit'] or 'unknown'}.",
        f"{options['entries']:,} entries of 21 float64 in four lists, {options['rounds']} rounds, the products "
        "alternating within each round. A cell shows the median and (lowest..highest).",
        f"The short recording has {options['short_entries']:,} entries, the long one {options['long_entries']:,}.",
    ]
    if fewer:
        sentences.append(f"Fewer entries in the recording loops (figures are per entry): {', '.join(fewer)}.")
    return " ".join(sentences)


def _markdown_group(result: Result, group: str, rows: tuple[Row, ...]) -> str:
    names = list(result["products"])
    head = ["", *(result["products"][name]["title"] for name in names)]
    lines = [head, ["---", *["---:"] * len(names)]]
    for row in rows:
        ahead = best(result, row) if row.key not in NOT_COMPARED else None
        top = median(result, ahead, row.key) if ahead else None
        cells = [_cell(result, name, row, top is not None and median(result, name, row.key) == top) for name in names]
        lines.append([f"{row.title}, {row.unit}", *cells])
    return f"## {group}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(result: Result, product: str, row: Row, ahead: bool) -> str:
    found = rounds(result, product, row.key)
    if not found:
        return "-"
    text = spread(found.values())
    ratios = paired(result, row.key, product, (BASELINE, row.key))
    if ratios and product != BASELINE and not row.higher and row.key not in NOT_COMPARED:
        text += f"; {number(statistics.median(ratios))}x"
    return f"**{text}**" if ahead else text


def _markdown_targets(result: Result) -> str:
    lines = [("target", "ours, median (lowest..highest)", "limit", ""), ("---", "---:", "---:", "---"), *judged(result)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ahead(result: Result) -> str:
    """Every compared row in which somebody else has the better median, with the reason where one is known."""
    lines = []
    for row in ROWS:
        winner, mine = best(result, row), median(result, OURS, row.key)
        if row.key in NOT_COMPARED or winner in (None, OURS) or mine is None:
            continue
        theirs = median(result, winner, row.key)
        if theirs == mine:
            continue
        ahead = [
            result["products"][name]["title"]
            for name in result["products"]
            if name != OURS and _better(median(result, name, row.key), mine, row.higher)
        ]
        figures = f"best {number(theirs)} {row.unit}, ours {number(mine)}"
        lines.append(f"* {row.title}: {', '.join(ahead)} ({figures}).{reason(row.key, winner)}")
    return "\n".join(lines) or "Nowhere in this run."


def _better(theirs: float | None, mine: float, higher: bool) -> bool:
    return theirs is not None and (theirs > mine if higher else theirs < mine)
