"""The journal: where `append` puts an entry before anything else happens to it.

One process writes one stream for one experiment: a folder with an exclusive lock, a table of its tracks, and
segments of some MiB. A record is a length, a CRC and a body (`entry.py`); a body that is in the page cache survives
SIGKILL, because the pages belong to the kernel. There is no buffer in Python, no merging and no I/O call in `append`.

    .journal/<writer>/lock          held for the life of the process
                      tracks        one JSON line a track: {"id": 1, "kind": "tracks", "topic": "robot/state"}
                      0000000001.seg
                      boundary      the range of the batch sent last (`drain.py`)

`docs/format.md` has the bytes. `journal_reader.py` reads what this file writes.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import secrets
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .entry import MAX_ENTRY_BYTES
from .errors import InvalidEntry, NotOpen
from .files import FILES, Files
from .store import Track

SEGMENT_BYTES = 8 << 20
MAGIC = b"MLDJ"
VERSION = 1
SEGMENT_HEADER = struct.Struct("<4sHH16sQI")
"""magic, version, unused, writer (16 bytes), segment number, CRC32 of what precedes."""
FIRST_RECORD = 64
RECORD = struct.Struct("<II")
"""Length of the body, CRC32 of the body; the body follows."""
RECORD_BYTES = RECORD.size

record_header = RECORD.pack
crc32 = zlib.crc32

_HAS_INTERPRETER_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class Mark(NamedTuple):
    """A place in one writer's stream: the segment's number and the offset in it."""

    segment: int
    offset: int


class Unfinished(NamedTuple):
    """A record on its slow way into a segment: what a signal handler needs to finish it in its place."""

    fd: int
    memory: Any
    start: int
    record: bytes


class Journal:
    """One process's stream of one experiment.

    `memory`, `position` and `limit` are for `TrackBuilder.append`, which stores the common record by itself while it
    fits below `limit`; every other case (a full segment, a large entry, a file system without solid allocation,
    `durability="strict"`, after a fork, after close, an interpreter without its lock) goes through `write_slowly`.

    The common record takes no lock. A writer reads `position`, stores it back and copies its record with no call in
    between, which no other thread and no signal handler can interrupt, because the interpreter looks for them only at
    calls and backward jumps (`tests/faults/test_claim.py` checks the byte code). So `position` never has an unfinished
    record before it, not even after an exception. The one exception is a garbage collection that Python 3.11 may start
    where the slice is made; killed in the middle of that, it leaves a hole, which recovery steps over.

    The slow way publishes `position` after its record is written. A signal handler that comes in between and appends
    too first finishes the record it interrupted.

    Args:
        folder: the experiment's `.journal` folder; created with the first journal.
        durability: "normal" syncs in the background (`sync`), "strict" inside append, "off" never.
        wake: called when a segment fills, so that the next one can be made ready in the background.
    """

    __slots__ = (
        "_closed",
        "_durability",
        "_fd",
        "_files",
        "_folder",
        "_forked",
        "_lock_fd",
        "_mapped",
        "_next",
        "_numbers",
        "_ready",
        "_retired",
        "_room",
        "_segment_bytes",
        "_synced",
        "_table_fd",
        "_tracks",
        "_unfinished",
        "_wake",
        "limit",
        "lock",
        "memory",
        "number",
        "path",
        "position",
        "writer",
    )  # fmt: skip

    def __init__(
        self,
        folder: Path,
        *,
        files: Files = FILES,
        durability: str = "normal",
        segment_bytes: int = SEGMENT_BYTES,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._files, self._durability = folder, files, durability
        self._segment_bytes, self._wake = segment_bytes, wake
        self._tracks: dict[Track, int] = {}
        self._next = itertools.count(1)
        self.lock = threading.RLock()
        self._open_stream()

    # -------------------------------------------------------------- the stream's files

    def _open_stream(self) -> None:
        """A folder of our own, locked before it gets its name: nobody ever sees it unlocked."""
        self._forked = False
        self._files.make_folder(self._folder)
        self.writer = f"{time.time_ns():016x}{secrets.token_hex(6)}"
        self.path = self._folder / self.writer
        hidden = self._folder / f".new-{self.writer}"
        hidden.mkdir()
        self._lock_fd = self._files.open(hidden / "lock", os.O_RDWR | os.O_CREAT)
        self._files.lock(self._lock_fd, wait=True)
        self._table_fd = self._files.open(hidden / "tracks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._files.replace(hidden, self.path)
        self._mapped = self._durability != "strict" and self._files.can_map(self._folder)
        self._numbers = itertools.count(1)
        self._closed = False
        self._retired: list[int] = []
        self._ready: tuple[int, int, Any] | None = None
        self._fd, self.number = -1, 0
        self.memory: Any = None
        self.position = self.limit = self._room = 0
        self._unfinished: Unfinished | None = None
        self._synced = Mark(0, 0)
        for track, track_id in self._tracks.items():
            self._write_track(track, track_id)

    def track_id(self, track: Track) -> int:
        """The number that stands for the track in this stream's bodies."""
        known = self._tracks.get(track)
        if known is not None:
            return known
        with self.lock:
            known = self._tracks.get(track)
            if known is None:
                self._check_open()
                if self._forked:
                    self._open_stream()
                known = next(self._next)
                self._write_track(track, known)
                self._tracks[track] = known
            return known

    def _write_track(self, track: Track, track_id: int) -> None:
        line = json.dumps({"id": track_id, "kind": track.kind, "topic": track.topic}) + "\n"
        self._files.write(self._table_fd, line.encode())

    def tracks(self) -> dict[int, Track]:
        """The tracks of this stream by their number."""
        with self.lock:
            return {track_id: track for track, track_id in self._tracks.items()}

    # -------------------------------------------------------------- writing

    def write(self, body: bytes) -> None:
        """Append one record; `TrackBuilder.append` does the same inline."""
        record = record_header(len(body), crc32(body)) + body
        size = len(record)
        start = self.position
        end = start + size
        if end > self.limit:
            self.write_slowly(record)
            return
        self.position = end
        self.memory[start:end] = record

    def write_slowly(self, record: bytes) -> None:
        """Append one record (header and body) whatever it takes, under the lock.

        Raises:
            InvalidEntry: the entry is larger than 8 MiB encoded.
            NotOpen: the journal is closed.
            OSError: the disk is full; nothing of this record is stored, and everything before it stays.
        """
        size = len(record)
        if size > MAX_ENTRY_BYTES + RECORD_BYTES:
            raise InvalidEntry(
                f"an entry of {size - RECORD_BYTES} bytes encoded; the limit is {MAX_ENTRY_BYTES} (8 MiB)"
            )
        with self.lock:
            while True:
                self._make_room(size)
                start = self.position
                end = start + size
                if end <= self.limit:
                    self.position = end
                    self.memory[start:end] = record
                    return
                mine = Unfinished(self._fd, self.memory, self.position, record)
                if not self.limit and mine.start == self.position and mine.fd == self._fd:
                    self._unfinished = mine
                    break
            try:
                self._finish(mine)
            except BaseException:
                if self._unfinished is mine:
                    self._unfinished = None
                    self._cut_back(mine)
                    raise
                if not isinstance(sys.exception(), OSError):
                    raise  # a signal handler has finished this record, and something else went wrong

    def _make_room(self, size: int) -> None:
        """Have a segment with so much room, and no record before it that is unfinished."""
        self._check_open()
        if self._forked:
            self._open_stream()
        if self._unfinished is not None:
            self._finish(self._unfinished)
        while self.position + size > self._room:
            self._rotate(FIRST_RECORD + size)

    def _finish(self, record: Unfinished) -> None:
        """Put a record in its place and publish it. Doing it twice changes nothing."""
        end = record.start + len(record.record)
        if record.memory is None:
            self._files.write_at(record.fd, record.record, record.start)
            if self._durability == "strict":
                self._files.sync(self._table_fd)
                self._files.sync(record.fd)
        # From here on no call: a signal handler finds the record unfinished, or published.
        else:
            record.memory[record.start : end] = record.record
        if self._unfinished is record:
            self.position = end
            self._unfinished = None

    def _cut_back(self, record: Unfinished) -> None:
        """Remove what a failed write left; where that fails too, the next record takes the place."""
        if record.memory is None:
            try:
                self._files.truncate(record.fd, record.start)
            except OSError:
                pass

    def write_apart(self, body: bytes) -> None:
        """Append one large record as a segment of its own, written while others go on appending.

        The file gets its name, and thereby its place in the stream, only when it is whole: all of it or nothing.
        """
        with self.lock:
            self._check_open()
            if self._forked:
                self._open_stream()
        path = self.path / f".apart-{secrets.token_hex(6)}"
        fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            self._files.write_at(fd, record_header(len(body), crc32(body)), FIRST_RECORD)
            self._files.write_at(fd, body, FIRST_RECORD + RECORD_BYTES)
            if self._durability != "off":
                self._files.sync(fd)
            with self.lock:
                self._name_apart(fd, path, FIRST_RECORD + RECORD_BYTES + len(body))
        except BaseException:
            self._files.remove(path)
            raise
        finally:
            self._files.close(fd)

    def _name_apart(self, fd: int, path: Path, end: int) -> None:
        """Give a whole segment its number. What comes after its record has to lie in a later segment."""
        self._make_room(0)
        while True:
            number = next(self._numbers)
            self._files.write_at(fd, self._segment_header(number), 0)
            self._files.replace(path, self._segment_path(number))
            if self._swap(number, end):
                break
            # A signal handler has gone on to a later segment, and may have drained up to there: to the end again.
            path = self._segment_path(number)
        self._drop_ready()
        if self._durability == "strict":
            self._files.sync_folder(self.path)

    def _check_open(self) -> None:
        if self._closed:
            raise NotOpen("the run is closed: log inside `with experiment.run:`")

    # -------------------------------------------------------------- segments

    def _segment_path(self, number: int) -> Path:
        return self.path / f"{number:010d}.seg"

    def _segment_header(self, number: int) -> bytes:
        head = SEGMENT_HEADER.pack(MAGIC, VERSION, 0, bytes.fromhex(self.writer[:28]), number, 0)[:-4]
        return head + struct.pack("<I", crc32(head))

    def _rotate(self, needed: int) -> None:
        """Go on in a fresh segment; prepared ahead where the background had the time."""
        ready, self._ready = self._ready, None
        if ready is not None and (ready[0] < self.number or needed > self._segment_bytes):
            self._discard(ready)
            ready = None
        size = max(needed, self._segment_bytes)
        segment = ready or self._new_segment(size)
        if not self._swap(segment[0], FIRST_RECORD, segment[1], segment[2], size):
            self._discard(segment)
        self._wake()

    def _swap(self, number: int, position: int, fd: int = -1, memory: Any = None, room: int = 0) -> bool:
        """Go to a segment in one step that no other thread and no signal handler can come between.

        The old mapping is not closed but dropped: a thread that claimed its place in it still copies into it.

        Returns:
            Whether it went there; not where a signal handler has gone to a later one already.
        """
        old = self._fd
        limit = room if memory is not None and _HAS_INTERPRETER_LOCK else 0
        if number < self.number:
            return False
        self.number, self.position, self._fd, self.memory = number, position, fd, memory
        self.limit, self._room = limit, room
        if old >= 0:
            self._retired.append(old)
        return True

    def _new_segment(self, size: int) -> tuple[int, int, Any]:
        """Create under a hidden name, make it solid, map it, then give it its name."""
        number = next(self._numbers)
        hidden = self.path / f".{number:010d}.new"
        fd = self._files.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            memory = None
            if self._mapped:
                self._files.allocate(fd, size)
                memory = mmap.mmap(fd, size)
            self._files.write_at(fd, self._segment_header(number), 0)
            self._files.replace(hidden, self._segment_path(number))
        except BaseException:
            self._files.close(fd)
            self._files.remove(hidden)
            raise
        return number, fd, memory

    def _discard(self, segment: tuple[int, int, Any]) -> None:
        number, fd, memory = segment
        if memory is not None:
            memory.close()
        self._files.close(fd)
        self._files.remove(self._segment_path(number))

    def _drop_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            self._discard(ready)

    def prepare(self) -> None:
        """Background work: close filled segments, and have the next one ready and its pages present."""
        with self.lock:
            retired, self._retired = self._retired, []
        self._close_filled(retired)
        early = self._fd >= 0 and self.position < self._room // 4
        if not self._mapped or self._ready is not None or early or self._closed or self._forked:
            return
        try:
            ready = self._new_segment(self._segment_bytes)
        except OSError:
            return  # a full disk is told by the append that needs the segment
        _touch(ready[2])
        with self.lock:
            if self._ready is None and not self._closed and ready[0] > self.number:
                self._ready = ready
                return
        self._discard(ready)

    def _close_filled(self, retired: list[int]) -> None:
        while retired:
            try:
                if self._durability == "normal":
                    self._files.sync(retired[-1])
            finally:
                self._files.close(retired.pop())

    def sync(self) -> None:
        """Everything appended before the call is on the device on return."""
        if self._forked or self._durability == "off":
            return
        with self.lock:
            mark, fd = self.mark(), os.dup(self._fd) if self._fd >= 0 else -1
            retired = [os.dup(old) for old in self._retired]
        try:
            if mark != self._synced:
                self._files.sync(self._table_fd)
                for one in (*retired, *([fd] if fd >= 0 else [])):
                    self._files.sync(one)
                if mark.segment != self._synced.segment:
                    self._files.sync_folder(self.path)
                self._synced = mark
        finally:
            for one in (*retired, *([fd] if fd >= 0 else [])):
                os.close(one)

    def mark(self) -> Mark:
        """The end of the stream now; records before it may still be being copied by their threads."""
        number, position = self.number, self.position
        return Mark(number, position)

    def pending_bytes(self, since: Mark) -> int:
        """Roughly how many bytes were appended after a mark."""
        now = self.mark()
        if now.segment == since.segment:
            return now.offset - since.offset
        return (now.segment - since.segment) * self._segment_bytes + now.offset

    # -------------------------------------------------------------- the end, and forks

    def close(self) -> None:
        """No more appends; the stream's files stay for the drain, the lock until `release`."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self.limit = self._room = 0
            self._drop_ready()
        self.prepare()

    def release(self) -> None:
        """Let go of all that is held; whoever takes the lock from now on may recover what is left."""
        with self.lock:
            self._closed, self.limit, self._room = True, 0, 0
            for fd in (self._fd, self._table_fd, self._lock_fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._table_fd = self._lock_fd = -1
            self.memory = None

    def after_fork_in_child(self) -> None:
        """Leave the parent's stream alone; the first append here starts one of our own with the same track numbers.

        The inherited descriptors and mappings go at once: a lock lives as long as any copy of its descriptor, and a
        child that kept one would hide its parent's death.
        """
        self.lock = threading.RLock()
        for memory in (self.memory, self._ready[2] if self._ready is not None else None):
            if memory is not None:
                memory.close()
        ready_fd = self._ready[1] if self._ready is not None else -1
        for fd in (*self._retired, self._fd, ready_fd, self._table_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._retired, self._ready, self.memory = [], None, None
        self._fd = self._table_fd = self._lock_fd = -1
        self.position = self.limit = self._room = 0
        self._unfinished = None
        self._forked = True

    @property
    def is_forked(self) -> bool:
        """Whether this is a child's copy that has appended nothing yet."""
        return self._forked


def _touch(memory: Any) -> None:
    """Have the pages of a fresh segment present, so that appends meet no page faults.

    Called through ctypes because that releases the interpreter lock for the two milliseconds it takes.
    """
    try:
        import ctypes

        populate_write = 23  # MADV_POPULATE_WRITE, Linux 5.14; elsewhere refused, and the faults come one by one
        first = ctypes.c_char.from_buffer(memory)
        size = ctypes.c_size_t(len(memory))
        ctypes.CDLL(None).madvise(ctypes.c_void_p(ctypes.addressof(first)), size, populate_write)
    except (ImportError, OSError, AttributeError, TypeError):
        pass
