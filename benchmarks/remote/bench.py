"""What the phases share: the servers, a folder, the samples taken so far, and jobs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.running import S3Server

from benchmarks.catalogue import OURS
from benchmarks.envs import CHECKOUT, last_line
from benchmarks.remote.served import Databases, child_environment


@dataclass(frozen=True)
class Options:
    """Sizes of one run."""

    rounds: int = 4
    append_entries: int = 50_000
    append_seconds: float = 3.0
    ingest_entries: int = 100_000
    plain_entries: int = 20_000
    slow_entries: int = 300
    cycles: int = 20
    noisy_entries: int = 65_536
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
    window_rounds: int = 24
    archive_entries: int = 131_072
    memory_seconds: float = 100.0
    steady_seconds: float = 30.0
    outage_seconds: float = 60.0
    warm_rounds: int = 1
    every_database: bool = True


SMOKE = Options(
    1, 2_000, 0.3, 4_000, 1_000, 50, 1, 9_000, (10_000, 100_000), 3, 9_000, 3.0, 1.0, 2.0, 0, every_database=False
)
FULL = Options(outage_seconds=600.0)


@dataclass
class Bench:
    """One run."""

    options: Options
    folder: Path
    databases: Databases
    s3: S3Server | None
    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> list[str]:
        """The names of the databases that long tracks are made in."""
        names = list(self.databases.running)
        return names if self.options.every_database else names[:1]

    def keep(self, round_: int, **values: float) -> None:
        """Store figures of one round."""
        for key, value in values.items():
            self.samples.setdefault(key, {})[round_] = value

    def note(self, key: str, reason: str) -> None:
        """Say why something is missing, or what a figure means in this run."""
        self.notes[key] = reason

    def begin(self, measure: str, **job: Any) -> Job:
        """Start a job in a process of its own."""
        folder = self.folder / f"job-{len(list(self.folder.glob('job-*')))}"
        folder.mkdir()
        return Job(folder, {"measure": measure, "folder": str(folder), **job})

    def run(self, measure: str, **job: Any) -> dict[str, float]:
        """Run a job to its end; its figures."""
        return self.begin(measure, **job).result()

    def result(self) -> dict[str, Any]:
        """The samples in the form that `benchmarks.report` reads."""
        return {"samples": {OURS: self.samples}, "notes": self.notes}


class Job:
    """A job of `jobs.py` that runs beside this process; its spool is in its own folder."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.folder, self._name = folder, job["measure"]
        (folder / "job.json").write_text(json.dumps(job))
        with (folder / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.remote.jobs", str(folder)], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors, env=child_environment() | {"ML_DASH_STATE": str(folder / "state")},
            )  # fmt: skip

    def result(self, timeout_s: float = 1800.0) -> dict[str, float]:
        """Wait for the end; raises RuntimeError with the last words of a job that failed."""
        if self.process.wait(timeout_s):
            words = (self.folder / "stderr").read_text(errors="replace")
            raise RuntimeError(f"job {self._name} failed: {last_line(words)}")
        found: dict[str, float] = json.loads((self.folder / "result.json").read_text())
        return found

    def mark(self, name: str) -> Path:
        """A file by which job and bench tell each other how far they are."""
        return self.folder / name

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            os.kill(self.process.pid, 9)
            self.process.wait()
