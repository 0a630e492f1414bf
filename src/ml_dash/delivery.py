"""From journals to a server, in the background: nothing here ever makes an append wait, and an outage ends no run.

A thread sends what dead writers left, then this process's own journal, then the documents that changed, again and
again. While the server does not answer it waits between attempts, longer each time; while it refuses the token it keeps
everything and asks again now and then. `flush` waits for the thread, once; after a wait that was in vain, the next ones
return at once until the server has answered.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from .background import Pace, Rests
from .documents import Outgoing, Remote
from .drain import not_applied
from .errors import MlDashError, NotDelivered, NotOpen, StoreUnavailable, Unauthorized
from .files import FILES, Files
from .journal import Journal
from .journal_files import FIRST_RECORD, Mark
from .journal_reader import Stream, is_dead, streams
from .presence import Presence
from .room import Room, amount, room_of
from .sending import Sender
from .spool import DEAD_LETTERS, JOURNALS, OUTBOX, destination
from .spool_journal import SpoolJournal
from .store import Store

SEND_EVERY_S = 1.0
LEAST_S, MOST_S = 0.5, 60.0
BACKLOG_BYTES = 8 << 20
COPYING_MS = 50
CLOSE_S = 30.0
LINGER_S = 0.5
LAST_TRY_S = 2.0
"""How long `close` waits for a server that did not answer before."""

FIRST = Mark(1, FIRST_RECORD)
_PACKAGE = str(Path(__file__).parent)

log = logging.getLogger("ml_dash")


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
        self._files, self._durable, self._pace, self._draw = files, durable, pace or Rests(self._is_awaited), draw
        self._left = folder / (JOURNALS if remote.alone else OUTBOX)
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stop = False
        self._hurry = True
        self._waiting = 0
        self._silent = False
        self._attempts, self._not_before = 0, 0.0
        self._final = self._whole = False
        self._arrived = Mark(0, 0)
        self._documents = Outgoing(self._folder, self._remote, self._local, self._files)
        self._presence = Presence(self._remote.store)
        self._warned, self._scarce = 0, False
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

    def _is_awaited(self) -> bool:
        """Whether somebody waits for the thread: its rests would only make that longer."""
        return self._waiting > 0

    def documents_changed(self) -> None:
        """A document was written here: send it soon."""
        with self._changed:
            self._documents.version += 1
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
                whole, self._hurry = self._hurry or self._waiting > 0 or before == now, False
            wait_s = self._round(None if whole else before)
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
        self._look_at_the_room()
        say = log.warning if self._attempts == 0 else log.debug
        say("%s; recording goes on, ml-dash %s", error, what)
        with self._changed:
            self.error, self._attempts = error, self._attempts + 1
            self._changed.notify_all()
        return wait_s

    def _look_at_the_room(self) -> None:
        """Say once that the disk will not hold much more of an outage."""
        room = room_of(self._folder, self._pending_bytes()) if self._folder.exists() else Room(0, 1)
        if room.is_scarce and not self._scarce:
            url, used, left = self._remote.destination.url, amount(room.used), amount(room.left)
            log.warning("%s wait for %s, and there is room for %s more", used, url, left)
        self._scarce = room.is_scarce

    # -------------------------------------------------------------- one pass

    def run(self, soft: Mark | None = None) -> None:
        """Send everything, or the own stream only up to the instant behind `soft`; raises what keeps it from it."""
        note, version = self._documents.server_note(), self._documents.version
        if self._send_left():
            self._send_own(soft)
        if self._stop:
            return
        self._documents.send(note, version)
        with self._changed:
            self.error, self._attempts, self._silent = None, 0, False
            self._changed.notify_all()
        self._presence.keep(self._journal, self.sender.delivered + self._documents.sent)

    def _send_own(self, soft: Mark | None) -> None:
        journal = self._journal
        if journal is None or journal.is_forked:
            return
        upto, stream = self._own_mark(), self._stream(journal)
        arrived = self._arrived == upto and not self._final
        if arrived:
            self._free(journal, stream)  # what the drain was behind with then
        if arrived or (soft is not None and not Mark(0, 0) < soft < upto):
            return
        backlog = journal.pending_bytes(self.sender.acknowledged(stream)) > BACKLOG_BYTES
        for _ in range(COPYING_MS):
            self.sender.send(stream, None if self._final else upto, soft, backlog=backlog)
            if soft is not None or not stream.stopped or self._stop:
                break
            time.sleep(0.001)  # another thread is just copying its entry
        self._free(journal, stream)
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

    def _free(self, journal: Journal, stream: Stream) -> None:
        """Remove segments that are on the server as a whole, and here where they are kept here too."""
        done = self.sender.acknowledged(stream)
        if self._local is not None and not self._remote.alone:
            again, end, _ = not_applied(stream, self._local.applied(stream.writer))
            done = min(done, end if again is None else again.start)
        journal.free(done, [] if stream.damage else stream.segments())

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
                tell(text)
        return delivered

    def _wait(self, timeout_s: float | None, *, closing: bool = False) -> bool:
        with self._changed:
            self._waiting += 1
        try:
            return self._wait_for_all(timeout_s, closing)
        finally:
            with self._changed:
                self._waiting -= 1

    def _wait_for_all(self, timeout_s: float | None, closing: bool) -> bool:
        mark = self._own_mark()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.start()
        with self._changed:
            version, attempts = self._documents.version, self._attempts
            if self._silent:
                deadline = time.monotonic()
            self._hurry = True
            self._changed.notify_all()
            while not self._is_delivered(mark, version):
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

    def _is_delivered(self, mark: Mark, version: int) -> bool:
        if not self._documents.are_delivered(version):
            return False
        if self._journal is None or self._journal.is_forked:
            return True
        return self._whole if self._final else self._arrived >= mark

    def _undelivered(self) -> str:
        size = self._pending_bytes()
        what = f"about {amount(size)}" if size else "something"
        why = f": {self.error}" if self.error is not None else ""
        return (
            f"{what} of this run is stored here and not yet at {self._remote.destination.url}{why}; it is sent as soon"
            " as it answers, by this process, the next one, or `ml-dash sync`"
        )

    def _pending_bytes(self) -> int:
        """Roughly how much of the own journal waits; nothing is read, so that a flush in an outage costs nothing."""
        journal = self._journal
        if journal is None or journal.is_forked:
            return 0
        return max(0, journal.pending_bytes(max(self.sender.acknowledged(self._stream(journal)), FIRST)))

    def _refused(self) -> str:
        """What is said, once, of entries that the server would not take, and of those there was no room for."""
        count, self._warned = self.sender.refused - self._warned, self.sender.refused
        where = f"by {self._remote.destination.url}; {self._folder / DEAD_LETTERS} keeps them"
        dropped = self._journal.told() if isinstance(self._journal, SpoolJournal) else ""
        return "; ".join(text for text in (dropped, f"{count} entries were refused {where}" if count else "") if text)

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


# ---------------------------------------------------------------- what the user is told


def tell(text: str) -> None:
    """Warn of what is not delivered, at the user's own line however deep in this package the warning is made."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, NotDelivered, stacklevel=level)
