"""What `experiment.json` says of a run: who recorded it, when, from which code, and how it ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .files import FILES, Files
from .journal_reader import Stream, is_alive, streams
from .redact import without_secrets
from .spool import note_bytes, read_note
from .store import Document

DOCUMENT = "experiment"
SENT = "sent"
"""Marks a process, in the document of a server, that records on another machine."""
RUNNING, COMPLETED, FAILED, CANCELLED, CRASHED = "running", "completed", "failed", "cancelled", "crashed"
SILENT = "silent"
"""Running as far as anybody knows, but the server has not heard of it for a while (`heard.py`); never written down."""
FORKED = "forked"
"""A child of a process that records too; how it ended is its parent's to know."""
PROCESS_NOTE = "process"
_WORST_FIRST = (FAILED, CRASHED, CANCELLED, COMPLETED)


def clocks() -> dict[str, float]:
    """One reading of the wall clock and the monotonic clock, taken together: they tie device times to dates."""
    before = time.monotonic()
    wall = time.time()
    return {"wall": wall, "monotonic": (before + time.monotonic()) / 2}


def process_record(writer: str) -> dict[str, Any]:
    """What is kept of this process."""
    import platform  # with `subprocess` below, a tenth of the package's import; needed when a run starts
    import socket

    return {
        "writer": writer,
        "pid": os.getpid(),
        "host": _printable(socket.gethostname()),
        "status": RUNNING,
        "started_at": now(),
        "ended_at": None,
        "clocks": clocks(),
        "command": _command(),
        "working_directory": _working_directory(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(),
    }


def _command() -> list[str]:
    words = [_printable(word) for word in (sys.executable or "", *getattr(sys, "argv", []))]
    return without_secrets(words, [os.environ.get("ML_DASH_TOKEN", "")])


def child_note(parent: str) -> dict[str, bytes]:
    """What a forked child keeps beside its journal: when it began to record. It may be killed before it could say so
    in the document, which it does not touch; who applies its journal does (`joined`).
    """
    found = {"parent": parent, "pid": os.getpid(), "started_at": now(), "clocks": clocks()}
    return {PROCESS_NOTE: note_bytes(found)}


def is_writing(journals: Path, writer: str, files: Files = FILES) -> bool:
    """Whether a process that a document names records, itself or by a forked child that outlived it.

    Args:
        journals: the experiment's `.journal` folder.
        writer: "" names nobody.
    """
    if not writer:
        return False
    if is_alive(Stream(journals / writer, files)):
        return True
    return any(_parent(stream) == writer and is_alive(stream) for stream in streams(journals, files))


def _parent(stream: Stream) -> str | None:
    note = read_note(stream, PROCESS_NOTE)
    return note.get("parent") if isinstance(note, dict) else None


def joined(document: Document, writer: str, note: Document) -> Document:
    """The document with a forked child whose journal has been applied."""
    processes = _processes(document)
    parent = next((one for one in processes if one.get("writer") == note.get("parent")), {})
    if any(one.get("writer") == writer for one in processes):
        return document
    inherited = {name: parent.get(name) for name in ("host", "session", "python", "platform", "git")}
    child = {"writer": writer, "status": FORKED, **inherited, **note}
    return {**document, "processes": [*processes, child]}


def _printable(text: str) -> str:
    """Arguments and paths may hold bytes that are no text; the record is."""
    return text.encode(errors="backslashreplace").decode()


def _working_directory() -> str | None:
    try:
        return _printable(os.getcwd())
    except OSError:  # removed under the program
        return None


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """A time of the wall clock as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def git_state() -> dict[str, Any] | None:
    """The commit of the working directory and whether it has changes; None outside a checkout."""
    import subprocess

    def git(*words: str) -> str:
        done = subprocess.run(("git", "--no-optional-locks", *words), capture_output=True, timeout=2.0, check=True)
        return done.stdout.decode(errors="backslashreplace").strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def begun(document: Document | None, prefix: str, process: dict[str, Any], extra: Document, is_alive: Any) -> Document:
    """The document after a process joined: a new session unless another process is recording now."""
    known = dict(document or {})
    processes = [_crashed_or_same(one, is_alive) for one in _processes(known)]
    alone = not any(one.get("status") == RUNNING for one in processes)
    session = _session(known) + (1 if alone else 0)
    return {
        **known,
        **extra,
        "prefix": prefix,
        "status": RUNNING,
        "session": session,
        "created_at": known.get("created_at") or process["started_at"],
        "started_at": process["started_at"] if alone else known.get("started_at"),
        "ended_at": None,
        "processes": [*processes, {**process, "session": session}],
    }


def _processes(document: Document) -> list[Document]:
    """The processes a document names; what another program wrote there is not taken for one."""
    found = document.get("processes")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _session(document: Document) -> int:
    number = document.get("session")
    return number if type(number) is int else 0


def _crashed_or_same(process: dict[str, Any], is_alive: Callable[[str], bool]) -> dict[str, Any]:
    if process.get("status") == RUNNING and not _lives(process, is_alive):
        return {**process, "status": CRASHED}
    return process


def _lives(process: Document, is_alive: Callable[[str], bool]) -> bool:
    """Whether a process records; one that sent what is here from elsewhere says so itself when it ends."""
    return bool(process.get(SENT)) or is_alive(str(process.get("writer", "")))


def ended(document: Document | None, writer: str, status: str, error: str | None, is_alive: Any) -> Document:
    """The document after a process left: the run has ended when it was the last one of its session."""
    known = dict(document or {})
    end = now()
    processes = []
    for process in _processes(known):
        if process.get("writer") == writer:
            note = {"error": error} if error else {}
            process = {**process, **note, "status": status, "ended_at": end, "clocks_at_end": clocks()}
        else:
            process = _crashed_or_same(process, is_alive)
        processes.append(process)
    known["processes"] = processes
    statuses = {one.get("status") for one in processes if one.get("session") == known.get("session")}
    if RUNNING not in statuses:
        known["status"] = worst(statuses, status)
        known["ended_at"] = end
    return known


def after_trouble(status: str, error: str | None, trouble: BaseException | None) -> tuple[str, str | None]:
    """How a run ended that could not be stored as a whole: as it would have, where that was no success."""
    if trouble is None or status != COMPLETED:
        return status, error
    return (FAILED, f"{type(trouble).__name__}: {trouble}") if isinstance(trouble, Exception) else (CANCELLED, error)


def worst(statuses: AbstractSet[Any], default: str) -> str:
    """The status of a run whose processes have ended, from theirs."""
    return next((one for one in _WORST_FIRST if one in statuses), default)


def is_sent(document: Document) -> bool:
    """Whether a process recorded on another machine and sent what is here."""
    return any(one.get(SENT) for one in _processes(document))


def status_of(
    document: Document | None, is_alive: Callable[[str], bool], *, is_silent: bool = False, elsewhere: bool = False
) -> str | None:
    """The status now: a run that nobody records any more and that never said how it ended has crashed.

    Of a process that records elsewhere nobody knows that: `is_silent` says that it was not heard of for a while.

    Args:
        elsewhere: every process records on another machine, whatever the document says of it.
    """
    if document is None:
        return None
    status = document.get("status")
    if status != RUNNING:
        return None if status is None else str(status)
    running = [one for one in _processes(document) if one.get("status") == RUNNING]
    if any(is_alive(str(one.get("writer", ""))) for one in running):
        return RUNNING
    if elsewhere or any(one.get(SENT) for one in running):
        return SILENT if is_silent else RUNNING
    return CRASHED


def settled(document: Document | None, is_alive: Callable[[str], bool]) -> Document:
    """The document once nobody lives who could say how the run ended: those who did not have crashed."""
    known = dict(document or {})
    known["processes"] = [_crashed_or_same(one, is_alive) for one in _processes(known)]
    status = status_of(known or None, is_alive)
    return {**known, "status": status} if status else known
