"""An experiment on a server as `Experiment` sees it: what it is stored in, and what a reader of it sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import run_record
from .background import Pace
from .delivery import Delivery
from .documents import Remote
from .drain import Drain
from .errors import ExperimentNotFound, StoreUnavailable
from .files import FILES, Files
from .heard import Standing, standing
from .journal_files import Mark
from .journal_reader import Stream, streams
from .params import DOCUMENT as PARAMS
from .params import merged
from .room import SpoolFiles
from .sending import undelivered_from
from .session import Session
from .spool import (
    JOURNALS,
    OUTBOX,
    Destination,
    ServerNote,
    changes,
    destination,
    read_server_note,
    spool_root,
    state_folder,
)
from .spool_journal import SpoolJournal
from .store import KINDS, MERGED, Batch, Document, Entry, Store, Track, TrackInfo, Window
from .stores.grouping import no_pace
from .stores.http import HttpStore
from .stores.local import LocalStore
from .view import View


def open_remote(url: str, prefix: str, token: str | None, *, alone: bool, strict: bool) -> Remote:
    """Where an experiment is sent to. Nothing is asked of the server here."""
    store = HttpStore(url, prefix, token or os.environ.get("ML_DASH_TOKEN"))
    documents = {run_record.DOCUMENT: combined_run, PARAMS: combined_params}
    return Remote(store, Destination(url, prefix), alone, documents, strict)


def combined_run(known: Document | None, new: Document) -> Document:
    """The server's `experiment` document with this machine's processes in it; it runs as long as one of all runs."""
    known = known or {}
    ours = [{**one, run_record.SENT: True} for one in _processes(new)]
    processes = {str(one.get("writer")): one for one in [*_processes(known), *ours]}
    found = {**known, **new}
    if "processes" in found:
        found["processes"] = sorted(processes.values(), key=lambda one: str(one.get("started_at")))
    if known.get("created_at"):
        found["created_at"] = min(known["created_at"], str(found.get("created_at") or known["created_at"]))
    if any(one.get("status") == run_record.RUNNING for one in processes.values()):
        found |= {"status": run_record.RUNNING, "ended_at": None}
    elif found.get("status") == run_record.RUNNING and processes:
        # What arrived says nothing of the status: it did not change since the last time, and what is here is older.
        statuses = {one.get("status") for one in processes.values() if one.get("session") == found.get("session")}
        ends = [str(one["ended_at"]) for one in processes.values() if one.get("ended_at")]
        found |= {"status": run_record.worst(statuses, run_record.COMPLETED), "ended_at": max(ends, default=None)}
    return found


def _processes(document: Document) -> list[Document]:
    found = document.get("processes")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def combined_params(known: Document | None, new: Document) -> Document:
    """The parameters with new ones merged in, dicts key by key."""
    return merged(known or {}, new)


# ---------------------------------------------------------------- stores


class NotedStore(LocalStore):
    """The local store of an experiment that goes to a server too: it says when a document changed."""

    def __init__(self, folder: Path, *, pace: Callable[[], None] = no_pace) -> None:
        super().__init__(folder, pace=pace)
        self.changed: Callable[[], None] = no_pace

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a document here; the server gets it soon."""
        document = super().update_document(name, change)
        self.changed()
        return document


class ServedStore:
    """An experiment that only the server keeps: its series are there, its documents are written here and sent.

    A document reads as the server's with what was set here and has not arrived merged in; while the server does not
    answer, as what was set here.
    """

    def __init__(self, remote: Remote, local: LocalStore) -> None:
        self.remote, self.local = remote, local

    def append(self, batch: Batch) -> None:
        """As `Store.append`."""
        self.remote.store.append(batch)

    def applied(self, writer: str) -> int:
        """As `Store.applied`."""
        return self.remote.store.applied(writer)

    def forget(self, writer: str) -> None:
        """As `Store.forget`."""
        self.remote.store.forget(writer)

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """As `Store.read`."""
        return self.remote.store.read(track, window)

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """As `Store.tracks`."""
        return self.remote.store.tracks(kind)

    def remove(self, track: Track) -> None:
        """As `Store.remove`."""
        self.remote.store.remove(track)

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """As `Store.remove_window`."""
        self.remote.store.remove_window(track, start, end)

    def read_document(self, name: str) -> Document | None:
        """The server's document with what waits here merged in."""
        here = self.local.read_document(name)
        # What is known to have arrived is looked at first: what arrives in between is then merged with itself.
        note = read_server_note(self.local.folder) or ServerNote(self.remote.destination)
        try:
            there = self.remote.store.read_document(name)
        except StoreUnavailable:
            return here
        if here is None or name not in self.remote.documents:
            return there
        new = changes(note.documents.get(name, {}), here)
        return self.remote.documents[name](there, new) if new else there

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a document here; the server gets it soon."""
        return self.local.update_document(name, change)

    def close(self) -> None:
        """Close what is here; the connection belongs to the delivery."""
        self.local.close()

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's."""
        for store in (self.local, self.remote.store):
            after_fork: Any = getattr(store, "after_fork_in_child", None)
            if after_fork is not None:
                after_fork()


