"""An open experiment: its store, and while it records, the journal and the threads behind it."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import run_record
from .background import Background, Pace
from .drain import Drain, SpoolDrain
from .entry import MAX_ENTRY_BYTES, encode_body, refusal, taken, too_large
from .errors import NotOpen, StoreUnavailable, TrackNotFound
from .files import FILES, Files, is_held_here
from .journal import Journal
from .journal_reader import is_alive, streams
from .journal_segments import SEGMENT_BYTES
from .names import offer
from .store import MERGED, Batch, Entry, Store, Track, TrackInfo, Window, fixed_names
from .view import View

if TYPE_CHECKING:
    from .delivery import Delivery
    from .documents import Remote

FLUSH_S = 30.0
READ_BACKLOG_BYTES = 4 << 20

log = logging.getLogger("ml_dash")

DURABILITIES = ("normal", "strict", "off")

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """What `tracks`, `metrics`, `params` and `log` write to and read from while an experiment is open.

    Args:
        store: keeps the entries. What it offers beyond the contract (compaction, fork handling) is used where present.
        journals: the folder of the journals, or None where there are none to read.
        recording: whether to open a journal; without it nothing is written.
        durability: "normal" (a power cut costs some tenths of a second), "strict" (nothing), "off".
        catches_up: whether a read first drains a backlog of more than 4 MiB; off where the store may not answer.
        background: whether threads sync and drain the journal; without them only `flush` and `close` do.
        segment_bytes: how much of the journal lies in one file.
        remote: the server that everything is sent to, beside the store or instead of it.
        view: what is read, where it is not the store with the journals.
        drained: what the journal is drained into, and where documents are written, where it is not the store.
        make_journal: what the journal is, where it is not the common one.
    """

    def __init__(
        self,
        store: Store,
        journals: Path | None,
        *,
        recording: bool,
        durability: str = "normal",
        files: Files = FILES,
        pace: Pace | None = None,
        background: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
        catches_up: bool = True,
        remote: Remote | None = None,
        view: View | None = None,
        drained: Store | None = None,
        make_journal: Callable[..., Journal] = Journal,
    ) -> None:
        self.store, self._journals, self._files = store, journals, files
        self.view = view or View(store, journals, files)
        self._remote, self._drained = remote, drained or store
        self._delivery: Delivery | None = None
        self.journal: Journal | None = None
        self._make_journal = make_journal
        self._read_only = not recording
        self._catches_up, self._segment_bytes = catches_up, segment_bytes
        self.closed = False
        if recording and journals is not None:
            self._start(journals, durability, pace or Pace(), background)

    def _start(self, journals: Path, durability: str, pace: Pace, background: bool) -> None:
        self._pace = pace
        remote, files, durable = self._remote, self._files, durability != "off"
        notes = {} if remote is None else {"remote": remote.destination.note()}
        self.journal = self._make_journal(
            journals,
            files=files,
            durability=durability,
            segment_bytes=self._segment_bytes,
            wake=self._wake,
            notes=notes,
            child_notes=self._child_notes,
        )
        self._parent = self.journal.writer
        make_drain = SpoolDrain if remote is not None and remote.alone else Drain
        self._drain = make_drain(journals, self._drained, self.journal, files=files, durable=durable, pace=pace)
        if remote is not None:
            from .delivery import Delivery  # where a server is named; a recorder on disk starts without it

            self._delivery = Delivery(
                journals.parent, remote, self._drained, self.journal, files=files, durable=durable
            )
        self._background = Background(self.journal, self._drain, pace, enabled=background)
        try:
            self._check_version(self.journal.writer)
            with self._drain.exclusively() as free:
                if free:
                    self._drain.recover()
        except BaseException:
            try:
                self._files.remove_folder(self.journal.path)
            finally:
                self._drain.close()
                self.journal.release()
            raise
        self.journal.prepare()  # the first append meets a segment that is there
        self._background.start()
        if self._delivery is not None and background:
            self._delivery.start()
        _sessions.add(self)

    def _check_version(self, writer: str) -> None:
        """Refuse to record into files of a newer version, before anything of them is touched."""
        try:
            self._drained.applied(writer)
        except StoreUnavailable:
            pass

    def _child_notes(self) -> dict[str, bytes]:
        return run_record.child_note(self._parent)

    def _wake(self) -> None:
        if not self.closed:
            self._background.wake()
            if self._delivery is not None:
                self._delivery.wake()

    def writing(self) -> Journal:
        """The journal; raises NotOpen where nothing can be recorded."""
        if self.journal is None or self.closed:
            raise NotOpen(
                "this experiment is open for reading only"
                if self._read_only
                else "the run is closed: log inside `with experiment.run:`"
            )
        return self.journal

    def watch(self, observe: Callable[[Batch], None]) -> None:
        """Show every batch to `observe` before it is stored; it must not raise."""
        self._drain.observe = observe

    def put(self, track: Track, fields: dict[str, Any]) -> None:
        """Append one entry of a sequence, stamped with the wall clock."""
        journal = self.writing()
        for name in fixed_names(track.kind):
            if name in fields:
                raise taken(track.topic, name)
        track_id = journal.track_id(track)
        try:
            body = encode_body((track_id, time.time(), fields))
        except Exception as error:
            raise refusal(track.topic, fields, error) from error
        if len(body) > MAX_ENTRY_BYTES:
            raise too_large(track.topic, fields, len(body))
        journal.write(body)

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order, every append included that returned before."""
        if self.closed:
            raise _closed_to_reading()
        self._catch_up()
        return self.view.read(track, window)

    def _catch_up(self) -> None:
        """Drain a large backlog before reading: every read would decode all of it again."""
        if self.journal is None or not self._catches_up:
            return
        if self.journal.pending_bytes(self._drain.applied) > READ_BACKLOG_BYTES:
            try:
                self.flush()
            except OSError as error:
                log.warning("reading from the journal, because the store cannot be written: %s", error)

    def count(self, track: Track) -> int | None:
        """The number of entries of a series; None where only reading it tells."""
        if self.closed:
            raise _closed_to_reading()
        return self.view.count(track)

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, what journals still hold included."""
        if self.closed:
            raise _closed_to_reading()
        return self.view.tracks(kind)

    def topics(self, kind: str = MERGED) -> list[str]:
        """The topics of a kind, sorted, without a look at the series; one that nothing was appended to may be one."""
        stored = getattr(self.store, "topics", None)
        if stored is None:
            return [info.topic for info in self.tracks(kind)]
        return sorted({*stored(kind), *self.view.pending_topics(kind)})

    def has(self, track: Track) -> bool:
        """Whether a series is there in which a read found nothing, so that reading costs nothing more; False where it
        may still come: while the experiment is being recorded, here or by another process, it may begin with the next
        append, and whoever waits for it reads again.

        Raises:
            TrackNotFound: nobody records, so a name that is not there is a mistake; the message names the nearest.
        """
        if self._is_being_recorded():
            return False
        known = self.topics(track.kind)
        if track.topic not in known:
            what = "topic" if track.kind == MERGED else track.kind
            raise TrackNotFound(f"no {what} {track.topic!r}; {offer(track.topic, known)}")
        return True

    def _is_being_recorded(self) -> bool:
        """Whether somebody may append: here, in another process, or, as far as a server knows, elsewhere."""
        if self.journal is not None or not self.is_alone():
            return True
        served, document = self._journals is None, self.store.read_document(run_record.DOCUMENT)
        if document is None:
            return served  # the entries came first, what is known of their run comes soon
        alive = partial(run_record.is_writing, self._journals) if self._journals is not None else bool
        return run_record.status_of(document, alive) == run_record.RUNNING

    def flush(self, timeout_s: float | None = FLUSH_S) -> None:
        """Everything appended before the call is in the store, durable, on return; a server is waited for so long."""
        journal = self.writing()
        try:
            with self._pace.hurry():
                self._drain.run()
        except OSError:
            with suppress(OSError):
                journal.sync()  # at least there it is durable
            raise
        if self._delivery is not None:
            self._delivery.flush(timeout_s)

    def documents_changed(self) -> None:
        """A document was written here that the server does not have yet."""
        if self._delivery is not None:
            self._delivery.documents_changed()

    def is_alone(self) -> bool:
        """Whether no other process is recording this experiment."""
        if self._journals is None:
            return True
        own = self.journal.writer if self.journal is not None else ""
        return not any(is_alive(stream) for stream in streams(self._journals, self._files) if stream.writer != own)

    def close(self, closing: Callable[[BaseException | None], None] = lambda trouble: None) -> None:
        """Drain everything, compact if no other process is recording, let go of the files.

        Args:
            closing: called when everything is stored and before the lock is released, or with what kept it from that.

        Raises:
            OSError: not everything could be stored (a full disk); it is in the journal, and the next open applies it.
        """
        if self.closed:
            return
        self.closed = True
        _sessions.discard(self)
        if self.journal is None:
            self.store.close()
            return
        told: list[str] = []
        try:
            self._background.stop()
            told = self._finish(self.journal, closing)
        finally:
            if self._delivery is not None:
                self._delivery.end()
            self._drain.close()
            self.journal.release()
            self.store.close()
        if told:
            from .delivery import tell

            for text in told:
                tell(text)

    def is_interrupted(self) -> bool:
        """Whether this is a signal handler inside an append, a flush or a read of its own thread: what those hold
        cannot be let go of in there."""
        if self.journal is None:
            return False
        locks = (self.journal.lock, self._drain.mutex, getattr(self.store, "mutex", None))
        return any(lock is not None and is_held_here(lock) for lock in locks)

    def _finish(self, journal: Journal, closing: Callable[[BaseException | None], None]) -> list[str]:
        """Store and send what is left; returns what the user has to be told."""
        journal.close()
        if journal.is_forked:
            return []
        try:
            self._drain.run(final=True)
        except BaseException as trouble:  # Ctrl-C once more, too: how the run ended is known
            if journal.path.exists():
                trouble.add_note("not everything is stored yet; the journal keeps it, and the next open stores it")
                with suppress(Exception):
                    closing(trouble)
            raise
        closing(None)  # while the journal still says that somebody is there: a run is never seen as crashed in between
        delivered, told = (False, []) if self._delivery is None else self._delivery.close()
        with self._drain.exclusively() as free:
            if free:
                self._drain.finish(delivered=delivered)
        if self._delivery is not None and delivered:
            self._delivery.forget_own()
        if self.is_alone():
            self._compact()
        return told

    def _compact(self) -> None:
        compact = getattr(self.store, "compact_all", None)
        if compact is not None:
            compact()

    def after_fork_in_child(self) -> None:
        """This process is a child: no threads, no locks, no mappings of the parent's."""
        for part in (self.journal, self.store, self._drain, self._background, self._delivery):
            after_fork = getattr(part, "after_fork_in_child", None)
            if after_fork is not None:
                after_fork()


def _closed_to_reading() -> NotOpen:
    return NotOpen("the run is closed: read inside `with experiment.run:`, or use ml_dash.open(prefix)")


def refuse_copy(part: object) -> NoReturn:
    """`__reduce__` of what belongs to an open run: it cannot be pickled or copied."""
    raise TypeError("send the experiment to the other process and join its run there: `with exp.run:`")


class RunPart:
    """A part of an experiment that works while it is open: tracks, metrics, parameters, the log."""

    __slots__ = ("_session",)

    def __init__(self) -> None:
        self._session: Session | None = None

    def bind(self, session: Session | None) -> None:
        """The experiment was opened, or closed (None)."""
        self._session = session

    __reduce__ = refuse_copy

    def session(self) -> Session:
        """What it works on; raises NotOpen while the experiment is not open."""
        if self._session is None or self._session.closed:
            raise NotOpen(
                "the experiment is not open: use it inside `with experiment.run:`; to read only, ml_dash.open(prefix)"
            )
        return self._session


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
