"""Targets of the analysis, each against its bare counterpart in the same process and the same rounds.

    python -m benchmarks.analysis            # about a minute; ten million entries iterated with --full
    python -m benchmarks.analysis --json results.json

Each line: our call, the bare call that any implementation needs, the median of the paired ratios, and the target.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ml_dash import Experiment
from ml_dash import open as open_experiment
from ml_dash.analysis.align import align
from ml_dash.analysis.evaluate import evaluate
from ml_dash.analysis.lookup import lookup
from ml_dash.analysis.plots import plot
from ml_dash.analysis.tables import from_numbers

SECONDS = 1000
RATES_HZ = {"slow": 100, "middle": 200, "fast": 1000}
PREFIX = "bench/analysis/run"


@dataclass(frozen=True)
class Result:
    """One measure: ours and bare in its unit, their paired ratio; the target is for the ratio where there is one."""

    name: str
    ours: float
    bare: float | None
    ratio: float | None
    target: float
    unit: str = "ms"

    @property
    def met(self) -> bool:
        """Whether the target holds."""
        return (self.ours if self.ratio is None else self.ratio) <= self.target


def paired(name: str, ours: Callable[[], Any], bare: Callable[[], Any], target: float, rounds: int) -> Result:
    """Both in turn, the order changing with each round; the first round only warms up."""
    samples: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        first, second = (ours, bare) if number % 2 else (bare, ours)
        one, other = timed(first), timed(second)
        samples.append((one, other) if number % 2 else (other, one))
    samples = samples[1:]
    ratio = statistics.median(mine / its for mine, its in samples)
    mine, its = (statistics.median(part) for part in zip(*samples, strict=True))
    return Result(name, mine * 1e3, its * 1e3, ratio, target)


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# ---------------------------------------------------------------- tracks in memory


def track(rate_hz: int, **columns: Callable[[Any], Any]) -> pa.Table:
    """A table of `SECONDS` at this rate."""
    times = np.arange(SECONDS * rate_hz) / rate_hz
    return pa.table({"timestamp": times, **{name: from_numbers(make(times)) for name, make in columns.items()}})


def seven(times: Any) -> Any:
    """Seven joints."""
    return np.sin(times)[:, None] * np.arange(1.0, 8.0)


def turns(times: Any) -> Any:
    """A body turning about z."""
    nothing = np.zeros(len(times))
    return np.stack([np.cos(times), nothing, nothing, np.sin(times)], axis=1)


def values(table: pa.Table, name: str) -> Any:
    """A column as NumPy, without a copy."""
    array = table.column(name).chunk(0)
    if not pa.types.is_fixed_size_list(array.type):
        return array.to_numpy()
    return array.values.to_numpy().reshape(-1, array.type.list_size)


def bare_interp(tables: dict[str, pa.Table], name: str, clock: Any) -> list[Any]:
    """The `np.interp` calls that linear alignment needs."""
    found = []
    for table in tables.values():
        times, data = values(table, "timestamp"), values(table, name)
        columns = [data] if data.ndim == 1 else [data[:, item] for item in range(data.shape[1])]
        found += [np.interp(clock, times, column) for column in columns]
    return found


def bare_hold(tables: dict[str, pa.Table], name: str, clock: Any) -> list[Any]:
    """Search and gather."""
    return [
        values(table, name)[np.searchsorted(values(table, "timestamp"), clock, "right") - 1]
        for table in tables.values()
    ]


def bare_slerp(tables: dict[str, pa.Table], name: str, clock: Any) -> list[Any]:
    """Search, gather and the formula, as one would write it for unit quaternions."""
    found = []
    for table in tables.values():
        times, data = values(table, "timestamp"), values(table, name)
        low = np.clip(np.searchsorted(times, clock, "right") - 1, 0, len(times) - 2)
        one, other = data[low], data[low + 1]
        part = (clock - times[low]) / (times[low + 1] - times[low])
        cosine = (one * other).sum(axis=1)
        other = np.where(cosine < 0, -1.0, 1.0)[:, None] * other
        angle = np.arccos(np.clip(np.abs(cosine), 0, 1))
        sine = np.sin(angle)
        safe = np.where(sine > 1e-6, sine, 1.0)
        of_one = np.where(sine > 1e-6, np.sin((1 - part) * angle) / safe, 1 - part)
        of_other = np.where(sine > 1e-6, np.sin(part * angle) / safe, part)
        mixed = of_one[:, None] * one + of_other[:, None] * other
        found.append(mixed / np.linalg.norm(mixed, axis=1)[:, None])
    return found


def aligning(rounds: int) -> Iterator[Result]:
    """100 Hz, 200 Hz and 1 kHz onto 50 Hz."""
    clock = np.arange(50 * (SECONDS - 1)) / 50
    scalars = {name: track(rate, x=np.sin) for name, rate in RATES_HZ.items()}
    joints = {name: track(rate, q=seven) for name, rate in RATES_HZ.items()}
    bodies = {name: track(rate, quat_wxyz=turns) for name, rate in RATES_HZ.items()}
    hold = {"x": "hold"}
    yield paired(
        "align linear, one number",
        lambda: align(scalars, at=clock),
        lambda: bare_interp(scalars, "x", clock),
        1.5,
        rounds,
    )
    yield paired(
        "align linear, seven numbers",
        lambda: align(joints, at=clock),
        lambda: bare_interp(joints, "q", clock),
        1.5,
        rounds,
    )
    yield paired(
        "align hold", lambda: align(scalars, at=clock, how=hold), lambda: bare_hold(scalars, "x", clock), 1.5, rounds
    )
    yield paired(
        "align slerp", lambda: align(bodies, at=clock), lambda: bare_slerp(bodies, "quat_wxyz", clock), 1.5, rounds
    )


def looking_up(rounds: int) -> Iterator[Result]:
    """at() of a million times in a million entries."""
    table = track(1000, x=np.sin, q=seven)
    random = np.random.default_rng(1)
    for name, asked in (
        ("at, a million times in order", np.sort(random.uniform(1, SECONDS - 1, 1_000_000))),
        ("at, a million times in any order", random.uniform(1, SECONDS - 1, 1_000_000)),
    ):

        def bare(asked: Any = asked) -> list[Any]:
            places = np.searchsorted(values(table, "timestamp"), asked, "right") - 1
            return [values(table, column)[places] for column in ("timestamp", "x", "q")]

        yield paired(name, lambda asked=asked: lookup(table, asked, "held"), bare, 2.0, rounds)


def searching(rounds: int) -> Iterator[Result]:
    """The predicate of find, beside DuckDB's count of the same one."""
    import duckdb

    random = np.random.default_rng(2)
    force = track(1000, f=lambda times: random.normal(size=(len(times), 3)) * 10)
    plain = pa.table(
        {"timestamp": force["timestamp"], **{name: values(force, "f")[:, at].copy() for at, name in enumerate("xyz")}}
    )
    with duckdb.connect() as connection:
        connection.register("force", force)
        connection.register("plain", plain)
        for name, expression, table, query in (
            (
                "find norm(f) > 20",
                "norm(f) > 20",
                force,
                "select count(*) from force where sqrt(f[1]*f[1] + f[2]*f[2] + f[3]*f[3]) > 20",
            ),
            (
                "find x > 5 and y < 0",
                "x > 5 and y < 0",
                plain,
                "select count(*) from plain where x > 5 and y < 0",
            ),
        ):
            expected = connection.execute(query).fetchone()
            found = int(evaluate(expression, {"force": table}, "force")[1].sum())
            if expected is None or expected[0] != found:
                raise AssertionError(f"{expression}: {found} here, {expected} in DuckDB")
            yield paired(
                name,
                lambda expression=expression, table=table: evaluate(expression, {"force": table}, "force"),
                lambda query=query: connection.execute(query).fetchone(),
                2.0,
                rounds,
            )


