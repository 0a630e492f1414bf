"""`Experiment`: one recording, from opening to closing."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from . import run_record
from .address import check_prefix
from .analysis.experiment import ExperimentAnalysis
from .analysis.recording import Recording
from .background import Pace
from .errors import ExperimentNotFound, InvalidEntry, NotOpen
from .journal_reader import Stream, is_alive
from .log import Log
from .metrics import MetricsManager
from .params import Params
from .session import DURABILITIES, Session
from .stores.local import LocalStore
from .tracks import TracksManager

JOURNALS = ".journal"
DEFAULT_ROOT = ".dash"

_UNSET: Any = object()


class Experiment(ExperimentAnalysis):
    """One experiment: `with Experiment(prefix="alice/robotics/pick").run as exp: ...`.

    Args:
        prefix: owner/project/.../name, at least three parts; default: the variable `ML_DASH_PREFIX`.
        dash_root: folder that holds all experiments; default: `ML_DASH_ROOT`, else ".dash". A relative one is resolved
            here, once.
        readme, tags, metadata: kept in `experiment.json`.
        durability: "normal": nothing is lost when the process dies, a power cut may cost some tenths of a second;
            "strict": synced inside each append; "off": never synced.

    Raises:
        InvalidPrefix: (a ValueError) the prefix is missing or could leave the root.

    Attributes:
        run: starts and ends the recording. tracks, metrics, params, log: what to record, usable while it runs.
    """

    def __init__(
        self,
        prefix: str | None = None,
        *,
        dash_root: str | os.PathLike[str] | None = _UNSET,
        readme: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        durability: str = "normal",
    ) -> None:
        prefix = prefix if prefix is not None else os.environ.get("ML_DASH_PREFIX", "")
        self._segments = check_prefix(prefix)
        self.prefix = prefix
        self.root = _resolved(dash_root)
        self.folder = self.root.joinpath(*self._segments)
        if durability not in DURABILITIES:
            raise InvalidEntry(f"durability is one of {', '.join(DURABILITIES)}, got {durability!r}")
        self._durability = durability
        described = {"readme": readme, "tags": tags, "metadata": metadata}
        self._extra = {name: value for name, value in described.items() if value is not None}
        self._session: Session | None = None
        self.tracks = TracksManager()
        self.metrics = MetricsManager()
        self.params = Params()
        self.log = Log()
        self.run = Run(self)

    # -------------------------------------------------------------- opening and closing, for Run and open()

    def _begin(self) -> None:
        if self._session is not None:
            raise NotOpen(f"{self.prefix} is open already")
        _check_root(self.root)
        pace = Pace()
        session = Session(
            LocalStore(self.folder, pace=pace),
            self.folder / JOURNALS,
            recording=True,
            durability=self._durability,
            pace=pace,
        )
        self._bind(session)
        try:
            process = run_record.process_record(session.writing().writer)
            self._process = process["writer"]
            session.store.update_document(
                run_record.DOCUMENT,
                lambda known: run_record.begun(known, self.prefix, process, self._extra, self._is_alive),
            )
        except BaseException:
            self._bind(None)
            session.close()
            raise

    def _end(self, status: str, error: str | None) -> None:
        session = self._session
        if session is None:
            raise NotOpen(f"{self.prefix} is not open")
        journal = session.journal
        is_child = journal is not None and (journal.is_forked or journal.writer != self._process)

        def closing() -> None:
            if not is_child:
                session.store.update_document(
                    run_record.DOCUMENT,
                    lambda known: run_record.ended(known, self._process, status, error, self._is_other_alive),
                )

        try:
            session.close(closing)
        finally:
            self._bind(None)

    def _open_for_reading(self) -> None:
        store = LocalStore(self.folder, readonly=True, derive=True)
        self._bind(Session(store, self.folder / JOURNALS, recording=False))

    def _bind(self, session: Session | None) -> None:
        self._session = session
        for part in (self.tracks, self.metrics, self.params, self.log):
            part.bind(session)

    def recording(self) -> Recording:
        """What `align`, `find`, `sql` and `doctor` read."""
        tracks = self.tracks
        return Recording(self.prefix, tracks.blocks, tracks.topics, tracks.table, self.params.get)

    def _is_alive(self, writer: str) -> bool:
        return bool(writer) and is_alive(Stream(self.folder / JOURNALS / writer))

    def _is_other_alive(self, writer: str) -> bool:
        return writer != self._process and self._is_alive(writer)

    # -------------------------------------------------------------- what is known of the run

    @property
    def info(self) -> dict[str, Any]:
        """`experiment.json`: status, times, processes with host, command, git commit and clock readings."""
        store = self._session.store if self._session is not None else LocalStore(self.folder, readonly=True)
        document = store.read_document(run_record.DOCUMENT) or {}
        status = run_record.status_of(document or None, self._is_alive)
        return {**document, "status": status} if status else document

    @property
    def status(self) -> str | None:
        """ "running", "completed", "failed", "cancelled" or "crashed"; None before the first start."""
        return self.info.get("status")

    def close(self) -> None:
        """Close an experiment opened with `ml_dash.open`; one that records is completed."""
        if self._session is not None:
            if self._session.journal is not None:
                self.run.complete()
            else:
                self._session.close()
                self._bind(None)

    def __enter__(self) -> Experiment:
        """For `with ml_dash.open(...) as exp:`; to record, write `with experiment.run:`."""
        if self._session is None:
            raise NotOpen("to record, write `with experiment.run as exp:`")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Experiment {self.prefix!r} in {self.root}>"


class Run:
    """Starts and ends a recording: `with experiment.run as exp:`, or `start()` and `complete()`.

    The run ends as "completed", as "failed" when an exception leaves the block (it propagates), as "cancelled" on
    Ctrl-C. A run whose process died is "crashed"; opening it again recovers every entry whose append had returned.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

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
        atexit.unregister(self._at_exit)
        self._experiment._end(status, error)

    def _at_exit(self) -> None:
        """The program ended without ending the run."""
        if self._experiment._session is None:
            return
        failed = getattr(sys, "last_value", None)
        if failed is not None:
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
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.complete()
        elif isinstance(error, KeyboardInterrupt):
            self.cancel()
        else:
            self.fail(error)


def open_experiment(prefix: str, *, dash_root: str | os.PathLike[str] | None = _UNSET) -> Experiment:
    """Open an experiment for reading; nothing that was recorded is touched, and it works on read-only media.

    Finished and crashed runs, and one that another process is recording now: what is still in its journal is included.
    What readers work out (columns, types) is kept in hidden files beside the data where the folder can be written.

    Args:
        prefix: owner/project/.../name.
        dash_root: as for `Experiment`.

    Returns:
        An experiment whose `tracks`, `metrics`, `params`, `log` can be read; close it, or use it in a `with` block.

    Raises:
        ExperimentNotFound: (a LookupError) there is no such experiment.
        InvalidPrefix: (a ValueError) no prefix.
    """
    experiment = Experiment(prefix, dash_root=dash_root)
    if not experiment.folder.is_dir():
        raise ExperimentNotFound(f"no experiment {prefix!r} in {experiment.root}")
    experiment._open_for_reading()
    return experiment


def _resolved(root: Any) -> Path:
    if root is _UNSET:
        root = os.environ.get("ML_DASH_ROOT") or DEFAULT_ROOT
    return Path(root).expanduser().resolve()


def _check_root(root: Path) -> None:
    """A clear error for a root that is a file, before anything is created."""
    for folder in (root, *root.parents):
        if folder.exists():
            if not folder.is_dir():
                raise NotADirectoryError(f"dash_root {root}: {folder} is a file, not a folder")
            return
