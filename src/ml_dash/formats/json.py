"""`json`: dictionaries in memory; `jsonl`: the bytes of a `data.jsonl`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..line import to_lines
from ..store import Entry


def to_json(topic: str, blocks: Iterator[list[Entry]]) -> dict[str, Any]:
    """`{"entries": [{"timestamp": 1.0, ...}, ...], "count": n}`; NaN and infinities are real floats."""
    with _PAUSE.held():
        entries = [entry for block in blocks for entry in block]
    return {"entries": entries, "count": len(entries)}


def to_jsonl(topic: str, blocks: Iterator[list[Entry]]) -> bytes:
    """One strict JSON object per line; NaN and infinities are the strings "NaN", "Infinity", "-Infinity"."""
    return b"".join(
        to_lines([(entry["timestamp"], {n: v for n, v in entry.items() if n != "timestamp"}) for entry in block])
        for block in blocks
    )


class _Pause:
    """Python's cyclic collector off while a large result grows: it would walk every entry again and again and find
    nothing, which doubles the time. Counted, so that readers in several threads do not undo each other."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may read while this thread is in here
        self._held = 0
        self._was_on = False

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self._held == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1
                if self._held == 0 and self._was_on:
                    gc.enable()


_PAUSE = _Pause()
