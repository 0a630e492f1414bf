"""A batch's bodies by series and in small ascending pieces: the step every store that looks at entries shares.

Most batches hold entries that ascend already. Their timestamps are read from the bodies' first bytes, and the entries
are decoded a few at a time and let go again; only what is out of order is held together and merged.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, NamedTuple

from ..blocks import Blocks, blocks_of, used_tracks
from ..columns import ascending_texts, expand, in_order, times_of
from ..entry import decode_bodies, decode_body, head_bytes, track_number
from ..line import to_lines
from ..store import Batch, Track

Timed = tuple[float, dict[str, Any]]
"""A timestamp and its fields, as decoded from a body."""

PACE_EVERY = 32
"""Entries between two calls of `pace`: some tens of microseconds of work with the interpreter lock held."""

_ENTRY, _COLUMNS, _FLOAT64 = 0x93, 0x94, 0xCB
_read_float = struct.Struct(">d").unpack_from


def no_pace() -> None:
    """Work at full speed."""


def is_column_body(body: bytes) -> bool:
    """Whether a raw body holds whole columns rather than one entry."""
    return body[0] == _COLUMNS


def timestamp_of(body: bytes) -> float | None:
    """The timestamp of an entry's body without decoding the rest; None for whole columns."""
    at = head_bytes(body)
    if body[0] != _ENTRY or body[at] != _FLOAT64:
        return None
    return float(_read_float(body, at + 1)[0])


def checksum(batch: Batch) -> str:
    """Tells two batches of one number apart: by their bodies, in whichever form they came, and the series of these.

    Many bodies are looked at in blocks, as they come over the network: taking these apart takes three times as long.
    """
    import hashlib

    digest = hashlib.blake2b(digest_size=12)
    for number, track in sorted(used_tracks(batch).items()):
        digest.update(f"{number}\0{track.kind}\0{track.topic}\n".encode())
    for part in _told_by(batch.bodies):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _told_by(bodies: Sequence[bytes]) -> Sequence[bytes]:
    """What makes bodies these and no others."""
    found = bodies if isinstance(bodies, Blocks) else blocks_of(bodies)
    if found is None:
        return bodies
    counts = b" ".join(b"%d" % block.count for block in found.blocks)
    return [b"blocks", counts, found.order, *(block.columns for block in found.blocks)]


def grouped(batch: Batch, pace: Callable[[], None] = no_pace) -> dict[Track, list[bytes]]:
    """The raw bodies of each series, in the order of the batch.

    Raises:
        LookupError: a body names a track that the batch does not.
    """
    groups: dict[int | bytes, list[bytes]] = {}
    for first in range(0, len(batch.bodies), 8 * PACE_EVERY):
        pace()
        for body in batch.bodies[first : first + 8 * PACE_EVERY]:
            mark: int | bytes = body[1]
            if body[1] >= 0x80:
                mark = body[1 : head_bytes(body)]
            group = groups.get(mark)
            if group is None:
                groups[mark] = [body]
            else:
                group.append(body)
    found = {batch.tracks[track_number(bodies[0])]: bodies for bodies in groups.values()}
    return found if len(found) == len(groups) else _by_track(batch)


def _by_track(batch: Batch) -> dict[Track, list[bytes]]:
    """The same where a series has several numbers."""
    found: dict[Track, list[bytes]] = {}
    for body in batch.bodies:
        found.setdefault(batch.tracks[track_number(body)], []).append(body)
    return found


def timed(bodies: Sequence[bytes], pace: Callable[[], None] = no_pace) -> Iterator[list[Timed]]:
    """The entries of one series' bodies in order, a few at a time."""
    for run in _runs(bodies):
        if is_column_body(run[0]):
            yield from expand(decode_body(run[0]))
        else:
            yield from _decoded(run, pace)


class Lines(NamedTuple):
    """Lines of a data file whose timestamps ascend strictly."""

    text: bytes
    first: float
    last: float
    entries: int


class Arrivals:
    """Counts what did not come in order, before it is sorted and nobody can see it any more.

    Args:
        newest: the timestamp that came last before these; None where nothing came.
    """

    def __init__(self, newest: float | None = None) -> None:
        self.newest, self.late, self.repeated = newest, 0, 0
        self._fields: AbstractSet[str] = frozenset()

    def ascending(self, lines: Lines) -> None:
        """Lines that came as they are."""
        self._one(lines.first, frozenset())
        self.newest = lines.last

    def all(self, entries: Sequence[Timed]) -> None:
        """Entries in the order they came in."""
        for timestamp, fields in entries:
            self._one(timestamp, fields.keys())

    def stamps(self, times: Sequence[float], fields: AbstractSet[str]) -> None:
        """Entries with the same fields, in the order they came in."""
        for timestamp in times:
            self._one(timestamp, fields)

    def _one(self, timestamp: float, fields: AbstractSet[str]) -> None:
        if self.newest is not None and timestamp <= self.newest:
            self.late += timestamp < self.newest
            self.repeated += timestamp == self.newest and not self._fields.isdisjoint(fields)
        self.newest, self._fields = timestamp, fields


