"""How much memory a process took at most over what it had before, and how much of its time: for tests with bounds."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


class Grown:
    """What was measured: `size` in bytes, once the block has ended."""

    size = 0


@contextmanager
def peak_growth(pid: int | None = None) -> Iterator[Grown]:
    """The growth of a process's resident memory at its highest, while the block runs; of this one by default.

    Linux forgets the highest on request. Elsewhere it is the highest ever, so that an earlier and larger one hides it.
    """
    grown, status = Grown(), Path(f"/proc/{pid or os.getpid()}/status")
    if not status.exists():
        before = _highest_ever()
        yield grown
        grown.size = _highest_ever() - before
        return
    status.with_name("clear_refs").write_text("5")
    before = _read(status, "VmRSS")
    yield grown
    grown.size = _read(status, "VmHWM") - before


def _read(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def _highest_ever() -> int:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size << 10


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside: at the bottom of the recursion that a deeply nested body causes, it would finalize
    what other tests left, which fails there and is reported as a fault of this one."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def soon(seconds: float = 1.0) -> Iterator[None]:
    """Fails where the block needs more than so long of this process's own time, or ten times that by the clock.

    Client and server are in one process, and a machine that is busy with others is no fault of either.
    """
    used, started = time.process_time(), time.monotonic()
    with no_collection():
        yield
    assert time.process_time() - used < seconds
    assert time.monotonic() - started < 10 * seconds
