"""`Experiment`: one recording, from opening to closing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import run_record
from .address import check_prefix
from .analysis.experiment import ExperimentAnalysis, declared_rates
from .analysis.recording import Order, Recording, order_of
from .arguments import UNSET, check_root, checked_options, chosen_prefix, resolved_root, server_url, watched_rates
from .background import Pace
from .errors import ExperimentNotFound, NotOpen
from .heard import standing
from .lifecycle import Run
from .line import checked_document
from .log import Log
from .metrics import MetricsManager
from .params import DOCUMENT as PARAMS
from .params import Params
from .session import Session
from .spool import JOURNALS
from .stores.derived import in_cache
from .stores.layout import is_experiment
from .stores.local import LocalStore
from .tracks import TracksManager

if TYPE_CHECKING:
    from .documents import Remote


class Experiment(ExperimentAnalysis):
    """One experiment: `with Experiment(prefix="alice/robotics/pick").run as exp: ...`.

    Args:
        prefix: owner/project/.../name, at least three parts; default: the variable `ML_DASH_PREFIX`.
        dash_root: folder that holds all experiments; default: `ML_DASH_ROOT`, else ".dash". A relative one is resolved
            here, once.
        dash_url: a server (`https://host`) that everything is sent to as well; default: `ML_DASH_URL`, else none; ""
            sends nowhere, whatever `ML_DASH_URL` says. The recording is stored under `dash_root` first, so that an
            outage stops nothing; with `dash_root=None` only what has not arrived yet is kept here, in the user's state
            folder.
        token: what the server knows you by; default: `ML_DASH_TOKEN`.
        readme, tags, metadata: kept in `experiment.json`.
        durability: "normal": nothing is lost when the process dies, a power cut may cost some tenths of a second;
            "strict": synced inside each append; "off": never synced.
        when_full: what append does where no more may wait for the server on this disk: "raise" OSError; "drop" the
            entry, count it, warn at the next flush and the end; "wait" for room. Without a server a full disk raises.
        watch: warn while recording, on the logger `ml_dash.watch`, when a topic misses its declared rate or falls
            silent, or a field changes its type. Rates come from the parameter `rates_hz`, or from a dict given here.

    Raises:
        InvalidPrefix: (a ValueError) the prefix is missing or could leave the root.
        ValueError: `dash_url` is no address, or neither it nor `dash_root` is given.
        MissingExtra: `dash_url` without the extra `remote`.

    Attributes:
        run: starts and ends the recording. tracks, metrics, params, log: what to record, usable while it runs.
    """

    def __init__(
        self,
        prefix: str | None = None,
        *,
        dash_root: str | os.PathLike[str] | None = UNSET,
        dash_url: str | None = None,
        token: str | None = None,
        readme: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        durability: str = "normal",
        when_full: str = "raise",
        watch: bool | Mapping[str, float] = False,
    ) -> None:
        prefix = chosen_prefix(prefix)
        self._segments = check_prefix(prefix)
        self.prefix = prefix
        self._url, self._token, self._alone = server_url(dash_url), token, dash_root is None
        self.root = resolved_root(dash_root, self._url)
        self.folder = self.root.joinpath(*self._segments)
        self._durability, self._when_full = checked_options(durability, when_full)
        self._watch = watched_rates(watch, alone=self._url is not None and self._alone)
        described = {"readme": readme, "tags": tags, "metadata": metadata}
        self._extra = checked_document("experiment", {n: value for n, value in described.items() if value is not None})
        self._session: Session | None = None
        self.tracks = TracksManager()
        self.metrics = MetricsManager()
        self.params = Params()
        self.log = Log()
        self.run = Run(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process, not open: a worker joins the run with `with exp.run:`.

        A token given as an argument stays here, because pickles are kept; `ML_DASH_TOKEN` reaches the worker.
        """
        options: dict[str, Any] = {"dash_root": None if self._alone else self.root, "dash_url": self._url}
        options |= {"durability": self._durability, "when_full": self._when_full}
        watch: Any = False if self._watch is None else self._watch or True
        return _copy, (self.prefix, {**options, **self._extra, "watch": watch})

    # -------------------------------------------------------------- opening and closing, for Run and open()

    def _begin(self) -> None:
        if self._session is not None:
            how = " for reading only: record with Experiment(prefix).run" if self._session.journal is None else ""
            raise NotOpen(f"{self.prefix} is open already{how}")
        check_root(self.root)
        session = self._recording_session()
        self._bind(session)
        if self._watch is not None:
            from .analysis.watch import Watch

            session.watch(Watch(self._declared_rates).observe)
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
        if session.is_interrupted():
            self.run._wanted = (status, error)
            return
        journal = session.journal
        is_child = journal is not None and (journal.is_forked or journal.writer != self._process)

        def closing(trouble: BaseException | None) -> None:
            if not is_child:
                end = run_record.after_trouble(status, error, trouble)
                session.store.update_document(
                    run_record.DOCUMENT,
                    lambda known: run_record.ended(known, self._process, *end, self._is_other_alive),
                )

        try:
            session.close(closing)
        finally:
            self._bind(None)

    # What belongs to a server is imported where one is named: a recorder on disk starts without it.

    def _recording_session(self) -> Session:
        if self._url is None:
            pace = Pace()
            store = LocalStore(self.folder, pace=pace)
            return Session(store, self.folder / JOURNALS, recording=True, durability=self._durability, pace=pace)
        from .remote import recording_session

        return recording_session(self.folder, self._remote(self._url), self._durability, self._when_full)

    def _remote(self, url: str) -> Remote:
        from .remote import open_remote

        return open_remote(url, self.prefix, self._token, alone=self._alone, strict=self._durability == "strict")

    def _open_served(self) -> None:
        from .remote import reading_session

        assert self._url is not None
        self._alone = True
        self._bind(reading_session(self._url, self.prefix, self._token, self.folder))

    def _open_for_reading(self) -> None:
        store = LocalStore(self.folder, readonly=True, derive=in_cache())
        self._bind(Session(store, self.folder / JOURNALS, recording=False))

    def _bind(self, session: Session | None) -> None:
        self._session = session
        for part in (self.tracks, self.metrics, self.params, self.log):
            part.bind(session)

    def _declared_rates(self) -> dict[str, float]:
        """The rates that topics should have: given to `watch`, and in the parameter `rates_hz`; also while closing,
        when the last entries pass and `params` is closed already."""
        session = self._session
        params = None if session is None else session.store.read_document(PARAMS)
        return {**declared_rates((params or {}).get("rates_hz")), **(self._watch or {})}

    def recording(self) -> Recording:
        """What `align`, `find`, `sql` and `doctor` read."""
        tracks = self.tracks
        return Recording(self.prefix, tracks.blocks, tracks.topics, tracks.table, self.params.get, self._order)

    def _order(self, topic: str) -> Order:
        """How many entries of a track came late and how many repeated one, as far as they are stored."""
        session = self._session
        if session is None:
            return None, None
        if session.journal is not None and self._url is None:
            session.flush()
        return order_of(session.store, topic)

    def _is_alive(self, writer: str) -> bool:
        return run_record.is_writing(self.folder / JOURNALS, writer)

    def _is_other_alive(self, writer: str) -> bool:
        return writer != self._process and self._is_alive(writer)

    # -------------------------------------------------------------- what is known of the run

    @property
    def info(self) -> dict[str, Any]:
        """`experiment.json`: status, times, processes with host, command, git commit and clock readings; and where it
        is on a server `last_heard`, when that last heard of who records it."""
        document = self._run_document() or {}
        if self._alone:
            from .remote import standing_there

            return standing_there(self._session, self.folder, document).added_to(document)
        return standing(self.folder, document, self._is_alive).added_to(document)

    def _run_document(self) -> dict[str, Any] | None:
        if self._session is not None:
            return self._session.store.read_document(run_record.DOCUMENT)
        remote = self._remote(self._url) if self._alone and self._url is not None else None
        if remote is None:
            return LocalStore(self.folder, readonly=True).read_document(run_record.DOCUMENT)
        try:
            return remote.store.read_document(run_record.DOCUMENT)
        finally:
            remote.store.close()

    @property
    def status(self) -> str | None:
        """ "running", "silent" (`heard.py`), "completed", "failed", "cancelled" or "crashed"; None: never begun."""
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


