"""One file per product: how a user of it records one robot state and reads it back.

A module here defines `SYSTEM`, an instance of a subclass of `System`. It runs in the product's own environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import Arrays

Row = dict[str, Any]


class Absent(Exception):
    """The product does not offer what was asked; the text says so in the table's notes."""


class System:
    """What the harness asks of a product. Each method that is not overridden shows as absent."""

    line = ""
    """The statements that record one entry, as this product's documentation writes them."""

    syncs = False
    """Whether `close` itself makes the data durable; if not, the harness syncs the files, and counts that time."""

    fixture_by = "line"
    """How the recordings to be read are made: "line", or "extend" where that gives the same file in less time."""

    derived = False
    """Whether there are derived files that make later reads faster (then cold and warm are measured apart)."""

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        """Start recording into `folder`; returns the names that `line` uses."""
        raise NotImplementedError

    def close(self) -> None:
        """End the recording the way the product's documentation ends it."""
        raise NotImplementedError

    def extend(self, columns: Arrays) -> None:
        """Record whole arrays by the product's call for that."""
        raise Absent("no call for whole arrays")

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        """Open the recording and return the entries from `start` to `end` (both inclusive) as dicts."""
        raise Absent("no public reader for its local files")

    def full(self, folder: Path) -> list[Row]:
        """Open the recording and return every entry as a dict."""
        raise Absent("no public reader for its local files")

    def column(self, folder: Path) -> np.ndarray:
        """Open the recording and return `q` as float64 of shape (n, 7)."""
        raise Absent("no public reader for its local files")

    def parquet(self, folder: Path, target: Path) -> None:
        """Export the recording to one Parquet file."""
        raise Absent("no Parquet export")

    def build_columns(self, folder: Path) -> None:
        """Make the derived columnar file from the recording (timed)."""
        raise Absent("no derived columns")

    def make_warm(self, folder: Path) -> None:
        """Make sure the derived files exist (not timed)."""

    def make_cold(self, folder: Path) -> None:
        """Remove every derived file (not timed)."""

    def survivors(self, folder: Path) -> Sequence[float]:
        """Timestamps that a plain re-open reads after the writer was killed."""
        raise NotImplementedError

    def salvaged(self, folder: Path) -> Sequence[float]:
        """Timestamps after the product's repair, where it has one."""
        raise Absent("no repair step")
