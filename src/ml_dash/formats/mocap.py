"""`mocap`: the motion-capture JSON of the API document. Its JSON Schema is in `docs/format.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..store import Entry

VERSION = "1.0"


def to_mocap(topic: str, blocks: Iterator[list[Entry]]) -> dict[str, Any]:
    """Frames with their time, and what a player needs to know of them.

    Returns:
        `{"version", "metadata": {"topic", "fps", "duration", "frameCount", "startTime", "endTime"}, "channels",
        "frames": [{"time": seconds, channel: value, ...}]}`. `fps` is measured, (frames - 1) / duration, and 0.0 for
        fewer than two frames; times and duration are in seconds. A field named `time` is the channel `time_`, a field
        `time_` the channel `time__`, and so on: two fields are never one channel.
    """
    frames: list[dict[str, Any]] = []
    channels: dict[str, None] = {}
    for block in blocks:
        for entry in block:
            fields = {_channel(name): value for name, value in entry.items() if name != "timestamp"}
            channels.update(dict.fromkeys(fields))
            frames.append({"time": entry["timestamp"], **fields})
    return {
        "version": VERSION,
        "metadata": _metadata(topic, frames),
        "channels": list(channels),
        "frames": frames,
    }


def _channel(name: str) -> str:
    return f"{name}_" if name.rstrip("_") == "time" else name


def _metadata(topic: str, frames: list[dict[str, Any]]) -> dict[str, Any]:
    start = frames[0]["time"] if frames else 0.0
    end = frames[-1]["time"] if frames else 0.0
    duration = end - start
    return {
        "topic": topic,
        "fps": (len(frames) - 1) / duration if duration > 0 else 0.0,
        "duration": duration,
        "frameCount": len(frames),
        "startTime": start,
        "endTime": end,
    }
