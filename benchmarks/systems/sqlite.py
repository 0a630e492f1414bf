"""SQLite from the standard library: 22 REAL columns, each insert its own transaction (WAL, synchronous=NORMAL).

One transaction per insert keeps what was inserted through a SIGKILL; batching by hand is faster and loses the batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems import Row, System
from benchmarks.workload import TOPIC, WIDTHS, Arrays

FILE = "robot.sqlite"
COLUMNS = [f"{name}_{index}" for name, width in WIDTHS.items() for index in range(width)]
MARKS = ", ".join("?" * (1 + len(COLUMNS)))


class Sqlite(System):
    line = "db.execute(insert[topic], (t, *q, *qd, *ee_pos, *ee_quat))"

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.db = sqlite3.connect(folder / FILE, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(f"{name} REAL" for name in COLUMNS)
        for topic in topics:
            self.db.execute(f'CREATE TABLE "{topic}" (timestamp REAL PRIMARY KEY, {columns}) WITHOUT ROWID')
        return {"db": self.db, "insert": {topic: statement(topic) for topic in topics}}

    def close(self) -> None:
        self.db.close()

    def extend(self, columns: Arrays) -> None:
        flat = np.column_stack(list(columns.values())).tolist()
        self.db.execute("BEGIN")
        self.db.executemany(statement(TOPIC), flat)
        self.db.execute("COMMIT")

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        return dicts(select(folder, "*", "WHERE timestamp BETWEEN ? AND ?", (start, end)))

    def full(self, folder: Path) -> list[Row]:
        return dicts(select(folder, "*", "", ()))

    def column(self, folder: Path) -> np.ndarray:
        names = ", ".join(name for name in COLUMNS if name.startswith("q_"))
        return np.array(list(select(folder, names, "ORDER BY timestamp", ())))

    def survivors(self, folder: Path) -> Sequence[float]:
        return [stamp for (stamp,) in select(folder, "timestamp", "", ())]


def statement(topic: str) -> str:
    return f'INSERT OR REPLACE INTO "{topic}" VALUES ({MARKS})'


def select(folder: Path, what: str, where: str, values: tuple[float, ...]) -> Iterable[tuple[float, ...]]:
    db = sqlite3.connect(folder / FILE)
    try:
        return db.execute(f'SELECT {what} FROM "{TOPIC}" {where}', values).fetchall()
    finally:
        db.close()


def dicts(found: Iterable[tuple[float, ...]]) -> list[Row]:
    return [
        {"timestamp": r[0], "q": list(r[1:8]), "qd": list(r[8:15]), "ee_pos": list(r[15:18]), "ee_quat": list(r[18:])}
        for r in found
    ]


SYSTEM = Sqlite()
