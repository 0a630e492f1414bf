"""Reading journals: one's own, a living neighbour's, a dead one's."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import StoreCorrupt
from .files import FILES, Files
from .journal_files import FIRST_RECORD, MAGIC, RECORD, RECORD_BYTES, SEGMENT_HEADER, VERSION, Mark, crc32
from .store import Track

_CHUNK = 64 << 10
"""Read at a time: some hundred microseconds of work, so that a background thread can rest in between."""
_WRITER = re.compile(r"[0-9a-f]{28}")
"""What a stream's folder is called; anything else in there is somebody else's."""
_SEARCH_BYTES = 16 << 20
_ALIKE, _LENGTH_BYTES = 16, 4
_BODY_START = re.compile(rb"[\x93\x94][\x01-\x7f\xcc-\xcf]")
"""How a body begins: an array of three or four, then the number of its track."""


class Piece(NamedTuple):
    """Bodies that lie behind each other in one segment, and the offset behind each."""

    segment: int
    bodies: list[bytes]
    ends: list[int]


_TABLES = 256
_tables: dict[Path, tuple[tuple[int, int, int], Mapping[int, Track]]] = {}
"""The tables of streams as they were parsed last, with the state of the file."""


def _parse_table(table: bytes) -> Mapping[int, Track]:
    found: dict[int, Track] = {}
    for line in table.split(b"\n"):
        try:
            row = json.loads(line)
            found[int(row["id"])] = Track(str(row["kind"]), str(row["topic"]))
        except (ValueError, KeyError, TypeError):
            continue  # torn: nothing was appended under it; damaged: its entries are set aside (`drain.py`)
    return found


@dataclass(slots=True)
class Stream:
    """One writer's journal as files on disk; nothing is held open and nothing is changed."""

    path: Path
    files: Files = FILES
    damage: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def writer(self) -> str:
        """The writer's id, which is the folder's name."""
        return self.path.name

    def tracks(self) -> Mapping[int, Track]:
        """The tracks by their number in this stream's bodies; a torn line names nothing that was appended."""
        path = self.path / "tracks"
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return {}
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = _tables.get(path)
        if known is None or known[0] != seen:  # it has a line for each topic, and every read asks
            if len(_tables) >= _TABLES:
                _tables.clear()
            known = _tables[path] = (seen, _parse_table(self.files.read(path)))
        return known[1]

    def segments(self) -> list[int]:
        """The numbers of the segments that exist, ascending."""
        names = self.files.names(self.path)
        return [int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit()]

    def bodies(self, start: Mark, end: Mark | None = None, *, living: bool) -> Iterator[bytes]:
        """Each body from `start` on, by the rules of `pieces`."""
        for piece in self.pieces(start, end, living=living):
            yield from piece.bodies

    def pieces(self, start: Mark, end: Mark | None = None, *, living: bool) -> Iterator[Piece]:
        """The bodies from `start` on in order, up to `end` or the last readable one, some hundreds at a time.

        In a living journal a record that does not check is one that is being written: reading stops there, and
        `stopped` is set. In a dead one it was never acknowledged, or is damaged: it is reported, and what follows it
        is still read.
        """
        self.stopped = False
        for number in self.segments():
            if number < start.segment or (end is not None and number > end.segment):
                continue
            first = max(FIRST_RECORD, start.offset if number == start.segment else FIRST_RECORD)
            last = end.offset if end is not None and number == end.segment else None
            yield from self._segment(number, first, last, living)
            if self.stopped:
                return

    def _segment(self, number: int, first: int, last: int | None, living: bool) -> Iterator[Piece]:
        path = self.path / f"{number:010d}.seg"
        try:
            fd = self.files.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            self._check_header(fd, path, number)
            yield from self._records(fd, path, number, first, last, living)
        finally:
            self.files.close(fd)

    def _check_header(self, fd: int, path: Path, number: int) -> None:
        head = self.files.read_at(fd, SEGMENT_HEADER.size, 0)
        if len(head) < SEGMENT_HEADER.size or head[:4] != MAGIC:
            self.damage.append(f"{path}: the head is damaged; its records are read all the same")
            return
        _, version, _, _, found, crc = SEGMENT_HEADER.unpack(head)
        if crc != crc32(head[:-4]) or found != number:
            self.damage.append(f"{path}: the head is damaged; its records are read all the same")
        elif version > VERSION:
            raise StoreCorrupt(f"{path} was written by a newer ml_dash (journal version {version}): upgrade to read it")

    def _records(
        self, fd: int, path: Path, number: int, offset: int, last: int | None, living: bool
    ) -> Iterator[Piece]:
        """The sound records of one segment from an offset on; what is broken is stopped at or stepped over."""
        size = self.files.size(fd) if last is None else min(last, self.files.size(fd))
        wanted = _CHUNK
        while offset + RECORD_BYTES <= size:
            chunk = self.files.read_at(fd, min(wanted, size - offset), offset)
            bodies, ends, needed = _split(chunk, offset)
            if bodies:
                yield Piece(number, bodies, ends)
                offset = ends[-1]
            if needed and offset + needed <= size:
                wanted = max(_CHUNK, needed)
                continue
            if offset + RECORD_BYTES > size:
                break
            if living:
                self.stopped = last is not None or not self._is_hole(fd, offset)
                return
            found = self._step_over(fd, path, offset, size)
            if found is None:
                return
            offset, wanted = found, _CHUNK
        if last is None and self.files.read_at(fd, RECORD_BYTES, offset).strip(b"\0"):
            self.damage.append(f"{path}: the record at byte {offset} is incomplete")

    def _is_hole(self, fd: int, offset: int) -> bool:
        return self.files.read_at(fd, RECORD_BYTES, offset) == bytes(RECORD_BYTES)

    def _step_over(self, fd: int, path: Path, offset: int, size: int) -> int | None:
        """Where reading goes on behind what does not check; None at the end of what was written."""
        length, _ = RECORD.unpack(self.files.read_at(fd, RECORD_BYTES, offset))
        found = self._next_sound(fd, offset, offset + RECORD_BYTES + length if length else offset, size)
        if found is not None or not self._is_hole(fd, offset):
            self.damage.append(f"{path}: the record at byte {offset} is incomplete or damaged")
        return found

    def _next_sound(self, fd: int, broken: int, following: int, size: int) -> int | None:
        """Where a record that checks begins behind a broken one or a hole; None where there is none."""
        if following > broken and self._is_sound(fd, following, size):
            return following
        rest = self.files.read_at(fd, min(size - broken, _SEARCH_BYTES), broken)
        if rest == bytes(len(rest)):
            return None
        for match in _BODY_START.finditer(rest, RECORD_BYTES + 1):
            if self._is_sound(fd, broken + match.start() - RECORD_BYTES, size):
                return broken + match.start() - RECORD_BYTES
        return None

    def _is_sound(self, fd: int, offset: int, size: int) -> bool:
        if offset + RECORD_BYTES >= size:
            return False
        length, crc = RECORD.unpack(self.files.read_at(fd, RECORD_BYTES, offset))
        if not 0 < length <= size - offset - RECORD_BYTES:
            return False
        return bool(crc32(self.files.read_at(fd, length, offset + RECORD_BYTES)) == crc)


