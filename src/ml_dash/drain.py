"""From journals into the store: batches with frozen boundaries, dead writers first, retry by doing it again.

One *pass* takes the drain lock, applies what dead processes left, then this process's own journal up to a mark. The
range of a batch is written to the journal before the batch is applied, so its number always means the same entries;
whatever interrupts a pass, the next one asks the store which number it has and goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .columns import expand, is_columns
from .entry import decode_body, to_line
from .files import FILES, Files
from .journal import Journal, Mark
from .journal_reader import Stream, is_dead, streams
from .store import Batch, Store, Track
from .stores.grouping import PACE_EVERY

BATCH_BYTES = 8 << 20
LARGE_BODY = 1 << 20
"""A body this large (from `extend`) is a batch of its own, so that a store can apply it in slices."""

log = logging.getLogger("ml_dash")


class Boundary(NamedTuple):
    """The range of the batch sent last."""

    number: int
    start: Mark
    end: Mark


NOTHING_SENT = Boundary(0, Mark(0, 0), Mark(0, 0))


def read_boundary(stream: Stream) -> Boundary:
    """The range of the batch that was sent last; `NOTHING_SENT` where none was, or the note is damaged."""
    try:
        crc, body = stream.files.read(stream.path / "boundary").split(b" ", 1)
        if int(crc, 16) != zlib.crc32(body):
            return NOTHING_SENT
        number, start, end = json.loads(body)
        return Boundary(number, Mark(*start), Mark(*end))
    except (FileNotFoundError, ValueError, TypeError):
        return NOTHING_SENT


def _write_boundary(stream: Stream, boundary: Boundary, *, durable: bool) -> None:
    body = json.dumps(boundary).encode()
    data = f"{zlib.crc32(body):08x} ".encode() + body
    stream.files.write_atomically(stream.path / "boundary", data, durable=durable)


def not_applied(stream: Stream, applied: int) -> tuple[Boundary | None, Mark, int]:
    """What is still to do for a stream of which the store has applied batch `applied`.

    Returns:
        The frozen batch to send again, if any; where the rest begins; the number the rest begins with.
    """
    sent = read_boundary(stream)
    if sent.number > applied:
        return sent, sent.end, sent.number + 1
    return None, sent.end, applied + 1


class Drain:
    """Moves entries from the journals of one experiment into its store.

    Args:
        folder: the experiment's `.journal` folder.
        store: where the entries go.
        journal: this process's own stream, or None to recover what others left.
        pace: called between records so that other threads can run.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        journal: Journal | None,
        *,
        files: Files = FILES,
        durable: bool = True,
        pace: Callable[[], None] = lambda: None,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._folder, self._store, self._journal, self._files = folder, store, journal, files
        self._durable, self._pace, self._batch_bytes = durable, pace, batch_bytes
        self._mutex = threading.RLock()
        self._busy = False
        self.damage: list[str] = []

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        """The drain lock, among threads and processes; False inside a pass of the same thread (a signal handler)."""
        with self._mutex:
            if self._busy:
                yield False
                return
            self._files.make_folder(self._folder)
            fd = self._files.open(self._folder / ".drain", os.O_RDWR | os.O_CREAT)
            try:
                self._files.lock(fd, wait=True)
                self._busy = True
                yield True
            finally:
                self._busy = False
                self._files.close(fd)

    def run(self, upto: Mark | None = None, *, clean: bool = False) -> None:
        """One pass: everything dead writers left, then the own journal up to a mark (default: its end now).

        With `clean`, the pass ends at the first record behind the mark that begins a new instant, so that the parts
        of one instant are applied together.

        Raises:
            OSError: the disk is full, or StoreUnavailable; nothing is lost, the next pass goes on.
        """
        with self.exclusively() as free:
            if not free:
                return
            self.recover()
            journal = self._journal
            if journal is not None and not journal.is_forked:
                end = journal.mark() if upto is None or clean else upto
                self._apply(Stream(journal.path, self._files), end, upto if clean else None)

    def recover(self) -> int:
        """Apply and remove the journals of processes that are gone; the number of journals. Inside `exclusively`."""
        own = self._journal.writer if self._journal is not None else ""
        count = 0
        for stream in streams(self._folder, self._files):
            if stream.writer == own:
                continue
            fd = is_dead(stream)
            if fd is None:
                continue
            try:
                self._apply(stream, None, None)
                self.discard(stream)
                count += 1
            finally:
                self._files.close(fd)
        self._remove_unborn()
        return count

    def discard(self, stream: Stream) -> None:
        """Remove a journal that is applied; one with damage is kept aside, because somebody may want to look."""
        if stream.damage:
            self.damage.extend(stream.damage)
            for damage in stream.damage:
                log.warning("%s", damage)
            self._files.replace(stream.path, self._folder / f".damaged-{stream.writer}")
        else:
            shutil.rmtree(stream.path, ignore_errors=True)
        self._store.forget(stream.writer)

    def finish(self) -> None:
        """The own journal is closed and applied: remove it. Inside `exclusively`."""
        if self._journal is not None and not self._journal.is_forked:
            self.discard(Stream(self._journal.path, self._files))

    def after_fork_in_child(self) -> None:
        """A pass that was under way goes on in the parent only."""
        self._mutex = threading.RLock()
        self._busy = False

    def _remove_unborn(self) -> None:
        """Folders of processes that died between creating their journal and naming it hold no entry."""
        for name in os.listdir(self._folder):
            if name.startswith(".new-"):
                stream = Stream(self._folder / name, self._files)
                fd = is_dead(stream)
                if fd is not None:
                    shutil.rmtree(stream.path, ignore_errors=True)
                    self._files.close(fd)

    def _apply(self, stream: Stream, end: Mark | None, soft: Mark | None) -> None:
        """Apply a stream's entries up to `end` (living) or all that is readable (dead)."""
        again, start, number = not_applied(stream, self._store.applied(stream.writer))
        tracks = stream.tracks()
        if again is not None:
            bodies = [body for _, body in stream.bodies(again.start, again.end, living=False)]
            self._send(stream, Batch(stream.writer, again.number, tracks, bodies))
        self._free(stream, start)
        for bodies, stop in self._cut(stream, start, end, soft):
            _write_boundary(stream, Boundary(number, start, stop), durable=self._durable)
            self._send(stream, Batch(stream.writer, number, tracks, bodies))
            self._free(stream, stop)
            start, number = stop, number + 1

    def _send(self, stream: Stream, batch: Batch) -> None:
        """Apply a batch; entries nobody can read are reported and left out, so that they never block the others."""
        if not batch.bodies:
            return
        try:
            self._store.append(batch)
        except (ValueError, LookupError, TypeError) as error:
            sound = [body for body in batch.bodies if self._is_sound(stream, body, batch.tracks)]
            if len(sound) == len(batch.bodies):
                raise
            log.error("%d entries cannot be read and are set aside: %s", len(batch.bodies) - len(sound), error)
            self._store.append(Batch(batch.writer, batch.number, batch.tracks, sound))

    def _is_sound(self, stream: Stream, raw: bytes, tracks: Mapping[int, Track]) -> bool:
        try:
            body = decode_body(raw)
            if is_columns(body):
                for entries in expand(body):
                    for timestamp, fields in entries:
                        to_line(timestamp, fields)
            else:
                to_line(body[1], body[2])
            return body[0] in tracks
        except Exception as error:
            stream.damage.append(f"{stream.path}: an entry cannot be decoded: {error}")
            with open(stream.path / "rejected", "ab") as rejected:
                rejected.write(len(raw).to_bytes(4, "little") + raw)
            return False

    def _cut(
        self, stream: Stream, start: Mark, end: Mark | None, soft: Mark | None
    ) -> Iterator[tuple[list[bytes], Mark]]:
        """The bodies behind `start` in batches, each ending between two instants where that is possible."""
        group = _Group(start)
        for count, (behind, body) in enumerate(stream.bodies(start, end, living=end is not None)):
            if count % PACE_EVERY == 0:
                self._pace()
            large = len(body) >= LARGE_BODY
            if group.bodies and large:
                yield group.bodies, group.mark
                group = _Group(group.mark)
            elif group.size >= self._batch_bytes or (soft is not None and group.mark >= soft):
                cut = group.cut_before(body, hurry=group.size >= self._batch_bytes * 5 // 4)
                if cut:
                    bodies, mark, group = group.split(cut)
                    yield bodies, mark
                    if soft is not None and mark >= soft:
                        return
            group.add(body, behind)
            if large:
                yield group.bodies, group.mark
                group = _Group(group.mark)
        if not group.bodies:
            return
        cut = group.second_best if soft is not None and group.second_best else len(group.bodies)
        bodies, mark, _ = group.split(cut)
        yield bodies, mark

    def _free(self, stream: Stream, applied: Mark) -> None:
        """Remove segments that are applied as a whole."""
        for number in stream.segments():
            if number < applied.segment and not stream.damage:
                self._files.remove(stream.path / f"{number:010d}.seg")


class _Group:
    """Bodies that will be one batch, and where it could end without splitting an instant."""

    RECENT = 2048

    def __init__(self, mark: Mark) -> None:
        self.bodies: list[bytes] = []
        self.marks: list[Mark] = []
        self.size, self.mark = 0, mark
        self.second_best = 0
        self._newest: dict[int, float] | None = None

    def add(self, body: bytes, behind: Mark) -> None:
        self.bodies.append(body)
        self.marks.append(behind)
        self.size += len(body)
        self.mark = behind
        if self._newest is not None:
            self._note(body)

    def _note(self, body: bytes) -> None:
        assert self._newest is not None
        track, stamp = _head(body)
        self._newest[track] = max(stamp, self._newest.get(track, stamp))

    def cut_before(self, body: bytes, *, hurry: bool) -> int:
        """How many bodies to send now: all of them where `body` begins a new instant for every track, else none.

        In a hurry, as many as there were when a new instant of one track began, or all.
        """
        if self._newest is None:
            self._newest = {}
            for known in self.bodies[-self.RECENT :]:
                self._note(known)
        track, stamp = _head(body)
        if all(stamp > newest for newest in self._newest.values()):
            return len(self.bodies)
        if not self.second_best and stamp > self._newest.get(track, float("-inf")):
            self.second_best = len(self.bodies)
        return (self.second_best or len(self.bodies)) if hurry else 0

    def split(self, count: int) -> tuple[list[bytes], Mark, _Group]:
        """The first bodies with the mark behind them, and a group of the others."""
        rest = _Group(self.marks[count - 1])
        for body, mark in zip(self.bodies[count:], self.marks[count:], strict=True):
            rest.add(body, mark)
        return self.bodies[:count], self.marks[count - 1], rest


def _head(body: bytes) -> tuple[int, float]:
    """The track number and timestamp of a body without decoding the rest; infinity for whole columns."""
    first = body[1]
    width = _UINT_WIDTH.get(first, 0)
    track = int.from_bytes(body[2 : 2 + width], "big") if width else first
    at = 2 + width
    if body[0] == _ENTRY and body[at] == _FLOAT64:
        return track, struct.unpack_from(">d", body, at + 1)[0]
    return track, float("inf")


_UINT_WIDTH = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_ENTRY, _FLOAT64 = 0x93, 0xCB
