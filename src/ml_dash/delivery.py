"""From journals to a server, in the background: nothing here ever makes an append wait, and an outage ends no run.

A thread sends what dead writers left, then this process's own journal, then the documents that changed, again and
again. While the server does not answer it waits between attempts, longer each time; while it refuses the token it keeps
everything and asks again now and then. `flush` waits for the thread, once; after a wait that was in vain, the next ones
return at once until the server has answered.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .background import Pace
from .drain import read_boundary
from .errors import MlDashError, NotDelivered, NotOpen, StoreCorrupt, StoreUnavailable, Unauthorized
from .files import FILES, Files
from .journal import Journal
from .journal_files import Mark
from .journal_reader import Stream, is_dead, streams
from .sending import Sender
from .spool import (
    DEAD_LETTERS,
    JOURNALS,
    OUTBOX,
    Destination,
    ServerNote,
    changes,
    destination,
    pending_bytes,
    read_sent,
    read_server_note,
    write_server_note,
)
from .store import Document, Store

SEND_EVERY_S = 1.0
LEAST_S, MOST_S = 0.5, 60.0
BACKLOG_BYTES = 8 << 20
COPYING_MS = 50
CLOSE_S = 30.0
LINGER_S = 0.5
LAST_TRY_S = 2.0
"""How long `close` waits for a server that did not answer before."""

Combine = Callable[[Document | None, Document], Document]
"""Makes the server's document of what it is there and of what is new here."""

