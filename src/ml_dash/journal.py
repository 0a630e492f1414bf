"""The journal: where `append` puts an entry before anything else happens to it.

One process writes one stream for one experiment: a folder with an exclusive lock, a table of its tracks, and
segments of some MiB. A record is a length, a CRC and a body (`entry.py`); a body that is in the page cache survives
SIGKILL, because the pages belong to the kernel. There is no buffer in Python, no merging and no I/O call in `append`.

`journal_segments.py` keeps the segments, `journal_files.py` has the bytes, `journal_reader.py` reads what is written
here, `docs/format.md` explains them.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .entry import MAX_ENTRY_BYTES
from .errors import InvalidEntry, NotOpen
from .files import FILES, Files
from .journal_files import (
    FIRST_RECORD,
    RECORD_BYTES,
    crc32,
    create_stream,
    record_header,
    segment_header,
    segment_path,
    table_line,
)
from .journal_segments import SEGMENT_BYTES, Segments, Unfinished
from .store import Track


class Journal(Segments):
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

    __slots__ = ("_child_notes", "_folder", "_next", "_notes", "_torn", "_tracks")

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
        super().__init__(files, durability, segment_bytes, wake)
        self._folder, self._notes, self._child_notes = folder, notes or {}, child_notes
        self._tracks: dict[Track, int] = {}
        self._next = itertools.count(1)
        self._torn = False
        self._open_stream()

    # -------------------------------------------------------------- the stream's files

    def _open_stream(self) -> None:
        notes = {**self._notes, **(self._child_notes() if self._forked else {})}
        self._begin(
            *create_stream(self._files, self._folder, self._tracks, durable=self._durability == "strict", notes=notes)
        )

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
        if self._durability == "strict":  # before a body that needs it
            self._files.sync(self._table_fd)
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