# ---------------------------------------------------------------- reading


class RemoteView(View):
    """Reads an experiment on a server, with what is here and has not arrived there merged in.

    Args:
        store: the experiment on the server.
        folders: of journals, whose streams count where they go to this experiment.
    """

    def __init__(self, store: Store, folders: Sequence[Path], where: Destination, files: Files = FILES) -> None:
        super().__init__(store, None, files)
        self._folders, self._where = folders, where

    def _streams(self) -> list[Stream]:
        found = (stream for folder in self._folders for stream in streams(folder, self._files))
        return sorted((one for one in found if destination(one) == self._where), key=lambda one: one.writer)

    def _behind(self, stream: Stream) -> Mark:
        return undelivered_from(stream, self._store)[0]

    def _numbers(self) -> list[tuple[str, int]]:
        return [(undelivered_from(stream, self._store)[1], 0) for stream in self._streams()]


# ---------------------------------------------------------------- sessions


def recording_session(folder: Path, remote: Remote, durability: str, when_full: str) -> Session:
    """A session that records into a folder and sends to a server, or only sends."""
    pace, journals, files = Pace(), folder / JOURNALS, SpoolFiles()
    local = NotedStore(folder, pace=pace)
    served = ServedStore(remote, local) if remote.alone else None
    session = Session(
        served or local,
        journals,
        recording=True,
        durability=durability,
        files=files,
        pace=pace,
        catches_up=not remote.alone,
        remote=remote,
        view=RemoteView(remote.store, [journals], remote.destination) if remote.alone else None,
        drained=local,
        make_journal=partial(SpoolJournal, when_full=when_full),
    )
    local.changed = session.documents_changed
    return session


def reading_session(url: str, prefix: str, token: str | None, folder: Path) -> Session:
    """A session that reads an experiment from a server, with what is here and has not arrived there.

    Raises:
        ExperimentNotFound: the server has none of this name, or the token does not reach it.
    """
    remote = open_remote(url, prefix, token, alone=True, strict=False)
    try:
        if remote.store.read_document(run_record.DOCUMENT) is None and not any(map(remote.store.tracks, KINDS)):
            raise ExperimentNotFound(f"no experiment {prefix!r} at {url}")
    except BaseException:
        remote.store.close()
        raise
    spooled = spool_root(url).joinpath(*prefix.split("/"))
    folders = [spooled / JOURNALS, folder / JOURNALS, folder / OUTBOX]
    view = RemoteView(remote.store, list(dict.fromkeys(folders)), remote.destination)
    return Session(remote.store, None, recording=False, view=view)


def standing_there(session: Session | None, folder: Path, document: Document) -> Standing:
    """How a run stands that only a server keeps. A process whose journal is not in the folder may record on another
    machine; a reader asks the server when it heard of it."""

    def may_be_alive(writer: str) -> bool:
        return run_record.is_writing(folder / JOURNALS, writer) or not (folder / JOURNALS / writer).exists()

    found = standing(None, document, may_be_alive)
    if found.status != run_record.RUNNING or session is None or session.journal is not None:
        return found
    return session.store.standing() or found if isinstance(session.store, HttpStore) else found


# ---------------------------------------------------------------- what other processes left


class Delivered(NamedTuple):
    """What `deliver_left` did."""

    entries: int
    refused: int
    copies: int = 0
    """Streams that another copy of this folder had been sent from before."""


def deliver_left(folder: Path, where: Destination, token: str | None) -> Delivered:
    """Send what processes that are gone left in an experiment's folder, and its documents.

    Raises:
        StoreUnavailable, Unauthorized: nothing is lost; call it again.
    """
    alone = folder.is_relative_to(state_folder())
    local = LocalStore(folder)
    remote = open_remote(where.url, where.prefix, token, alone=alone, strict=True)
    try:
        if not alone:
            _store_left(folder, local)
        _settle_run(folder, local)
        delivery = Delivery(folder, remote, local, None)
        delivery.run()
        return Delivered(delivery.sender.delivered, delivery.sender.refused, delivery.sender.renamed)
    finally:
        remote.store.close()
        local.close()


def _store_left(folder: Path, local: LocalStore) -> None:
    """What dead writers left here goes into the local store first, and then into the outbox."""
    drain = Drain(folder / JOURNALS, local, None)
    with drain.exclusively() as free:
        if free:
            drain.recover()


def _settle_run(folder: Path, local: LocalStore) -> None:
    """A run whose process died without a word has crashed."""
    alive = partial(run_record.is_writing, folder / JOURNALS)
    known = local.read_document(run_record.DOCUMENT)
    if known is not None and run_record.status_of(known, alive) != known.get("status"):
        local.update_document(run_record.DOCUMENT, lambda now: run_record.settled(now, alive))
