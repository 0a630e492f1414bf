"""What is measured, as it runs inside a product's own process. Every function returns named figures.

Times are wall time of `time.perf_counter_ns`. Before a recording loop the harness's own objects are frozen out of the
garbage collector (`gc.freeze`), so that no product pays for collecting the test data; the collector stays on.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.gauges import (
    Report,
    check_rows,
    clock,
    collector_off,
    finish,
    fresh,
    lap,
    lateness,
    median_lap,
    peak_mb,
    recorded_q,
    resident_mb,
    second_lap,
    settle,
    size_bytes,
    stored_share,
    summary,
)
from benchmarks.percentiles import percentile
from benchmarks.systems import System
from benchmarks.workload import PERIOD_S, START_S, TOPIC

POOL = 1_000


# --- recording -------------------------------------------------------------------------------------------------------


def record(system: System, job: dict[str, Any], report: Report) -> None:
    """Per-call times in one recording, the plain loop and the time until all is durable in a second one."""
    entries = workload.entries(job["entries"])
    laps = _timed_calls(system, fresh(job, "timed"), entries)
    loop_ns, durable_ns, folder = _plain_loop(system, fresh(job, "plain"), entries)
    count = len(entries)
    report.values |= {f"append_{name}_us": value / 1e3 for name, value in summary(laps).items()}
    report.values |= {"loop_us": loop_ns / count / 1e3, "durable_us": durable_ns / count / 1e3}
    report.values["disk_bytes"] = size_bytes(folder) / count
    if job["round"] == 0:
        report.values["stored_percent"] = 100 * stored_share(system, folder, count)


def extend(system: System, job: dict[str, Any], report: Report) -> None:
    """Whole arrays in one call, until durable."""
    columns = workload.arrays(job["entries"])
    folder = fresh(job, "extend")
    system.open(folder, [TOPIC])
    settle()

    def run() -> float:
        began = clock()
        system.extend(columns)
        finish(system, folder)
        return (clock() - began) / job["entries"] / 1e3

    report.take("extend_us", run)
    if job["round"] == 0 and "extend_us" in report.values:
        report.values["extend_stored_percent"] = 100 * stored_share(system, folder, job["entries"])


def ticking(system: System, job: dict[str, Any], report: Report) -> None:
    """1 kHz on ten topics, beside the same loop that records nothing; which of the two goes first alternates."""
    ticks = int(job["seconds"] / PERIOD_S)
    pool = workload.entries(ticks)
    topics = [f"robot/state_{index}" for index in range(10)]
    empty = workload.loops("pass", {})["ticking"]
    pair = [lambda: _tick(empty, ticks, pool, topics)]
    pair.append(lambda: _tick_recording(system, fresh(job, "ticking"), ticks, pool, topics))
    order = (0, 1) if job["round"] % 2 == 0 else (1, 0)
    found: dict[int, tuple[array[int], array[int]]] = {}
    for which in order:
        settle()
        found[which] = pair[which]()
    laps, late = found[1]
    report.values |= {"tick_call_p999_us": percentile(laps, 0.999) / 1e3, "tick_call_max_us": max(laps) / 1e3}
    report.values |= lateness("tick_late", late) | lateness("tick_empty_late", found[0][1])


def memory(system: System, job: dict[str, Any], report: Report) -> None:
    """Peak resident memory while recording, beyond what the process held before; its children's included."""
    report.take(f"memory_{job['times']}x_mb", lambda: _peak_of_recording(system, job))


def _peak_of_recording(system: System, job: dict[str, Any]) -> float:
    pool = workload.entries(POOL)
    settle()
    folder = fresh(job, f"memory_{job['times']}")
    before = resident_mb(reset_peak=True)
    names = system.open(folder, [TOPIC])
    count = job["entries"] * job["times"]
    workload.loops(system.line, names)["cycling"](count, pool, TOPIC, START_S, PERIOD_S, [0])
    children = peak_mb(children=True)
    finish(system, folder)
    return max(0.0, peak_mb() - before) + children


