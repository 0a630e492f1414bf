"""The store on a server: the same contract over HTTP, every request safe to send again.

A batch larger than a request may be goes in parts: all but the last under a writer of their own, named after the batch
and the size of the parts, the last under the batch's own number. Each part is applied once, however often this is
interrupted; a reader may see some parts before the last one is there.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .. import wire
from ..columns import cut_out
from ..entry import decode_body
from ..errors import (
    CopiedWriter,
    ExperimentNotFound,
    InvalidWindow,
    MissingExtra,
    MlDashError,
    NotOpen,
    Unauthorized,
)
from ..line import from_document, from_lines, to_document
from ..store import MERGED, Batch, Document, Entry, Track, TrackInfo, Window, check_removable
from ..zstd import compress
from .grouping import head_bytes, is_column_body, track_number

PART_BYTES = 8 << 20
"""Uncompressed; entries that compress badly stay below the limit of a compressed body all the same."""
SMALLER = 8
"""By how much parts shrink where the server, or a proxy before it, finds a body too large."""
ATTEMPTS = 3
CHANGES = 40
CONNECT_S, ANSWER_S = 5.0, 30.0

Part = tuple[list[bytes], int]
"""Bodies, and the place in the batch of the first of them."""


class _TooLarge(MlDashError):
    """A body that the server does not take at this size."""


class _Changed(MlDashError):
    """A document that is not the one it was."""


class HttpStore:
    """One experiment on a server.

    Args:
        url: the server's address, `https://host` or `http://host:port`, with a path where a proxy has one.
        prefix: the experiment.
        token: what the server knows the sender by; it is sent to this address only, redirects are not followed.
        connection: shared by several stores of one server; without it the store has one of its own.
    """

    def __init__(
        self, url: str, prefix: str, token: str | None = None, *, connection: Connection | None = None
    ) -> None:
        self.prefix = prefix
        self._own = connection is None
        self.connection = connection or Connection(url, token)

    # -------------------------------------------------------------- writing

    def append(self, batch: Batch) -> None:
        """Apply a batch once.

        Raises:
            wire.Unavailable: (a StoreUnavailable) a retry may help.
            wire.Refused: (an InvalidEntry) entries the server does not take; nothing was stored.
            CopiedWriter: another batch came under this writer and number.
            Unauthorized: the token is not good for this.
        """
        used = {track_number(body) for body in batch.bodies}
        batch = Batch(batch.writer, batch.number, {n: t for n, t in batch.tracks.items() if n in used}, batch.bodies)
        if _fits(batch.bodies):
            try:
                return self._post(batch)
            except _TooLarge:
                pass
        return self._append_parts(batch, PART_BYTES if not _fits(batch.bodies) else _smaller(batch.bodies))

    def _post(self, batch: Batch) -> None:
        body = compress(wire.encode_batch(batch))
        headers = {
            "Content-Type": wire.BATCH,
            "Content-Encoding": "zstd",
            "Content-Digest": wire.digest(body),
        }
        self.connection.send("POST", wire.BATCHES, [("prefix", self.prefix)], content=body, headers=headers)

    def _append_parts(self, batch: Batch, part_bytes: int) -> None:
        """Send a batch in parts that are not larger than some bytes, going on behind those that arrived."""
        if self.applied(batch.writer) >= batch.number:
            return
        writer = f"{batch.writer}~{batch.number}~{part_bytes}"
        done = self.applied(writer)
        waiting: Part | None = None
        number = 0
        for part in parts(batch.bodies, part_bytes):
            if waiting is not None:
                number += 1
                if number > done:
                    self._append_part(Batch(writer, number, batch.tracks, waiting[0]), waiting[1], part_bytes)
            waiting = part
        last = waiting or ([], 0)
        self._append_part(Batch(batch.writer, batch.number, batch.tracks, last[0]), last[1], part_bytes)
        self.forget(writer)

    def _append_part(self, part: Batch, place: int, part_bytes: int) -> None:
        try:
            try:
                return self._post(part)
            except _TooLarge as error:
                if len(part.bodies) == 1 and _count(part.bodies[0]) == 1:
                    raise wire.Refused(f"an entry is too large for the server: {error}", [(0, str(error))]) from None
            return self._append_parts(part, max(1, min(part_bytes // SMALLER, _smaller(part.bodies))))
        except wire.Refused as error:
            raise wire.Refused(str(error), [(place + at, reason) for at, reason in error.entries]) from None

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        return int(self._json("GET", wire.WRITERS, [("writer", writer)])["applied"])

    def forget(self, writer: str) -> None:
        """The writer will never send a batch again."""
        self.connection.send("DELETE", wire.WRITERS, [("prefix", self.prefix), ("writer", writer)])

    def remove(self, track: Track) -> None:
        """Delete a series with all its entries."""
        self.connection.send("DELETE", wire.TRACKS, self._series(track))

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """Delete a window of a track; raises InvalidWindow for a sequence."""
        check_removable(track)
        self.connection.send("DELETE", wire.TRACKS, [*self._series(track), *wire.window_query(Window(start, end))])

    # -------------------------------------------------------------- reading

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order, as they arrive; a broken connection goes on behind the last one."""
        attempt = 0
        while True:
            try:
                for block in self._blocks(track, window):
                    yield block
                    window = _behind(track, window, block)
                    attempt = 0
                return
            except wire.Unavailable as error:
                attempt += 1
                if attempt >= ATTEMPTS or error.status:
                    raise
                time.sleep(0.05 * attempt)

    def _blocks(self, track: Track, window: Window) -> Iterator[list[Entry]]:
        query = [*self._series(track), *wire.window_query(window), ("format", "ndjson")]
        rest = b""
        for chunk in self.connection.stream(wire.ENTRIES, query):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield from_lines(lines)
        if rest:
            raise wire.Unavailable("the answer ended inside an entry")

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic."""
        return [wire.info_from_wire(found) for found in self._json("GET", wire.TRACKS, [("kind", kind)])["tracks"]]

    def _series(self, track: Track) -> list[tuple[str, str]]:
        return [("prefix", self.prefix), ("kind", track.kind), ("topic", track.topic)]

    def _json(self, method: str, path: str, query: list[tuple[str, str]]) -> Any:
        answer = self.connection.send(method, path, [("prefix", self.prefix), *query])
        return self.connection.decoded(answer.content)

    # -------------------------------------------------------------- documents

    def read_document(self, name: str) -> Document | None:
        """A small document, or None."""
        return self._document(name)[0]

    def _document(self, name: str) -> tuple[Document | None, str]:
        """The document and its ETag."""
        try:
            answer = self.connection.send("GET", wire.DOCUMENTS, [("prefix", self.prefix), ("name", name)])
        except ExperimentNotFound:
            return None, ""
        return from_document(answer.content) or {}, answer.headers.get("etag", "")

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document by `change` of what it is now; tried again when another writer came between."""
        for _ in range(CHANGES):
            known, etag = self._document(name)
            new = change(known)
            condition = {"If-None-Match": "*"} if known is None else {"If-Match": etag}
            try:
                self.connection.send(
                    "PUT",
                    wire.DOCUMENTS,
                    [("prefix", self.prefix), ("name", name)],
                    content=to_document(new),
                    headers={"Content-Type": wire.JSON, **condition},
                )
                return new
            except _Changed:
                time.sleep(random.uniform(0.0, 0.05))
        raise wire.Unavailable(f"document {name!r} of {self.prefix} was changed by others {CHANGES} times in a row")

    # -------------------------------------------------------------- the end, and forks

    def close(self) -> None:
        """Close the connection; a request that is under way fails."""
        if self._own:
            self.connection.close()

    def after_fork_in_child(self) -> None:
        """The parent's sockets stay the parent's."""
        self.connection.after_fork_in_child()


