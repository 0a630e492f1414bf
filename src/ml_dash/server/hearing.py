"""Who records is heard of: each of its requests is noted with the experiment, a few times a minute at most."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from ..catalog import Catalog
from ..heard import SILENT_AFTER_S

NOTE_EVERY_S = 10.0
MAX_KNOWN = 10_000

log = logging.getLogger("ml_dash.server")


class Hearing:
    """Has the catalog note which experiments are recorded; for each one every ten seconds at most, and process.

    The note is in the catalog, not here, so it does not matter which of several server processes heard.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._note: Callable[[str], bool] | None = getattr(catalog, "note_heard", None)
        silent_after_s: float = getattr(catalog, "silent_after_s", SILENT_AFTER_S)
        self._every_s = min(NOTE_EVERY_S, silent_after_s / 4)
        self._noted: dict[str, float] = {}

    def is_due(self, prefix: str) -> bool:
        """Whether the catalog has to be told of an experiment."""
        return self._note is not None and time.monotonic() - self._noted.get(prefix, -math.inf) >= self._every_s

    def note(self, prefix: str) -> None:
        """Tell the catalog; a request that was answered does not fail because of it."""
        try:
            if self._note is None or not self._note(prefix):
                return
        except Exception as error:
            log.debug("%s was heard of, which could not be noted: %s", prefix, error)
        if len(self._noted) >= MAX_KNOWN:
            self._noted.clear()
        self._noted[prefix] = time.monotonic()

    def forget(self, prefix: str) -> None:
        """The experiment is deleted; the next one of its name is noted at once."""
        self._noted.pop(prefix, None)
