"""Starts one process per job in the product's environment and keeps what it reports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.envs import CHECKOUT, Environment, last_line

Samples = dict[str, dict[str, dict[int, float]]]
"""product -> figure -> round -> value"""


@dataclass
class Harness:
    """The products of one run, where they write, and what was measured so far."""

    environments: dict[str, Environment]
    folder: Path
    timeout_s: float = 300.0
    samples: Samples = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self, name: str, measure: str, round_: int, prefix: str = "", **job: Any) -> None:
        """Run one job to its end and keep its figures; a job that fails is noted once and not tried again.

        Args:
            prefix: put before the names of the figures, where one measure runs under several conditions.
        """
        if prefix + measure in self.notes.get(name, {}):
            return
        job = {"measure": measure, "round": round_, "folder": str(self.folder / name / measure), **job}
        with self._started(name, job) as (process, result):
            try:
                process.wait(self.timeout_s)
            except subprocess.TimeoutExpired:
                self.note(name, prefix + measure, f"took longer than {self.timeout_s:.0f} s")
                return
            if process.returncode:
                self.note(name, prefix + measure, f"failed: {self._last_words(process)}")
                return
            found = json.loads(result.read_text())
        self.keep(name, round_, {prefix + key: value for key, value in found["values"].items()})
        for key, reason in found["notes"].items():
            self.note(name, prefix + key, reason)

    def kill(self, name: str, folder: Path, period_s: float, after_s: float) -> int:
        """Start a recording and SIGKILL the writer `after_s` after its first entry; how many it had acknowledged."""
        folder.mkdir(parents=True)
        shared = folder.parent / f"{folder.name}.acknowledged"
        shared.write_bytes(bytes(8))
        job = {"measure": "until_killed", "folder": str(folder), "acknowledged": str(shared), "period_s": period_s}
        with self._started(name, job) as (process, _):
            if not wait_until(lambda: acknowledged(shared) > 0 or process.poll() is not None, 30):
                raise RuntimeError("recorded nothing for 30 s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
                raise RuntimeError(f"ended by itself: {self._last_words(process)}")
            process.kill()
            process.wait()
            # A product may keep a second process that writes on: it gets its chance.
            wait_until(lambda: not group_alive(process.pid), 5)
        return acknowledged(shared)

    def keep(self, name: str, round_: int, values: dict[str, float]) -> None:
        """Store figures of one round."""
        for key, value in values.items():
            self.samples.setdefault(name, {}).setdefault(key, {})[round_] = value

    def note(self, name: str, key: str, reason: str) -> None:
        """Store why a figure is missing."""
        self.notes.setdefault(name, {})[key] = reason

    @contextlib.contextmanager
    def _started(self, name: str, job: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        environment = self.environments[name]
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            job_file, result = Path(scratch, "job.json"), Path(scratch, "result.json")
            job_file.write_text(json.dumps(job))
            command = [environment.python, "-m", "benchmarks.worker", name, str(job_file), str(result)]
            with (self.folder / f"{name}.stderr").open("wb") as errors:
                process = subprocess.Popen(
                    command,
                    cwd=CHECKOUT,
                    env=os.environ | environment.variables,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                )
            try:
                yield process, result
            finally:
                end_group(process)

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        name = process.args[3]  # type: ignore[index]
        return last_line((self.folder / f"{name}.stderr").read_text(errors="replace"))


def acknowledged(shared: Path) -> int:
    """The number of calls that returned."""
    return int(struct.unpack("=Q", shared.read_bytes())[0])


def wait_until(condition: Any, limit_s: float) -> bool:
    """Poll a condition every millisecond; whether it came true in time."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def group_alive(group: int) -> bool:
    """Whether any process of the job is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the job left behind, the job itself included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