log = logging.getLogger("ml_dash")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where an experiment is sent to, and how.

    Args:
        store: the experiment on the server.
        destination: its address, for the notes on disk.
        alone: nothing but the server keeps the series; else they are stored here first.
        documents: how each small document meets the server's.
        strict: a flush that does not reach the server is an error.
    """

    store: Store
    destination: Destination
    alone: bool
    documents: Mapping[str, Combine] = field(default_factory=dict)
    strict: bool = False


class Delivery:
    """Sends one experiment's folder to its server.

    Args:
        folder: the experiment's folder here.
        remote: the server.
        local: the documents as they are here.
        journal: this process's own stream, or None to deliver only what others left.
        clock, draw: time and chance; tests give their own.
    """

    def __init__(
        self,
        folder: Path,
        remote: Remote,
        local: Store | None,
        journal: Journal | None,
        *,
        files: Files = FILES,
        durable: bool = True,
        pace: Pace | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._folder, self._remote, self._local, self._journal = folder, remote, local, journal
        self._files, self._durable, self._pace, self._draw = files, durable, pace or Pace(), draw
        self._left = folder / (JOURNALS if remote.alone else OUTBOX)
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stop = False
        self._hurry = True
        self._silent = False
        self._attempts = 0
        self._not_before = 0.0
        self._final = self._whole = False
        self._arrived = Mark(0, 0)
        self._documents = 1
        self._documents_sent = 0
        self._warned = 0
        self.error: Exception | None = None
        self.sender = Sender(
            self._remote.store,
            self._folder / DEAD_LETTERS,
            durable=self._durable,
            pace=self._pace,
            stopping=lambda: self._stop,
        )

    # -------------------------------------------------------------- the thread

    def start(self) -> None:
        """Start the thread; once."""
        with self._changed:
            if self._thread is None and not self._stop:
                self._thread = threading.Thread(target=self._run, name="ml_dash-send", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """A child's own stream began: have its thread running."""
        if self._thread is None:
            self.start()

    def documents_changed(self) -> None:
        """A document was written here: send it soon."""
        with self._changed:
            self._documents += 1
            self._hurry = self._hurry or not self._attempts
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._send_often()
        finally:
            self._remote.store.close()

    def _send_often(self) -> None:
        self._pace.thread = threading.get_ident()
        before = Mark(0, 0)
        while not self._stop:
            now = self._own_mark()
            with self._changed:
                hurry, self._hurry = self._hurry, False
            wait_s = self._round(None if hurry else before)
            before = now
            with self._changed:
                self._changed.wait_for(lambda: self._stop, max(0.0, self._not_before - time.monotonic()))
                self._changed.wait_for(lambda: self._stop or self._hurry, wait_s)

    def _round(self, soft: Mark | None) -> float:
        """One pass and what came of it; returns how long to wait before the next."""
        try:
            self.run(soft)
        except NotOpen:
            return SEND_EVERY_S
        except Unauthorized as error:
            return self._failed(error, MOST_S, "keeps everything and asks again")
        except StoreUnavailable as error:
            self._not_before = time.monotonic() + (getattr(error, "retry_after_s", None) or 0.0)
            wait_s = self._draw(0.0, min(MOST_S, LEAST_S * 2 ** min(self._attempts + 1, 16)))
            return self._failed(error, wait_s, "tries again")
        except OSError as error:
            return self._failed(error, SEND_EVERY_S, "tries again")
        except Exception as error:
            log.exception("sending to %s failed; everything is kept", self._remote.destination.url)
            return self._failed(error, MOST_S, "tries again")
        return SEND_EVERY_S

    def _failed(self, error: Exception, wait_s: float, what: str) -> float:
        say = log.warning if self._attempts == 0 else log.debug
        say("%s; recording goes on, ml-dash %s", error, what)
        with self._changed:
            self.error, self._attempts = error, self._attempts + 1
            self._changed.notify_all()
        return wait_s

    # -------------------------------------------------------------- one pass

    def run(self, soft: Mark | None = None) -> None:
        """Send everything, or the own stream only up to the instant behind `soft`; raises what keeps it from it."""
        note, documents = self._server_note(), self._documents
        if self._send_left():
            self._send_own(soft)
        if self._stop:
            return
        self._send_documents(note, documents)
        with self._changed:
            self.error, self._attempts, self._silent = None, 0, False
            self._changed.notify_all()

    def _send_own(self, soft: Mark | None) -> None:
        journal = self._journal
        if journal is None or journal.is_forked:
            return
        upto, stream = self._own_mark(), self._stream(journal)
        if soft is not None and not Mark(0, 0) < soft < upto:
            return
        backlog = journal.pending_bytes(self.sender.acknowledged(stream)) > BACKLOG_BYTES
        for _ in range(COPYING_MS):
            self.sender.send(stream, None if self._final else upto, soft, backlog=backlog)
            if soft is not None or not stream.stopped or self._stop:
                break
            time.sleep(0.001)  # another thread is just copying its entry
        self._free(stream)
        if soft is None and not stream.stopped and not self._stop:
            self._arrived, self._whole = upto, self._final

    def _own_mark(self) -> Mark:
        journal = self._journal
        return journal.mark() if journal is not None and not journal.is_forked else Mark(0, 0)

    def _stream(self, journal: Journal) -> Stream:
        return Stream(journal.path, self._files)

    def _send_left(self) -> bool:
        """Send what dead writers left, oldest first; False while another process is at it, whose turn comes first."""
        own = self._journal.writer if self._journal is not None else ""
        for stream in streams(self._left, self._files):
            if stream.writer == own or destination(stream) != self._remote.destination:
                continue
            fd = is_dead(stream)
            if fd is None:
                if self._remote.alone or not stream.path.exists():
                    continue  # its writer lives, or somebody has just delivered it
                return False
            try:
                self.sender.send(stream, None, None, backlog=True)
                if self._stop:
                    return False
                self._discard(stream)
            finally:
                self._files.close_lock(fd)
        return True

    def _discard(self, stream: Stream) -> None:
        """A stream that is delivered goes by one rename; one with damage is kept aside for somebody to look at."""
        writer = self.sender.sender_of(stream)
        aside = self._left / f"{'.damaged' if stream.damage else '.gone'}-{stream.writer}"
        self._files.replace(stream.path, aside)
        self._files.sync_folder(self._left)
        for damage in stream.damage:
            log.warning("%s (kept in %s)", damage, aside)
        if not stream.damage:
            self._files.remove_folder(aside)
        self._forget(writer)

    def _forget(self, writer: str) -> None:
        try:
            self._remote.store.forget(writer)
        except MlDashError as error:
            log.debug("the server keeps the number of %s: %s", writer, error)

    def _free(self, stream: Stream) -> None:
        """Remove segments that are on the server as a whole, and here where they are kept here too."""
        behind = self.sender.acknowledged(stream).segment
        if not self._remote.alone:
            behind = min(behind, read_boundary(stream).start.segment)
        for number in stream.segments():
            if number < behind and not stream.damage:
                self._files.remove(stream.path / f"{number:010d}.seg")

    # -------------------------------------------------------------- documents

    def _server_note(self) -> ServerNote:
        """What is known of the server; written down before anything is sent, for whoever has to go on."""
        note = read_server_note(self._folder, self._files)
        if note is None or note.destination != self._remote.destination:
            note = ServerNote(self._remote.destination)
            write_server_note(self._folder, note, self._files)
        return note

    def _send_documents(self, note: ServerNote, upto: int) -> None:
        if self._local is None or self._documents_sent >= upto:
            return
        for name, combine in self._remote.documents.items():
            self._send_document(name, combine, note)
        self._documents_sent = upto

    def _send_document(self, name: str, combine: Combine, note: ServerNote) -> None:
        assert self._local is not None
        try:
            here = self._local.read_document(name)
        except StoreCorrupt as error:
            log.warning("not sent: %s", error)
            return
        new = changes(note.documents.get(name, {}), here or {})
        if here is None or not new:
            return
        self._remote.store.update_document(name, lambda known: combine(known, new))
        note.documents[name] = here
        write_server_note(self._folder, note, self._files)

    # -------------------------------------------------------------- waiting for it

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until everything appended and set before the call is on the server; False when it is not in time.

        Not delivered is a warning that says how much waits; with `strict` it is a StoreUnavailable or Unauthorized.
        """
        delivered = self._wait(timeout_s)
        if not delivered and self._remote.strict:
            raise self.error or StoreUnavailable(self._undelivered())
        for text in (self._refused(), "" if delivered else self._undelivered()):
            if text:
                warnings.warn(text, NotDelivered, stacklevel=4)
        return delivered

    def _wait(self, timeout_s: float | None, *, closing: bool = False) -> bool:
        mark, documents = self._own_mark(), 0
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.start()
        with self._changed:
            documents, attempts = self._documents, self._attempts
            if self._silent:
                deadline = time.monotonic()
            self._hurry = True
            self._changed.notify_all()
            while not self._is_delivered(mark, documents):
                left = None if deadline is None else deadline - time.monotonic()
                refused = isinstance(self.error, Unauthorized) or (closing and self._attempts > max(attempts, 1))
                if (left is not None and left <= 0) or refused or self._stop:
                    self._silent = True
                    return False
                if closing and self._attempts and (left is None or left > LAST_TRY_S):
                    deadline, self._hurry = time.monotonic() + LAST_TRY_S, True
                    self._changed.notify_all()
                    continue
                self._changed.wait(1.0 if left is None else min(left, 1.0))
            return True

    def _is_delivered(self, mark: Mark, documents: int) -> bool:
        if self._documents_sent < documents and self._local is not None:
            return False
        if self._journal is None or self._journal.is_forked:
            return True
        return self._whole if self._final else self._arrived >= mark

    def _undelivered(self) -> str:
        url, journal = self._remote.destination.url, self._journal
        size = 0
        if journal is not None and not journal.is_forked:
            size = pending_bytes(self._stream(journal))
        why = f": {self.error}" if self.error is not None else ""
        return (
            f"{size / 1e6:.1f} MB are stored here and not yet at {url}{why}; they are sent as soon as it answers,"
            " by this process, the next one, or `ml-dash sync`"
        )

    def _refused(self) -> str:
        """What is said, once, of entries that the server would not take."""
        count, self._warned = self.sender.refused - self._warned, self.sender.refused
        if not count:
            return ""
        return (
            f"{count} entries were refused by {self._remote.destination.url}; {self._folder / DEAD_LETTERS} keeps them"
        )

    # -------------------------------------------------------------- the end, and forks

    def close(self, timeout_s: float = CLOSE_S) -> tuple[bool, list[str]]:
        """The journal is closed: wait a while for the rest to arrive, then end the thread.

        A server that does not answer gets two seconds.

        Returns:
            Whether everything is on the server, and what the user has to be told.
        """
        self._final = True
        timeout_s = min(timeout_s, LAST_TRY_S) if self._silent else timeout_s
        self._silent = False
        delivered = self._wait(timeout_s, closing=True)
        told = [self._refused(), "" if delivered else self._undelivered()]
        self._stop_thread()
        return delivered, [text for text in told if text]

    def _stop_thread(self) -> bool:
        """Whether the thread has ended; one that waits for a server that hangs is left to itself."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(LINGER_S)
        return not thread.is_alive()

    def end(self) -> None:
        """End the thread and the connection."""
        if self._stop_thread():
            self._remote.store.close()

    def forget_own(self) -> None:
        """The own stream is delivered and removed: the server need not keep its number."""
        if self._journal is not None:
            self._forget(self.sender.sender_of(self._stream(self._journal)))

    def after_fork_in_child(self) -> None:
        """The thread and the connection stayed with the parent."""
        after_fork = getattr(self._remote.store, "after_fork_in_child", None)
        if after_fork is not None:
            after_fork()
        self._reset()


def undelivered_from(stream: Stream, store: Store) -> tuple[Mark, str]:
    """Where the part of a stream begins that a server does not have, and a text that changes whenever that does."""
    sent = read_sent(stream)
    if sent.number == 0:
        return sent.start, f"{stream.writer} 0"
    applied = store.applied(sent.writer)
    return (sent.end if applied >= sent.number else sent.start), f"{sent.writer} {applied} {sent.number}"
