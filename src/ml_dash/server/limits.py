"""Bodies within limits of size and time: a slow link is served, a stalled one is cut; memory stays bounded."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from starlette.requests import ClientDisconnect, Request

from ..wire import LIMITS
from .faults import Refusal

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a body may take.

    Args:
        stall_s: without a byte for so long, the body is cut.
        grace_s, min_bytes_per_s: a body may take so much longer than its bytes do at this speed: 1 KiB/s is an honest
            slow link.
        send_s: so long the reader of an answer may take none of it.
    """

    stall_s: float = 20.0
    grace_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    send_s: float = 60.0

    def remaining(self, elapsed_s: float, received: int) -> float:
        """How long to wait for the next bytes; 0 or less to cut."""
        due = self.grace_s + received / self.min_bytes_per_s
        return min(self.stall_s, due - elapsed_s)


async def read_body(request: Request, limit: int, patience: Patience) -> bytes:
    """The body as sent.

    Raises:
        Refusal: too_large as soon as the limit is known to be passed, timeout for a body that stalls or trickles,
            bad_body for one that ends early.
    """
    if _declared(request) > limit:
        raise Refusal("too_large", f"the body is larger than {limit} bytes; send less at once", "Content-Length")
    started, received = time.monotonic(), 0
    parts: list[bytes] = []
    stream = request.stream()
    while True:
        with anyio.move_on_after(patience.remaining(time.monotonic() - started, received)) as scope:
            try:
                part = await anext(stream, None)
            except ClientDisconnect:
                raise Refusal("bad_body", "the connection ended inside the body", "body") from None
        if scope.cancelled_caught:
            raise Refusal("timeout", f"the body stalled after {received} bytes", "body")
        if part is None:
            return b"".join(parts)
        received += len(part)
        if received > limit:
            raise Refusal("too_large", f"the body is larger than {limit} bytes; send less at once", "body")
        parts.append(part)


def _declared(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise Refusal("bad_request", "Content-Length is no number", "Content-Length")
    return int(text)


class Budget:
    """Bytes that requests may hold at one time, all of them together."""

    def __init__(self, size: int = 4 * LIMITS.raw, *, wait_s: float = 5.0) -> None:
        self._free = self._size = size
        self._wait_s = wait_s
        self._changed = anyio.Condition()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Keep `size` bytes of the budget while the block runs; raises Refusal too_busy after some seconds."""
        size = min(size, self._size)
        with anyio.move_on_after(self._wait_s) as scope:
            async with self._changed:
                while self._free < size:
                    await self._changed.wait()
                self._free -= size
        if scope.cancelled_caught:
            raise Refusal("too_busy", "the server is busy with other requests", retry_after_s=1)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                async with self._changed:
                    self._free += size
                    self._changed.notify_all()


def check_local(request: Request) -> None:
    """Without tokens only this machine is served, and no web page of another origin."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not _LOOPBACK.fullmatch(host):
        raise Refusal("forbidden", "this server is for this machine only", "Host")
    if origin is not None and not _LOOPBACK.fullmatch(origin.partition("://")[2]):
        raise Refusal("forbidden", "web pages of other origins are not served", "Origin")
