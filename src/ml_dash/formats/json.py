"""`json`: dictionaries in memory; `jsonl`: the bytes of a `data.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..entry import to_line
from ..store import Entry


def to_json(topic: str, blocks: Iterator[list[Entry]]) -> dict[str, Any]:
    """`{"entries": [{"timestamp": 1.0, ...}, ...], "count": n}`; NaN and infinities are real floats."""
    entries = [entry for block in blocks for entry in block]
    return {"entries": entries, "count": len(entries)}


def to_jsonl(topic: str, blocks: Iterator[list[Entry]]) -> bytes:
    """One strict JSON object per line; NaN and infinities are the strings "NaN", "Infinity", "-Infinity"."""
    return b"".join(
        to_line(entry["timestamp"], {name: value for name, value in entry.items() if name != "timestamp"})
        for block in blocks
        for entry in block
    )
