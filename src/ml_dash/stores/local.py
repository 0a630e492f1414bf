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
from typing import TYPE_CHECKING

from ..entry import select
from ..errors import NotOpen, StoreCorrupt
from ..files import FILES, Files
from ..line import from_document, to_document
from ..schema import observe, summary
from ..store import MERGED, Batch, Document, Entry, Track, TrackInfo, Window, check_removable, fixed_names
from .adopt import adopt
from .compact import compact_file, delete_between
from .datafile import Appender, DataFile
from .derived import BESIDE, NOTHING, Derived
from .grouping import Arrivals, ascending_lines, grouped, no_pace
from .layout import Layout
from .sequences import Stamped, Waiting, begin, lines_of, take_back
from .state import State, StateFile
from .sweep import sweep
from .types import types_of

if TYPE_CHECKING:
    import pyarrow as pa

    from .sidecar import Sidecar


class LocalStore:
    """One experiment's folder.

    Args:
        folder: the experiment's folder; created with the first write.
        readonly: nothing is created or changed, not even derived files; works on read-only media.
        pace: called every few entries while a batch is applied, so that a background thread can let others run.
        derive: where readers keep what they worked out (columns, types); default: in hidden files beside the data, or
            nowhere where the store is read-only. Where that cannot be written they work without.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: Files = FILES,
        readonly: bool = False,
        pace: Callable[[], None] = no_pace,
        derive: Derived | None = None,
    ) -> None:
        self.folder, self._files, self._readonly, self._pace = folder, files, readonly, pace
        self._mutex = threading.RLock()
        self._lock_fd, self._depth, self._holds_lock, self._process = -1, 0, False, os.getpid()
        self._layout = Layout(folder, files)
        self._state = StateFile(folder / ".state", files)
        self._data: dict[Path, DataFile] = {}
        self._derive = derive or (NOTHING if readonly else BESIDE)
        self._sidecars: dict[Path, Sidecar] = {}
        self._newest: dict[tuple[str, str], float] = {}
        """The timestamp that came last from a writer for a track."""
        self._closed = False

    # -------------------------------------------------------------- locking

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The experiment's lock, among threads by a mutex and among processes by the lock file."""
        if self._readonly:
            raise NotOpen(f"{self.folder} is open for reading only")
        with self._mutex:
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

    @contextmanager
    def settled(self) -> Iterator[None]:
        """No append is under way while this is entered, where the lock can be taken."""
        with self._mutex:
            fd = -1
            if self._depth == 0:  # else this thread holds it: a signal handler that reads, inside an append
                try:
                    fd = self._files.open_lock(self.folder / ".lock", os.O_RDONLY)
                    self._files.lock(fd, wait=True, shared=True)
                except OSError:
                    pass  # read-only media without a lock file, or without locks: nobody appends there
            try:
                yield
            finally:
                if fd >= 0:
                    self._files.close_lock(fd)

    def _check_open(self) -> None:
        if self._closed:
            raise NotOpen("the store is closed")

    # -------------------------------------------------------------- writing

    def append(self, batch: Batch) -> None:
        """Apply a batch once; raises OSError, with nothing of the batch visible, when the disk is full."""
        groups = grouped(batch, self._pace)
        with self._locked():
            state = self._state.read()
            if state.writers.get(batch.writer, 0) >= batch.number:
                return
            state = take_back(state, lambda name: self._file(self.folder / name))
            appenders: list[Appender] = []
            try:
                paths = {track: self._layout.claim(track) for track in groups}
                state, lines = self._begin(state, batch.writer, groups, paths)
                order: dict[str, tuple[int, int]] = {}
                for track, bodies in groups.items():
                    name = self._name(paths[track])
                    appenders.append(self._file(paths[track]).open_for_append())
                    if track.kind == MERGED:
                        order[name] = self._append_merged(bodies, (batch.writer, name), appenders[-1])
                    for stamp, line in lines.get(name, ()):
                        appenders[-1].write(line, stamp, stamp, 1)
                    appenders[-1].sync()
                    self._pace()
                self._state.write(_committed(state, batch, order))
            except BaseException:
                undo = not self._may_be_committed(batch)
                for appender in appenders:
                    appender.abandon(cut=undo)
                raise
            for appender in appenders:
                appender.finish()

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

    def _append_merged(self, bodies: list[bytes], source: tuple[str, str], appender: Appender) -> tuple[int, int]:
        """Write a track's lines; how many entries came late and how many repeated one, before they were sorted."""
        arrivals = Arrivals(self._newest.get(source))
        for lines in ascending_lines(bodies, self._pace, arrivals):
            appender.write(*lines)
        if arrivals.newest is not None:
            self._newest[source] = arrivals.newest
        return arrivals.late, arrivals.repeated

    def _name(self, path: Path) -> str:
        """A data file's name in the state."""
        return path.relative_to(self.folder).as_posix()

    def _file(self, path: Path) -> DataFile:
        known = self._data.get(path)
        if known is None:
            known = self._data.setdefault(path, DataFile(path, self._files, readonly=self._readonly))
        return known

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        with self._mutex:
            self._check_open()
            return self._state.read().writers.get(writer, 0)

    def forget(self, writer: str) -> None:
        """The writer will never send a batch again."""
        with self._locked():
            self._newest = {source: newest for source, newest in self._newest.items() if source[0] != writer}
            state = self._state.read()
            if writer in state.writers:
                writers = {name: number for name, number in state.writers.items() if name != writer}
                self._state.write(state.next(writers=writers))

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

    # -------------------------------------------------------------- reading

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order. Takes no lock unless an append is just being committed."""
        self._check_open()
        path = self._layout.find(track)
        if path is None:
            return
        blocks = self._read_merged(path, window) if track.kind == MERGED else self._read_sequence(path, window)
        for entries in blocks:
            if window.columns is not None:
                entries = select(entries, window.columns, fixed_names(track.kind))
            if entries:
                yield entries

    def _read_merged(self, path: Path, window: Window) -> Iterator[list[Entry]]:
        if window.start is not None and window.end is not None and window.start > window.end:
            return
        low = float("-inf") if window.start is None else window.start
        high = float("inf") if window.end is None else window.end
        with self._file(path).snapshot(window.start, window.end, settled=self.settled) as snapshot:
            if snapshot is None:
                return
            if snapshot.is_sorted:
                parts: Iterator[list[Entry]] = snapshot.load_together()
            else:
                swept = sweep(snapshot.blocks, snapshot.load)
                parts = (snapshot.load(part) if isinstance(part, tuple) else part for part in swept)
            for entries in parts:
                if entries and (entries[0]["timestamp"] < low or entries[-1]["timestamp"] > high):
                    entries = [entry for entry in entries if low <= entry["timestamp"] <= high]
                yield entries

    def table(self, track: Track) -> pa.Table | None:
        """A track's columns as an Arrow table (`formats/arrow.py`), from its sidecar; None where nobody recorded it.

        Where no sidecar fits the file one is made, at about 2 ms for each MB. Raises MissingExtra without pyarrow.
        """
        self._check_open()
        path = self._layout.find(track)
        if path is None or track.kind != MERGED:
            return None
        sidecar = self._sidecar(path)
        known = sidecar.table()
        if known is not None:
            return known
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            return None if snapshot is None else sidecar.make(snapshot)

    def _sidecar(self, path: Path) -> Sidecar:
        known = self._sidecars.get(path)
        if known is None:
            from .sidecar import Sidecar

            known = self._sidecars.setdefault(path, Sidecar(path, self._files, keep=self._derive))
        return known

    def _read_sequence(self, path: Path, window: Window) -> Iterator[list[Entry]]:
        committed = self._committed(path)
        remaining = float("inf") if window.limit is None else window.limit
        index = 0
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            for block in snapshot.blocks if snapshot is not None else ():
                following = index + block.entries
                if block.offset >= committed or remaining <= 0:
                    return
                if block.offset + block.length > committed:  # a crashed attempt's lines behind it are not applied
                    block = block._replace(length=int(committed) - block.offset)
                if following > window.first and snapshot is not None:
                    entries = [{"index": i, **e} for i, e in enumerate(snapshot.load(block), index)]
                    entries = [entry for entry in entries if entry["index"] >= window.first]
                    entries = entries[: int(min(remaining, len(entries)))]
                    remaining -= len(entries)
                    yield entries
                index = following

    def _committed(self, path: Path) -> float:
        """A sequence's committed length; all of it where no state tells."""
        try:
            return self._state.read().sequences.get(self._name(path), float("inf"))
        except StoreCorrupt:
            return float("inf")

    def path_of(self, track: Track) -> Path | None:
        """The data file of a series, or None where nobody recorded it."""
        return self._layout.find(track)

    def topics(self, kind: str = MERGED) -> list[str]:
        """The topics of a kind, sorted; no series is looked at."""
        self._check_open()
        return sorted(self._layout.topics(kind))

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic."""
        self._check_open()
        topics = self._layout.topics(kind)
        found = [self._info(Track(kind, topic), topics[topic]) for topic in sorted(topics)]
        return [info for info in found if info.count]

    def _info(self, track: Track, path: Path) -> TrackInfo:
        index = self._file(path).summary(self.settled)
        low, high = (index.lowest, index.highest) if index.blocks else (None, None)
        count, seen = self._looked_at(track, path)
        late, repeated = self._order(track, path)
        names = summary(seen, fixed_names(track.kind))
        return TrackInfo(track.topic, count, low, high, names, index.size, late, repeated)

    def order(self, track: Track) -> tuple[int | None, int | None]:
        """`late` and `repeated` of a track's `TrackInfo`, without a look at its entries."""
        path = self._layout.find(track)
        return (None, None) if path is None else self._order(track, path)

    def extent(self, track: Track) -> tuple[int, float] | None:
        """How many entries a track has and where the last one is; None where only reading it tells."""
        path = self._layout.find(track)
        if path is None:
            return 0, float("-inf")
        index = self._file(path).summary(self.settled)
        return (index.entries, index.highest) if index.is_sorted and track.kind == MERGED else None

    def _order(self, track: Track, path: Path) -> tuple[int | None, int | None]:
        """How many entries came late and how many repeated one; None where no state tells."""
        try:
            state = self._state.read()
        except StoreCorrupt:
            return None, None
        return state.order.get(self._name(path), (0, 0)) if state.generation and track.kind == MERGED else (None, None)

    def _looked_at(self, track: Track, path: Path) -> tuple[int, dict[str, set[str]]]:
        """The number of entries and the types in them; where lines are entries one by one, from what is kept."""
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            if snapshot is not None:
                is_plain = snapshot.is_sorted if track.kind == MERGED else self._committed(path) >= snapshot.end
                if is_plain:
                    count = sum(block.entries for block in snapshot.blocks)
                    return count, types_of(path, snapshot, self._files, keep=self._derive)
        seen: dict[str, set[str]] = {}
        count = 0
        for entries in self.read(track):
            observe(seen, entries)
            count += len(entries)
        return count, seen

    # -------------------------------------------------------------- documents

    def read_document(self, name: str) -> Document | None:
        """A small document; None where it does not exist.

        Raises:
            StoreCorrupt: the file is no JSON object.
        """
        self._check_open()
        path = self.folder / f"{name}.json"
        try:
            raw = self._files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = from_document(raw)
        if found is None:
            raise StoreCorrupt(f"{path} is no JSON object; move it away or mend it")
        return found

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document by `change` of what it is now, under the experiment's lock."""
        with self._locked():
            raw = to_document(change(self.read_document(name)))
            self._files.write_atomically(self.folder / f"{name}.json", raw)
            return from_document(raw) or {}

    # -------------------------------------------------------------- the end, and forks

    def close(self) -> None:
        """Release the lock file; no further use."""
        with self._mutex:
            self._closed = True
            if self._lock_fd >= 0 and self._process == os.getpid():
                self._files.close_lock(self._lock_fd)
            self._lock_fd = -1

    def after_fork_in_child(self) -> None:
        """What was under way goes on in the parent only."""
        self._mutex, self._depth, self._holds_lock = threading.RLock(), 0, False
        self._data.clear()


def _committed(state: State, batch: Batch, order: Mapping[str, tuple[int, int]]) -> State:
    """The state with a batch whose lines are all there."""
    ends = {name: attempt.end for name, attempt in state.attempt.items()}
    writers = {**state.writers, batch.writer: batch.number}
    counted = dict(state.order)
    for name, counts in order.items():
        late, repeated = counted.get(name, (0, 0))
        if any(counts):
            counted[name] = (late + counts[0], repeated + counts[1])
    return state.next(writers=writers, sequences={**state.sequences, **ends}, attempt={}, order=counted)
