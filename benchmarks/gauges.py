"""The measuring tools: laps, percentiles of them, memory, disk, and the check that an answer is the right one."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import statistics
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.percentiles import percentile
from benchmarks.systems import Absent, System
from benchmarks.workload import PERIOD_S, START_S

clock = time.perf_counter_ns

LATE_NS = 2_000_000


class Report:
    """Figures of one job, and for each that could not be had the reason."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    def take(self, names: str | tuple[str, ...], measure: Callable[[], Any]) -> None:
        """Store what `measure` returns under `names`, or why it returned nothing."""
        wanted = (names,) if isinstance(names, str) else names
        try:
            found = measure()
        except Absent as reason:
            self.notes |= dict.fromkeys(wanted, str(reason))
        except Exception as error:
            self.notes |= dict.fromkeys(wanted, f"failed: {type(error).__name__}: {error}"[:200])
        else:
            self.values |= dict(zip(wanted, (found,) if isinstance(names, str) else found, strict=True))

    def copy(self, name: str, to: str) -> None:
        """The same outcome under a second name."""
        for kept in (self.values, self.notes):
            if name in kept:
                kept[to] = kept[name]  # type: ignore[index]


def lap(run: Callable[[], Any]) -> float:
    """Milliseconds of one run."""
    began = clock()
    run()
    return (clock() - began) / 1e6


def median_lap(measure: Callable[[], float], most: int = 7, limit_s: float = 0.5) -> float:
    """Median of what `measure` returns: at most `most` times, and no further once `limit_s` have passed."""
    found, began = [measure()], time.perf_counter()
    while len(found) < most and time.perf_counter() - began < limit_s:
        found.append(measure())
    return statistics.median(found)


def second_lap(run: Callable[[], float], before: Callable[[], Any]) -> float:
    """The second of two runs, each after `before`: the first one pays for imports, which are measured apart.

    A first run of more than a second is taken as it is: imports hardly show in it.
    """
    before()
    first = run()
    if first > 1000:
        return first
    before()
    return run()


def summary(laps: list[int]) -> dict[str, float]:
    """The usual percentiles, in the unit of the laps."""
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: percentile(laps, share) for name, share in shares.items()}


def lateness(name: str, late: array[int]) -> dict[str, float]:
    """p99.9 of the wake-up lateness in microseconds, and the share of ticks later than 2 ms in percent."""
    over = sum(value > LATE_NS for value in late)
    return {f"{name}_p999_us": percentile(late, 0.999) / 1e3, f"{name}_2ms_percent": 100 * over / len(late)}


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection inside the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Nothing of the preparation may be paid in the measurement."""
    gc.collect()
    gc.freeze()
    if hasattr(os, "sync"):
        os.sync()


def fresh(job: dict[str, Any], part: str) -> Path:
    """An empty folder of this job."""
    folder = Path(job["folder"]) / part
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(system: System, folder: Path) -> None:
    """Close, and sync the files of a product that does not do it itself."""
    system.close()
    if system.syncs:
        return
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_bytes(folder: Path) -> int:
    """What the files of a folder hold, hidden ones included."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def peak_mb(*, children: bool = False) -> float:
    """Peak resident MB of this process, or the sum of its descendants' peaks."""
    if children:
        return sum(_status_kb(pid, "VmHWM") for pid in _descendants(os.getpid())) / 1024
    return _status_kb(os.getpid(), "VmHWM") / 1024


def resident_mb(*, reset_peak: bool = False) -> float:
    """Resident MB now; `reset_peak` makes the peak count from here."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        raise Absent("peak memory is read from /proc, which this system does not have")
    if reset_peak:
        clear.write_text("5")
    return _status_kb(os.getpid(), "VmRSS") / 1024


def _status_kb(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def stored_share(system: System, folder: Path, count: int) -> float:
    """Share of the entries that are there after a clean close; anything but 1 means the product lost data."""
    indices = {round((stamp - START_S) / PERIOD_S) for stamp in system.survivors(folder)}
    return len(indices & set(range(count))) / count


def check_rows(rows: list[dict[str, Any]], first: int, width: int) -> None:
    """Refuse a time for a wrong answer: number of rows, and the `q` of the first and the last one."""
    if len(rows) != width:
        raise ValueError(f"read {len(rows)} entries where {width} were recorded")
    for row, index in ((rows[0], first), (rows[-1], first + width - 1)):
        sevens = [value for value in row.values() if isinstance(value, list) and len(value) == 7]
        if not any(np.allclose(value, recorded_q(index), rtol=0, atol=1e-9) for value in sevens):
            raise ValueError(f"entry {index} is not what was recorded")


def recorded_q(index: int) -> np.ndarray:
    """The seven joint positions of one entry."""
    return workload.arrays(1, index)["q"][0]
