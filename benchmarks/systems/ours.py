"""This project, called as its API document writes it; reading through `ml_dash.open`, which changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ml_dash
from benchmarks.systems import Absent, Row, System
from benchmarks.workload import TOPIC, WIDTHS, Arrays
from ml_dash import Experiment

PREFIX = "bench/recorder/run"


class Ours(System):
    line = "exp.tracks(topic).append(q=q, qd=qd, ee_pos=ee_pos, ee_quat=ee_quat, _ts=t)"
    syncs = True
    derived = True

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.run = Experiment(prefix=PREFIX, dash_root=folder).run
        self.exp = self.run.__enter__()
        return {"exp": self.exp}

    def close(self) -> None:
        self.exp.tracks.flush()
        self.run.__exit__(None, None, None)

    def extend(self, columns: Arrays) -> None:
        fields = {name: values for name, values in columns.items() if name != "timestamp"}
        self.exp.tracks(TOPIC).extend(_ts=columns["timestamp"], **fields)

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        return track(folder).read(start_timestamp=start, end_timestamp=end)["entries"]

    def full(self, folder: Path) -> list[Row]:
        return track(folder).read()["entries"]

    def column(self, folder: Path) -> np.ndarray:
        recorded = track(folder)
        if hasattr(recorded, "numpy"):
            return recorded.numpy("q")
        column = recorded.to_arrow(columns=["q"])["q"].combine_chunks()
        return column.flatten().to_numpy().reshape(-1, WIDTHS["q"])

    def parquet(self, folder: Path, target: Path) -> None:
        target.write_bytes(track(folder).read(format="parquet"))

    def build_columns(self, folder: Path) -> None:
        track(folder).to_arrow()
        if not kept_columns(folder):
            raise Absent("the sidecar was not kept")

    def make_warm(self, folder: Path) -> None:
        track(folder).to_arrow()

    def make_cold(self, folder: Path) -> None:
        for kept in kept_columns(folder):
            kept.unlink()

    def survivors(self, folder: Path) -> Sequence[float]:
        return [row["timestamp"] for row in self.full(folder)]


def kept_columns(folder: Path) -> list[Path]:
    """The columnar files, which a reader keeps in the user's cache folder; deleting them is always allowed."""
    return list(folder.rglob("*.columns*"))


def track(folder: Path) -> Any:
    os.environ["ML_DASH_CACHE"] = str(folder / ".cache")
    return ml_dash.open(PREFIX, dash_root=folder).tracks(TOPIC)


SYSTEM = Ours()
