"""One stream to one server: frozen batches, and what to do with a batch that the server does not take.

Every batch's range and number are written down before the first attempt, so a number always means the same entries and
an attempt whose answer was lost can be made again. A batch that cannot go as it is goes on under a new number:

    the server names bad entries    those to the dead letters, the others again
    another batch had this number   a copied spool: all of it again under a new writer id
    too large                       in halves; what follows is cut no larger
    nothing but errors of its own   in halves, until the entry that it fails on is alone; that one to the dead letters
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from . import wire
from .ahead import one_ahead
from .batches import LARGE_BODY, Group, apart
from .errors import CopiedWriter, StoreUnavailable
from .journal_files import Mark
from .journal_reader import Piece, Stream
from .spool import Sent, read_sent, write_dead_letters, write_sent
from .store import Batch, Store, Track

BATCH_ENTRIES, BATCH_BYTES = 2_000, 1 << 20
BACKLOG_ENTRIES, BACKLOG_BYTES = 28_000, 8 << 20
"""How large batches are while there is a backlog."""
PATIENCE = 4
"""Errors of the server's own that one batch meets before it is cut in half."""
_FAULTS = (400, 404, 405, 415, 500)

log = logging.getLogger("ml_dash")


class Range(NamedTuple):
    """Bodies that follow each other in a stream, and where each ends: a segment's number and an offset in it.

    Plain numbers: a mark for each entry is a tuple that the cyclic collector walks while a control loop waits.
    """

    start: Mark
    bodies: list[bytes]
    segments: list[int]
    ends: list[int]

    @property
    def end(self) -> Mark:
        """Behind the last body."""
        return Mark(self.segments[-1], self.ends[-1])

    def half(self) -> Range:
        """The first half."""
        middle = len(self.bodies) // 2
        return Range(self.start, self.bodies[:middle], self.segments[:middle], self.ends[:middle])


