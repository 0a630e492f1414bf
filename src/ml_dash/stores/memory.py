"""The store as a model: everything in dictionaries. Tests compare the others with it; `durable` it is not."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator

from ..entry import select
from ..errors import CopiedWriter, NotOpen
from ..line import from_document, from_line, to_document, to_line
from ..schema import describe
from ..store import MERGED, Batch, Document, Entry, Track, TrackInfo, Window, check_removable, fixed_names
from .grouping import checksum, grouped, timed


class MemoryStore:
    """Keeps the contract of `Store` but for durability: it ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._merged: dict[str, dict[float, Entry]] = {}
        self._sequences: dict[Track, list[Entry]] = {}
        self._documents: dict[str, Document] = {}
        self._applied: dict[str, int] = {}
        self._checks: dict[str, str] = {}
        self._changes = 0
        self._changed: dict[Track, int] = {}
        """By series the number of its last change among all of them."""
        self._closed = False

    def append(self, batch: Batch) -> None:
        """Apply a batch once."""
        with self._lock:
            self._check_open()
            if self.applied(batch.writer) >= batch.number:
                if self._applied[batch.writer] == batch.number and self._checks[batch.writer] != checksum(batch):
                    raise CopiedWriter(f"batch {batch.number} of {batch.writer} came before with other entries")
                return
            fresh = [
                (track, _as_read(to_line(timestamp, fields)))
                for track, bodies in grouped(batch).items()
                for entries in timed(bodies)
                for timestamp, fields in entries
            ]
            for track, entry in fresh:
                self._append_one(track, entry)
            self._applied[batch.writer], self._checks[batch.writer] = batch.number, checksum(batch)

    def _append_one(self, track: Track, entry: Entry) -> None:
        self._note_change(track)
        if track.kind != MERGED:
            self._sequences.setdefault(track, []).append(entry)
            return
        entries = self._merged.setdefault(track.topic, {})
        entries[entry["timestamp"]] = {**entries.get(entry["timestamp"], {}), **entry}

    def _note_change(self, track: Track) -> None:
        self._changes += 1
        self._changed[track] = self._changes

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        with self._lock:
            self._check_open()
            return self._applied.get(writer, 0)

    def forget(self, writer: str) -> None:
        """The writer will never send a batch again."""
        with self._lock:
            self._check_open()
            self._applied.pop(writer, None)

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """One block with everything the window selects."""
        with self._lock:
            self._check_open()
            block = copy.deepcopy(self._window(track, window))
        if block:
            yield block

    def _window(self, track: Track, window: Window) -> list[Entry]:
        if track.kind != MERGED:
            numbered = [{"index": index, **e} for index, e in enumerate(self._sequences.get(track, []))]
            last = None if window.limit is None else window.first + window.limit
            return select(numbered[window.first : last], window.columns, fixed_names(track.kind))
        entries = self._merged.get(track.topic, {})
        low = float("-inf") if window.start is None else window.start
        high = float("inf") if window.end is None else window.end
        return select([entries[t] for t in sorted(entries) if low <= t <= high], window.columns)

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic."""
        with self._lock:
            self._check_open()
            if kind == MERGED:
                topics = sorted(self._merged)
            else:
                topics = sorted(track.topic for track in self._sequences if track.kind == kind)
            return [self._info(Track(kind, topic)) for topic in topics]

    def _info(self, track: Track) -> TrackInfo:
        entries = [entry for block in self.read(track) for entry in block]
        stamps = [entry["timestamp"] for entry in entries]
        columns = describe(entries, fixed_names(track.kind))
        first, last = min(stamps, default=None), max(stamps, default=None)
        revision = str(self._changed[track])
        return TrackInfo(track.topic, len(entries), first, last, columns, revision=revision)

    def remove(self, track: Track) -> None:
        """Delete a series."""
        with self._lock:
            self._check_open()
            self._sequences.pop(track, None)
            if track.kind == MERGED:
                self._merged.pop(track.topic, None)

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """Delete a window of a track."""
        check_removable(track)
        with self._lock:
            self._check_open()
            self._note_change(track)
            gone = {entry["timestamp"] for entry in self._window(track, Window(start, end))}
            left = {t: entry for t, entry in self._merged.get(track.topic, {}).items() if t not in gone}
            if left:
                self._merged[track.topic] = left
            else:
                self._merged.pop(track.topic, None)

    def read_document(self, name: str) -> Document | None:
        """A small document, or None."""
        with self._lock:
            self._check_open()
            return copy.deepcopy(self._documents.get(name))

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document by `change` of what it is now."""
        with self._lock:
            document = change(self.read_document(name))
            self._documents[name] = from_document(to_document(document)) or {}
            return copy.deepcopy(self._documents[name])

    def close(self) -> None:
        """No further use."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise NotOpen("the store is closed")


def _as_read(line: bytes) -> Entry:
    entry = from_line(line)
    assert entry is not None, "what append accepted can be written and read"
    return entry
