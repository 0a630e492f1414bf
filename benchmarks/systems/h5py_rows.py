"""HDF5 through h5py: one resizable dataset per field, grown by one row for each entry, or by whole arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.systems import Row, System
from benchmarks.workload import TOPIC, WIDTHS, Arrays

FILE = "robot.h5"
CHUNK_ROWS = 1024


class Hdf5(System):
    line = """
    group = file[topic]
    count = group["timestamp"].shape[0]
    for name, value in (("timestamp", t), ("q", q), ("qd", qd), ("ee_pos", ee_pos), ("ee_quat", ee_quat)):
        group[name].resize(count + 1, axis=0)
        group[name][count] = value
    """
    fixture_by = "extend"

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.file = h5py.File(folder / FILE, "w")
        for topic in topics:
            self._create(topic)
        return {"file": self.file}

    def close(self) -> None:
        self.file.close()

    def extend(self, columns: Arrays) -> None:
        group = self.file[TOPIC]
        first = group["timestamp"].shape[0]
        for name, values in columns.items():
            group[name].resize(first + len(values), axis=0)
            group[name][first:] = values

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        with h5py.File(folder / FILE) as file:
            stamps = file[TOPIC]["timestamp"][:]
            return rows(file[TOPIC], np.searchsorted(stamps, start), np.searchsorted(stamps, end, side="right"))

    def full(self, folder: Path) -> list[Row]:
        with h5py.File(folder / FILE) as file:
            return rows(file[TOPIC], 0, None)

    def column(self, folder: Path) -> np.ndarray:
        with h5py.File(folder / FILE) as file:
            return file[TOPIC]["q"][:]

    def survivors(self, folder: Path) -> Sequence[float]:
        with h5py.File(folder / FILE) as file:
            return file[TOPIC]["timestamp"][:].tolist()

    def _create(self, topic: str) -> None:
        group = self.file.create_group(topic)
        group.create_dataset("timestamp", (0,), maxshape=(None,), chunks=(CHUNK_ROWS,), dtype="f8")
        for name, width in WIDTHS.items():
            group.create_dataset(name, (0, width), maxshape=(None, width), chunks=(CHUNK_ROWS, width), dtype="f8")


def rows(group: Any, first: int, last: int | None) -> list[Row]:
    names = ("timestamp", *WIDTHS)
    columns = [group[name][first:last].tolist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


SYSTEM = Hdf5()
