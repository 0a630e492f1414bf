"""The segments of one process's stream: which is written to, the next one made ready, filled ones synced and let go."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .files import Files
from .journal_files import FIRST_RECORD, Mark, Segment, create_segment, discard_segment, segment_path, sync_names

SEGMENT_BYTES = 4 << 20

_HAS_INTERPRETER_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class Unfinished(NamedTuple):
    """A record on its slow way into a segment: what a signal handler needs to finish it in its place."""

    fd: int
    memory: Any
    start: int
    record: bytes


class Segments:
    """A stream's segments, as the one process that writes them holds them.

    `position` is where the next record goes in segment `number`, whose mapping is `memory`; up to `limit` a record may
    be stored there without a lock (`Journal`). Segments up to `freed` are removed (`free`).

    Args:
        durability: "normal" syncs in the background (`sync`), "strict" inside append, "off" never.
        segment_bytes: how large a segment is.
        wake: called when a segment fills, so that the next one can be made ready in the background.
    """

    __slots__ = (
        "_closed",
        "_durability",
        "_fd",
        "_files",
        "_forked",
        "_lock_fd",
        "_mapped",
        "_numbers",
        "_ready",
        "_retired",
        "_room",
        "_segment_bytes",
        "_synced",
        "_table_fd",
        "_unfinished",
        "_unmapped_later",
        "_wake",
        "freed",
        "limit",
        "lock",
        "memory",
        "number",
        "path",
        "position",
        "writer",
    )  # fmt: skip

    def __init__(self, files: Files, durability: str, segment_bytes: int, wake: Callable[[], None]) -> None:
        self._files, self._durability, self._segment_bytes, self._wake = files, durability, segment_bytes, wake
        self._forked = False
        self.lock = threading.RLock()

    def _begin(self, path: Path, lock_fd: int, table_fd: int) -> None:
        """Go on with a fresh stream, which has no segment yet."""
        self.path, self._lock_fd, self._table_fd = path, lock_fd, table_fd
        self.writer = self.path.name
        self._mapped = self._durability != "strict" and self._files.can_map(self.path.parent)
        self._numbers = itertools.count(1)
        self._closed = False
        self._retired: list[int] = []
        self._unmapped_later: list[Any] = []
        self._ready: Segment | None = None
        self._fd, self.number = -1, 0
        self.freed = 0
        self.memory: Any = None
        self.position = self.limit = self._room = 0
        self._unfinished: Unfinished | None = None
        self._synced = Mark(0, 0)
        self._forked = False

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
        try:
            return create_segment(self._files, self.path, number, size, mapped=self._mapped, durable=durable)
        except OSError as error:
            error.add_note(f"no room for the journal in {self.path}; what append returned from before is kept")
            raise

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

    def free(self, done: Mark, numbers: Iterable[int]) -> None:
        """Remove those of the segments that end before a mark, because others have what is in them.

        The last one as well, where it ends at the mark and nothing can follow in it: it may be large, and where it
        takes the last of the room nothing that would have it removed can ever be appended.
        """
        with self.lock:
            is_over = done == self.mark() and not self._room
        for number in numbers:
            if number < done.segment + is_over:
                self.freed = max(self.freed, number)  # before somebody misses it
                self._files.remove(segment_path(self.path, number))

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