# ---------------------------------------------------------------- parts of a batch


def _fits(bodies: Sequence[bytes]) -> bool:
    return sum(map(len, bodies)) <= PART_BYTES and sum(map(_count, bodies)) <= wire.LIMITS.entries


def _count(body: bytes) -> int:
    """The number of entries in a body, from its first bytes."""
    if not is_column_body(body):
        return 1
    at = head_bytes(body)
    width = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(body[at], 0)
    return int.from_bytes(body[at + 1 : at + 1 + width], "big") if width else body[at]


def _smaller(bodies: Sequence[bytes]) -> int:
    return max(1, sum(map(len, bodies)) // SMALLER)


def parts(bodies: Sequence[bytes], part_bytes: int, entries: int = wire.LIMITS.entries) -> Iterator[Part]:
    """The bodies in parts of at most so many bytes and entries; a single entry may be larger."""
    group: list[bytes] = []
    size = count = first = 0
    for place, whole in enumerate(bodies):
        for body in _cut(whole, part_bytes, entries):
            n = _count(body)
            if group and (size + len(body) > part_bytes or count + n > entries):
                yield group, first
                group, size, count = [], 0, 0
            if not group:
                first = place
            group.append(body)
            size, count = size + len(body), count + n
    if group:
        yield group, first


def _cut(body: bytes, part_bytes: int, entries: int) -> Iterator[bytes]:
    """A body, or where it holds more columns than a part may, the bodies of parts of it."""
    n = _count(body)
    if n == 1 or (len(body) <= part_bytes and n <= entries):
        yield body
        return
    decoded = decode_body(body)
    step = max(1, min(entries, part_bytes * n // len(body)))
    for first in range(0, n, step):
        yield cut_out(decoded, first, min(first + step, n))


def _behind(track: Track, window: Window, block: list[Entry]) -> Window:
    """What is left of a window after a block."""
    if track.kind == MERGED:
        start = math.nextafter(block[-1]["timestamp"], math.inf)
        return Window(start, window.end, window.columns)
    following = block[-1]["index"] + 1
    limit = None if window.limit is None else window.limit - (following - window.first)
    return Window(window.start, window.end, window.columns, following, limit)


# ---------------------------------------------------------------- the connection


class Connection:
    """One server, as one client sees it; safe to use from several threads.

    Raises:
        ValueError: an address that is none.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(self, url: str, token: str | None = None, *, answer_s: float = ANSWER_S) -> None:
        self.url = checked_url(url)
        self._token, self._answer_s = token, answer_s
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._client: Any = None
        self._closed = False
        _httpx()

    def _open(self) -> Any:
        if self._process != os.getpid():
            self.after_fork_in_child()
        with self._lock:
            if self._closed:
                raise NotOpen("the store is closed")
            if self._client is None:
                httpx = _httpx()
                headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                timeout = httpx.Timeout(self._answer_s, connect=CONNECT_S)
                self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
            return self._client

    def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer to a request, once it is a success; one whose connection broke is sent again at once."""
        for last in (False, True):
            try:
                answer = self._open().request(method, path, params=list(query), content=content, headers=headers)
            except Exception as error:
                found = self._translated(error)
                if last or not _is_broken(error):
                    raise found from error
                continue
            if answer.is_success:
                return answer
            raise _refusal(answer, method)
        raise AssertionError("unreachable")

    def stream(self, path: str, query: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        """The bytes of an answer as they arrive."""
        try:
            with self._open().stream("GET", path, params=list(query)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer, "GET")
                yield from answer.iter_bytes()
        except (MlDashError, GeneratorExit):
            raise
        except Exception as error:
            raise self._translated(error) from error

    def decoded(self, content: bytes) -> Any:
        """The value of a JSON answer."""
        try:
            return msgspec.json.decode(content)
        except ValueError as error:
            raise wire.Unavailable(f"{self.url} did not answer as an ml-dash server does: {error}") from None

    def _translated(self, error: Exception) -> Exception:
        """A failed request as one of our errors."""
        httpx = _httpx()
        if self._closed:
            return NotOpen("the store is closed")
        if isinstance(error, (httpx.TransportError, httpx.StreamError, httpx.DecodingError)):
            return wire.Unavailable(f"{self.url} does not answer: {str(error) or type(error).__name__}")
        return error

    def close(self) -> None:
        """Close the sockets; a request that is under way fails."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def after_fork_in_child(self) -> None:
        """Go on with sockets of our own."""
        self._lock, self._client, self._process = threading.Lock(), None, os.getpid()


def checked_url(url: str) -> str:
    """The server's address without a slash at its end.

    Raises:
        ValueError: it is not `http://host` or `https://host`, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise wire.InvalidAddress(f"dash_url is http://host:port or https://host, got {url!r:.100}")
    if "@" in parts.netloc:
        raise wire.InvalidAddress("dash_url holds a password; give the token as token= or ML_DASH_TOKEN")
    return url.rstrip("/")


def _is_broken(error: Exception) -> bool:
    """Whether a connection ended, as one does that was idle for too long; every request may be sent twice."""
    httpx = _httpx()
    return isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))


def _refusal(answer: Any, method: str) -> Exception:
    """The error of an answer that is no success."""
    status, fault = answer.status_code, _fault(answer)
    message = f"{fault.message} ({status})" if fault else f"{answer.url.host} answered {status} {answer.reason_phrase}"
    if status in (401, 403):
        return Unauthorized(message)
    if status == 413:
        return _TooLarge(message)
    if fault is not None:
        if fault.code == "bad_entries":
            return wire.Refused(message, fault.entries or [(0, message)])
        known = _ERRORS.get(fault.code)
        if known is not None:
            return known(message) if method in ("GET", "DELETE") or status != 404 else Unauthorized(message)
    elif status < 500 and status not in (408, 425, 429):
        message += ": is this an ml-dash server?"
    return wire.Unavailable(message, status=status, retry_after_s=_retry_after(answer))


_ERRORS: dict[str, type[Exception]] = {
    "not_found": ExperimentNotFound,
    "copied_writer": CopiedWriter,
    "changed": _Changed,
    "bad_parameter": InvalidWindow,
    "being_recorded": MlDashError,
}


def _fault(answer: Any) -> wire.Fault | None:
    try:
        return msgspec.json.decode(answer.content, type=wire.Reply).error
    except ValueError:
        return None


def _retry_after(answer: Any) -> float | None:
    """The seconds of `Retry-After`; it may also be a date."""
    from email.utils import parsedate_to_datetime

    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), 3600.0)


def _httpx() -> Any:
    try:
        import httpx2
    except ImportError:
        raise MissingExtra("httpx2", "remote") from None
    return httpx2
