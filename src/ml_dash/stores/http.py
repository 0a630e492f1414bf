"""The store on a server: the same contract over HTTP, every request safe to send again.

A batch larger than a request may be goes in parts: all but the last under a writer of their own, named after the batch
and the size of the parts, the last under the batch's own number. Each part is applied once, however often this is
interrupted; a reader may see some parts before the last one is there.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from .. import wire
from ..ahead import one_ahead
from ..blocks import used_tracks
from ..columns import cut_out
from ..entry import decode_body, head_bytes, uint_at
from ..errors import ExperimentNotFound
from ..heard import Standing
from ..line import from_document, from_lines, to_document
from ..store import MERGED, Batch, Document, Entry, Track, TrackInfo, Window, check_removable
from ..zstd import compress
from .connection import Changed, Connection
from .grouping import is_column_body, no_pace

WHOLE_BYTES = 8 << 20
"""Uncompressed; entries that compress badly stay below the limit of a compressed body all the same."""
PART_BYTES = WHOLE_BYTES // 2
"""Of what is larger: the next part is made while one is under way, and there is the less to wait for at the ends."""
SMALLER = 8
"""By how much parts shrink where the server, or a proxy before it, finds a body too large."""
ATTEMPTS = 3
STILL_HERE_S = 2.0
CHANGES = 40

Part = tuple[list[bytes], int]
"""Bodies, and the place in the batch of the first of them."""


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
        """Apply a batch once, in parts where it is too large for one request.

        Raises:
            wire.Unavailable: (a StoreUnavailable) a retry may help.
            wire.Refused: (an InvalidEntry) entries the server does not take.
            CopiedWriter: another batch came under this writer and number.
            Unauthorized: the token is not good for this.
        """
        try:
            self.append_whole(batch)
        except wire.TooLarge:
            self._append_parts(batch, PART_BYTES if not _fits(batch.bodies) else _smaller(batch.bodies))

    def append_whole(self, batch: Batch, packed: wire.Packed | None = None) -> int:
        """Apply a batch once, in one request: for who cuts batches by himself, with a number for each part.

        Args:
            packed: the batch as `packed` gave it; without it, it is packed now.

        Returns:
            The writer's highest number; one above the batch's own is somebody else's of the same name.

        Raises:
            wire.TooLarge: it is too large for one; nothing of it was stored. Else as `append`.
        """
        packed = packed or self.packed(batch)
        if packed is None:
            raise wire.TooLarge(f"a batch of more than {WHOLE_BYTES} bytes or {wire.LIMITS.entries} entries")
        headers = {"Content-Type": wire.BATCH, "Content-Encoding": "zstd", "Content-Digest": packed.digest}
        query = [("prefix", self.prefix)]
        answer = self.connection.send("POST", wire.BATCHES, query, content=packed.body, headers=headers)
        return int(self.connection.decoded(answer.content)["applied"])

    def packed(self, batch: Batch, pace: Callable[[], None] = no_pace) -> wire.Packed | None:
        """The batch as a request's body; None where it is too large for one."""
        if not _fits(batch.bodies):
            return None
        body = compress(wire.encode_batch(replace(batch, tracks=used_tracks(batch)), pace))
        return wire.Packed(batch.writer, batch.number, body, wire.digest(body))

    def _append_parts(self, batch: Batch, part_bytes: int) -> None:
        """Send a batch in parts that are not larger than some bytes, going on behind those that arrived."""
        if self.applied(batch.writer) >= batch.number:
            return
        writer = f"{batch.writer}~{batch.number}~{part_bytes}"
        refused = list[tuple[int, str]]()
        with closing(one_ahead(self._packed_parts(batch, writer, part_bytes, self.applied(writer)))) as found:
            for part, place, packed in found:
                refused += self._append_part(part, place, part_bytes, packed)
        self.forget(writer)
        if refused:
            raise wire.Refused(f"{len(refused)} entries refused: {refused[0][1]}", refused, rest_stored=True)

    def _packed_parts(
        self, batch: Batch, writer: str, part_bytes: int, done: int
    ) -> Generator[tuple[Batch, int, wire.Packed | None], None, None]:
        """The parts behind those that are done, each with the place of its first body and its request.

        The last one goes under the batch's own name: with it the batch has arrived.
        """
        found = parts(batch.bodies, part_bytes)
        part: Part | None = next(found, ([], 0))
        number = 0
        while part is not None:
            number += 1
            following = next(found, None)
            name, its = (writer, number) if following else (batch.writer, batch.number)
            if number > done or following is None:
                made = Batch(name, its, batch.tracks, part[0])
                yield made, part[1], self.packed(made)
            part = following

    def _append_part(
        self, part: Batch, place: int, part_bytes: int, packed: wire.Packed | None
    ) -> list[tuple[int, str]]:
        """Have a part stored; what the server does not take of it, by its place in the whole batch."""
        try:
            self._append_cut(part, part_bytes, packed)
        except wire.Refused as error:
            bad = dict(error.entries) or dict.fromkeys(range(len(part.bodies)), str(error))
            if not error.rest_stored:
                rest = [body for at, body in enumerate(part.bodies) if at not in bad]
                self.append(Batch(part.writer, part.number, part.tracks, rest))
            return [(place + at, reason) for at, reason in bad.items()]
        return []

    def _append_cut(self, part: Batch, part_bytes: int, packed: wire.Packed | None) -> None:
        try:
            self.append_whole(part, packed)
        except wire.TooLarge as error:
            if len(part.bodies) == 1 and _count(part.bodies[0]) == 1:
                raise wire.Refused(f"an entry is too large for the server: {error}", [(0, str(error))]) from None
            self._append_parts(part, max(1, min(part_bytes // SMALLER, _smaller(part.bodies))))

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        return int(self._json("GET", wire.WRITERS, [("writer", writer)])["applied"])

    def still_here(self, writer: str) -> None:
        """The writer has nothing to send and goes on; for two seconds at most, because nothing depends on it."""
        query = [("prefix", self.prefix), ("writer", writer)]
        self.connection.send("PUT", wire.WRITERS, query, timeout_s=STILL_HERE_S)

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
            except Changed:
                time.sleep(random.uniform(0.0, 0.05))
        raise wire.Unavailable(f"document {name!r} of {self.prefix} was changed by others {CHANGES} times in a row")

    def standing(self) -> Standing | None:
        """How the run stands as the server sees it; None where it has no such experiment."""
        answer = self.connection.send("GET", wire.EXPERIMENTS, [("pattern", self.prefix)])
        for found in self.connection.decoded(answer.content)["experiments"]:
            if found["prefix"] == self.prefix:
                return Standing(found["status"], found.get("last_heard"))
        return None

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
    """Whether a batch is worth a try in one request; a single entry is, whatever its size."""
    count = len(bodies) + sum(_count(body) - 1 for body in bodies if is_column_body(body))
    return count <= 1 or (sum(map(len, bodies)) <= WHOLE_BYTES and count <= wire.LIMITS.entries)


def _count(body: bytes) -> int:
    """The number of entries in a body, from its first bytes."""
    if not is_column_body(body):
        return 1
    return uint_at(body, head_bytes(body))


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
