"""What every store promises. Read this file first: the rest of the package is built on it.

A *store* keeps the tracks of one experiment. The journal in front of it turns appends into
numbered batches; a store applies each batch once. Local files, memory, HTTP and MongoDB keep
the same contract, and one test class (`tests/test_store_contract.py`) holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .errors import InvalidWindow

Entry = dict[str, Any]
"""One entry as it is read: `{"timestamp": float, field: value, ...}`."""

Document = dict[str, Any]
"""A small JSON object, replaced as a whole (params, the run's state)."""

MERGED = "tracks"
"""The kind whose entries merge by timestamp. Entries of every other kind (`metrics`, `logs`)
are a sequence: each is kept, in the order of commit, and its position is its index."""

KINDS = ("tracks", "metrics", "logs")


def fixed_names(kind: str) -> tuple[str, ...]:
    """What every entry of a kind has beside its fields, whatever columns are selected."""
    return ("timestamp",) if kind == MERGED else ("index", "timestamp")


class Track(NamedTuple):
    """The name of one series: its kind (`tracks`, `metrics`, `logs`) and its topic."""

    kind: str
    topic: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries moved together: a range of one writer's journal.

    `number` rises by one with each batch of a writer; the same (writer, number) always means the
    same entries. `bodies` are journal bodies (`entry.py`), whose first element is a key of `tracks`.
    """

    writer: str
    number: int
    tracks: Mapping[int, Track]
    bodies: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a series to read; the default is all of it.

    Args:
        start, end: inclusive bounds in seconds; None leaves that side open. `start > end` selects nothing.
        columns: fields, or dotted parts of them, to keep; an entry with none of them is left out.
        first, limit: for sequences (`metrics`, `logs`), which `start` and `end` do not concern: index of the first
            entry, and how many at most, counted before columns are selected.
    """

    start: float | None = None
    end: float | None = None
    columns: tuple[str, ...] | None = None
    first: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """What is known of one track: `tracks.list()` gives these.

    `columns` maps each field to its type name ("float", "int", "bool", "str", "null", "list[float; 7]",
    "list[...]", "dict"; several joined by " | "). `size_bytes` is what the entries occupy in the store. `late` counts
    the entries of a `tracks` series that came from their writer with a timestamp below the one before, `repeated`
    those that had the one before's timestamp and gave a field of it again; None where the store does not know.
    `revision` is an opaque text: another one after every append, correction and deletion, so that the same one says
    that nothing has changed since. It may change without them (a file is compacted, copied or touched), and means
    nothing to another store; "" where the store does not know.
    """

    topic: str
    count: int
    first_timestamp: float | None
    last_timestamp: float | None
    columns: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    late: int | None = None
    repeated: int | None = None
    revision: str = ""


def check_removable(track: Track) -> None:
    """A window can be deleted from tracks only; raises InvalidWindow."""
    if track.kind != MERGED:
        text = f"{track.kind} {track.topic!r} is a sequence: without a part of it the indexes behind would move"
        raise InvalidWindow(f"{text}; delete all of it, or nothing")


class Store(Protocol):
    """Keeps the series and documents of one experiment.

    Guarantees of every store:
        * `append` is atomic, durable on return, and idempotent by `(batch.writer, batch.number)`.
        * Entries of a `tracks` series with one timestamp are one entry; for each field the later append
          wins; later means batch order as committed, and order within the batch.
        * `read` of a `tracks` series ascends by timestamp, strictly; of other kinds it follows the index.
        * Safe to use from several threads.
    """

    def append(self, batch: Batch) -> None:
        """Apply a batch once.

        Raises:
            StoreUnavailable: a retry may help. OSError: a full disk.
            CopiedWriter: the writer's highest number came with other entries; told where writers are other machines.
        """
        ...

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        ...

    def forget(self, writer: str) -> None:
        """The writer is finished and will never send a batch again; its number need not be kept."""
        ...

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order; nothing for an unknown series. Sequences carry their `index`."""
        ...

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic."""
        ...

    def remove(self, track: Track) -> None:
        """Delete a series with all its entries; an unknown one is no error."""
        ...

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """Delete the entries of a `tracks` series in [start, end]; a side that is None is open.

        Durable on return. A batch that was applied before and comes again brings nothing back; what is appended later
        stays, whatever its timestamp. A track without entries is none.

        Raises:
            InvalidWindow: the series is a sequence, whose indexes would move.
        """
        ...

    def read_document(self, name: str) -> Document | None:
        """A small document (`experiment`, `params`), or None."""
        ...

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document as a whole by `change` of what it is now (None where it does not exist).

        Atomic against other writers and durable on return; `change` may be called more than once. Returns the new
        document.
        """
        ...

    def close(self) -> None:
        """Release what is held open; further use raises NotOpen."""
        ...
