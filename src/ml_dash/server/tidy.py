"""Upkeep while nobody writes: a local store's files get their plain form back, one line for each timestamp."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from ..catalog import Catalog

IDLE_S = 30.0
EVERY_S = 5.0
STOP_S = 10.0
"""So long the end of the server waits for the upkeep of one series; cut off, it harms nothing."""

log = logging.getLogger("ml_dash.server")


class Tidy:
    """Compacts the experiments that were written to, once they are left alone for a while."""

    def __init__(self, catalog: Catalog, *, idle_s: float = IDLE_S, every_s: float = EVERY_S) -> None:
        self._catalog, self._idle_s, self._every_s = catalog, idle_s, every_s
        self._written: dict[str, float] = {}

    def note(self, prefix: str) -> None:
        """Entries came."""
        self._written[prefix] = time.monotonic()

    async def run(self) -> None:
        """For ever. A catalog that has an upkeep of its own does it in a thread of its own."""
        run_upkeep = getattr(self._catalog, "run_upkeep", None)
        if run_upkeep is not None:
            return await self._run_upkeep(run_upkeep)
        while True:
            await anyio.sleep(self._every_s)
            for prefix in self.due():
                await anyio.to_thread.run_sync(self.compact, prefix)

    async def _run_upkeep(self, run_upkeep: Callable[[threading.Event], None]) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=run_upkeep, args=(stop,), name="ml_dash-upkeep", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, STOP_S)

    def due(self) -> list[str]:
        """Those left alone long enough."""
        now = time.monotonic()
        return [prefix for prefix, at in self._written.items() if now - at > self._idle_s]

    def compact(self, prefix: str) -> None:
        """Compact one experiment, where its store does that on request."""
        self._written.pop(prefix, None)
        try:
            store = self._catalog.store(prefix)
            compact = getattr(getattr(store, "store", store), "compact_all", None)
            if compact is not None:
                compact()
        except Exception as error:
            log.warning("%s could not be compacted: %s", prefix, error)