def drawing(rounds: int) -> Iterator[Result]:
    """A million samples to PNG, beside matplotlib drawing just the samples that are left of them."""
    from matplotlib.figure import Figure

    table = track(1000, x=lambda times: np.sin(times) + np.random.default_rng(3).normal(size=len(times)) / 5)
    left = plot(table, ["x"]).axes[0].lines[0].get_xydata()

    def bare() -> None:
        figure = Figure(figsize=(12, 2.3), dpi=100, layout="constrained")
        ax = figure.subplots()
        ax.plot(left[:, 0], left[:, 1], linewidth=0.9)
        ax.set_ylabel("x", rotation=0)
        ax.set_xlabel("time (s)")
        ax.grid(alpha=0.25)
        figure.savefig(io.BytesIO(), format="png")

    yield paired(
        "plot a million samples", lambda: plot(table, ["x"]).savefig(io.BytesIO(), format="png"), bare, 2.0, rounds
    )


# ---------------------------------------------------------------- recordings on disk


def record(root: str, entries: int) -> None:
    """A recording of so many entries, stored and closed."""
    times = np.arange(entries) / 1000
    with Experiment(PREFIX, dash_root=root).run as experiment:
        for first in range(0, entries, 500_000):
            part = times[first : first + 500_000]
            force = np.sin(part)[:, None] * [1.0, 2.0, 3.0]
            experiment.tracks("force").extend(_ts=part, f=force + np.random.default_rng(4).normal(size=force.shape))


