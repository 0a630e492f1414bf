"""Weights & Biases in offline mode: one `run.log` of 22 numbers for each entry. It has no reader for offline runs.

To count what survives a kill, the run's file (LevelDB's log format holding protobuf records) is scanned here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

from benchmarks.systems import System

BLOCK_BYTES = 32768
IDENT_BYTES = 7
FULL, FIRST, LAST = 1, 2, 4


class WandbOffline(System):
    line = """
    run.log({
        "t": t, "q0": q[0], "q1": q[1], "q2": q[2], "q3": q[3], "q4": q[4], "q5": q[5], "q6": q[6],
        "qd0": qd[0], "qd1": qd[1], "qd2": qd[2], "qd3": qd[3], "qd4": qd[4], "qd5": qd[5], "qd6": qd[6],
        "x": ee_pos[0], "y": ee_pos[1], "z": ee_pos[2],
        "qx": ee_quat[0], "qy": ee_quat[1], "qz": ee_quat[2], "qw": ee_quat[3],
    })
    """

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        quiet = wandb.Settings(silent=True)
        self.run = wandb.init(project="benchmark", mode="offline", dir=str(folder), settings=quiet)
        return {"run": self.run}

    def close(self) -> None:
        self.run.finish()

    def survivors(self, folder: Path) -> Sequence[float]:
        files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        return [stamp for file in files for stamp in stamps(file.read_bytes())]


def stamps(raw: bytes) -> Iterator[float]:
    for body in records(raw):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(body)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            yield json.loads(items["t"])


def records(raw: bytes) -> Iterator[bytes]:
    """Bodies of a LevelDB log: 7-byte headers (checksum, length, kind), padded at blocks of 32 KiB."""
    at, parts = IDENT_BYTES, b""
    while at + 7 <= len(raw):
        if BLOCK_BYTES - at % BLOCK_BYTES < 7:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        size, kind = struct.unpack_from("<HB", raw, at + 4)
        if kind == 0 or at + 7 + size > len(raw):
            return
        part, at = raw[at + 7 : at + 7 + size], at + 7 + size
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield parts


SYSTEM = WandbOffline()
