"""The command line as scripts and people meet it, and the recordings the tests look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_dash import Experiment

PICK, IMU = "alice/robotics/pick", "bob/drone/imu"


class Printed(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Its stdout, line by line."""
        return self.out.splitlines()


Ask = Callable[..., Printed]


def record(root: Path) -> None:
    """Two experiments: a finished pick with four topics, metrics and a log, and a drone's that failed."""
    with Experiment(PICK, dash_root=root, tags=["franka"], readme="Picks up blocks.").run as exp:
        exp.params.set(robot="franka", gains={"kp": 100.0})
        for number in range(300):
            exp.tracks("robot/state").append(q=[number / 100, -1.0], phase="reach", _ts=number / 100)
        for number in range(0, 300, 30):
            exp.tracks("camera/pose").append(pose={"x": number / 100}, _ts=number / 100)
            exp.metrics("train").log(loss=1 / (number + 1))
        exp.tracks("laser").extend(_ts=[0.0, 0.1], ranges=[[1.0, float("inf")], [2.0, float("nan")]])
        exp.tracks("events").append(event="größer", _ts=1.5)
        exp.log("started")
    failed = Experiment(IMU, dash_root=root)
    with failed.run as exp:
        exp.tracks("imu").append(a=[0.0, 9.81], _ts=1_700_000_000.5).append(a=[0.1, 9.81], _ts=1_700_000_001.5)
        exp.run.fail("motor 3 stalled")


def command(*words: str, root: Path, **environment: str) -> list[str]:
    """The command line as a program of its own, its environment in front."""
    settings = {"ML_DASH_ROOT": str(root), "COLUMNS": "80", **environment}
    return ["env", *(f"{k}={v}" for k, v in settings.items()), sys.executable, "-m", "ml_dash.cli", *words]


def program(*words: str, root: Path, **environment: str) -> Printed:
    """Run it to its end."""
    done = subprocess.run(command(*words, root=root, **environment), capture_output=True, timeout=60, check=False)
    return Printed(done.returncode, done.stdout.decode(), done.stderr.decode())
