"""When a server last heard of who records an experiment, and what that says of the run.

A robot that is out of reach still records: a run that was not heard of for two minutes has not crashed, it is "silent",
until it is heard again. Heard is who sends a batch, a document, or word that there is nothing to send (`presence.py`).
A server of a folder notes the time in `.heard` beside the recording, one on MongoDB in the experiment's document.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from . import run_record
from .files import FILES, Files
from .store import Document

HEARD = ".heard"
SILENT_AFTER_S = 120.0
"""A running run that was not heard of for so long is silent; four times what a client that lives lets pass."""
AHEAD_S = 60.0
"""What was noted further ahead of now says nothing: the clock was set back since. It would hide that nobody is heard.
Less is the clock of a file server that differs a little."""


class Standing(NamedTuple):
    """How a run stands: its status now, and when it was last heard of, as ISO 8601 in UTC; None where nobody knows."""

    status: str | None
    last_heard: str | None = None

    def added_to(self, document: Document) -> Document:
        """The run's document with what it cannot know of itself."""
        return {**document, **{name: value for name, value in self._asdict().items() if value is not None}}


def note_heard(folder: Path, at: float, files: Files = FILES) -> None:
    """Note in an experiment's folder that it was heard of. Not synced: after a power cut it is heard again soon."""
    files.write_atomically(folder / HEARD, f"{run_record.iso(at)}\n".encode(), durable=False)


def heard_at(folder: Path) -> float | None:
    """When an experiment in a folder was last heard of, in seconds; the run's document counts, it was sent too.
    None where nobody knows."""
    found: list[float] = []
    with suppress(OSError, ValueError):
        found.append(datetime.fromisoformat((folder / HEARD).read_text().strip()).astimezone(UTC).timestamp())
    with suppress(OSError):
        found.append(os.stat(folder / f"{run_record.DOCUMENT}.json").st_mtime)
    now = time.time()
    return max((min(at, now) for at in found if at <= now + AHEAD_S), default=None)


def standing(
    folder: Path | None,
    document: Document,
    is_alive: Callable[[str], bool],
    silent_after_s: float = SILENT_AFTER_S,
) -> Standing:
    """How a run stands whose document is in a folder; one that is recorded there was never heard of. With None for the
    folder nobody notes here what is heard."""
    heard = heard_at(folder) if folder is not None and run_record.is_sent(document) else None
    silent = heard is not None and time.time() - heard >= silent_after_s
    status = run_record.status_of(document or None, is_alive, is_silent=silent)
    return Standing(status, None if heard is None else run_record.iso(heard))