def until_killed(system: System, job: dict[str, Any], report: Report) -> None:
    """Record until the harness kills this process; the number of returned calls is in a shared file."""
    import mmap

    pool = workload.entries(POOL)
    with Path(job["acknowledged"]).open("r+b") as file:
        acknowledged = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    names = system.open(Path(job["folder"]), [TOPIC])
    made = workload.loops(system.line, names)
    period_s = job["period_s"]
    if period_s:
        made["pacing"](10**9, pool, TOPIC, START_S, period_s, acknowledged, time.perf_counter, time.sleep)
    made["cycling"](10**9, pool, TOPIC, START_S, PERIOD_S, acknowledged)


def survivors(system: System, job: dict[str, Any], report: Report) -> None:
    """Which of the acknowledged entries a plain re-open reads, and which a repair brings back."""
    folder, period_s = Path(job["folder"]), job["period_s"] or PERIOD_S

    def share(read: Callable[[Path], Any]) -> float:
        indices = {round((stamp - START_S) / period_s) for stamp in read(folder)}
        return 100 * sum(index in indices for index in range(job["acknowledged"])) / job["acknowledged"]

    try:
        report.values["survive"] = share(system.survivors)
    except Exception as error:  # whatever a product raises here, its user has nothing in hand
        report.values["survive"] = 0.0
        report.notes["survive"] = f"cannot be opened: {type(error).__name__}: {error}"[:200]
    report.take("salvage", lambda: share(system.salvaged))


# --- reading ---------------------------------------------------------------------------------------------------------


def fixture(system: System, job: dict[str, Any], report: Report) -> None:
    """A finished recording for the reading measures, made in slices so that any length fits in memory."""
    folder = fresh(job, "")
    names = system.open(folder, [TOPIC])
    plain = workload.loops(system.line, names)["plain"]
    whole = system.fixture_by == "extend" or (job.get("by") == "quickest" and type(system).extend is not System.extend)
    for first in range(0, job["entries"], 100_000):
        count = min(100_000, job["entries"] - first)
        if whole:
            system.extend(workload.arrays(count, first))
        else:
            plain(workload.entries(count, first), TOPIC)
    finish(system, folder)


