"""A journal that waits for a server, and what its appends do when the room for that ends.

    raise   append raises, as on any full disk; nothing is lost without the program knowing
    drop    the entry is dropped and counted: what comes when there is room again is recorded
    wait    append waits until the server has taken something
            (inside a logging handler it does not, see `_must_not_wait`: dropped and counted)

Only the way of a record that needs a new segment is another one; the common append is the same.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from .entry import decode_body
from .journal import Journal
from .journal_files import RECORD_BYTES
from .spool import DEAD_LETTERS, DROP, DROPPED, RAISE, WAIT

LOOK_EVERY_S = 0.05
"""How often it is found out whether there is room again."""
NOTE_EVERY_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_COLUMNS = 0x94

log = logging.getLogger("ml_dash")


class SpoolJournal(Journal):
    """A journal whose appends do at the end of the room what the user chose.

    Args:
        when_full: one of `POLICIES`.
    """

    __slots__ = ("_dropped", "_full_until", "_is_full", "_note_due", "_told", "_unsaid", "_when_full")

    def __init__(self, folder: Path, *, when_full: str = RAISE, **options: Any) -> None:
        self._when_full = when_full
        self._reset()
        super().__init__(folder, **options)

    def _reset(self) -> None:
        self._dropped = self._told = 0
        self._full_until = self._note_due = 0.0
        self._is_full = self._unsaid = False

    def write_slowly(self, record: bytes) -> None:
        """As `Journal.write_slowly`, but where the disk is full what the policy says."""
        self._write(super().write_slowly, record, RECORD_BYTES)

    def write_apart(self, body: bytes) -> None:
        """As `Journal.write_apart`, in the same way."""
        self._write(super().write_apart, body, 0)

    def _write(self, write: Callable[[bytes], None], data: bytes, head: int) -> None:
        while True:
            fits = bool(head) and self.position + len(data) <= self._room
            if fits or self._closed or self._when_full != DROP or time.monotonic() >= self._full_until:
                try:
                    write(data)
                    self._is_full = self._is_full and fits
                    return
                except OSError as error:
                    ours = _is_ours()
                    if error.errno not in _FULL or (self._when_full == RAISE and not ours):
                        raise
                    self._begin_to_be_full()
            if self._when_full != WAIT or _must_not_wait():
                self._drop(data[head:])
                return
            time.sleep(LOOK_EVERY_S)

    def _begin_to_be_full(self) -> None:
        self._full_until = time.monotonic() + LOOK_EVERY_S
        if not self._is_full:
            self._is_full = self._unsaid = True

    def prepare(self) -> None:
        """As `Journal.prepare`, in the background, which also says that there is no room: an append that logged would
        have a logging handler that appends wait inside it."""
        super().prepare()
        if self._unsaid:
            self._unsaid = False
            what = "append waits" if self._when_full == WAIT else "entries are dropped and counted"
            log.warning("no room on the disk for what waits for the server: %s until there is", what)

    # -------------------------------------------------------------- what was dropped

    def _drop(self, body: bytes) -> None:
        with self.lock:
            self._dropped += decode_body(body)[1] if body[0] == _COLUMNS else 1
        if time.monotonic() >= self._note_due:
            self._note()

    def _note(self) -> None:
        """Have `ml-dash status` know; where even that does not fit on the disk, later."""
        self._note_due = time.monotonic() + NOTE_EVERY_S
        folder = self.path.parent.parent / DEAD_LETTERS
        value = {"entries": self._dropped, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            self._files.make_folder(folder)
            self._files.write_atomically(folder / f"{self.writer}{DROPPED}", json.dumps(value).encode(), durable=False)
        except OSError as error:
            log.debug("%s dropped entries are not noted: %s", self._dropped, error)

    def told(self) -> str:
        """What the user has to be told, once, of entries that were dropped; "" where none were."""
        with self.lock:
            count, self._told = self._dropped - self._told, self._dropped
        if not count:
            return ""
        self._note()
        return f"{count} entries were dropped, because there was no room on the disk (when_full={self._when_full!r})"

    def after_fork_in_child(self) -> None:
        """What the parent dropped is the parent's."""
        super().after_fork_in_child()
        self._reset()


def _is_ours() -> bool:
    """Whether this is a thread of ours, as where a logging handler records what we log: an error would end it."""
    return threading.current_thread().name.startswith("ml_dash-")


def _must_not_wait() -> bool:
    """Whether a wait might never end: a thread of ours would wait for itself; and who appends inside a logging handler
    holds its lock, which the threads that make room need as soon as they, or a library they call, log something."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != logging.__file__:
        frame = frame.f_back
    return frame is not None or _is_ours()
