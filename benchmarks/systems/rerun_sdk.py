"""Rerun: `set_time` and `log` with AnyValues for each entry, `send_columns` for arrays, its own reader with DataFusion.

One `AnyValues` with four fields was chosen because it is faster than four `Scalars` (measured 51 to 71 us an entry).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rerun as rr
from rerun.chunk import RrdReader

from benchmarks.systems import Row, System
from benchmarks.workload import TOPIC, WIDTHS, Arrays

FILE = "robot.rrd"
ENTITY = f"/{TOPIC}"


class Rerun(System):
    line = """
    rec.set_time("t", timestamp=t)
    rec.log(topic, rr.AnyValues(q=q, qd=qd, ee_pos=ee_pos, ee_quat=ee_quat))
    """

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.recording = rr.RecordingStream("benchmark")
        self.recording.save(folder / FILE)
        return {"rec": self.recording, "rr": rr}

    def close(self) -> None:
        self.recording.flush()
        self.recording.disconnect()

    def extend(self, columns: Arrays) -> None:
        count = len(columns["timestamp"])
        values = []
        for name, width in WIDTHS.items():
            flat = rr.AnyValues.columns(**{name: columns[name].ravel()})
            values += list(flat.partition(np.full(count, width)))
        times = rr.TimeColumn("t", timestamp=columns["timestamp"])
        self.recording.send_columns(TOPIC, indexes=[times], columns=values)

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        from datafusion import col

        inside = (col("t") >= instant(start)) & (col("t") <= instant(end))
        return reader(folder).filter(inside).sort(col("t")).to_pylist()

    def full(self, folder: Path) -> list[Row]:
        from datafusion import col

        return reader(folder).sort(col("t")).to_pylist()

    def column(self, folder: Path) -> np.ndarray:
        column = self._table(folder)[f"{ENTITY}:q"].combine_chunks()
        return column.values.to_numpy().reshape(-1, WIDTHS["q"])

    def parquet(self, folder: Path, target: Path) -> None:
        import pyarrow.parquet

        pyarrow.parquet.write_table(self._table(folder), target)

    def survivors(self, folder: Path) -> Sequence[float]:
        """What streaming the file gives; `store()` refuses it, for want of the footer a killed writer cannot write."""
        return seconds(self._table(folder))

    def _table(self, folder: Path) -> pa.Table:
        from datafusion import col

        return reader(folder).sort(col("t")).to_arrow_table()


def reader(folder: Path) -> Any:
    """Rows of the recording as a DataFusion frame; it promises no order, so whoever needs one sorts."""
    store = RrdReader(folder / FILE).stream().filter(content=ENTITY).collect()
    return store.reader("t")


def instant(seconds: float) -> Any:
    from datafusion import lit

    return lit(pa.scalar(round(seconds * 1e9), pa.timestamp("ns")))


def seconds(table: pa.Table) -> list[float]:
    return [stamp / 1e9 for stamp in table["t"].cast(pa.int64()).to_pylist()]


SYSTEM = Rerun()
