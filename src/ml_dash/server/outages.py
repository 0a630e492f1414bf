"""What is said of a database or an archive that does not answer: little to clients, the reason once to the log.

A driver's text holds addresses, topology and pages of detail. Clients are told which part does not answer. The log has
the text's first sentence, and has it again when it changes, when the part answered meanwhile, or after ten minutes.
"""

from __future__ import annotations

import logging
import re
import threading

from ..errors import StoreUnavailable, TooManyWriters
from ..stores.bucket import ANSWERS_AGAIN, ArchiveUnavailable

DATABASE, ARCHIVE = "the database", "the archive"
AGAIN_S = 600.0
"""What lasts is said again after this time."""
MAX_CHARS = 300
MAX_KNOWN = 1_000
_DETAIL = re.compile(r" \(configured timeouts|, Timeout: |, full error: |, Topology Description|\n")

log = logging.getLogger("ml_dash.server")


def silent_part(error: StoreUnavailable) -> str:
    """Which part does not answer; "" where both do."""
    if isinstance(error, TooManyWriters):
        return ""
    return ARCHIVE if isinstance(error, ArchiveUnavailable) else DATABASE


def trouble(error: StoreUnavailable) -> str:
    """What clients are told."""
    part = silent_part(error)
    return f"{part} does not answer" if part else "too many write to this experiment at once; nothing was stored"


def short(text: str) -> str:
    """The first sentence of a driver's text."""
    return _DETAIL.split(text, maxsplit=1)[0][:MAX_CHARS]


class Outages:
    """Whether requests of this process find the database; the bucket knows of itself when it answers again."""

    def __init__(self) -> None:
        self.failing = False

    def failed(self, error: BaseException) -> None:
        """A request failed, perhaps because the database does not answer."""
        if isinstance(error, StoreUnavailable) and silent_part(error) == DATABASE:
            self.failing = True

    def answered(self) -> None:
        """A request that needs the database succeeded."""
        if self.failing:
            self.failing = False
            log.info(ANSWERS_AGAIN, DATABASE)


class Once(logging.Filter):
    """Lets a warning through once, until its reason changes or a part answers again.

    Which warning it is follows from its format and all its arguments but the last, which is the reason.
    """

    def __init__(self, again_s: float = AGAIN_S) -> None:
        super().__init__()
        self._again_s, self._lock = again_s, threading.Lock()
        self._said: dict[tuple[str, ...], tuple[str, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is new; its text is cut to the first sentence."""
        if record.msg == ANSWERS_AGAIN:
            self._said.clear()
        if record.levelno != logging.WARNING or record.exc_info or not isinstance(record.args, tuple):
            return True
        key = (record.name, str(record.msg), *map(str, record.args[:-1]))
        record.msg, record.args = short(record.getMessage()), ()
        with self._lock:
            text, at = self._said.get(key, ("", 0.0))
            if text == record.msg and record.created - at < self._again_s:
                return False
            if len(self._said) >= MAX_KNOWN:
                self._said.clear()
            self._said[key] = (record.msg, record.created)
        return True