def _copy(prefix: str, options: dict[str, Any]) -> Experiment:
    return Experiment(prefix, **options)


def open_experiment(
    prefix: str,
    *,
    dash_root: str | os.PathLike[str] | None = UNSET,
    dash_url: str | None = None,
    token: str | None = None,
) -> Experiment:
    """Open an experiment for reading; nothing in its folder is written or changed, and it works on read-only media.

    Finished and crashed runs, and one that another process is recording now: what is still in its journal is included.
    What readers work out (columns, types) is kept in the user's cache folder (`docs/guide/columns.md`).

    Args:
        prefix: owner/project/.../name.
        dash_root: as for `Experiment`.
        dash_url: read from this server instead, together with what is here and has not arrived there. Where only
            `ML_DASH_URL` names one, it is asked for what is not under the root.
        token: as for `Experiment`.

    Returns:
        An experiment whose `tracks`, `metrics`, `params`, `log` can be read; close it, or use it in a `with` block.

    Raises:
        ExperimentNotFound: (a LookupError) there is no such experiment; the message names the nearest prefixes.
        InvalidPrefix: (a ValueError) no prefix.
    """
    experiment = Experiment(prefix, dash_root=dash_root, dash_url=dash_url, token=token)
    looked_here = dash_root is not None and not dash_url
    if looked_here and is_experiment(experiment.folder):
        experiment._open_for_reading()
        return experiment
    try:
        if experiment._url is None:
            raise ExperimentNotFound
        experiment._open_served()
    except ExperimentNotFound:
        raise _unknown(experiment, looked_here) from None
    return experiment


def _unknown(experiment: Experiment, looked_here: bool) -> ExperimentNotFound:
    """The error with the nearest of all prefixes there are, on the disk and on the server."""
    from .catalog import LocalCatalog, not_found  # where something is missing only

    known = LocalCatalog(experiment.root, readonly=True).prefixes() if looked_here else []
    if experiment._url is not None:
        from .http_catalog import prefixes_near

        known += prefixes_near(experiment.prefix, experiment._url, experiment._token)
    return not_found(experiment.prefix, known, experiment._url or experiment.root)
