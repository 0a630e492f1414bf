"""The existing ml-dash client, version 0.11, in its local mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems import Row, System
from benchmarks.workload import TOPIC
from ml_dash import Experiment

PREFIX = "bench/recorder/run"


class Existing(System):
    line = "exp.tracks(topic).append(q=q, qd=qd, ee_pos=ee_pos, ee_quat=ee_quat, _ts=t)"

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.run = Experiment(prefix=PREFIX, dash_root=str(folder)).run
        return {"exp": self.run.__enter__()}

    def close(self) -> None:
        self.run.__exit__(None, None, None)

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        with Experiment(prefix=PREFIX, dash_root=str(folder)).run as exp:
            return exp.tracks(TOPIC).read(start_timestamp=start, end_timestamp=end)["entries"]

    def full(self, folder: Path) -> list[Row]:
        with Experiment(prefix=PREFIX, dash_root=str(folder)).run as exp:
            return exp.tracks(TOPIC).read()["entries"]

    def column(self, folder: Path) -> np.ndarray:
        return np.array([row["q"] for row in self.full(folder)])

    def parquet(self, folder: Path, target: Path) -> None:
        with Experiment(prefix=PREFIX, dash_root=str(folder)).run as exp:
            target.write_bytes(exp.tracks(TOPIC).read(format="parquet"))

    def survivors(self, folder: Path) -> Sequence[float]:
        return [row["timestamp"] for row in self.full(folder)]


SYSTEM = Existing()
