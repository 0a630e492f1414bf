"""Processes to be killed: started from a clean server process, counting in shared memory what was acknowledged."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["ml_dash", f"{__package__}.writers"])

SLOTS = 64
PATIENCE_S = 60.0


class Counters:
    """Numbers in memory shared by processes. A store into it survives whatever happens to its process afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(8 * SLOTS))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8 * SLOTS)
        self.slots = memoryview(self._memory).cast("Q")

    def __getitem__(self, slot: int) -> int:
        return self.slots[slot]

    def __setitem__(self, slot: int, value: int) -> None:
        self.slots[slot] = value


def start(program: Callable[..., None], *args: Any, journal: str = "") -> BaseProcess:
    """Start a program of `writers.py` in a process of its own, with `ML_DASH_JOURNAL` set."""
    process = _context.Process(target=_run, args=(program, args, journal), daemon=True)
    process.start()
    return process


def _run(program: Callable[..., None], args: tuple[Any, ...], journal: str) -> None:
    os.environ.pop("ML_DASH_JOURNAL", None)
    if journal:
        os.environ["ML_DASH_JOURNAL"] = journal
    program(*args)


def wait_for(condition: Callable[[], bool], what: str, *processes: BaseProcess, patience_s: float = PATIENCE_S) -> None:
    """Look until the condition holds; a process that ends before, or patience that ends, is a failure."""
    end = time.monotonic() + patience_s
    while not condition():
        for process in processes:
            if process.exitcode is not None and not condition():
                raise AssertionError(f"the process ended with {process.exitcode} before: {what}")
        assert time.monotonic() < end, f"waited {patience_s} s in vain for: {what}"
        time.sleep(0.0002)


def kill(process: BaseProcess) -> None:
    """SIGKILL, and gone on return."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def finish(process: BaseProcess, patience_s: float = PATIENCE_S) -> None:
    """Wait for a process that is to end well."""
    process.join(patience_s)
    alive = process.is_alive()
    if alive:
        kill(process)
    assert not alive, "the process hangs"
    assert process.exitcode == 0, f"the process ended with {process.exitcode}"


def script(program: Callable[..., None], *args: Any, journal: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program as a script of its own, from the interpreter's start to its end."""
    code = f"import sys; from {program.__module__} import {program.__name__} as program; program(*{args!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ML_DASH_JOURNAL": journal}
    return subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path, PosixPath, WindowsPath; {code}"],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
