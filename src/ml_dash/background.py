"""The two threads behind a recording: one keeps the journal ahead and synced, one drains it.

Both do short pieces of work and sleep between them, because they share the interpreter with the control loop: a
thread that wants the interpreter lock gets it within a piece's length instead of the 5 ms a busy thread may keep it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from .drain import Drain
from .errors import StoreCorrupt, StoreUnavailable
from .journal import Journal
from .journal_files import Mark

SYNC_EVERY_S = 0.2
DRAIN_EVERY_S = 1.0
PASS_S, GAP_S = 0.5, 0.02
"""How long a pass goes on while it is behind, and the rest after it, in which others get the drain lock."""
WORK_S, REST_S = 100e-6, 200e-6
BACKLOG_BYTES = 64 << 20
"""Beyond this much undrained journal the pieces become five times as long, so that the disk space comes back."""

log = logging.getLogger("ml_dash")


class Pace:
    """Rests after each stretch of work, on the background thread only; a caller's own flush runs at full speed."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.work_s = WORK_S
        self._since = 0.0
        self._hurried = 0

    def __call__(self) -> None:
        """Called every few entries."""
        if threading.get_ident() != self.thread or self._hurried:
            return
        if time.perf_counter() - self._since > self.work_s:
            time.sleep(REST_S)
            self._since = time.perf_counter()

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """No rests inside the block: somebody waits for the pass that the background thread is in."""
        self._hurried += 1
        try:
            yield
        finally:
            self._hurried -= 1


class Rests(Pace):
    """The rests of the sending thread and of the one that prepares for it, while nobody waits for them."""

    def __init__(self, is_awaited: Callable[[], bool]) -> None:
        super().__init__()
        self._is_awaited = is_awaited

    def __call__(self) -> None:
        """Called every few entries."""
        if self.thread is None or self._is_awaited():
            return
        if time.perf_counter() - self._since > self.work_s:
            time.sleep(REST_S)
            self._since = time.perf_counter()


class Background:
    """Runs `Journal.prepare` and `Journal.sync` several times a second, and a drain pass every second.

    Args:
        enabled: off, no thread is ever started.
    """

    def __init__(self, journal: Journal, drain: Drain, pace: Pace, *, enabled: bool = True) -> None:
        self._journal, self._drain, self._pace, self._enabled = journal, drain, pace, enabled
        self._reset()

    def _reset(self) -> None:
        self._start_lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._started = False
        self._told: dict[int, str] = {}
        self._stop = threading.Event()
        # Of the queues and events only this one may be used by a signal handler that interrupts its use.
        self._segment_filled: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """A segment filled, or a child's own stream began: be there, and prepare the next."""
        self._segment_filled.put(None)
        if not self._started:
            self.start()

    def start(self) -> None:
        """Start the threads; once."""
        with self._start_lock:
            if self._started or not self._enabled or self._stop.is_set():
                return
            self._started = True
            for name, work in (("keep", self._keep), ("drain", self._drain_often)):
                thread = threading.Thread(target=work, name=f"ml_dash-{name}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self) -> None:
        """End the threads after what they are doing now."""
        self._stop.set()
        self._segment_filled.put(None)
        self._pace.thread = None  # what is under way goes on at full speed
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def after_fork_in_child(self) -> None:
        """The threads stayed with the parent; new ones start when this process appends."""
        self._reset()

    def _keep(self) -> None:
        due = time.monotonic() + SYNC_EVERY_S
        while not self._stop.is_set():
            try:
                self._segment_filled.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                pass
            self._quietly(self._journal.prepare)
            if time.monotonic() >= due:
                self._quietly(self._journal.sync)
                due = time.monotonic() + SYNC_EVERY_S

    def _drain_often(self) -> None:
        self._pace.thread = threading.get_ident()
        before, is_behind = Mark(0, 0), False
        while not self._stop.wait(GAP_S if is_behind else DRAIN_EVERY_S):
            now, done = self._journal.mark(), self._drain.applied
            backlog = self._journal.pending_bytes(before)
            self._pace.work_s = WORK_S * (5 if backlog > BACKLOG_BYTES else 1)
            if before != Mark(0, 0):
                self._quietly(lambda upto=before: self._drain.run(upto, clean=True, patience_s=PASS_S))  # type: ignore[misc]
            is_behind = done < self._drain.applied < before
            before = before if is_behind else now

    def _quietly(self, work: Callable[[], None]) -> None:
        """Nothing that fails here loses data: the journal keeps it, and the next round or `flush` meets it again."""
        try:
            work()
        except StoreUnavailable as error:
            self._tell(logging.INFO, "the store is not reachable, recording goes on: %s", error)
        except StoreCorrupt as error:
            self._tell(logging.ERROR, "%s", error)
        except OSError as error:
            self._tell(logging.WARNING, "recording goes on in the journal: %s", error)
        except Exception:
            log.exception("recording goes on in the journal")
        else:
            self._told.pop(threading.get_ident(), None)

    def _tell(self, level: int, text: str, error: Exception) -> None:
        """Once, not every round, while a thread meets nothing else."""
        thread = threading.get_ident()
        if self._told.get(thread) != str(error):
            self._told[thread] = str(error)
            log.log(level, text, error)
