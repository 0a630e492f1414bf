"""The plain baseline: one `orjson` line per entry into a buffered file. No index, no merging, no crash safety.

Its columnar references are what a careful user builds by hand: a memory-mapped Arrow file (warm), `orjson` line by line
(cold), pyarrow or pandas writing Parquet, and DuckDB's `read_json` as the way from lines to columns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from benchmarks.systems import Row, System
from benchmarks.workload import WIDTHS, Arrays


class Baseline(System):
    line = """
    files[topic].write(
        orjson.dumps({"timestamp": t, "q": q, "qd": qd, "ee_pos": ee_pos, "ee_quat": ee_quat}) + b"\\n"
    )
    """
    syncs = True
    derived = True
    files: dict[str, BinaryIO]

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.files = {topic: (folder / f"{topic.replace('/', '_')}.jsonl").open("wb") for topic in topics}
        return {"files": self.files, "orjson": orjson}

    def close(self) -> None:
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def extend(self, columns: Arrays) -> None:
        (file,) = self.files.values()
        names = list(columns)
        for row in zip(*columns.values(), strict=True):
            entry = dict(zip(names, row, strict=True))
            file.write(orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        with data_file(folder).open("rb") as file:
            rows = (orjson.loads(line) for line in file)
            return [row for row in rows if start <= row["timestamp"] <= end]

    def full(self, folder: Path) -> list[Row]:
        with data_file(folder).open("rb") as file:
            return [orjson.loads(line) for line in file]

    def column(self, folder: Path) -> np.ndarray:
        if arrow_file(folder).exists():
            return self._mapped_column(folder)
        with data_file(folder).open("rb") as file:
            return np.array([orjson.loads(line)["q"] for line in file])

    def parquet(self, folder: Path, target: Path) -> None:
        if arrow_file(folder).exists():
            import pyarrow.parquet

            return pyarrow.parquet.write_table(mapped_table(folder), target)
        import pandas

        return pandas.DataFrame(self.full(folder)).to_parquet(target)

    def build_columns(self, folder: Path) -> None:
        import duckdb

        duckdb.sql(f"SELECT * FROM read_json('{data_file(folder)}', format='newline_delimited')").fetch_arrow_table()

    def make_warm(self, folder: Path) -> None:
        write_arrow(self.full(folder), arrow_file(folder))

    def make_cold(self, folder: Path) -> None:
        arrow_file(folder).unlink(missing_ok=True)

    def survivors(self, folder: Path) -> Sequence[float]:
        return [orjson.loads(line)["timestamp"] for line in data_file(folder).open("rb") if line.endswith(b"\n")]

    def _mapped_column(self, folder: Path) -> np.ndarray:
        column = mapped_table(folder)["q"].combine_chunks()
        return column.values.to_numpy().reshape(-1, WIDTHS["q"])


def data_file(folder: Path) -> Path:
    return folder / "robot_state.jsonl"


def arrow_file(folder: Path) -> Path:
    return folder / "columns.arrow"


def mapped_table(folder: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(arrow_file(folder)))).read_all()


def write_arrow(rows: list[Row], target: Path) -> None:
    """Fixed-size lists of float64: the layout that reads fastest."""
    import pyarrow as pa

    fields = [pa.field("timestamp", pa.float64())]
    fields += [pa.field(name, pa.list_(pa.float64(), width)) for name, width in WIDTHS.items()]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields)).combine_chunks()
    with pa.ipc.new_file(str(target), table.schema) as sink:
        sink.write_table(table, max_chunksize=len(rows))


SYSTEM = Baseline()
