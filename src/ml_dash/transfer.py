"""A recording from one store to another, in frozen batches: interrupted anywhere and called again, it goes on.

What is frozen before a batch is sent, and how far each series is, lies in the ledger, in the user's state folder. It
says what was brought, never what is there: a target may be emptied, restored from a backup or deleted from. So each
call looks, by one listing for each kind and without reading entries there:

    the whole   the last batch of the transfer before is the last of its writer there: else the target is another one,
                or was set back, and the ledger is void
    tracks      as many entries as were brought, and they reach as far; once more when all was sent
    sequences   the revision under which they were left; in the middle of a transfer their number and their ends

A track that is less there, or changed here, is sent again as a whole, which merges. Sequences do not merge: one that
is not as it was left is compared with what is here, and goes on where it is the beginning of that, but for what was
refused. One that changed here is read, up to where it was brought: by a checksum it must begin as it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import wire
from .comparing import (
    There,
    alike,
    body_of,
    check_sum,
    entries_of,
    goes_on,
    is_another,
    is_as_brought,
    is_seen,
    lacks,
    note_revisions,
    seen,
)
from .errors import CopiedWriter, MlDashError
from .ledger import Frozen, Ledger
from .remote import combined_params, combined_run
from .store import KINDS, MERGED, Batch, Document, Entry, Store, Track, TrackInfo, Window

BATCH_ENTRIES, BATCH_BYTES = 2_000, 4 << 20
"""What a batch has at most; a single entry may be larger."""

UNHEARD = "not there, though what follows is: refused or lost, and nobody heard why"

Progress = Callable[[Track, int, int], None]
"""Called with a series, how many entries of it are there, and how many there will be."""


class AlreadyThere(MlDashError):
    """A sequence that has other entries there than here: what is here cannot be put behind or among them."""


@dataclass(slots=True)
class Moved:
    """What a transfer did.

    Attributes:
        left_out: how many entries the target did not take, those of calls before included that were interrupted.
        refused: why, of the first of them of each series.
    """

    series: int = 0
    entries: int = 0
    left_out: int = 0
    refused: list[str] = field(default_factory=list)


class Sent(NamedTuple):
    """An entry as it is sent: its timestamp, in a sequence its index; when it was; its journal body."""

    key: float
    timestamp: float
    body: bytes


@dataclass(slots=True)
class Part:
    """Entries of one series that go as one batch, and those between them that cannot, each with why."""

    sent: list[Sent] = field(default_factory=list)
    refused: list[list[Any]] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0
    size: int = 0

    def __len__(self) -> int:
        return len(self.sent) + len(self.refused)

    def has_room(self, size: int) -> bool:
        """Whether an entry of this size may come too."""
        return not len(self) or (len(self) < BATCH_ENTRIES and self.size + size <= BATCH_BYTES)

    def add(self, key: float, timestamp: float, body: bytes | str) -> None:
        """An entry, or what is wrong with it."""
        self.first, self.last = self.first if len(self) else key, key
        self.size += len(body)
        if isinstance(body, bytes):
            self.sent.append(Sent(key, timestamp, body))
        else:
            self.refused.append([key, body])


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
        _settle_frozen(source, target, ledger, there, moved)
    sent = list[tuple[Track, TrackInfo]]()
    for kind in KINDS:
        for info in source.tracks(kind):
            track = Track(kind, info.topic)
            if not goes_on(source, target, ledger, track, info, there.of(track)):
                others.append(f"{kind} {info.topic!r}")
            elif _move_series(source, target, ledger, track, info, moved, progress):
                sent.append((track, info))
    for name, combine in (("params", combined_params), ("experiment", combined_run)):
        document = source.read_document(name)
        if document is not None:
            document = settle(document) if name == "experiment" else document
            target.update_document(name, lambda known, c=combine, d=document: c(known, d))  # type: ignore[misc]
    there = There(target)
    for track, info in sent:
        if track.kind == MERGED and lacks(there.of(track), ledger.place(track)):
            _move_anew(source, target, ledger, track, info, moved, progress)
    note_revisions(there, ledger)
    _tell_refused(ledger, moved)
    _leave_proof(target, ledger)
    if others:
        left_out = f"; {moved.left_out} entries were left out, the first: {moved.refused[0]}" if moved.refused else ""
        raise AlreadyThere(
            f"{', '.join(others)}: there are other entries there than here, which stay as they are; all else was "
            f"moved{left_out}. What was recorded with the server's address is delivered by 'ml-dash sync'"
        )
    return moved


def _tell_refused(ledger: Ledger, moved: Moved) -> None:
    """What was refused since the last transfer that ended; it is told once."""
    for place in ledger.places.values():
        moved.left_out += place.refused
        moved.refused += place.reasons
        place.refused, place.reasons = 0, []


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
        with suppress(wire.Refused):  # by a target that refuses everything
            target.append(Batch(ledger.writer, 1, {}, []))
            ledger.arrived = 1
    if ledger.arrived:
        ledger.proof = [ledger.writer, ledger.arrived]
    ledger.writer, ledger.number, ledger.arrived = "", 0, 0
    ledger.write()
    if before is not None and before != ledger.proof:
        target.forget(before[0])


# ---------------------------------------------------------------- sending


def _move_series(
    source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, moved: Moved, progress: Progress
) -> bool:
    """Send what is left of a series; False where it is known that nothing is. A track that changed since somebody was
    interrupted within it is first sent to its end, then once more: a recording that goes on would else begin anew each
    time, and never come further."""
    place, now = ledger.place(track), seen(info)
    if place.whole and is_seen(info, place):
        return False
    was_interrupted = track.kind == MERGED and place.seen not in (None, now)
    if was_interrupted:
        _send_rest(source, target, ledger, track, info, moved, progress)
        place = ledger.begin(track)
    place.seen = now
    _send_rest(source, target, ledger, track, info, moved, progress)
    place.whole = True
    moved.series += 1
    ledger.write()
    return True


def _move_anew(
    source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, moved: Moved, progress: Progress
) -> None:
    """Send a track of which the target lost some between two calls, the first of them interrupted: what had been
    brought of it by others, or before it grew, hid that until all was brought. Once: it may be deleted from on and on.
    """
    ledger.begin(track)
    moved.series -= 1
    _move_series(source, target, ledger, track, info, moved, progress)


def _send_rest(
    source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, moved: Moved, progress: Progress
) -> None:
    place = ledger.place(track)
    place.whole = False
    done = place.brought if track.kind == MERGED else place.index
    start = None if place.behind is None else math.nextafter(place.behind, math.inf)
    for part in _parts(track, entries_of(source, track, Window(start=start, first=place.index))):
        _send(target, ledger, track, part, moved)
        done += len(part)
        progress(track, min(done, info.count), info.count)


def _parts(track: Track, entries: Iterable[Entry]) -> Iterator[Part]:
    """Entries in parts of what a batch may have."""
    part = Part()
    for entry in entries:
        body = body_of(track, entry)
        if not part.has_room(len(body)):
            yield part
            part = Part()
        part.add(_key(track, entry), entry["timestamp"], body)
    if len(part):
        yield part


def _key(track: Track, entry: Entry) -> float:
    return entry["timestamp" if track.kind == MERGED else "index"]  # type: ignore[no-any-return]


def _send(target: Store, ledger: Ledger, track: Track, part: Part, moved: Moved) -> None:
    """Freeze a batch, send it, note that it is there."""
    if not ledger.writer:
        ledger.begin_writer()
    ledger.number += 1
    end = part.last if track.kind == MERGED else part.last + 1
    ledger.frozen = Frozen(*track, part.first, end, _check_sum(part.sent), part.refused)
    ledger.write()
    _note_arrived(ledger, ledger.frozen, _append(target, ledger, ledger.frozen, part.sent, moved))


def _append(target: Store, ledger: Ledger, frozen: Frozen, sent: list[Sent], moved: Moved) -> list[Sent]:
    """Have a batch stored without what the target refuses of it; what was. One of which nothing is left is not sent:
    a target that refuses and names nothing would refuse that too."""
    track = Track(frozen.kind, frozen.topic)
    while sent:
        try:
            target.append(Batch(ledger.writer, ledger.number, {1: track}, [one.body for one in sent]))
            break
        except wire.Refused as error:
            named = {at: why for at, why in error.entries if at < len(sent)} or dict.fromkeys(
                range(len(sent)), str(error)
            )
            frozen.refused += [[sent[at].key, f"{track.topic}: {why}"] for at, why in named.items()]
            sent = [one for at, one in enumerate(sent) if at not in named]
            if error.rest_stored:
                break
            ledger.number += 1
        except CopiedWriter:
            ledger.begin_writer()
            ledger.number = 1
        frozen.check = _check_sum(sent)
        ledger.write()
    else:
        return []
    moved.entries += len(sent)
    ledger.arrived = ledger.number
    return sent


def _note_arrived(ledger: Ledger, frozen: Frozen, arrived: Sequence[Sent]) -> None:
    """These entries of the frozen batch are there; the others were refused."""
    place = ledger.place(Track(frozen.kind, frozen.topic))
    refused = sorted(frozen.refused, key=lambda one: float(one[0]))
    place.brought += len(arrived)
    place.refuse([str(why) for _, why in refused])
    if frozen.kind == MERGED:
        place.behind = frozen.end
    else:
        place.index, place.there = int(frozen.end), ""
        place.reach([one.timestamp for one in arrived])
        place.check = _check_sum(arrived, place.check)
        for key, _ in refused:
            place.leave_out(int(key))
    ledger.frozen = None


def _check_sum(sent: Sequence[Sent], check: int = 0) -> int:
    return check_sum((one.body for one in sent), check)


# ---------------------------------------------------------------- going on


def _settle_frozen(source: Store, target: Store, ledger: Ledger, there: There, moved: Moved) -> None:
    """The batch that somebody was interrupted with, and whose answer nobody heard.

    Of a track it is sent again with what follows, which merges. Of a sequence it must be there once: it is sent as it
    was where it did not arrive. Where it is not that any more, here or for the place it was meant for, nobody knows
    what is there, and that is compared.
    """
    frozen, ledger.frozen = ledger.frozen, None
    assert frozen is not None
    track, has_arrived = Track(frozen.kind, frozen.topic), target.applied(ledger.writer) == ledger.number
    if has_arrived:
        ledger.arrived = ledger.number
    if track.kind == MERGED:
        return
    place = ledger.place(track)
    entries = _frozen_entries(source, track, frozen)
    sent = [one for part in _parts(track, entries) for one in part.sent]
    if _check_sum(sent) == frozen.check:
        is_next = not has_arrived and frozen.start == place.index and is_as_brought(there.of(track), place)
        if is_next and not is_another(source, track, There(source).of(track), place):
            ledger.frozen = frozen
            sent, has_arrived = _append(target, ledger, frozen, sent, moved), True
            there.found.pop(track.kind)
        if has_arrived and _note_what_is_there(target, ledger, frozen, entries, sent, there.of(track)):
            return
    ledger.frozen, place.brought = None, -1


def _frozen_entries(source: Store, track: Track, frozen: Frozen) -> list[Entry]:
    """What is in a frozen batch of a sequence."""
    without, first = {key for key, _ in frozen.refused}, int(frozen.start)
    window = Window(first=first, limit=int(frozen.end) - first)
    return [entry for entry in entries_of(source, track, window) if entry["index"] not in without]


def _note_what_is_there(
    target: Store, ledger: Ledger, frozen: Frozen, entries: list[Entry], sent: list[Sent], there: TrackInfo
) -> bool:
    """Note what arrived of a batch of a sequence; False where others' entries are in its place. What is not there of
    it before the last one that is, was refused, and nobody heard why; what is behind that goes once more."""
    track = Track(frozen.kind, frozen.topic)
    brought = ledger.place(track).brought
    arrived = sent
    if there.count != brought + len(sent):
        arrived = list[Sent]()
        ours = iter(sent)
        by_index = {entry["index"]: entry for entry in entries}
        for other in entries_of(target, track, Window(first=brought, limit=len(sent))):
            one = next((one for one in ours if alike(by_index[one.key], {**other, "index": one.key})), None)
            if one is None:
                return False
            arrived.append(one)
        frozen.end = arrived[-1].key + 1 if arrived else frozen.start
        keys = {one.key for one in arrived}
        unheard = [one for one in sent if one.key < frozen.end and one.key not in keys]
        frozen.refused = [known for known in frozen.refused if known[0] < frozen.end]
        frozen.refused += [[one.key, f"{track.topic} at {one.timestamp}: {UNHEARD}"] for one in unheard]
    _note_arrived(ledger, frozen, arrived)
    return True
