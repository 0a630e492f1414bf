"""A recording from one store to another, in frozen batches: interrupted anywhere and called again, it goes on.

What is frozen before a batch is sent, and how far each series is, lies in the user's state folder. A series that was
moved before is continued behind its last entry; a track that changed in between is sent again as a whole, which merges.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

from . import wire
from .entry import encode_body
from .errors import CopiedWriter, InvalidEntry, MlDashError
from .files import FILES, Files
from .remote import combined_params, combined_run
from .spool import state_folder
from .store import KINDS, MERGED, Batch, Document, Entry, Store, Track, TrackInfo, Window

BATCH_ENTRIES, BATCH_BYTES = 2_000, 1 << 20

Progress = Callable[[Track, int, int], None]
"""Called with a series, how many entries of it are there, and how many there will be."""


class AlreadyThere(MlDashError):
    """A sequence that has other entries there than here: what is here cannot be put behind or among them."""


@dataclass(slots=True)
class Place:
    """How far one series is: behind which timestamp, or before which index; and what it was when it was whole."""

    behind: float | None = None
    index: int = 0
    whole: list[Any] | None = None


@dataclass(slots=True)
class Ledger:
    """What is known of one transfer, on disk."""

    path: Path
    writer: str = ""
    number: int = 0
    frozen: list[Any] | None = None
    places: dict[str, Place] = field(default_factory=dict)
    files: Files = FILES

    def place(self, track: Track) -> Place:
        """How far a series is."""
        return self.places.setdefault(f"{track.kind}/{track.topic}", Place())

    def write(self) -> None:
        """Keep it, durably."""
        value = {
            "writer": self.writer,
            "number": self.number,
            "frozen": self.frozen,
            "places": {name: [p.behind, p.index, p.whole] for name, p in self.places.items()},
        }
        self.files.make_folder(self.path.parent)
        self.files.write_atomically(self.path, json.dumps(value).encode())


def ledger_of(*names: str) -> Ledger:
    """The ledger of one transfer, named by all that makes it one: from where, to where, what."""
    name = sha256("\0".join(names).encode()).hexdigest()[:24]
    ledger = Ledger(state_folder() / "transfers" / f"{name}.json")
    try:
        found = json.loads(ledger.path.read_bytes())
        ledger.writer, ledger.number, ledger.frozen = found["writer"], found["number"], found["frozen"]
        ledger.places = {name: Place(*place) for name, place in found["places"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return ledger


@dataclass(slots=True)
class Moved:
    """What a transfer did."""

    series: int = 0
    entries: int = 0
    refused: list[str] = field(default_factory=list)


def move(
    source: Store,
    target: Store,
    ledger: Ledger,
    progress: Progress = lambda track, done, total: None,
    settle: Callable[[Document], Document] = lambda document: document,
) -> Moved:
    """Have everything of one experiment in another store; what is there already stays.

    Args:
        settle: what becomes of the run's document before it is sent: a run whose process is gone has crashed.

    Raises:
        StoreUnavailable, Unauthorized: call it again to go on.
        AlreadyThere: sequences have other entries there than here; everything else was moved.
    """
    moved = Moved()
    if ledger.frozen is not None:
        _send_frozen(source, target, ledger, moved)
    others: list[str] = []
    for kind in KINDS:
        found = source.tracks(kind)
        there = {info.topic: info.count for info in target.tracks(kind)} if found and kind != MERGED else {}
        for info in found:
            track = Track(kind, info.topic)
            if kind == MERGED or _goes_on(source, target, ledger, track, there.get(info.topic, 0)):
                _move_series(source, target, ledger, track, info, moved, progress)
            else:
                others.append(f"{kind} {info.topic!r}")
    for name, combine in (("params", combined_params), ("experiment", combined_run)):
        document = source.read_document(name)
        if document is not None:
            document = settle(document) if name == "experiment" else document
            target.update_document(name, lambda known, c=combine, d=document: c(known, d))  # type: ignore[misc]
    writer, ledger.writer, ledger.number = ledger.writer, "", 0
    ledger.write()
    if writer:
        target.forget(writer)
    if others:
        raise AlreadyThere(
            f"{', '.join(others)}: there are other entries there than here, which stay as they are; all else was "
            "moved. What was recorded with the server's address is delivered by 'ml-dash sync'"
        )
    return moved


def _goes_on(source: Store, target: Store, ledger: Ledger, track: Track, there: int) -> bool:
    """Whether what is here of a sequence continues the entries there. They do not merge: sent twice, they would be
    there twice. So where others than this machine have sent, what is there must be the beginning of what is here."""
    place = ledger.place(track)
    if there != place.index:
        ours = (entry for block in source.read(track, Window(limit=there)) for entry in block)
        theirs = (entry for block in target.read(track) for entry in block)
        if any(_unlike(one, other) for one, other in zip_longest(ours, theirs)):
            return False
        place.index, place.whole = there, None
    return True


def _unlike(one: Entry | None, other: Entry | None) -> bool:
    return one != other and repr(one) != repr(other)  # NaN is not equal to itself


def _move_series(
    source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, moved: Moved, progress: Progress
) -> None:
    place = ledger.place(track)
    now = [info.count, info.first_timestamp, info.last_timestamp, info.size_bytes]
    if place.whole == now:
        return
    if place.whole is not None and track.kind == MERGED:
        place.behind = None  # late data may lie anywhere: all of it once more
    place.whole = None
    done = place.index if track.kind != MERGED else 0
    for entries in _batches(source, track, place):
        _send(source, target, ledger, track, entries, moved)
        done += len(entries)
        progress(track, min(done, info.count), info.count)
    place.whole = now
    moved.series += 1
    ledger.write()


def _batches(source: Store, track: Track, place: Place) -> Iterator[list[Entry]]:
    """What is left of a series, some entries at a time."""
    start = None if place.behind is None else math.nextafter(place.behind, math.inf)
    group: list[Entry] = []
    for block in source.read(track, Window(start=start, first=place.index)):
        group += block
        while len(group) >= BATCH_ENTRIES:
            yield group[:BATCH_ENTRIES]
            group = group[BATCH_ENTRIES:]
    if group:
        yield group


def _send(source: Store, target: Store, ledger: Ledger, track: Track, entries: list[Entry], moved: Moved) -> None:
    """Freeze a batch, send it, note that it is there."""
    ledger.writer = ledger.writer or f"move-{secrets.token_hex(12)}"
    ledger.number += 1
    first, last = entries[0], entries[-1]
    bounds = [first["timestamp"], last["timestamp"]] if track.kind == MERGED else [first["index"], last["index"] + 1]
    bodies, refused = _bodies(track, entries)
    ledger.frozen = [ledger.number, track.kind, track.topic, *bounds, _check_sum(bodies)]
    ledger.write()
    moved.refused += refused
    _append(target, ledger, track, bodies, moved)
    _arrived(ledger, track, bounds[1])


def _arrived(ledger: Ledger, track: Track, end: float) -> None:
    place, ledger.frozen = ledger.place(track), None
    if track.kind == MERGED:
        place.behind = end
    else:
        place.index = int(end)


def _send_frozen(source: Store, target: Store, ledger: Ledger, moved: Moved) -> None:
    """The batch that somebody was interrupted with: once more, as it was; where it is not that any more, as it is."""
    assert ledger.frozen is not None
    number, kind, topic, start, end, check = ledger.frozen
    track = Track(kind, topic)
    window = Window(start, end) if kind == MERGED else Window(first=int(start), limit=int(end) - int(start))
    entries = [entry for block in source.read(track, window) for entry in block]
    bodies, _ = _bodies(track, entries)
    if target.applied(ledger.writer) < number:
        if _check_sum(bodies) != check:
            ledger.writer, ledger.number = f"move-{secrets.token_hex(12)}", 1
        _append(target, ledger, track, bodies, moved)
    _arrived(ledger, track, end)


def _append(target: Store, ledger: Ledger, track: Track, bodies: list[bytes], moved: Moved) -> None:
    while True:
        try:
            target.append(Batch(ledger.writer, ledger.number, {1: track}, bodies))
            moved.entries += len(bodies)
            return
        except wire.Refused as error:
            named = dict(error.entries)
            moved.refused += [f"{track.topic}: {reason}" for reason in named.values()]
            if error.rest_stored:
                moved.entries += len(bodies) - len(named)
                return
            bodies = [body for at, body in enumerate(bodies) if at not in named] if named else []
            ledger.number += 1
        except CopiedWriter:
            ledger.writer, ledger.number = f"move-{secrets.token_hex(12)}", 1
        ledger.write()


def _bodies(track: Track, entries: Sequence[Entry]) -> tuple[list[bytes], list[str]]:
    """The entries as journal bodies, and what is wrong with those that cannot be one."""
    bodies, refused = list[bytes](), list[str]()
    for entry in entries:
        fields = {name: value for name, value in entry.items() if name != "timestamp"}
        if track.kind != MERGED:
            fields.pop("index", None)
        try:
            bodies.append(encode_body((1, entry["timestamp"], fields)))
        except (OverflowError, InvalidEntry, RecursionError, TypeError) as error:
            refused.append(f"{track.topic} at {entry['timestamp']}: {error}")
    return bodies, refused


def _check_sum(bodies: Sequence[bytes]) -> int:
    check = 0
    for body in bodies:
        check = zlib.crc32(body, check)
    return check


def identity(folder: Path) -> str:
    """What a folder is in a ledger's name."""
    return os.path.realpath(folder)
