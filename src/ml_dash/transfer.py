"""A recording from one store to another, in frozen batches: interrupted anywhere and called again, it goes on.

What is frozen before a batch is sent, and how far each series is, lies in the ledger, in the user's state folder. It
says what was brought, never what is there: a target may be emptied, restored from a backup or deleted from. So each
call looks, by one listing for each kind and without reading entries:

    the whole   the last batch of the transfer before is the last of its writer there: else the target is another one,
                or was set back, and the ledger is void
    each series it has as many entries as were brought, and reaches as far

A track that is less there, or changed here, is sent again as a whole, which merges. Sequences do not merge: one that
is not as it was left is compared with what is here, and goes on where it is the beginning of that.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from . import wire
from .entry import encode_body
from .errors import CopiedWriter, InvalidEntry, MlDashError
from .ledger import Ledger, Place
from .remote import combined_params, combined_run
from .store import KINDS, MERGED, Batch, Document, Entry, Store, Track, TrackInfo, Window

BATCH_ENTRIES, BATCH_BYTES = 2_000, 1 << 20

Progress = Callable[[Track, int, int], None]
"""Called with a series, how many entries of it are there, and how many there will be."""


class AlreadyThere(MlDashError):
    """A sequence that has other entries there than here: what is here cannot be put behind or among them."""


@dataclass(slots=True)
class There:
    """What the target has, asked once for each kind."""

    target: Store
    found: dict[str, dict[str, TrackInfo]] = field(default_factory=dict)

    def of(self, track: Track) -> TrackInfo:
        """A series there; one without entries where it has none."""
        if track.kind not in self.found:
            self.found[track.kind] = {info.topic: info for info in self.target.tracks(track.kind)}
        return self.found[track.kind].get(track.topic) or TrackInfo(track.topic, 0, None, None)


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
    with ledger.alone():
        return _move(source, target, ledger, progress, settle)


def _move(
    source: Store, target: Store, ledger: Ledger, progress: Progress, settle: Callable[[Document], Document]
) -> Moved:
    moved, there, others = Moved(), There(target), list[str]()
    _look(target, ledger, (source.read_document("experiment") or {}).get("created_at"))
    if ledger.frozen is not None:
        _send_frozen(source, target, ledger, there, moved)
    for kind in KINDS:
        for info in source.tracks(kind):
            track = Track(kind, info.topic)
            if _goes_on(source, target, ledger, track, info, there.of(track)):
                _move_series(source, target, ledger, track, info, moved, progress)
            else:
                others.append(f"{kind} {info.topic!r}")
    for name, combine in (("params", combined_params), ("experiment", combined_run)):
        document = source.read_document(name)
        if document is not None:
            document = settle(document) if name == "experiment" else document
            target.update_document(name, lambda known, c=combine, d=document: c(known, d))  # type: ignore[misc]
    _leave_proof(target, ledger)
    if others:
        raise AlreadyThere(
            f"{', '.join(others)}: there are other entries there than here, which stay as they are; all else was "
            "moved. What was recorded with the server's address is delivered by 'ml-dash sync'"
        )
    return moved


# ---------------------------------------------------------------- whether the target is as it was left


def _look(target: Store, ledger: Ledger, origin: Any) -> None:
    """Take the ledger for void where the target, or the recording here, is not the one that it is about."""
    if origin != ledger.origin:
        ledger.places = {}
    if not _is_as_left(target, ledger):
        ledger.void()
    ledger.origin = origin


def _is_as_left(target: Store, ledger: Ledger) -> bool:
    """Whether the target has the last batches of this transfer, and of the one before: a target that was emptied, made
    anew or restored from a backup has not. A higher number than we gave says that the ledger is an old one."""
    if ledger.proof is not None and target.applied(ledger.proof[0]) != ledger.proof[1]:
        return False
    return not ledger.writer or ledger.arrived <= target.applied(ledger.writer) <= ledger.number


def _leave_proof(target: Store, ledger: Ledger) -> None:
    """All is there: the last batch stays known to the target; an empty one where there was nothing to send."""
    before = ledger.proof
    if before is None and not ledger.arrived and ledger.places:
        ledger.begin_writer()
        target.append(Batch(ledger.writer, 1, {}, []))
        ledger.arrived = 1
    if ledger.arrived:
        ledger.proof = [ledger.writer, ledger.arrived]
    ledger.writer, ledger.number, ledger.arrived = "", 0, 0
    ledger.write()
    if before is not None and before != ledger.proof:
        target.forget(before[0])


def _goes_on(source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, there: TrackInfo) -> bool:
    """Whether what is here of a series can be sent behind, or into, what is there."""
    place = ledger.place(track)
    if track.kind == MERGED:
        if place.seen != _seen(info) or _lacks(there, place):
            ledger.begin(track)
        return True
    return (there.count == place.brought and not _is_another(info, place)) or _is_beginning(
        source, target, ledger, track, there.count
    )


def _lacks(there: TrackInfo, place: Place) -> bool:
    """Whether a track is less there than was brought: fewer entries, or ends that are further in."""
    if there.count < place.brought:
        return True
    if not place.whole or place.seen is None or place.brought < place.seen[0]:
        return False  # not all was brought, and what was refused may have been an end
    first, last = place.seen[1:3]
    if there.first_timestamp is None or there.last_timestamp is None or first is None or last is None:
        return False
    return there.first_timestamp > float(first) or there.last_timestamp < float(last)


def _is_another(info: TrackInfo, place: Place) -> bool:
    """Whether a sequence here cannot be what it was, or that with more behind it, by what is known without reading."""
    if place.seen is None:
        return False
    count, first, last, _ = place.seen
    is_same_length = info.count == count
    return info.count < int(count) or info.first_timestamp != first or (is_same_length and info.last_timestamp != last)


def _is_beginning(source: Store, target: Store, ledger: Ledger, track: Track, count: int) -> bool:
    """Whether the entries there are the beginning of those here. They do not merge: sent twice, they would be there
    twice. So where others than this machine have sent, this is looked at."""
    ours = (entry for block in source.read(track, Window(limit=count)) for entry in block)
    theirs = (entry for block in target.read(track) for entry in block)
    if count and any(_unlike(one, other) for one, other in zip_longest(ours, theirs)):
        return False
    place = ledger.begin(track)
    place.index = place.brought = count
    return True


def _seen(info: TrackInfo) -> list[Any]:
    return [info.count, info.first_timestamp, info.last_timestamp, info.size_bytes]


def _unlike(one: Entry | None, other: Entry | None) -> bool:
    return one != other and repr(one) != repr(other)  # NaN is not equal to itself


# ---------------------------------------------------------------- sending


def _move_series(
    source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, moved: Moved, progress: Progress
) -> None:
    place, now = ledger.place(track), _seen(info)
    if place.whole and place.seen == now:
        return
    place.seen, place.whole = now, False
    done = place.brought if track.kind == MERGED else place.index
    for entries in _batches(source, track, place):
        _send(target, ledger, track, entries, moved)
        done += len(entries)
        progress(track, min(done, info.count), info.count)
    place.whole = True
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


def _send(target: Store, ledger: Ledger, track: Track, entries: list[Entry], moved: Moved) -> None:
    """Freeze a batch, send it, note that it is there."""
    if not ledger.writer:
        ledger.begin_writer()
    ledger.number += 1
    first, last = entries[0], entries[-1]
    bounds = [first["timestamp"], last["timestamp"]] if track.kind == MERGED else [first["index"], last["index"] + 1]
    bodies, refused = _bodies(track, entries)
    ledger.frozen = [track.kind, track.topic, *bounds, len(bodies), _check_sum(bodies)]
    ledger.write()
    moved.refused += refused
    _note_arrived(ledger, _append(target, ledger, track, bodies, moved))


def _note_arrived(ledger: Ledger, count: int) -> None:
    """The frozen batch is there, with so many entries."""
    assert ledger.frozen is not None
    kind, topic, _, end, *_ = ledger.frozen
    place = ledger.place(Track(kind, topic))
    if kind == MERGED:
        place.behind = end
    else:
        place.index = int(end)
    place.brought += count
    ledger.arrived, ledger.frozen = ledger.number, None


def _send_frozen(source: Store, target: Store, ledger: Ledger, there: There, moved: Moved) -> None:
    """The batch that somebody was interrupted with: noted where it arrived, else sent once more as it was. Where it
    is not that any more, here or for the place it was meant for, its series is looked at anew."""
    assert ledger.frozen is not None
    kind, topic, start, end, count, check = ledger.frozen
    track = Track(kind, topic)
    if target.applied(ledger.writer) == ledger.number:
        return _note_arrived(ledger, count)
    window = Window(start, end) if kind == MERGED else Window(first=int(start), limit=int(end) - int(start))
    bodies, _ = _bodies(track, [entry for block in source.read(track, window) for entry in block])
    # Listed for a sequence only, whose batch belongs behind what is there: the listing is then of before it.
    place = ledger.place(track)
    is_elsewhere = kind != MERGED and (there.of(track).count, start) != (place.brought, place.index)
    if is_elsewhere or _check_sum(bodies) != check:
        ledger.frozen = None
        if kind != MERGED:
            place.brought = -1  # of no sequence: what is there is compared
        return None
    _note_arrived(ledger, _append(target, ledger, track, bodies, moved))
    there.found.pop(kind, None)
    return None


def _append(target: Store, ledger: Ledger, track: Track, bodies: list[bytes], moved: Moved) -> int:
    """Have a batch stored without what the target refuses of it; how many entries were."""
    while True:
        try:
            target.append(Batch(ledger.writer, ledger.number, {1: track}, bodies))
            moved.entries += len(bodies)
            return len(bodies)
        except wire.Refused as error:
            named = dict(error.entries)
            moved.refused += [f"{track.topic}: {reason}" for reason in named.values()]
            if error.rest_stored:
                moved.entries += len(bodies) - len(named)
                return len(bodies) - len(named)
            bodies = [body for at, body in enumerate(bodies) if at not in named] if named else []
            ledger.number += 1
        except CopiedWriter:
            ledger.begin_writer()
            ledger.number = 1
        assert ledger.frozen is not None
        ledger.frozen[-2:] = [len(bodies), _check_sum(bodies)]
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
