"""Targets of the columnar sidecar, each against its bare counterpart in the same process and the same rounds.

    python -m benchmarks.columns                      # 100,000 entries of 21 floats, under a minute
    python -m benchmarks.columns --json results.json

Each line: our call on an experiment that was opened anew, what any implementation needs on the same file, the median of
the paired ratios, and the target. *Warm*: the sidecar is there; *cold*: it is made and written by this very call. The
files themselves are in the system's cache in both. The import's target is a million rows a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.analysis import Result, line, paired
from benchmarks.workload import TOPIC, arrays
from ml_dash import Experiment
from ml_dash import open as open_experiment
from ml_dash.importing import import_file

PREFIX = "bench/columns/run"
COLUMN = "q"


class Files:
    """One recording, and the two files that count: `data.jsonl` and its sidecar, in a cache folder of its own."""

    def __init__(self, root: Path, entries: int) -> None:
        self.root, self.entries = root, entries
        made = arrays(entries)
        self.sum = float(made[COLUMN].sum())
        with Experiment(PREFIX, dash_root=root).run as experiment:
            experiment.tracks(TOPIC).extend(_ts=made.pop("timestamp"), **made)
        self.data = root / PREFIX / "tracks" / TOPIC.replace("/", "_") / "data.jsonl"
        self.cache = root / "cache"
        os.environ["ML_DASH_CACHE"] = str(self.cache)
        time.sleep(0.1)  # the columns of what changed within the clock's step are not kept

    @property
    def sidecar(self) -> Path:
        """The one there is."""
        (path,) = self.cache.glob("*.columns")
        return path

    def ask(self, question: Callable[[Any], Any], *, cold: bool = False) -> Any:
        """The track asked by a reader that has not seen it; without its sidecar where that is to be made."""
        if cold:
            shutil.rmtree(self.cache, ignore_errors=True)
        with open_experiment(PREFIX, dash_root=self.root) as experiment:
            return question(experiment.tracks(TOPIC))


def checked(total: float, files: Files) -> float:
    """Both sides must have read every value."""
    if not np.isclose(total, files.sum):
        raise AssertionError(f"sum {total}, expected {files.sum}")
    return total


def one_column(files: Files, rounds: int) -> Iterator[Result]:
    """A column as NumPy, every value looked at (a mapped file is read only then)."""

    def ours() -> float:
        return checked(files.ask(lambda track: track.to_numpy(COLUMN).sum()), files)

    def mapped() -> float:
        table = pa.ipc.open_file(pa.memory_map(str(files.sidecar))).read_all()
        column = table[COLUMN].combine_chunks()
        return checked(column.flatten().to_numpy().reshape(-1, column.type.list_size).sum(), files)

    def without_sidecar() -> float:
        return checked(files.ask(lambda track: track.to_numpy(COLUMN).sum(), cold=True), files)

    def parsed() -> list[Any]:
        return [orjson.loads(line) for line in files.data.read_bytes().splitlines()]

    files.ask(lambda track: track.to_numpy(COLUMN))
    yield paired("one column as NumPy, warm | mapped Arrow file", ours, mapped, 1.5, rounds)
    yield paired("one column as NumPy, cold | orjson of every line", without_sidecar, parsed, 1.5, rounds)


def building(files: Files, rounds: int) -> Iterator[Result]:
    """The sidecar made and written; DuckDB reads the same file into a table in memory."""
    database = duckdb.connect()
    names = ("auto-detected types", "one thread")

    def ours() -> Any:
        return files.ask(lambda track: track.table(), cold=True)

    def theirs() -> Any:
        return database.execute(f"create or replace table t as select * from read_json('{files.data}')")

    for name in names:
        if name == "one thread":
            database.execute("set threads to 1")
        yield paired(f"sidecar made and written | DuckDB read_json, {name}", ours, theirs, 1.5, rounds)
    database.close()


def exporting(files: Files, rounds: int) -> Iterator[Result]:
    """Parquet as bytes."""
    table = files.ask(lambda track: pa.ipc.open_file(pa.memory_map(str(files.sidecar))).read_all())

    def warm() -> bytes:
        return files.ask(lambda track: track.read(format="parquet"))  # type: ignore[no-any-return]

    def cold() -> bytes:
        return files.ask(lambda track: track.read(format="parquet"), cold=True)  # type: ignore[no-any-return]

    def arrow() -> bytes:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()

    def pandas() -> bytes:
        sink = io.BytesIO()
        pd.DataFrame([orjson.loads(one) for one in files.data.read_bytes().splitlines()]).to_parquet(sink)
        return sink.getvalue()

    files.ask(lambda track: track.table())
    yield paired("Parquet export, warm | pyarrow writing the same table", warm, arrow, 1.3, rounds)
    yield paired("Parquet export, cold | orjson and pandas", cold, pandas, 0.5, max(rounds // 3, 3))


def listing(files: Files, rounds: int) -> Iterator[Result]:
    """`tracks.list()` of a track that was listed before."""
    root = files.root

    def ours() -> Any:
        with open_experiment(PREFIX, dash_root=root) as experiment:
            return experiment.tracks.list()

    def parsed() -> list[Any]:
        return [orjson.loads(line) for line in files.data.read_bytes().splitlines()]

    ours()
    yield paired("tracks.list(), listed before | orjson of every line", ours, parsed, 0.05, rounds)


def importing(files: Files, rounds: int) -> Iterator[Result]:
    """A CSV of eleven columns into a new experiment, until everything is stored and closed."""
    path = files.root / "table.csv"
    made = arrays(files.entries)
    table = np.column_stack([made["timestamp"], made["q"], made["ee_pos"]])
    np.savetxt(path, table, fmt="%.6f", delimiter=",", comments="", header="t," + ",".join(f"q{i}" for i in range(10)))
    seconds = []
    for number in range(3):
        start = time.perf_counter()
        with Experiment(f"bench/import/run{number}", dash_root=files.root).run as experiment:
            import_file(experiment, path)
        seconds.append(time.perf_counter() - start)
    wanted = files.entries / 1_000_000 * 60_000
    yield Result(f"import of {files.entries:,} CSV rows of 11 columns", min(seconds) * 1e3, None, None, wanted)


def main() -> int:
    """Measure, print, and say by the exit code whether every target is met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--entries", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--json", type=Path, help="write the results to this file")
    given = options.parse_args()
    results: list[Result] = []
    print(f"{'measure | bare counterpart':50} {'ours':>14} {'bare':>9} {'ratio':>6} {'target':>7}")
    with tempfile.TemporaryDirectory(prefix="bench-columns-") as place:
        files = Files(Path(place), given.entries)
        for part in (one_column, building, exporting, listing, importing):
            for result in part(files, given.rounds):
                results.append(result)
                print(line(result), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(result) | {"met": result.met} for result in results], indent=2))
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
