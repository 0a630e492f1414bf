"""A batch's bodies by series: the step every store that looks at entries shares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..columns import expand, is_columns
from ..entry import decode_body
from ..store import Batch, Track

Timed = tuple[float, dict[str, Any]]
"""A timestamp and its fields, as decoded from a body."""

PACE_EVERY = 16
"""Bodies between two calls of `pace`: some tens of microseconds of work with the interpreter lock held."""


def no_pace() -> None:
    """Work at full speed."""


def grouped(batch: Batch, pace: Callable[[], None] = no_pace) -> dict[Track, list[list[Any]]]:
    """The decoded bodies of each series, in the order of the batch."""
    groups: dict[int, list[list[Any]]] = {}
    for count, raw in enumerate(batch.bodies):
        if count % PACE_EVERY == 0:
            pace()
        body = decode_body(raw)
        group = groups.get(body[0])
        if group is None:
            group = groups[body[0]] = []
        group.append(body)
    return {batch.tracks[track_id]: bodies for track_id, bodies in groups.items()}


def timed(bodies: Sequence[list[Any]]) -> Iterator[list[Timed]]:
    """The entries of one series' bodies in order: single entries together, column bodies in slices."""
    run: list[Timed] = []
    for body in bodies:
        if not is_columns(body):
            run.append((body[1], body[2]))
            continue
        if run:
            yield run
            run = []
        yield from expand(body)
    if run:
        yield run


def merged(entries: Sequence[Timed]) -> list[Timed]:
    """Ascending, one per timestamp; for each field the later one wins."""
    if all(a[0] < b[0] for a, b in itertools.pairwise(entries)):
        return list(entries)
    united: dict[float, dict[str, Any]] = {}
    for timestamp, fields in entries:
        known = united.get(timestamp)
        united[timestamp] = fields if known is None else {**known, **fields}
    return sorted(united.items(), key=_timestamp)


def _timestamp(entry: Timed) -> float:
    return entry[0]
