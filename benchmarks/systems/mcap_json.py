"""MCAP with JSON messages: `json.dumps` and `add_message`, as the library's own example writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, make_reader
from mcap.writer import Writer

from benchmarks.systems import Row, System
from benchmarks.workload import TOPIC

FILE = "robot.mcap"


class McapReading(System):
    """Reading is the same for every writer of MCAP files."""

    topic = TOPIC

    def window(self, folder: Path, start: float, end: float) -> list[Row]:
        with (folder / FILE).open("rb") as file:
            span = {"starting_at": nanoseconds(start), "ending_at": nanoseconds(end)}
            found = make_reader(file).iter_messages(self.topic, **span)
            return [entry(message) for _, _, message in found]

    def full(self, folder: Path) -> list[Row]:
        with (folder / FILE).open("rb") as file:
            return [entry(message) for _, _, message in make_reader(file).iter_messages(self.topic)]

    def column(self, folder: Path) -> np.ndarray:
        return np.array([row["q"] for row in self.full(folder)])

    def survivors(self, folder: Path) -> Sequence[float]:
        with (folder / FILE).open("rb") as file:
            return [message.log_time / 1e9 for _, _, message in make_reader(file).iter_messages(self.topic)]

    def salvaged(self, folder: Path) -> Sequence[float]:
        """Everything up to the first damaged record, in file order: what `mcap recover` keeps."""
        with (folder / FILE).open("rb") as file:
            return list(readable(file, self.topic))


class McapJson(McapReading):
    line = """
    stamp = int(t * 1e9)
    writer.add_message(
        channel_id=channels[topic],
        log_time=stamp,
        publish_time=stamp,
        data=json.dumps({"q": q, "qd": qd, "ee_pos": ee_pos, "ee_quat": ee_quat}).encode(),
    )
    """

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.file = (folder / FILE).open("wb")
        self.writer = Writer(self.file)
        self.writer.start()
        schema = self.writer.register_schema("state", "jsonschema", json.dumps({"type": "object"}).encode())
        channels = {topic: self.writer.register_channel(topic, "json", schema) for topic in topics}
        return {"writer": self.writer, "channels": channels, "json": json}

    def close(self) -> None:
        self.writer.finish()
        self.file.close()


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def entry(message: Any) -> Row:
    return {"timestamp": message.log_time / 1e9, **json.loads(message.data)}


def readable(file: Any, topic: str) -> Iterator[float]:
    try:
        for _, _, message in NonSeekingReader(file).iter_messages(topic, log_time_order=False):
            yield message.log_time / 1e9
    except (McapError, EOFError, ValueError):
        return


SYSTEM = McapJson()
