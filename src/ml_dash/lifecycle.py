"""How a recording begins and ends: `experiment.run`."""

from __future__ import annotations

import atexit
import logging
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from . import run_record

if TYPE_CHECKING:
    from .experiment import Experiment

log = logging.getLogger("ml_dash")


class Run:
    """Starts and ends a recording: `with experiment.run as exp:`, or `start()` and `complete()`.

    The run ends as "completed", as "failed" when an exception leaves the block (it propagates), as "cancelled" on
    Ctrl-C. A run whose process died is "crashed"; opening it again recovers every entry whose append had returned.
    SIGTERM kills, too, unless a program has it raise: `signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))`.
    After `start()` without an end the run is completed when the program ends, and failed by an uncaught exception; the
    number given to `sys.exit` counts inside a block only.

    A signal handler may end the run. Where it interrupted an append, a flush or a read of its own thread, the run ends
    as the handler said when the block is left or the program ends, not before.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._wanted: tuple[str, str | None] | None = None

    def start(self) -> Experiment:
        """Open the experiment for recording; a finished one goes on. Returns the experiment.

        Raises:
            NotOpen: it is open already.
            OSError: the root cannot be written; StoreCorrupt: files of a newer version.
        """
        self._experiment._begin()
        atexit.register(self._at_exit)
        return self._experiment

    def complete(self) -> None:
        """Store everything and end the run as completed."""
        self._finish(run_record.COMPLETED)

    def fail(self, error: BaseException | str | None = None) -> None:
        """Store everything and end the run as failed."""
        text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
        self._finish(run_record.FAILED, text)

    def cancel(self) -> None:
        """Store everything and end the run as cancelled."""
        self._finish(run_record.CANCELLED)

    def _finish(self, status: str, error: str | None = None) -> None:
        status, error = self._wanted or (status, error)
        self._experiment._end(status, error)
        if self._experiment._session is None:
            self._wanted = None
            atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """The program ended without ending the run."""
        if self._experiment._session is None:
            return
        failed = getattr(sys, "last_value", None)
        if isinstance(failed, KeyboardInterrupt):
            try:
                self.cancel()
            finally:
                _is_interrupted()
        elif failed is not None:
            self.fail(failed)
        else:
            self.complete()

    def __enter__(self) -> Experiment:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._experiment._session is None:
            return  # ended inside the block
        if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code):
            self.complete()  # whoever closes a generator has had enough of it; nothing failed
        else:
            try:
                self.cancel() if isinstance(error, KeyboardInterrupt) else self.fail(error)
            except Exception as trouble:  # who waits for the block's own exception gets that one
                text = "; ".join([f"{type(trouble).__name__}: {trouble}", *getattr(trouble, "__notes__", [])])
                log.error("the run could not be closed: %s", text)
                error.add_note(f"the run could not be closed either: {text}")


def _is_interrupted() -> None:
    """Let the program still end as Ctrl-C ends it, by which a shell's loop around it knows to end as well.

    Python forgets the interrupt that nobody caught with the next source it compiles, as a module does that makes a
    named tuple. It remembers one that leaves compiled source.
    """
    with suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")