def read(system: System, job: dict[str, Any], report: Report) -> None:
    """Windows and everything as dicts, one column as NumPy, Parquet export; without and with derived files."""
    folder, count = Path(job["folder"]), job["entries"]
    system.make_cold(folder)
    width = max(1, count // 100)
    report.take(("window_first_ms", "window_ms"), lambda: _windows(system, folder, count, width))
    report.take("full_ms", lambda: _full(system, folder, count))
    with collector_off():
        report.take("full_nogc_ms", lambda: _full(system, folder, count))
    for name, once in (("column", _column), ("parquet", _parquet)):
        _cold_and_warm(system, folder, report, name, partial(once, system, folder, count))
    build = partial(lap, partial(system.build_columns, folder))
    report.take("build_columns_ms", lambda: second_lap(build, lambda: system.make_cold(folder)))


def sparse(system: System, job: dict[str, Any], report: Report) -> None:
    """100 entries out of the middle of a short and of a long recording."""
    for size in ("short", "long"):
        folder, count = Path(job[size]), job[f"{size}_entries"]
        middle = count // 2

        def once(folder: Path = folder, middle: int = middle) -> float:
            return _window(system, folder, middle, 100)

        def after_one(once: Callable[[], float] = once) -> float:
            once()
            return median_lap(once)

        report.take(f"sparse_{size}_ms", after_one)


# --- parts -----------------------------------------------------------------------------------------------------------


def _timed_calls(system: System, folder: Path, entries: list[workload.EntryTuple]) -> list[int]:
    timer_ns = _timer_cost()
    names = system.open(folder, [TOPIC])
    laps = array("q", bytes(8 * len(entries)))
    made = workload.loops(system.line, names)
    settle()
    made["timed"](entries, TOPIC, clock, laps)
    finish(system, folder)
    return [max(0, value - timer_ns) for value in laps]


def _plain_loop(system: System, folder: Path, entries: list[workload.EntryTuple]) -> tuple[int, int, Path]:
    names = system.open(folder, [TOPIC])
    made = workload.loops(system.line, names)
    settle()
    began = clock()
    made["plain"](entries, TOPIC)
    looped = clock()
    finish(system, folder)
    return looped - began, clock() - began, folder


def _timer_cost() -> int:
    """What reading the clock twice costs: taken off each call's time."""
    laps = array("q", bytes(8 * 20_000))
    nothing = [(0.0, [], [], [], [])] * len(laps)
    workload.loops("pass", {})["timed"](nothing, TOPIC, clock, laps)
    return int(percentile(laps, 0.5))


def _tick(loop: Callable[..., None], ticks: int, pool: Any, topics: list[str]) -> tuple[array[int], array[int]]:
    laps, late = array("q", bytes(8 * ticks * len(topics))), array("q", bytes(8 * ticks))
    loop(ticks, pool, topics, clock, time.sleep, int(PERIOD_S * 1e9), laps, late)
    return laps, late


def _tick_recording(
    system: System, folder: Path, ticks: int, pool: Any, topics: list[str]
) -> tuple[array[int], array[int]]:
    names = system.open(folder, topics)
    found = _tick(workload.loops(system.line, names)["ticking"], ticks, pool, topics)
    finish(system, folder)
    return found


def _windows(system: System, folder: Path, count: int, width: int) -> tuple[float, float]:
    """The first window of the process, and the median of windows at other places."""
    first = _window(system, folder, count // 3, width)
    places = iter(range(0, count - width, max(1, (count - width) // 8)))
    return first, median_lap(lambda: _window(system, folder, next(places), width), most=7)


def _window(system: System, folder: Path, first: int, width: int) -> float:
    start, end = START_S + (first - 0.5) * PERIOD_S, START_S + (first + width - 0.5) * PERIOD_S
    began = clock()
    rows = system.window(folder, start, end)
    took = clock() - began
    check_rows(rows, first, width)
    return took / 1e6


def _full(system: System, folder: Path, count: int) -> float:
    gc.collect()
    began = clock()
    rows = system.full(folder)
    took = clock() - began
    check_rows(rows, 0, count)
    return took / 1e6


def _column(system: System, folder: Path, count: int) -> float:
    began = clock()
    column = system.column(folder)
    float(column.sum())  # a mapped column is only read when it is used
    took = clock() - began
    if column.shape != (count, 7) or not np.allclose(column[-1], recorded_q(count - 1), rtol=0, atol=1e-9):
        raise ValueError(f"the column is not what was recorded: shape {column.shape}")
    return took / 1e6


def _cold_and_warm(system: System, folder: Path, report: Report, name: str, once: Callable[[], float]) -> None:
    """Without derived files and with them; the same figure for a product that has none."""
    cold, warm = f"{name}_cold_ms", f"{name}_warm_ms"
    report.take(cold, lambda: second_lap(once, lambda: system.make_cold(folder)))
    if system.derived:
        system.make_warm(folder)
        report.take(warm, lambda: median_lap(once))
    else:
        report.copy(cold, warm)


def _parquet(system: System, folder: Path, count: int) -> float:
    target = folder.parent / f"{folder.name}.parquet"
    target.unlink(missing_ok=True)
    began = clock()
    system.parquet(folder, target)
    took = clock() - began
    if not target.exists() or target.stat().st_size < count * 8:
        raise ValueError("the export holds too little")
    return took / 1e6


MEASURES = {
    measure.__name__: measure
    for measure in (record, extend, ticking, memory, until_killed, survivors, fixture, read, sparse)
}
