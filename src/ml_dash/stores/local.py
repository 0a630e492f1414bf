"""The store on the user's own disk: plain `data.jsonl`, everything else hidden and rebuildable.

A batch is applied under one lock for the whole experiment: lines appended to each series' file, the files synced, then
`.state` renamed with the writer's new number. That rename is the commit. After a crash before it the batch comes
again, and lines that are there already merge with their twins; those of sequences, which do not merge, are taken out
before (`sequences.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import CopiedWriter, NotOpen
from ..files import FILES, Files
from ..line import from_document, to_document
from ..store import MERGED, Batch, Document, Track, check_removable
from .adopt import adopt
from .compact import compact_file, delete_between
from .datafile import Appender
from .derived import Derived
from .grouping import Arrivals, ascending_lines, checksum, grouped, no_pace
from .local_reader import LocalReader
from .sequences import Stamped, Waiting, begin, lines_of, take_back
from .state import State


class LocalStore(LocalReader):
    """One experiment's folder.

    Args:
        folder: the experiment's folder; created with the first write.
        readonly: nothing is created or changed, not even derived files; works on read-only media.
        pace: called every few entries while a batch is applied, so that a background thread can let others run.
        derive: where readers keep what they worked out (columns, types); default: in hidden files beside the data, or
            nowhere where the store is read-only. Where that cannot be written they work without.
        tells_copies: whether a number that comes again with other entries is an error (`CopiedWriter`): where batches
            come from other machines. A journal on this one may be damaged, and give less the second time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: Files = FILES,
        readonly: bool = False,
        pace: Callable[[], None] = no_pace,
        derive: Derived | None = None,
        tells_copies: bool = False,
    ) -> None:
        super().__init__(folder, files, readonly, derive)
        self._pace, self._tells_copies = pace, tells_copies
        self._lock_fd, self._holds_lock, self._process = -1, False, os.getpid()
        self._newest: dict[tuple[str, str], float] = {}
        """The timestamp that came last from a writer for a track."""

    # -------------------------------------------------------------- locking

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The experiment's lock, among threads by a mutex and among processes by the lock file."""
        if self._readonly:
            raise NotOpen(f"{self.folder} is open for reading only")
        with self.mutex:
            self._check_open()
            self._depth += 1
            try:
                if not self._holds_lock:  # a signal handler may come before this, and then take it
                    self._take_lock()
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._holds_lock = False
                    if self._lock_fd >= 0:
                        self._files.unlock(self._lock_fd)

    def _take_lock(self) -> None:
        if self._process != os.getpid():  # a forked child: the parent's descriptor is closed (`files.drop_locks`)
            self._lock_fd, self._process = -1, os.getpid()
        if self._lock_fd < 0:
            self._files.make_folder(self.folder)
            self._lock_fd = self._files.open_lock(self.folder / ".lock")
        self._files.lock(self._lock_fd, wait=True)
        self._holds_lock = True

    # -------------------------------------------------------------- writing

    def append(self, batch: Batch) -> None:
        """Apply a batch once; raises OSError, with nothing of the batch visible, when the disk is full."""
        groups = grouped(batch, self._pace)
        with self._locked():
            state = self._state.read()
            if state.writers.get(batch.writer, 0) >= batch.number:
                return self._check_copy(state, batch)
            state = take_back(state, lambda name: self._file(self.folder / name))
            appenders: list[Appender] = []
            try:
                paths = {track: self._layout.claim(track) for track in groups}
                state, lines = self._begin(state, batch.writer, groups, paths)
                order: dict[str, Arrivals] = {}
                for track, bodies in groups.items():
                    name = self._name(paths[track])
                    appenders.append(self._file(paths[track]).open_for_append())
                    if track.kind == MERGED:
                        order[name] = Arrivals(self._newest.get((batch.writer, name)))
                        for ascending in ascending_lines(bodies, self._pace, order[name]):
                            appenders[-1].write(*ascending)
                    for stamp, line in lines.get(name, ()):
                        appenders[-1].write(line, stamp, stamp, 1)
                    appenders[-1].sync()
                    self._pace()
                self._state.write(_committed(state, batch, order, tells_copies=self._tells_copies))
            except BaseException:
                undo = not self._may_be_committed(batch)
                for appender in appenders:
                    appender.abandon(cut=undo)
                raise
            for appender in appenders:
                appender.finish()
            for name, arrivals in order.items():  # not before: a batch that failed comes again
                if arrivals.newest is not None:
                    self._newest[batch.writer, name] = arrivals.newest
        return None

    def _check_copy(self, state: State, batch: Batch) -> None:
        known = state.checks.get(batch.writer)
        if self._tells_copies and state.writers[batch.writer] == batch.number and known not in (None, checksum(batch)):
            text = f"batch {batch.number} of writer {batch.writer} came before with other entries: its spool was copied"
            raise CopiedWriter(f"{text}; send it under a new writer id")

    def _may_be_committed(self, batch: Batch) -> bool:
        """Whether a batch that failed has perhaps been committed: the failure, or Ctrl-C, may have come behind that."""
        try:
            return self._state.read().writers.get(batch.writer, 0) >= batch.number
        except OSError:
            return True

    def _begin(
        self, state: State, writer: str, groups: Mapping[Track, list[bytes]], paths: Mapping[Track, Path]
    ) -> tuple[State, dict[str, Sequence[Stamped]]]:
        """Note where the lines of the batch's sequences are going to be."""
        sequences = {track: bodies for track, bodies in groups.items() if track.kind != MERGED}
        if not sequences:
            return state, {}
        waiting = {
            self._name(paths[track]): Waiting(self._file(paths[track]), lines_of(bodies, self._pace))
            for track, bodies in sequences.items()
        }
        state, lines = begin(state, writer, waiting)
        self._state.write(state)
        return state, lines

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        self._check_open()
        return self._state.read().writers.get(writer, 0)  # replaced as a whole: no lock, for readers do not wait

    def forget(self, writer: str) -> None:
        """The writer will never send a batch again."""
        with self._locked():
            self._newest = {source: newest for source, newest in self._newest.items() if source[0] != writer}
            state = self._state.read()
            if writer in state.writers:
                writers = {name: number for name, number in state.writers.items() if name != writer}
                checks = {name: check for name, check in state.checks.items() if name != writer}
                self._state.write(state.next(writers=writers, checks=checks))

    def compact(self, track: Track) -> bool:
        """Give a track's file one line per timestamp, ascending; False where it has that form already."""
        with self._locked():
            path = self._layout.find(track)
            if path is None or track.kind != MERGED:
                return False
            return compact_file(self._file(path), self._files, self._pace)

    def compact_all(self) -> None:
        """Compact every track that needs it."""
        for topic in self._layout.topics(MERGED):
            self.compact(Track(MERGED, topic))

    def adopt(self, tracks: Mapping[Track, Path], line: Batch) -> None:
        """Add data files of tracks to those here, and a line to the log: all or nothing.

        Raises:
            OSError: a full disk; nothing was added.
        """
        with self._locked():
            known = set(self._layout.topics(MERGED))
            added = {path: self._layout.claim(track) for track, path in tracks.items()}
            try:
                for target in added.values():
                    self._file(target).heal()
                adopt(added, self._files, lambda: self.append(line))
            except BaseException:
                for track in tracks:
                    if track.topic not in known:
                        self._layout.remove(track)
                raise
            self.forget(line.writer)
            for track in tracks:
                self.compact(track)

    def remove(self, track: Track) -> None:
        """Delete a series with all its entries."""
        with self._locked():
            path = self._layout.find(track)
            self._layout.remove(track)
            if path is not None:
                self._data.pop(path, None)
                self._sidecars.pop(path, None)
                state = self._state.read()
                self._state.write(state.without(self._name(path)))

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """Delete a window of a track; its file has the plain form afterwards.

        Raises:
            InvalidWindow: a sequence. StoreCorrupt: the file has lines that are no entries.
        """
        check_removable(track)
        low = float("-inf") if start is None else start
        high = float("inf") if end is None else end
        with self._locked():
            path = self._layout.find(track)
            if (
                path is not None
                and low <= high
                and not delete_between(self._file(path), self._files, self._pace, low, high)
            ):
                self.remove(track)

    # -------------------------------------------------------------- documents

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document by `change` of what it is now, under the experiment's lock."""
        with self._locked():
            raw = to_document(change(self.read_document(name)))
            self._files.write_atomically(self.folder / f"{name}.json", raw)
            return from_document(raw) or {}

    # -------------------------------------------------------------- the end, and forks

    def close(self) -> None:
        """Release the lock file; no further use."""
        with self.mutex:
            self._closed = True
            if self._lock_fd >= 0 and self._process == os.getpid():
                self._files.close_lock(self._lock_fd)
            self._lock_fd = -1

    def after_fork_in_child(self) -> None:
        """What was under way goes on in the parent only."""
        self.mutex, self._depth, self._holds_lock = threading.RLock(), 0, False
        self._data.clear()


def _committed(state: State, batch: Batch, order: Mapping[str, Arrivals], *, tells_copies: bool) -> State:
    """The state with a batch whose lines are all there."""
    checks = {**state.checks, batch.writer: checksum(batch)} if tells_copies else state.checks
    ends = {name: attempt.end for name, attempt in state.attempt.items()}
    writers = {**state.writers, batch.writer: batch.number}
    counted = dict(state.order)
    for name, arrivals in order.items():
        late, repeated = counted.get(name, (0, 0))
        if arrivals.late or arrivals.repeated:
            counted[name] = (late + arrivals.late, repeated + arrivals.repeated)
    sequences = {**state.sequences, **ends}
    return state.next(writers=writers, sequences=sequences, attempt={}, order=counted, checks=checks)