class Sender:
    """Sends streams to a store: one at a time, one batch at a time.

    With a backlog the next batch is read, cut and packed while one is under way; it is frozen, and sent, only once that
    one has arrived, so there is never more than one batch whose fate is open.

    Args:
        store: the server.
        letters: folder of the dead letters.
        durable: whether what is frozen survives a power cut.
        pace: called between pieces of work so that other threads can run.
        stopping: whether to end after the batch that is under way.
    """

    def __init__(
        self,
        store: Store,
        letters: Path,
        *,
        durable: bool = True,
        pace: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._letters, self._durable = store, letters, durable
        self._pace, self._stopping = pace, stopping
        self._settled: dict[Path, Sent] = {}
        self._known: dict[Path, Mark] = {}
        self._faults: dict[tuple[Path, Mark], int] = {}
        self._most: dict[Path, int] = {}
        self._bytes = BACKLOG_BYTES
        self._given_up = False
        self.refused = self.delivered = self.renamed = 0

    def acknowledged(self, stream: Stream) -> Mark:
        """Up to where this sender knows the stream to be on the server."""
        return self._known.get(stream.path, Mark(0, 0))

    def sender_of(self, stream: Stream) -> str:
        """The writer's id under which the stream is sent."""
        sent = self._settled.get(stream.path)
        return sent.writer if sent is not None else read_sent(stream).writer or stream.writer

    def send(self, stream: Stream, end: Mark | None, soft: Mark | None, *, backlog: bool = False) -> None:
        """Send a stream up to `end` (living), or all that is readable (dead); with `soft` up to the instant behind it.

        Raises:
            StoreUnavailable: try again later; what arrived is noted.
            Unauthorized: the token is not good for it.
        """
        tracks = stream.tracks()
        try:
            sent = self._settled.get(stream.path) or self._settle(stream, tracks)
            while not self._send_from(stream, tracks, sent, end, soft, backlog):
                sent = self._settled[stream.path]
        except BaseException:
            self._settled.pop(stream.path, None)  # whether the last batch arrived has to be found out
            raise

    def _send_from(
        self, stream: Stream, tracks: Mapping[int, Track], sent: Sent, end: Mark | None, soft: Mark | None, late: bool
    ) -> bool:
        """Send what follows a batch; False where a batch was cut and the rest has to be looked at anew."""
        entries, size = (BACKLOG_ENTRIES, BACKLOG_BYTES) if late else (BATCH_ENTRIES, BATCH_BYTES)
        entries = min(entries, self._most.get(stream.path, entries))
        if soft is not None and sent.end >= soft:
            return True
        cut = ranges(stream, sent.end, end, soft, entries, min(size, self._bytes), self._pace)
        ready = self._packed(cut, tracks, sent)
        with closing(one_ahead(ready) if late else ready) as found:
            for one, packed in found:
                sent = self._deliver(stream, tracks, one, self._freeze(stream, one, sent), packed)
                if self._stopping():
                    return True
                if sent.end != one.end or stream.path in self._most:
                    return False
        return True

    def _packed(
        self, cut: Iterator[Range], tracks: Mapping[int, Track], sent: Sent
    ) -> Generator[tuple[Range, wire.Packed | None], None, None]:
        """Each range with its request, under the number it gets when all before it go well."""
        pack: Callable[..., wire.Packed | None] = getattr(self._store, "packed", lambda batch, pace: None)
        for number, one in enumerate(cut, start=sent.number + 1):
            yield one, pack(Batch(sent.writer, number, tracks, one.bodies), self._pace)

    # -------------------------------------------------------------- going on where somebody stopped

    def _settle(self, stream: Stream, tracks: Mapping[int, Track]) -> Sent:
        """Have the batch that was sent last on the server for certain, and say how far the stream is."""
        sent = read_sent(stream)
        if self._store.applied(sent.writer) > sent.number:
            # Numbers that this stream never gave: its spool was copied, or what it knew of itself is lost.
            sent = self._renamed(stream, sent.start)
        elif sent.number:
            sent = self._send_again(stream, tracks, sent)
        self._settled[stream.path], self._known[stream.path] = sent, sent.end
        return sent

    def _renamed(self, stream: Stream, start: Mark) -> Sent:
        self.renamed += 1
        log.warning(
            "%s was used by another sender as well (its files were copied); sending goes on under another name: entries"
            " that both send merge in tracks, and are twice in metrics and logs",
            stream.writer,
        )
        return Sent(0, start, start, f"{stream.writer}.{secrets.token_hex(6)}")

    def _send_again(self, stream: Stream, tracks: Mapping[int, Track], sent: Sent) -> Sent:
        """The frozen batch once more: the server knows whether it has it, and whether it is another one."""
        one = Range(sent.start, [], [], [])
        for piece in stream.pieces(sent.start, sent.end, living=False):
            one.bodies.extend(piece.bodies)
            one.segments.extend([piece.segment] * len(piece.ends))
            one.ends.extend(piece.ends)
        if not one.bodies:
            return sent  # its segments are gone, which they are only once it has arrived
        return self._deliver(stream, tracks, one, sent)

    # -------------------------------------------------------------- one batch

    def _freeze(self, stream: Stream, one: Range, last: Sent, without: tuple[int, ...] = ()) -> Sent:
        """Write down what the number after the last one means."""
        sent = Sent(last.number + 1, one.start, one.end, last.writer, without)
        write_sent(stream, sent, durable=self._durable)
        return sent

    def _deliver(
        self, stream: Stream, tracks: Mapping[int, Track], one: Range, sent: Sent, packed: wire.Packed | None = None
    ) -> Sent:
        """Get a frozen batch to the server, or the part of it that can be had; what arrived is returned."""
        first = sent
        while True:
            left = one.bodies
            if sent.without:
                left = [body for place, body in enumerate(one.bodies) if place not in sent.without]
            try:
                if left:
                    self._append(Batch(sent.writer, sent.number, tracks, left), packed if sent is first else None)
                return self._arrived(stream, one, sent, len(left))
            except wire.TooLarge:
                one, sent = self._in_halves(stream, one, sent)
            except wire.Refused as error:
                sent = self._without_bad(stream, tracks, one, sent, error)
            except CopiedWriter:
                sent = self._freeze(stream, one, self._renamed(stream, one.start), sent.without)
            except (StoreUnavailable, ValueError, LookupError, TypeError) as error:
                one, sent = self._after_fault(stream, tracks, one, sent, error)

    def _append(self, batch: Batch, packed: wire.Packed | None) -> None:
        """Send a batch, whole: its parts get numbers of their own here, so that one with bad entries is no trouble."""
        whole = getattr(self._store, "append_whole", None)
        ready = packed is not None and (packed.writer, packed.number) == (batch.writer, batch.number)
        try:
            if whole is None:
                highest = batch.number
            else:
                highest = whole(batch, packed) if ready else whole(batch)
        except wire.TooLarge:
            if len(batch.bodies) > 1:
                raise
            whole, highest = None, batch.number
        if whole is None:
            self._store.append(batch)
        elif highest > batch.number:  # a repetition to the server; but this sender has one batch under way at a time
            raise CopiedWriter(f"writer {batch.writer} is at batch {highest} already, this is {batch.number}")

    def _in_halves(self, stream: Stream, one: Range, sent: Sent) -> tuple[Range, Sent]:
        """The first half of a batch that is too large, under a new number; the batches that follow are no larger."""
        if self._store.applied(sent.writer) >= sent.number:
            return one, _nothing_left(one, sent)  # it had arrived, when the server took more
        half = one.half()
        self._bytes = min(self._bytes, max(1, sum(map(len, half.bodies))))
        return half, self._freeze(stream, half, sent, _places(sent, half))

    def _arrived(self, stream: Stream, one: Range, sent: Sent, count: int) -> Sent:
        self._settled[stream.path], self._known[stream.path] = sent, sent.end
        self._faults.pop((stream.path, one.start), None)
        if count:
            self._given_up = False
            self.delivered += count
        most = self._most.get(stream.path, BATCH_ENTRIES)
        if most < BATCH_ENTRIES:
            self._most[stream.path] = most * 2
        else:
            self._most.pop(stream.path, None)
        return sent

    # -------------------------------------------------------------- what the server does not take

    def _without_bad(
        self, stream: Stream, tracks: Mapping[int, Track], one: Range, sent: Sent, error: wire.Refused
    ) -> Sent:
        """Set the named entries aside, and freeze the others under a new number."""
        places = [place for place in range(len(one.bodies)) if place not in sent.without]
        named = {places[at]: reason for at, reason in error.entries if 0 <= at < len(places)}
        if not named:
            named = dict.fromkeys(places, str(error))
        self._set_aside(stream, tracks, one, named)
        return self._freeze(stream, one, sent, tuple(sorted({*sent.without, *named})))

    def _set_aside(self, stream: Stream, tracks: Mapping[int, Track], one: Range, named: dict[int, str]) -> None:
        bodies = [one.bodies[place] for place in named]
        write_dead_letters(self._letters, stream, tracks, bodies, list(named.values()))
        self.refused += len(named)
        first = next(iter(named.values()))
        log.error("the server refused %d entries, kept in %s: %s", len(named), self._letters, first)

    def _after_fault(
        self, stream: Stream, tracks: Mapping[int, Track], one: Range, sent: Sent, error: Exception
    ) -> tuple[Range, Sent]:
        """Raise, to be tried again later; or give the half of a batch that meets nothing but errors of its own."""
        status = getattr(error, "status", 400 if not isinstance(error, StoreUnavailable) else 0)
        place = (stream.path, one.start)
        self._faults[place] = self._faults.get(place, 0) + 1 if status in _FAULTS else 0
        if self._faults[place] < PATIENCE:
            raise _again(error) from error
        if self._store.applied(sent.writer) >= sent.number:
            return one, _nothing_left(one, sent)  # it had arrived
        self._faults[place] = 0
        if len(one.bodies) > 1:
            half = one.half()
            self._most[stream.path] = len(half.bodies)
            return half, self._freeze(stream, half, sent, _places(sent, half))
        if self._given_up:  # the second one in a row: it is the server that is ill, not the entries
            raise _again(error) from error
        self._given_up = True
        self._set_aside(stream, tracks, one, {0: str(error)})
        return one, self._freeze(stream, one, sent, (0,))


def _nothing_left(one: Range, sent: Sent) -> Sent:
    """The batch as one of which nothing has to be sent any more."""
    return replace(sent, without=tuple(range(len(one.bodies))))


def _places(sent: Sent, half: Range) -> tuple[int, ...]:
    """Which bodies of the first half are left out."""
    return tuple(place for place in sent.without if place < len(half.bodies))


def _again(error: Exception) -> StoreUnavailable:
    """The error as one that is tried again later."""
    if isinstance(error, StoreUnavailable):
        return error
    return wire.Unavailable(f"{type(error).__name__}: {error}", status=400)


def undelivered_from(stream: Stream, store: Store) -> tuple[Mark, str]:
    """Where the part of a stream begins that a server does not have, and a text that changes whenever that does."""
    sent = read_sent(stream)
    if sent.number == 0:
        return sent.start, f"{stream.writer} 0"
    applied = store.applied(sent.writer)
    return (sent.end if applied >= sent.number else sent.start), f"{sent.writer} {applied} {sent.number}"


# ---------------------------------------------------------------- cutting


def ranges(
    stream: Stream,
    start: Mark,
    end: Mark | None,
    soft: Mark | None,
    entries: int,
    size: int,
    pace: Callable[[], None],
) -> Iterator[Range]:
    """What follows `start` in ranges of about so many entries and bytes, cut between two instants where possible."""
    cutter = _Cutter(start)
    for piece in stream.pieces(start, end, living=end is not None):
        pace()
        for part in apart(piece):
            if len(part.bodies) == 1 and len(part.bodies[0]) >= LARGE_BODY:
                yield from cutter.all()
                cutter.add(part)
                yield from cutter.all()
                continue
            cutter.add(part)
            while cutter.is_full(entries, size) or (soft is not None and cutter.group.mark > soft):
                found = cutter.cut(entries, size, soft, pace)
                if found is None:
                    break
                yield found
                if soft is not None and found.end >= soft:
                    return
    if soft is None:
        yield from cutter.all()
    elif (found := cutter.cut(0, 0, soft, pace, hurry=True)) is not None:
        yield found


class _Cutter:
    """A group with the end of each body."""

    def __init__(self, start: Mark) -> None:
        self.group = Group(start)
        self._segments: list[int] = []
        self._ends: list[int] = []

    def add(self, piece: Piece) -> None:
        self.group.extend(piece.segment, piece.bodies, piece.ends)
        self._segments += [piece.segment] * len(piece.ends)
        self._ends += piece.ends

    def is_full(self, entries: int, size: int) -> bool:
        return self.group.size >= size or len(self.group.bodies) >= entries

    def cut(
        self, entries: int, size: int, soft: Mark | None, pace: Callable[[], None], *, hurry: bool = False
    ) -> Range | None:
        if not self.group.bodies:
            return None
        if len(self.group.bodies) >= entries > 0:
            size = min(size, sum(map(len, self.group.bodies[:entries])))
        count = self.group.cut(size, soft, pace, hurry=hurry)
        return self._take(count) if count else None

    def all(self) -> Iterator[Range]:
        if self.group.bodies:
            yield self._take(len(self.group.bodies))

    def _take(self, count: int) -> Range:
        start = self.group.start
        bodies, _ = self.group.take(count)
        segments, self._segments = self._segments[:count], self._segments[count:]
        ends, self._ends = self._ends[:count], self._ends[count:]
        return Range(start, bodies, segments, ends)