def _split(chunk: bytes, base: int) -> tuple[list[bytes], list[int], int]:
    """The sound records at the front of a chunk, the offset behind each, and how many bytes the next one needs
    (0 where it is whole in the chunk and does not check)."""
    bodies, ends = _split_alike(chunk, base)
    at, size, unpack, check = ends[-1] - base if ends else 0, len(chunk), RECORD.unpack_from, crc32
    add, add_end = bodies.append, ends.append
    while at + RECORD_BYTES <= size:
        length, crc = unpack(chunk, at)
        end = at + RECORD_BYTES + length
        if end > size:
            return bodies, ends, RECORD_BYTES + length
        body = chunk[at + RECORD_BYTES : end]
        if check(body) != crc or not length:
            return bodies, ends, 0
        add(body)
        add_end(base + end)
        at = end
    return bodies, ends, RECORD_BYTES


def _split_alike(chunk: bytes, base: int) -> tuple[list[bytes], list[int]]:
    """The records at the front where all in the chunk are of one length, at half the cost; else none."""
    if len(chunk) < RECORD_BYTES:
        return [], []
    length, _ = RECORD.unpack_from(chunk)
    width = RECORD_BYTES + length
    count = len(chunk) // width
    starts = range(0, count * width, width)
    if (
        count < _ALIKE
        or not length
        or any(chunk[k : starts.stop : width] != chunk[k : k + 1] * count for k in range(_LENGTH_BYTES))
    ):
        return [], []
    crcs, bodies = zip(*struct.Struct(f"<{_LENGTH_BYTES}xI{length}s").iter_unpack(chunk[: starts.stop]), strict=True)
    if tuple(map(crc32, bodies)) != crcs:
        return [], []
    return list(bodies), [base + start + width for start in starts]


def streams(folder: Path, files: Files = FILES) -> list[Stream]:
    """The journals in a `.journal` folder, in the order in which they were started."""
    return [Stream(folder / name, files) for name in files.names(folder) if _WRITER.fullmatch(name)]


def is_dead(stream: Stream) -> int | None:
    """The descriptor of the journal's lock where its writer is gone, now held by us; None where it lives.

    Process numbers are never looked at: a lock that can be taken belongs to nobody.
    """
    try:
        fd = stream.files.open_lock(stream.path / "lock")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if stream.files.lock(fd, wait=False) and os.path.samestat(os.fstat(fd), os.stat(stream.path / "lock")):
            return fd
    except FileNotFoundError:
        pass
    stream.files.close_lock(fd)
    return None


def is_alive(stream: Stream) -> bool:
    """Whether some process holds the journal's lock; nothing is created, so it works on read-only media."""
    try:
        fd = stream.files.open_lock(stream.path / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not stream.files.lock(fd, wait=False, shared=True)
    except OSError:
        return False
    finally:
        stream.files.close_lock(fd)
