"""A batch's bodies by series and in small ascending pieces: the step every store that looks at entries shares.

Most batches hold entries that ascend already. Their timestamps are read from the bodies' first bytes, and the entries
are decoded a few at a time and let go again; only what is out of order is held together and merged.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from ..columns import expand
from ..entry import decode_bodies, decode_body
from ..store import Batch, Track

Timed = tuple[float, dict[str, Any]]
"""A timestamp and its fields, as decoded from a body."""

PACE_EVERY = 32
"""Entries between two calls of `pace`: some tens of microseconds of work with the interpreter lock held."""

_ENTRY, _COLUMNS, _FLOAT64 = 0x93, 0x94, 0xCB
_UINT_WIDTH = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_read_float = struct.Struct(">d").unpack_from


def no_pace() -> None:
    """Work at full speed."""


def head_bytes(body: bytes) -> int:
    """How many bytes of a body come before its second element: the array's mark and the track's number."""
    return 2 + _UINT_WIDTH.get(body[1], 0)


def track_number(body: bytes) -> int:
    """The track number of a body without decoding it."""
    width = _UINT_WIDTH.get(body[1], 0)
    return int.from_bytes(body[2 : 2 + width], "big") if width else body[1]


def is_column_body(body: bytes) -> bool:
    """Whether a raw body holds whole columns rather than one entry."""
    return body[0] == _COLUMNS


def timestamp_of(body: bytes) -> float | None:
    """The timestamp of an entry's body without decoding the rest; None for whole columns."""
    at = head_bytes(body)
    if body[0] != _ENTRY or body[at] != _FLOAT64:
        return None
    return float(_read_float(body, at + 1)[0])


def grouped(batch: Batch, pace: Callable[[], None] = no_pace) -> dict[Track, list[bytes]]:
    """The raw bodies of each series, in the order of the batch.

    Raises:
        LookupError: a body names a track that the batch does not.
    """
    groups: dict[bytes, list[bytes]] = {}
    for first in range(0, len(batch.bodies), 8 * PACE_EVERY):
        pace()
        for body in batch.bodies[first : first + 8 * PACE_EVERY]:
            mark = body[1:2] if body[1] < 0x80 else body[1 : head_bytes(body)]
            group = groups.get(mark)
            if group is None:
                groups[mark] = [body]
            else:
                group.append(body)
    return {batch.tracks[track_number(bodies[0])]: bodies for bodies in groups.values()}


def timed(bodies: Sequence[bytes], pace: Callable[[], None] = no_pace) -> Iterator[list[Timed]]:
    """The entries of one series' bodies in order, a few at a time."""
    run: list[bytes] = []
    for body in bodies:
        if is_column_body(body):
            yield from _decoded(run, pace)
            run = []
            yield from expand(decode_body(body))
        else:
            run.append(body)
    yield from _decoded(run, pace)


def ascending(bodies: Sequence[bytes], pace: Callable[[], None] = no_pace) -> Iterator[list[Timed]]:
    """The entries of one series' bodies a few at a time, merged and ascending within each run of entries.

    Runs (single entries, or a slice of one column body) follow each other in the order of the batch.
    """
    for columns, run in _runs(bodies):
        if columns:
            for entries in expand(decode_body(run[0])):
                yield from _pieces(merged(entries), pace)
            continue
        pace()
        if _ascends(run):
            yield from _decoded(run, pace)
        else:
            yield from _pieces(merged([entry for piece in _decoded(run, pace) for entry in piece]), pace)


def _ascends(run: list[bytes]) -> bool:
    """Whether the timestamps of one series' entries ascend strictly, from the bodies' first bytes."""
    at = head_bytes(run[0])
    if {body[at] for body in run} != {_FLOAT64}:
        return False
    stamps = [_read_float(body, at + 1)[0] for body in run]
    return all(map(operator.lt, stamps, stamps[1:]))


def _runs(bodies: Sequence[bytes]) -> Iterator[tuple[bool, list[bytes]]]:
    run: list[bytes] = []
    for body in bodies:
        if body[0] == _COLUMNS:
            if run:
                yield False, run
                run = []
            yield True, [body]
        else:
            run.append(body)
    if run:
        yield False, run


def _decoded(bodies: Sequence[bytes], pace: Callable[[], None]) -> Iterator[list[Timed]]:
    for first in range(0, len(bodies), PACE_EVERY):
        pace()
        yield [(stamp, fields) for _, stamp, fields in decode_bodies(bodies[first : first + PACE_EVERY])]


def _pieces(entries: list[Timed], pace: Callable[[], None]) -> Iterator[list[Timed]]:
    for first in range(0, len(entries), PACE_EVERY):
        pace()
        yield entries[first : first + PACE_EVERY]


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
