"""Live tail: what comes behind the newest entry, as server-sent events.

Each event is read from the store, so it does not matter which process stored it, nothing is queued for a slow reader,
and an event is never newer than what a read would give. A late entry, older than what was sent, is not an event.

Every instant is read, of the fields only those that were asked for: the place up to where was looked moves on also over
entries that have none of them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..entry import select
from ..line import to_line
from ..store import MERGED, Entry, Store, Track, Window, fixed_names
from .faults import refused
from .limits import Patience

LOOK_EVERY_S = 1.0
"""Entries that another process stored are found within this time; this process's own at once."""
SPEAK_EVERY_S = 15.0
MAX_EVENT_ENTRIES = 1000
MAX_LOOK_ENTRIES = 20_000
"""So many entries of a track are looked at before the reader's token is asked again and a sign of life is due."""
LATE_S = 10.0
"""Of a track, what comes so far behind the newest entry is still looked at for fields that were not there before."""

_boards: weakref.WeakSet[Board] = weakref.WeakSet()


def stop_following() -> None:
    """End every stream of this process within a second; for a signal handler."""
    for board in list(_boards):
        board.stopping = True


Work = Callable[..., Awaitable[Any]]
STOPPING = "stopping"
"""Why a stream ends when the server does; else it is the code of an error."""


class Board:
    """Wakes those who follow an experiment when a batch for it was stored."""

    def __init__(self) -> None:
        self._events: dict[str, anyio.Event] = {}
        self.stopping = False
        _boards.add(self)

    def notify(self, prefix: str) -> None:
        """Entries were stored."""
        event = self._events.pop(prefix, None)
        if event is not None:
            event.set()

    async def wait(self, prefix: str, timeout_s: float) -> None:
        """Until entries were stored, or the time is over."""
        if self.stopping:
            return
        event = self._events.setdefault(prefix, anyio.Event())
        with anyio.move_on_after(timeout_s):
            await event.wait()

    def stop(self) -> None:
        """The server stops: everybody goes home."""
        self.stopping = True
        for prefix in list(self._events):
            self.notify(prefix)


class Following(Response):
    """The stream of one reader: `data: {"entries": [...]}`, and a comment now and then to keep proxies awake.

    `allowed` raises once the reader's token does not reach the experiment any more; it is asked before anything is
    sent, and every second while there is nothing to send.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        track: Track,
        window: Window,
        board: Board,
        work: Work,
        patience: Patience,
        allowed: Callable[[], None],
    ) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self.media_type = "text/event-stream"
        self._store, self._prefix, self._track = store, prefix, track
        self._columns, self._board, self._work, self._patience = window.columns, board, work, patience
        self._allowed = allowed
        self._after = window.start
        self._first = window.first
        self._more = False
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader leaves, may not read any more, or the server stops."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, receive, tasks.cancel_scope)
            await self._follow(send)
            tasks.cancel_scope.cancel()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _follow(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        spoke_at, ending = -math.inf, ""
        while not self._board.stopping:
            entries, ending = await self._work(self._look)
            if ending:
                break
            if entries or anyio.current_time() - spoke_at >= SPEAK_EVERY_S:
                await self._send(send, _event(entries) if entries else b": still here\n\n")
                spoke_at = anyio.current_time()
            if not self._more:
                await self._board.wait(self._prefix, LOOK_EVERY_S)
        end = b'event: end\ndata: {"reason":"%b"}\n\n' % (ending or STOPPING).encode()
        with anyio.fail_after(self._patience.send_s):
            await send({"type": "http.response.body", "body": end})

    async def _send(self, send: Send, data: bytes) -> None:
        with anyio.fail_after(self._patience.send_s):
            await send({"type": "http.response.body", "body": data, "more_body": True})

    def _look(self) -> tuple[list[Entry], str]:
        """What came, or why the stream ends. Who may not read any more is asked last: nothing read goes out to them."""
        try:
            found = self._next()
            self._allowed()
        except Exception as error:
            return [], refused(error).fault.code
        return found, ""

    def _next(self) -> list[Entry]:
        """The entries behind the last one given, some at a time; `_more` tells whether to look on at once."""
        return self._next_of_track() if self._track.kind == MERGED else self._next_of_sequence()

    def _next_of_sequence(self) -> list[Entry]:
        window = Window(first=self._first, limit=MAX_EVENT_ENTRIES, columns=self._with_instants())
        seen = [entry for block in self._store.read(self._track, window) for entry in block]
        self._more = len(seen) >= MAX_EVENT_ENTRIES
        if seen:
            self._first = seen[-1]["index"] + 1
        return self._chosen(seen)

    def _next_of_track(self) -> list[Entry]:
        after = newest(self._store, self._track) if self._after is None else self._after
        found: list[Entry] = []
        seen, last = 0, after
        window = Window(start=math.nextafter(after, math.inf), columns=self._with_instants())
        for block in self._store.read(self._track, window):
            found += self._chosen(block)
            seen, last = seen + len(block), block[-1]["timestamp"]
            self._more = len(found) >= MAX_EVENT_ENTRIES or seen >= MAX_LOOK_ENTRIES
            if self._more:
                break
        else:
            self._more, last = False, max(after, last - LATE_S)
        if len(found) >= MAX_EVENT_ENTRIES:
            found, last = found[:MAX_EVENT_ENTRIES], found[MAX_EVENT_ENTRIES - 1]["timestamp"]
        self._after = max(last, found[-1]["timestamp"]) if found else last
        return found

    def _with_instants(self) -> tuple[str, ...] | None:
        return None if self._columns is None else (*self._columns, "timestamp")

    def _chosen(self, entries: list[Entry]) -> list[Entry]:
        return select(entries, self._columns, fixed_names(self._track.kind))


def _event(entries: list[Entry]) -> bytes:
    lines = [
        to_line(entry["timestamp"], {name: value for name, value in entry.items() if name != "timestamp"})[:-1]
        for entry in entries
    ]
    return b'data: {"entries":[' + b",".join(lines) + b"]}\n\n"


def newest(store: Store, track: Track) -> float:
    """The newest timestamp, found by some tens of short reads however long the track is; -inf for an empty one."""

    def last_from(start: float) -> float | None:
        block = next(store.read(track, Window(start=start)), None)
        return None if block is None else float(block[-1]["timestamp"])

    low = last_from(-math.inf)
    if low is None:
        return -math.inf
    step, high = 1.0, math.inf
    while (further := last_from(math.nextafter(low, math.inf))) is not None:
        low = further
        probe = low + step if high == math.inf else low + (high - low) / 2
        found = last_from(probe) if probe > low else None
        if found is not None:
            low, step = found, step * 2
        elif probe > low:
            high = probe
    return low
