"""Reading one experiment's folder: data files through their index, columns, documents. Nothing here is changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..entry import select
from ..errors import NotOpen, StoreCorrupt
from ..files import Files
from ..line import from_document
from ..schema import observe, summary
from ..store import MERGED, Document, Entry, Track, TrackInfo, Window, fixed_names
from .datafile import DataFile, Snapshot
from .derived import BESIDE, NOTHING, Derived
from .index import Block, Index
from .layout import Layout
from .state import StateFile
from .sweep import sweep
from .types import Places, Seen, look_up, names_of, types_of

if TYPE_CHECKING:
    import pyarrow as pa

    from .sidecar import Sidecar


class LocalReader:
    """What `LocalStore` answers without taking its lock.

    Args:
        folder: the experiment's folder.
        readonly: nothing is created or changed, not even derived files; works on read-only media.
        derive: where readers keep what they worked out (columns, types); default: in hidden files beside the data, or
            nowhere where the store is read-only. Where that cannot be written they work without.
    """

    def __init__(self, folder: Path, files: Files, readonly: bool, derive: Derived | None) -> None:
        self.folder, self._files, self._readonly = folder, files, readonly
        self.mutex = threading.RLock()
        self._depth = 0
        self._layout = Layout(folder, files)
        self._state = StateFile(folder / ".state", files)
        self._data: dict[Path, DataFile] = {}
        self._derive = derive or (NOTHING if readonly else BESIDE)
        self._sidecars: dict[Path, Sidecar] = {}
        self._closed = False

    @contextmanager
    def settled(self) -> Iterator[None]:
        """No append is under way while this is entered, where the lock can be taken."""
        with self.mutex:
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

    def _name(self, path: Path) -> str:
        """A data file's name in the state."""
        return path.relative_to(self.folder).as_posix()

    def _file(self, path: Path) -> DataFile:
        known = self._data.get(path)
        if known is None:
            known = self._data.setdefault(path, DataFile(path, self._files, readonly=self._readonly))
        return known

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
                load = partial(_within, low, high, snapshot.load)  # a late block may reach far beyond the window
                parts = (load(part) if isinstance(part, tuple) else part for part in sweep(snapshot.blocks, load))
            for entries in parts:
                yield _between(entries, low, high)

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
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            index = Index() if snapshot is None else snapshot.index
            # Of before the entries are looked at: what comes meanwhile makes it another one, and is not overlooked.
            revision = "" if snapshot is None else "-".join(f"{number:x}" for number in snapshot.fingerprint)
        low, high = (index.lowest, index.highest) if index.blocks else (None, None)
        count, seen = self._looked_at(track, path)
        late, repeated = self._order(track, path)
        names = summary(seen, fixed_names(track.kind))
        return TrackInfo(track.topic, count, low, high, names, index.size, late, repeated, revision)

    def order(self, track: Track) -> tuple[int | None, int | None]:
        """`late` and `repeated` of a track's `TrackInfo`, without a look at its entries."""
        path = self._layout.find(track)
        return (None, None) if path is None else self._order(track, path)

    def extent(self, track: Track) -> tuple[int, float] | None:
        """How many entries a series has and its latest timestamp; None where only reading it tells."""
        path = self._layout.find(track)
        if path is None:
            return 0, float("-inf")
        committed = float("inf") if track.kind == MERGED else self._committed(path)
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            if snapshot is None:
                return 0, float("-inf")
            if not snapshot.is_sorted and track.kind == MERGED:
                return sum(map(_entries_in, sweep(snapshot.blocks, snapshot.load))), snapshot.index.highest
        blocks = [block for block in snapshot.blocks if block.offset < committed]
        if blocks and blocks[-1].offset + blocks[-1].length > committed:
            return None
        return sum(block.entries for block in blocks), snapshot.index.highest

    def _order(self, track: Track, path: Path) -> tuple[int | None, int | None]:
        """How many entries came late and how many repeated one; None where no state tells."""
        try:
            state = self._state.read()
        except StoreCorrupt:
            return None, None
        return state.order.get(self._name(path), (0, 0)) if state.generation and track.kind == MERGED else (None, None)

    def _looked_at(self, track: Track, path: Path) -> tuple[int, dict[str, set[str]]]:
        """The number of entries and the types in them; where lines are entries, from what is kept."""
        with self._file(path).snapshot(settled=self.settled) as snapshot:
            if snapshot is not None:
                if track.kind == MERGED and not snapshot.is_sorted:
                    return _swept(snapshot, types_of(path, snapshot, self._files, keep=self._derive))
                if track.kind == MERGED or self._committed(path) >= snapshot.end:
                    count = sum(block.entries for block in snapshot.blocks)
                    return count, names_of(types_of(path, snapshot, self._files, keep=self._derive))
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


def _entries_in(part: Block | list[Entry]) -> int:
    return part.entries if isinstance(part, Block) else len(part)


def _swept(snapshot: Snapshot, found: Places) -> tuple[int, Seen]:
    """The number of entries of an unsorted file and the types in them; only what overlaps is read."""
    count, seen, apart = 0, Seen(), list[Block]()
    for part in sweep(snapshot.blocks, snapshot.load):
        count += _entries_in(part)
        if isinstance(part, Block):
            apart.append(part)
        else:
            observe(seen, part)
    look_up(seen, found, sorted(apart, key=lambda block: block.offset), snapshot)
    return count, seen


def _within(low: float, high: float, load: Callable[[Block], list[Entry]], block: Block) -> list[Entry]:
    return _between(load(block), low, high)


def _between(entries: list[Entry], low: float, high: float) -> list[Entry]:
    """Those of ascending entries that lie in a window."""
    if entries and (entries[0]["timestamp"] < low or entries[-1]["timestamp"] > high):
        return [entry for entry in entries if low <= entry["timestamp"] <= high]
    return entries
