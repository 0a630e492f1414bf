"""Reading journals: one's own, a living neighbour's, a dead one's."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .entry import MAX_ENTRY_BYTES
from .errors import StoreCorrupt
from .files import FILES, Files
from .journal import FIRST_RECORD, MAGIC, RECORD, RECORD_BYTES, SEGMENT_HEADER, VERSION, Mark, crc32
from .store import Track

_CHUNK = 1 << 20


@dataclass(slots=True)
class Stream:
    """One writer's journal as files on disk; nothing is held open and nothing is changed."""

    path: Path
    files: Files = FILES
    damage: list[str] = field(default_factory=list)

    @property
    def writer(self) -> str:
        """The writer's id, which is the folder's name."""
        return self.path.name

    def tracks(self) -> dict[int, Track]:
        """The tracks by their number in this stream's bodies; a torn last line names nothing that was appended."""
        found: dict[int, Track] = {}
        try:
            table = self.files.read(self.path / "tracks")
        except FileNotFoundError:
            return found
        for line in table.split(b"\n"):
            try:
                row = json.loads(line)
                found[int(row["id"])] = Track(str(row["kind"]), str(row["topic"]))
            except (ValueError, KeyError, TypeError):
                if line:
                    self.damage.append(f"{self.path}/tracks: unreadable line")
        return found

    def segments(self) -> list[int]:
        """The numbers of the segments that exist, ascending."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit())

    def bodies(self, start: Mark, end: Mark | None = None, *, living: bool) -> Iterator[tuple[Mark, bytes]]:
        """Each body from `start` on with the mark behind it, up to `end` or the last readable one.

        In a living journal a record that does not check is one that is being written: reading stops there. In a
        dead one it was never acknowledged, or is damaged: it is reported, and what follows it is still read.
        """
        for number in self.segments():
            if number < start.segment or (end is not None and number > end.segment):
                continue
            first = max(FIRST_RECORD, start.offset if number == start.segment else FIRST_RECORD)
            last = end.offset if end is not None and number == end.segment else None
            stopped = yield from self._segment(number, first, last, living)
            if stopped:
                return

    def _segment(
        self, number: int, first: int, last: int | None, living: bool
    ) -> Generator[tuple[Mark, bytes], None, bool]:
        """The bodies of one segment; returns whether a living journal's end was reached."""
        path = self.path / f"{number:010d}.seg"
        try:
            fd = self.files.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            self._check_header(fd, path, number)
            for offset, body in self._records(fd, path, first, last, living):
                if body is None:
                    return True
                yield Mark(number, offset), body
        finally:
            self.files.close(fd)
        return False

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
        self, fd: int, path: Path, offset: int, last: int | None, living: bool
    ) -> Iterator[tuple[int, bytes | None]]:
        size = self.files.size(fd) if last is None else last
        chunk, base = b"", offset
        while offset + RECORD_BYTES <= size:
            at = offset - base
            if at + RECORD_BYTES > len(chunk):
                chunk, base, at = self.files.read_at(fd, _CHUNK, offset), offset, 0
                if len(chunk) < RECORD_BYTES:
                    return
            length, crc = RECORD.unpack_from(chunk, at)
            if length == 0 and crc == 0:
                if not living and last is None:
                    self._report_tail(fd, path, offset, size)
                return
            end = at + RECORD_BYTES + length
            if end > len(chunk) and offset + RECORD_BYTES + length <= size:
                chunk, base, at = self.files.read_at(fd, max(_CHUNK, RECORD_BYTES + length), offset), offset, 0
                end = RECORD_BYTES + length
            body = chunk[at + RECORD_BYTES : end]
            whole = len(body) == length and crc32(body) == crc
            if whole:
                offset += RECORD_BYTES + length
                yield offset, body
            elif living:
                yield offset, None
                return
            else:
                self.damage.append(f"{path}: the record at byte {offset} is incomplete or damaged")
                if not self._plausible(fd, offset + RECORD_BYTES + length, length, size):
                    return
                offset += RECORD_BYTES + length

    def _plausible(self, fd: int, following: int, length: int, size: int) -> bool:
        """Whether a broken record's length leads to a record that checks, or to the untouched rest."""
        if length > 2 * MAX_ENTRY_BYTES or following + RECORD_BYTES > size:
            return False
        next_length, next_crc = RECORD.unpack(self.files.read_at(fd, RECORD_BYTES, following))
        if not 0 < next_length <= size - following - RECORD_BYTES:
            return False
        return bool(crc32(self.files.read_at(fd, next_length, following + RECORD_BYTES)) == next_crc)

    def _report_tail(self, fd: int, path: Path, offset: int, size: int) -> None:
        rest = self.files.read_at(fd, min(size - offset, 4096), offset)
        if rest.strip(b"\0"):
            self.damage.append(f"{path}: bytes behind the last record at {offset} are damaged")


def streams(folder: Path, files: Files = FILES) -> list[Stream]:
    """The journals in a `.journal` folder, in the order in which they were started."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Stream(folder / name, files) for name in names if not name.startswith(".") and (folder / name).is_dir()]


def is_dead(stream: Stream) -> int | None:
    """The descriptor of the journal's lock where its writer is gone, now held by us; None where it lives.

    Process numbers are never looked at: a lock that can be taken belongs to nobody.
    """
    try:
        fd = stream.files.open(stream.path / "lock", os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return None
    try:
        if stream.files.lock(fd, wait=False) and os.path.samestat(os.fstat(fd), os.stat(stream.path / "lock")):
            return fd
    except FileNotFoundError:
        pass
    stream.files.close(fd)
    return None


def is_alive(stream: Stream) -> bool:
    """Whether some process holds the journal's lock; nothing is created, so it works on read-only media."""
    try:
        fd = stream.files.open(stream.path / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not stream.files.lock(fd, wait=False, shared=True)
    except OSError:
        return False
    finally:
        stream.files.close(fd)