def ascending_lines(
    bodies: Sequence[bytes], pace: Callable[[], None] = no_pace, arrivals: Arrivals | None = None
) -> Iterator[Lines]:
    """The lines of one series' bodies a few at a time, merged and ascending within each run of entries.

    Runs (single entries, or slices of one column body) follow each other in the order of the batch.
    """
    arrivals = Arrivals() if arrivals is None else arrivals
    for run in _runs(bodies):
        pace()
        if is_column_body(run[0]):
            yield from _column_lines(decode_body(run[0]), pace, arrivals)
        elif _ascends(run, pace):
            for place, entries in enumerate(_decoded(run, pace)):
                bodies_of = run[place * PACE_EVERY : (place + 1) * PACE_EVERY]
                lines = Lines(to_lines(entries, bodies_of), entries[0][0], entries[-1][0], len(entries))
                arrivals.ascending(lines)
                yield lines
        else:
            yield from _merged_lines([entry for piece in _decoded(run, pace) for entry in piece], pace, arrivals)


def _column_lines(body: list[Any], pace: Callable[[], None], arrivals: Arrivals) -> Iterator[Lines]:
    """As text straight from the arrays where that is exact, else entry by entry."""
    texts = ascending_texts(body)
    if texts is None:
        times = times_of(body)
        if not all(map(operator.le, times, times[1:])):  # sorted as a whole: slices would all overlap
            arrivals.stamps(times, body[3].keys())
            arrivals = Arrivals()
            body = in_order(body, times)
            texts = ascending_texts(body)
    if texts is None:
        for entries in expand(body):
            yield from _merged_lines(entries, pace, arrivals)
        return
    for lines in map(Lines._make, texts):
        pace()
        arrivals.ascending(lines)
        yield lines


def _merged_lines(entries: Sequence[Timed], pace: Callable[[], None], arrivals: Arrivals) -> Iterator[Lines]:
    arrivals.all(entries)
    ordered = merged(entries)
    for first in range(0, len(ordered), PACE_EVERY):
        pace()
        piece = ordered[first : first + PACE_EVERY]
        yield Lines(to_lines(piece), piece[0][0], piece[-1][0], len(piece))


def _runs(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Column bodies by themselves, the entries between them together."""
    apart = [place for place, body in enumerate(bodies) if body[0] == _COLUMNS]
    start = 0
    for place in apart:
        if place > start:
            yield bodies[start:place]
        yield bodies[place : place + 1]
        start = place + 1
    if start < len(bodies):
        yield bodies[start:] if start else bodies


def _ascends(run: Sequence[bytes], pace: Callable[[], None]) -> bool:
    """Whether the timestamps of one series' entries ascend strictly, from the bodies' first bytes."""
    at = head_bytes(run[0])
    newest = float("-inf")
    for first in range(0, len(run), 8 * PACE_EVERY):
        pace()
        part = run[first : first + 8 * PACE_EVERY]
        if {body[at] for body in part} != {_FLOAT64}:
            return False
        stamps = [_read_float(body, at + 1)[0] for body in part]
        if stamps[0] <= newest or not all(map(operator.lt, stamps, stamps[1:])):
            return False
        newest = stamps[-1]
    return True


def _decoded(bodies: Sequence[bytes], pace: Callable[[], None]) -> Iterator[list[Timed]]:
    for first in range(0, len(bodies), PACE_EVERY):
        pace()
        yield [(stamp, fields) for _, stamp, fields in decode_bodies(bodies[first : first + PACE_EVERY])]


def merged(entries: Sequence[Timed]) -> list[Timed]:
    """Ascending, one per timestamp; for each field the later one wins."""
    if all(a[0] < b[0] for a, b in pairwise(entries)):
        return list(entries)
    united: dict[float, dict[str, Any]] = {}
    for timestamp, fields in entries:
        known = united.get(timestamp)
        united[timestamp] = fields if known is None else {**known, **fields}
    return sorted(united.items(), key=_timestamp)


def _timestamp(entry: Timed) -> float:
    return entry[0]
