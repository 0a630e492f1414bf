"""What passes between the readers and the recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..formats.arrow_types import ABSENT

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of a unit make a second."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a file; every default is worked out from the file itself.

    Args:
        format: one of `FORMATS`.
        topic: default: the file's name without its ending. Of a wide table: what stands before every topic.
        time: the timestamp's column.
        unit: "s", "ms", "us", "ns" or "iso" (dates as text, UTC where they name no zone).
        groups: vectors to make of columns: `{"p": ("x", "y", "z")}`.
        auto_group: make vectors of columns whose names say so (`x, y, z`, `q_0 ... q_6`); None: for TUM and EuRoC only.
        columns: the columns to keep, before grouping; default: all.
        text: columns that are text even where they look like numbers.
        missing: cells that mean no value; an empty cell always does.
        wide: whether "/" in a column's name separates its topic; default: where every column but the time has one.
        depth: how many parts of such a name are the topic; default: all but the last.
    """

    format: str | None = None
    topic: str | None = None
    time: str | None = None
    unit: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    auto_group: bool | None = None
    columns: tuple[str, ...] | None = None
    text: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wide: bool | None = None
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """Some rows of a file, column by column; ABSENT where a row has no value.

    `row` says where a row is ("line 17"), for messages.
    """

    count: int
    columns: Mapping[str, Sequence[Any]]
    row: Callable[[int], str]


class Source(Protocol):
    """A file that can be read as often as it is needed.

    `units` names the unit of columns where the file itself says it; `left_out` what it holds and is no column.
    """

    format: str
    names: list[str]
    units: Mapping[str, str]
    left_out: Sequence[str]

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The rows in the file's order, some ten thousand at a time; `advance` is told the bytes that were read.

        Raises:
            InvalidFile: a row that cannot be read, named by its line.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one topic, ready for `extend`: every field has a value in every row."""

    topic: str
    times: Sequence[float]
    fields: Mapping[str, Sequence[Any]]


@dataclass(slots=True)
class TopicReport:
    """What a file has for one topic. `repeated`: rows whose timestamp another row has too; they become one entry."""

    topic: str
    rows: int = 0
    repeated: int = 0
    first_timestamp: float | None = None
    last_timestamp: float | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    path: str
    format: str
    time_column: str
    time_unit: str
    topics: list[TopicReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The rows of all topics together."""
        return sum(topic.rows for topic in self.topics)


__all__ = ["ABSENT", "UNITS", "Advance", "Chunk", "Frame", "Options", "Report", "Source", "TopicReport"]
