"""What `experiment.json` says of a run: who recorded it, when, from which code, and how it ended."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .store import Document

DOCUMENT = "experiment"
RUNNING, COMPLETED, FAILED, CANCELLED, CRASHED = "running", "completed", "failed", "cancelled", "crashed"
_WORST_FIRST = (FAILED, CRASHED, CANCELLED, COMPLETED)


def clocks() -> dict[str, float]:
    """One reading of the wall clock and the monotonic clock, taken together: they tie device times to dates."""
    before = time.monotonic()
    wall = time.time()
    return {"wall": wall, "monotonic": (before + time.monotonic()) / 2}


def process_record(writer: str) -> dict[str, Any]:
    """What is kept of this process."""
    return {
        "writer": writer,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "status": RUNNING,
        "started_at": now(),
        "ended_at": None,
        "clocks": clocks(),
        "command": [sys.executable, *sys.argv],
        "working_directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(),
    }


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def git_state() -> dict[str, Any] | None:
    """The commit of the working directory and whether it has changes; None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    done = subprocess.run(("git", *words), capture_output=True, text=True, timeout=2.0, check=True)
    return done.stdout.strip()


def begun(document: Document | None, prefix: str, process: dict[str, Any], extra: Document, is_alive: Any) -> Document:
    """The document after a process joined: a new session unless another process is recording now."""
    known = dict(document or {})
    processes = [_crashed_or_same(one, is_alive) for one in known.get("processes", [])]
    alone = not any(one["status"] == RUNNING for one in processes)
    session = int(known.get("session", 0)) + (1 if alone else 0)
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


def _crashed_or_same(process: dict[str, Any], is_alive: Callable[[str], bool]) -> dict[str, Any]:
    if process.get("status") == RUNNING and not is_alive(process.get("writer", "")):
        return {**process, "status": CRASHED}
    return process


def ended(document: Document | None, writer: str, status: str, error: str | None, is_alive: Any) -> Document:
    """The document after a process left: the run has ended when it was the last one of its session."""
    known = dict(document or {})
    end = now()
    processes = []
    for process in known.get("processes", []):
        if process.get("writer") == writer:
            note = {"error": error} if error else {}
            process = {**process, **note, "status": status, "ended_at": end, "clocks_at_end": clocks()}
        else:
            process = _crashed_or_same(process, is_alive)
        processes.append(process)
    known["processes"] = processes
    statuses = {one["status"] for one in processes if one.get("session") == known.get("session")}
    if RUNNING not in statuses:
        known["status"] = next((one for one in _WORST_FIRST if one in statuses), status)
        known["ended_at"] = end
    return known


def status_of(document: Document | None, is_alive: Callable[[str], bool]) -> str | None:
    """The status now: a run that nobody records any more and that never said how it ended has crashed."""
    if document is None:
        return None
    status = document.get("status")
    if status != RUNNING:
        return str(status)
    alive = any(is_alive(one.get("writer", "")) for one in document.get("processes", []))
    return RUNNING if alive else CRASHED
