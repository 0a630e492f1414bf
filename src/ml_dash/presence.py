"""A server that is sent nothing for a while is told that the run goes on, so that it can tell idle from gone."""

from __future__ import annotations

import logging
import time

from .journal import Journal
from .store import Store

STILL_HERE_S = 30.0
"""So long nothing is sent before the server is told."""

log = logging.getLogger("ml_dash")


class Presence:
    """What one process says of itself to the store it sends to; a store that wants no such word gets none.

    Whether it arrives does not matter: nothing waits for it, nothing is tried again, no outage is told.
    """

    def __init__(self, store: Store, every_s: float | None = None) -> None:
        self._still_here = getattr(store, "still_here", None)
        self._every_s = STILL_HERE_S if every_s is None else every_s
        self._sent, self._spoke = -1, time.monotonic()

    def keep(self, journal: Journal | None, sent: int) -> None:
        """After a pass of who records into a journal: `sent` rises with everything that the store took."""
        now = time.monotonic()
        if sent != self._sent:
            self._sent, self._spoke = sent, now
        elif journal is None or journal.is_forked or self._still_here is None:
            return
        elif now - self._spoke >= self._every_s:
            self._spoke = now
            try:
                self._still_here(journal.writer)
            except Exception as error:
                log.debug("the server was not told that the run goes on: %s", error)
