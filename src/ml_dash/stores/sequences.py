"""Lines of logs and metrics. They do not merge, so a batch that comes again must find no line of its own there.

Before the first line of a batch is written, `.state` says where its lines will be. Whoever finds that note takes them
out again before anything else is appended: the batch comes again, perhaps with others before it. Where the state was
lost nobody knows whose lines are there; a writer's first batch afterwards leaves out those that are there already.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..line import to_line
from .datafile import DataFile
from .grouping import timed
from .state import Attempt, State

_CHECKED_BYTES = 256

Stamped = tuple[float, bytes]
"""When a line was logged, and the line."""


class Waiting(NamedTuple):
    """What a batch brings for one sequence."""

    file: DataFile
    lines: Sequence[Stamped]


def lines_of(bodies: Sequence[bytes], pace: Callable[[], None]) -> list[Stamped]:
    """The lines of one sequence's bodies, in order."""
    return [(stamp, to_line(stamp, fields)) for entries in timed(bodies, pace) for stamp, fields in entries]


def take_back(state: State, file_of: Callable[[str], DataFile]) -> State:
    """Remove what a crashed attempt wrote; lines that somebody added behind it stay. The state without the attempt."""
    for name, attempt in state.attempt.items():
        file = file_of(name)
        # A file that somebody has edited before that place is left alone: better a line twice than one lost.
        if file.size() > attempt.start and _checksum(file, attempt.start) == attempt.crc:
            file.cut(attempt.start, attempt.end)
    return replace(state, attempt={}) if state.attempt else state


def begin(state: State, writer: str, waiting: Mapping[str, Waiting]) -> tuple[State, dict[str, Sequence[Stamped]]]:
    """The state to write before the first line of a batch, and the lines that are to be written to each file."""
    sequences, unsure = dict(state.sequences), dict(state.unsure)
    attempt: dict[str, Attempt] = {}
    lines: dict[str, Sequence[Stamped]] = {}
    for name, (file, stamped) in waiting.items():
        file.heal()
        size = file.size()
        if sequences.setdefault(name, size) == size and name not in state.sequences and size:
            unsure[name] = size
        lines[name] = stamped
        if name in unsure and writer not in state.writers:
            lines[name] = _without(stamped, file.read(0, unsure[name]).splitlines(keepends=True))
        end = size + sum(len(line) for _, line in lines[name])
        attempt[name] = Attempt(size, end, _checksum(file, size))
    return state.next(sequences=sequences, unsure=unsure, attempt=attempt), lines


def _checksum(file: DataFile, place: int) -> int:
    """Of the bytes before a place."""
    start = max(0, place - _CHECKED_BYTES)
    return zlib.crc32(file.read(start, place))


def _without(lines: Iterable[Stamped], known: Iterable[bytes]) -> list[Stamped]:
    """The lines that are not there already; one that is there once is left out once."""
    there = Counter(known)
    fresh = []
    for stamp, line in lines:
        if there[line] > 0:
            there[line] -= 1
        else:
            fresh.append((stamp, line))
    return fresh