def watching(rounds: int) -> Iterator[Result]:
    """A second of appends, as fast as they go, with the watch and without."""
    fields = {"q": [0.1] * 7, "qd": [0.2] * 7, "ee_pos": [0.3] * 3, "ee_quat": [0.5] * 4}

    def append(watch: bool) -> None:
        with tempfile.TemporaryDirectory() as root, Experiment(PREFIX, dash_root=root, watch=watch).run as experiment:
            experiment.params.set(rates_hz={"arm": 1000})
            track = experiment.tracks("arm")
            for index in range(100_000):
                track.append(**fields, _ts=index / 1000)
            experiment.tracks.flush()

    yield paired("100,000 appends and a flush, watched", lambda: append(True), lambda: append(False), 1.1, rounds)


def examining(rounds: int) -> Iterator[Result]:
    """The doctor on a million entries, its columns derived before."""
    with tempfile.TemporaryDirectory() as root:
        os.environ["ML_DASH_CACHE"] = f"{root}/cache"
        record(root, 1_000_000)
        with open_experiment(PREFIX, dash_root=root) as experiment:
            experiment.doctor()
            times = [timed(experiment.doctor) for _ in range(rounds)]
    yield Result("doctor, a million entries, warm", statistics.median(times) * 1e3, None, None, 1000.0)


def iterating(entries: int) -> Iterator[Result]:
    """The growth of a fresh process while it goes through every entry of a slice."""
    with tempfile.TemporaryDirectory() as root:
        record(root, entries)
        words = [sys.executable, "-m", "benchmarks.analysis", "--iterate", root]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process that iterates ended with {done.returncode}:\n{done.stderr}")
    found = json.loads(done.stdout)
    if found["entries"] != entries:
        raise AssertionError(f"{found['entries']} entries of {entries} came")
    name = f"iterate {entries:,} entries ({found['seconds']:.0f} s), growth"
    yield Result(name, found["growth_mib"], None, None, 100.0, "MiB")


def iterate(root: str) -> None:
    """In a process of its own: go through all entries, say how far the memory grew."""
    with open_experiment(PREFIX, dash_root=root) as experiment:
        cut = experiment.tracks("force").slice()
        with suppress(PermissionError):  # a container may forbid it: the peak of the start then counts as growth
            Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts anew
        before = memory_mib("VmRSS")
        start = time.perf_counter()
        entries = sum(1 for _ in cut)
        seconds = time.perf_counter() - start
        growth = memory_mib("VmHWM") - before
    print(json.dumps({"entries": entries, "seconds": seconds, "growth_mib": growth}))


def memory_mib(field: str) -> float:
    """A figure of this process from Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


# ---------------------------------------------------------------- the table


def main() -> int:
    """Measure, print, and say by the exit code whether every target is met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--full", action="store_true", help="iterate ten million entries instead of one")
    options.add_argument("--json", type=Path, help="write the results to this file")
    options.add_argument("--iterate", metavar="ROOT", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.iterate:
        iterate(given.iterate)
        return 0
    results: list[Result] = []
    print(f"{'measure':55} {'ours':>9} {'bare':>9} {'ratio':>6} {'target':>7}")
    for part in (
        aligning(given.rounds),
        looking_up(given.rounds),
        searching(given.rounds),
        drawing(given.rounds),
        watching(given.rounds),
        examining(given.rounds),
        iterating(10_000_000 if given.full else 1_000_000),
    ):
        for result in part:
            results.append(result)
            print(line(result), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(result) | {"met": result.met} for result in results], indent=2))
    return 0 if all(result.met for result in results) else 1


def line(result: Result) -> str:
    """One measure as a line of the table."""
    bare = "" if result.bare is None else f"{result.bare:.1f}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    missed = "" if result.met else "  missed"
    ours = f"{result.ours:.1f} {result.unit}"
    return f"{result.name:50} {ours:>14} {bare:>9} {ratio:>6} {result.target:>7g}{missed}"


if __name__ == "__main__":
    sys.exit(main())
