"""From journals into the store: batches with frozen boundaries, dead writers first, retry by doing it again.

One *pass* takes the drain lock, applies what dead processes left, then this process's own journal up to a mark. The
range of a batch is written to the journal before the batch is applied, so its number always means the same entries;
whatever interrupts a pass, the next one asks the store which number it has and goes on from there.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import run_record
from .batches import LARGE_BODY, Group, apart
from .columns import expand, is_columns
from .entry import decode_body
from .errors import StoreCorrupt
from .files import FILES, Files, is_held_here
from .journal import Journal
from .journal_files import BIRTH, FIRST_RECORD, Mark, segment_path
from .journal_reader import Stream, is_dead, streams
from .line import to_line
from .spool import OUTBOX, is_for_server, read_note
from .store import Batch, Store, Track

BATCH_BYTES = 4 << 20
ATTEMPTS = 50
"""Milliseconds that a flush waits for appends of other threads; a signal handler cannot wait for what it interrupts."""

log = logging.getLogger("ml_dash")


class Boundary(NamedTuple):
    """The range of the batch sent last."""

    number: int
    start: Mark
    end: Mark


GONE = ".gone"
"""How the folder of a journal begins that is applied and being removed."""

STREAM_START = Mark(1, FIRST_RECORD)
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
        self.mutex = threading.RLock()
        self._lock_fd = -1
        self._own = Stream(journal.path, files) if journal is not None else None
        self.damage: list[str] = []
        self.observe: Callable[[Batch], None] | None = None
        """Shown every batch of the own journal before it is stored; it must not raise."""
        self.applied = STREAM_START
        """Up to where the own journal has been applied."""

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        """The drain lock, among threads and processes; False inside a pass of the same thread (a signal handler)."""
        if is_held_here(self.mutex):
            yield False
            return
        with self.mutex:
            # One descriptor for all passes: where Ctrl-C keeps it from being unlocked, the next pass has the lock, and
            # gives it back, instead of waiting for this very process.
            if self._lock_fd < 0:
                self._files.make_folder(self._folder)
                self._lock_fd = self._files.open_lock(self._folder / ".drain")
            try:
                self._files.lock(self._lock_fd, wait=True)
                yield True
            finally:
                self._files.unlock(self._lock_fd)
                if self._journal is None:  # a recovery: there is no next pass
                    self.close()

    def close(self) -> None:
        """Let go of the drain lock's file; the next pass opens it again."""
        with self.mutex:
            fd, self._lock_fd = self._lock_fd, -1
            if fd >= 0:
                self._files.close_lock(fd)

    def run(
        self, upto: Mark | None = None, *, clean: bool = False, final: bool = False, patience_s: float | None = None
    ) -> None:
        """One pass: everything dead writers left, then the own journal up to a mark (default: its end now).

        With `clean`, the pass ends at the first record behind the mark that begins a new instant, so that the parts
        of one instant are applied together; and after the first batch that ends later than `patience_s`, so that a
        writer who is far behind does not keep the drain lock from others. With `final`, the own journal is closed and
        read to its end.

        Raises:
            OSError: the disk is full, or StoreUnavailable; nothing is lost, the next pass goes on.
            StoreCorrupt: the journal was deleted under the recording.
        """
        journal = self._journal
        end = journal.mark() if journal is not None and (upto is None or clean) else upto
        with self.exclusively() as free:
            if not free:
                return
            self.recover()
            if journal is not None and not journal.is_forked:
                until = None if patience_s is None else time.monotonic() + patience_s
                self._apply_own(self._stream(journal), None if final else end, upto if clean else None, until)
                _check_there(journal)

    def _stream(self, journal: Journal) -> Stream:
        """The own stream, always the same one, so that damage which is met once is not forgotten."""
        if self._own is None or self._own.path != journal.path:
            self._own = Stream(journal.path, self._files)
        return self._own

    def _apply_own(self, stream: Stream, end: Mark | None, soft: Mark | None, until: float | None) -> None:
        """Apply the own stream; an append that another thread is just copying is waited for."""
        for _ in range(ATTEMPTS):
            self._apply(stream, end, soft, until)
            if soft is not None or not stream.stopped:
                return
            time.sleep(0.001)
        raise OSError(errno.EAGAIN, f"{stream.path}: an append does not finish; nothing is lost, flush again")

    def recover(self) -> int:
        """Apply and remove the journals of processes that are gone; the number of journals. Inside `exclusively`."""
        own = self._journal.writer if self._journal is not None else ""
        others = [stream for stream in streams(self._folder, self._files) if stream.writer != own]
        count = 0
        for stream in others:
            fd = is_dead(stream)
            if fd is None:
                continue
            try:
                self._apply(stream)
                self.discard(stream)
                count += 1
            finally:
                self._files.close_lock(fd)
        self._remove_leftovers()
        return count

    def discard(self, stream: Stream, *, delivered: bool = False) -> None:
        """Remove a journal that is applied; one with damage is kept aside, because somebody may want to look.

        It goes by one rename: half a journal, without its boundary, would be applied again under new numbers. One that
        goes to a server as well, and is not delivered there, moves to the outbox.
        """
        self._note_child(stream)
        if is_for_server(stream) and not delivered:
            aside = self._folder.parent / OUTBOX / stream.writer
            self._files.make_folder(aside.parent)
        else:
            aside = self._folder / f"{'.damaged' if stream.damage else GONE}-{stream.writer}"
        self._files.replace(stream.path, aside)
        if self._durable:
            self._files.sync_folder(aside.parent)
            self._files.sync_folder(self._folder)
        if stream.damage:
            self.damage.extend(stream.damage)
            for damage in stream.damage:
                log.warning("%s (kept in %s)", damage, aside)
        elif aside.parent == self._folder:
            self._files.remove_folder(aside)
        self._store.forget(stream.writer)

    def _note_child(self, stream: Stream) -> None:
        """Keep what a forked child noted of itself in the run's document."""
        note = read_note(stream, run_record.PROCESS_NOTE)
        if isinstance(note, dict) and self._store.read_document(run_record.DOCUMENT) is not None:
            self._store.update_document(
                run_record.DOCUMENT, lambda known: run_record.joined(known or {}, stream.writer, note)
            )

    def finish(self, *, delivered: bool = False) -> None:
        """The own journal is closed and applied: remove it. Inside `exclusively`."""
        if self._journal is not None and not self._journal.is_forked:
            self.discard(self._stream(self._journal), delivered=delivered)

    def after_fork_in_child(self) -> None:
        """A pass that was under way goes on in the parent only."""
        self.mutex = threading.RLock()
        self._lock_fd = -1  # closed by `files.drop_locks`

    def _remove_leftovers(self) -> None:
        """Folders of processes that died while they made or removed a journal hold nothing that is needed."""
        names = self._files.names(self._folder)
        gone, unborn = ([name for name in names if name.startswith(start)] for start in (GONE, ".new-"))
        for name in gone:
            self._files.remove_folder(self._folder / name)
        if not unborn:
            return
        fd = self._files.open_lock(self._folder / BIRTH)
        try:
            if self._files.lock(fd, wait=False):
                for name in unborn:
                    self._files.remove_folder(self._folder / name)
        finally:
            self._files.close_lock(fd)

    def _apply(
        self, stream: Stream, end: Mark | None = None, soft: Mark | None = None, until: float | None = None
    ) -> None:
        """Apply a stream's entries up to `end` (living) or all that is readable (dead); with `soft`, until a time."""
        again, start, number = not_applied(stream, self._store.applied(stream.writer))
        tracks = stream.tracks()
        if again is not None:
            bodies = list(stream.bodies(again.start, again.end, living=False))
            self._send(stream, Batch(stream.writer, again.number, tracks, bodies))
        self._free(stream, start)
        for bodies, stop in self._cut(stream, start, end, soft):
            _write_boundary(stream, Boundary(number, start, stop), durable=self._durable)
            self._send(stream, Batch(stream.writer, number, tracks, bodies))
            self._free(stream, stop)
            start, number = stop, number + 1
            if soft is not None and until is not None and time.monotonic() > until:
                return

    def _send(self, stream: Stream, batch: Batch) -> None:
        """Apply a batch; entries nobody can read are reported and left out, so that they never block the others."""
        if not batch.bodies:
            return
        if self.observe is not None and self._own is not None and stream.writer == self._own.writer:
            self.observe(batch)
        try:
            self._store.append(batch)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            sound = [body for body in batch.bodies if self._is_sound(stream, body, batch.tracks)]
            if len(sound) == len(batch.bodies):
                raise
            log.error("%d entries cannot be read and are set aside: %s", len(batch.bodies) - len(sound), error)
            self._store.append(Batch(batch.writer, batch.number, batch.tracks, sound))

    def _is_sound(self, stream: Stream, raw: bytes, tracks: Mapping[int, Track]) -> bool:
        try:
            body = decode_body(raw)
            if body[0] not in tracks:
                raise LookupError(f"track {body[0]} is not in the journal's table")
            if is_columns(body):
                for entries in expand(body):
                    for timestamp, fields in entries:
                        to_line(timestamp, fields)
            else:
                to_line(body[1], body[2])
            return True
        except Exception as error:
            stream.damage.append(f"{stream.path}: an entry cannot be decoded: {error}")
            fd = self._files.open(stream.path / "rejected", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                self._files.write(fd, len(raw).to_bytes(4, "little") + raw)
            finally:
                self._files.close(fd)
            return False

    def _cut(
        self, stream: Stream, start: Mark, end: Mark | None, soft: Mark | None
    ) -> Iterator[tuple[list[bytes], Mark]]:
        """The bodies behind `start` in batches, each ending between two instants where that is possible."""
        group = Group(start)
        for piece in stream.pieces(start, end, living=end is not None):
            self._pace()
            for _, bodies, ends in apart(piece):
                if len(bodies) == 1 and len(bodies[0]) >= LARGE_BODY:
                    yield from group.take_all()
                    group.extend(piece.segment, bodies, ends)
                    yield from group.take_all()
                    continue
                group.extend(piece.segment, bodies, ends)
                while group.size >= self._batch_bytes or (soft is not None and group.mark > soft):
                    cut = group.cut(self._batch_bytes, soft, self._pace)
                    if not cut:
                        break
                    yield group.take(cut)
                    if soft is not None and group.start >= soft:
                        return
        if soft is not None and group.bodies and group.mark > soft:
            yield group.take(group.cut(0, soft, self._pace, hurry=True))
        else:
            yield from group.take_all()

    def _free(self, stream: Stream, applied: Mark) -> None:
        """Remove segments that are applied as a whole; those that a server needs too go when it has them."""
        for number in [] if is_for_server(stream) else stream.segments():
            if number < applied.segment and not stream.damage:
                self._files.remove(stream.path / f"{number:010d}.seg")
        if self._journal is not None and stream.writer == self._journal.writer:
            self.applied = max(applied, STREAM_START)


def _check_there(journal: Journal) -> None:
    """The segment that is written to is still what its name says; else appends go nowhere, which must not look well."""
    number = journal.number
    there = segment_path(journal.path, number) if number > journal.freed else journal.path
    if not number or journal.is_forked or there.exists():
        return
    if number == journal.number:  # else it filled, and went, in between
        raise StoreCorrupt(
            f"{journal.path} was deleted while it is recorded to: entries since the last flush are lost; "
            "end the run and start it again"
        )


class SpoolDrain(Drain):
    """Stands where the local drain is while only the server keeps the series: the journal is all there is here."""

    def run(
        self, upto: Mark | None = None, *, clean: bool = False, final: bool = False, patience_s: float | None = None
    ) -> None:
        """Have the journal durable."""
        if self._journal is not None and not clean:
            self._journal.sync()
            _check_there(self._journal)

    def recover(self) -> int:
        """What dead writers left stays for the delivery."""
        self._remove_leftovers()
        return 0

    def finish(self, *, delivered: bool = False) -> None:
        """The own journal goes once it is delivered."""
        if delivered:
            super().finish(delivered=True)
