"""The journal: where `append` puts an entry before anything else happens to it.

One process writes one stream for one experiment: a folder with an exclusive lock, a table of its tracks, and
segments of some MiB. A record is a length, a CRC and a body (`entry.py`); a body that is in the page cache survives
SIGKILL, because the pages belong to the kernel. There is no buffer in Python, no merging and no I/O call in `append`.

`journal_files.py` has the bytes, `journal_reader.py` reads what this file writes, `docs/format.md` explains both.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .entry import MAX_ENTRY_BYTES
from .errors import InvalidEntry, NotOpen
from .files import FILES, Files
from .journal_files import (
    FIRST_RECORD,
    RECORD_BYTES,
    Mark,
    Segment,
    crc32,
    create_segment,
    create_stream,
    discard_segment,
    record_header,
    segment_header,
    segment_path,
    sync_names,
    table_line,
)
from .store import Track

SEGMENT_BYTES = 4 << 20

_HAS_INTERPRETER_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


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
        notes: small files that every stream of this journal is born with.
        child_notes: further ones, made when a forked child begins a stream of its own.
    """

    __slots__ = (
        "_child_notes",
        "_closed",
        "_durability",
        "_fd",
        "_files",
        "_folder",
        "_forked",
        "_lock_fd",
        "_mapped",
        "_next",
        "_notes",
        "_numbers",
        "_ready",
        "_retired",
        "_room",
        "_segment_bytes",
        "_synced",
        "_table_fd",
        "_torn",
        "_tracks",
        "_unfinished",
        "_unmapped_later",
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
        notes: Mapping[str, bytes] | None = None,
        child_notes: Callable[[], Mapping[str, bytes]] = dict,
    ) -> None:
        self._folder, self._files, self._durability = folder, files, durability
        self._segment_bytes, self._wake, self._notes = segment_bytes, wake, notes or {}
        self._tracks: dict[Track, int] = {}
        self._next = itertools.count(1)
        self._torn = self._forked = False
        self._child_notes = child_notes
        self.lock = threading.RLock()
        self._open_stream()

    # -------------------------------------------------------------- the stream's files

    def _open_stream(self) -> None:
        notes = {**self._notes, **(self._child_notes() if self._forked else {})}
        self.path, self._lock_fd, self._table_fd = create_stream(
            self._files, self._folder, self._tracks, durable=self._durability == "strict", notes=notes
        )
        self.writer = self.path.name
        self._mapped = self._durability != "strict" and self._files.can_map(self._folder)
        self._numbers = itertools.count(1)
        self._closed = False
        self._retired: list[int] = []
        self._unmapped_later: list[Any] = []
        self._ready: Segment | None = None
        self._fd, self.number = -1, 0
        self.memory: Any = None
        self.position = self.limit = self._room = 0
        self._unfinished: Unfinished | None = None
        self._synced = Mark(0, 0)
        self._forked = False

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
        """Append a line to the table; behind a torn one (a full disk) it starts on a line of its own."""
        line = b"\n" * self._torn + table_line(track, track_id)
        self._torn = True
        self._files.write(self._table_fd, line)
        self._torn = False

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
        path = self.path / f".apart-{os.urandom(6).hex()}"
        fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            self._files.write_at(fd, record_header(len(body), crc32(body)), FIRST_RECORD)
            self._files.write_at(fd, body, FIRST_RECORD + RECORD_BYTES)
            if self._durability == "strict":
                self._files.sync(fd)
            with self.lock:
                self._name_apart(fd, path, FIRST_RECORD + RECORD_BYTES + len(body))
        except BaseException:
            self._files.remove(path)
            self._files.close(fd)
            raise
        self._retired.append(fd)  # synced in the background, unless the drain has moved the entries before that

    def _name_apart(self, fd: int, path: Path, end: int) -> None:
        """Give a whole segment its number. What comes after its record has to lie in a later segment."""
        self._make_room(0)
        while True:
            number = next(self._numbers)
            self._files.write_at(fd, segment_header(self.writer, number), 0)
            named = segment_path(self.path, number)
            try:
                self._files.replace(path, named)
                if self._durability == "strict":
                    self._files.sync_folder(self.path)
            except BaseException:  # a signal's too: a segment that nobody goes to would end the one before it
                if self.number < number:
                    self._files.remove(named)
                raise
            path = named
            if self._swap(number, end):
                break
            # A signal handler has gone on to a later segment, and may have drained up to there: to the end again.
        self._drop_ready()

    def _check_open(self) -> None:
        if self._closed:
            raise NotOpen("the run is closed: log inside `with experiment.run:`")

    # -------------------------------------------------------------- segments

    def _rotate(self, needed: int) -> None:
        """Go on in a fresh segment; prepared ahead where the background had the time."""
        ready, self._ready = self._ready, None
        if ready is not None and (ready.number < self.number or needed > self._segment_bytes):
            self._discard(ready)
            ready = None
        size = max(needed, self._segment_bytes)
        segment = ready or self._new_segment(size)
        if not self._swap(segment.number, FIRST_RECORD, segment.fd, segment.memory, size):
            self._discard(segment)
        self._wake()

    def _swap(self, number: int, position: int, fd: int = -1, memory: Any = None, room: int = 0) -> bool:
        """Go to a segment in one step that no other thread and no signal handler can come between.

        The old mapping is left to the background: to take megabytes of pages out costs an append a millisecond.

        Returns:
            Whether it went there; not where a signal handler has gone to a later one already.
        """
        old, old_memory = self._fd, self.memory
        limit = room if memory is not None and _HAS_INTERPRETER_LOCK else 0
        if number < self.number:
            return False
        self.number, self.position, self._fd, self.memory = number, position, fd, memory
        self.limit, self._room = limit, room
        if old >= 0:
            self._retired.append(old)
        if old_memory is not None:
            self._unmapped_later.append(old_memory)
        return True

    def _new_segment(self, size: int) -> Segment:
        durable = self._durability == "strict"
        number = next(self._numbers)
        return create_segment(self._files, self.path, number, size, mapped=self._mapped, durable=durable)

    def _discard(self, segment: Segment) -> None:
        discard_segment(self._files, self.path, segment)

    def _drop_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            self._discard(ready)

    def prepare(self) -> None:
        """Background work: close filled segments, and have the next one ready and its pages present."""
        with self.lock:
            retired, self._retired = self._retired, []
            memories, self._unmapped_later = self._unmapped_later, []
        if _HAS_INTERPRETER_LOCK:  # without it an append may still copy into one; then it goes with its last user
            for memory in memories:
                memory.close()
        del memories
        self._close_filled(retired)
        early = self._fd >= 0 and self.position < self._room // 4
        if not self._mapped or self._ready is not None or early or self._closed or self._forked:
            return
        try:
            ready = self._new_segment(self._segment_bytes)
        except OSError:
            return  # a full disk is told by the append that needs the segment
        _touch(ready.memory)
        with self.lock:
            if self._ready is None and not self._closed and ready.number > self.number:
                self._ready = ready
                return
        self._discard(ready)

    def _close_filled(self, retired: list[int]) -> None:
        try:
            while retired and self._durability == "normal":
                self._files.sync(retired[-1])
                self._files.close(retired.pop())
        finally:
            for fd in retired:
                self._files.close(fd)

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
                if self._synced.segment == 0:
                    sync_names(self._files, self.path)
                elif mark.segment != self._synced.segment:
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
            for fd in (self._fd, self._table_fd, *self._retired):
                if fd >= 0:
                    os.close(fd)
            self._retired, self._unmapped_later = [], []
            if self._lock_fd >= 0:
                self._files.close_lock(self._lock_fd)
            self._fd = self._table_fd = self._lock_fd = -1
            self.memory = None

    def after_fork_in_child(self) -> None:
        """Leave the parent's stream alone; the first append here starts one of our own with the same track numbers.

        The inherited descriptors and mappings go at once (the locks have gone already, see `files.drop_locks`).
        """
        self.lock = threading.RLock()
        ready = self._ready or Segment(0, -1, None)
        for memory in (self.memory, ready.memory, *self._unmapped_later):
            if memory is not None:
                memory.close()
        for fd in (*self._retired, self._fd, ready.fd, self._table_fd):
            if fd >= 0:
                os.close(fd)
        self._retired, self._unmapped_later, self._ready, self.memory = [], [], None, None
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
