"""Whether a series at the target of a transfer is what was brought there, and can be gone on with (`transfer.py`)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .entry import encode_body
from .errors import InvalidEntry
from .ledger import Ledger, Place
from .store import MERGED, Entry, Store, Track, TrackInfo, Window


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


def note_revisions(there: There, ledger: Ledger) -> None:
    """Keep under which revision the target has the sequences that were sent, to know them again without reading."""
    for name, place in ledger.places.items():
        kind, _, topic = name.partition("/")
        if kind != MERGED and place.whole and place.brought > 0 and not place.there:
            info = there.of(Track(kind, topic))
            if info.count == place.brought and _ends(info) == place.ends:  # else others came between
                place.there = info.revision


def goes_on(source: Store, target: Store, ledger: Ledger, track: Track, info: TrackInfo, there: TrackInfo) -> bool:
    """Whether what is here of a series can be sent behind, or into, what is there."""
    place = ledger.place(track)
    if track.kind == MERGED:
        if lacks(there, place) or (place.whole and not is_seen(info, place)):
            ledger.begin(track)
        return True
    is_ours = is_as_brought(there, place) and not is_another(source, track, info, place)
    return is_ours or _is_beginning(source, target, ledger, track, there)


def lacks(there: TrackInfo, place: Place) -> bool:
    """Whether a track is less there than was brought: fewer entries, or ends that are further in."""
    if there.count < place.brought:
        return True
    if not place.whole or place.seen is None or place.brought < place.seen[0]:
        return False  # not all was brought, and what was refused may have been an end
    first, last = place.seen[1:3]
    if there.first_timestamp is None or there.last_timestamp is None or first is None or last is None:
        return False
    return there.first_timestamp > float(first) or there.last_timestamp < float(last)


def is_as_brought(there: TrackInfo, place: Place) -> bool:
    """Whether a sequence there is what was brought, by what is known without reading."""
    if there.count != place.brought:
        return False
    return place.there == there.revision if place.there else _ends(there) == place.ends


def _ends(info: TrackInfo) -> list[float] | None:
    first, last = info.first_timestamp, info.last_timestamp
    return None if first is None or last is None else [first, last]


def is_another(source: Store, track: Track, info: TrackInfo, place: Place) -> bool:
    """Whether a sequence here does not begin with what was brought of it: it was deleted and recorded anew. The first
    timestamp and the length do not tell, so one that changed here is read up to where it was brought."""
    if not place.index or is_seen(info, place):
        return False
    without, count, check = _indexes(place.left_out), 0, 0
    for entry in entries_of(source, track, Window(limit=place.index)):
        count += 1
        if entry["index"] not in without:
            check = check_sum([body_of(track, entry)], check)
    return (count, check) != (place.index, place.check)


def _is_beginning(source: Store, target: Store, ledger: Ledger, track: Track, there: TrackInfo) -> bool:
    """Whether the entries there are the beginning of those here, but for what was refused. They do not merge: sent
    twice, they would be there twice. So where others than this machine have sent, this is looked at."""
    before = ledger.place(track)
    # A target with nothing gets everything, also what was refused once; but not what it has just refused.
    left_out = before.left_out if there.count or (before.index and before.brought <= 0) else []
    place = Place(brought=there.count, ends=_ends(there), there=there.revision)
    if there.count and not _is_matched(source, target, track, place, _indexes(left_out)):
        return False
    _keep_left_out(place, before, left_out)
    ledger.places[f"{track.kind}/{track.topic}"] = place
    return True


def _is_matched(source: Store, target: Store, track: Track, place: Place, known: set[int]) -> bool:
    """Whether all that is there is here, in this order, and what is missing between is known to have been refused: of a
    recording of several processes the target may have one's, and the others' must not be left out. Notes how far here
    it reaches."""
    ours = entries_of(source, track, Window())
    for other in entries_of(target, track, Window()):
        for one in ours:
            index = one["index"]
            if alike(one, {**other, "index": index}):
                place.index, place.check = index + 1, check_sum([body_of(track, one)], place.check)
                break
            if index not in known:
                return False
            place.leave_out(index)
        else:
            return False
    return True


def _keep_left_out(place: Place, before: Place, left_out: list[list[int]]) -> None:
    """What was refused up to where the target's entries end, or just behind, stays so; where nobody was told of it,
    it is still to be told."""
    for first, end in left_out:
        for index in range(first, end) if first == place.index else ():
            place.leave_out(index)
            place.index = index + 1
    told = max(0, len(_indexes(left_out)) - before.refused)
    untold = max(0, len(_indexes(left_out) & _indexes(place.left_out)) - told)
    place.refused = untold
    place.reasons = before.reasons[:untold]


def _indexes(ranges: list[list[int]]) -> set[int]:
    return {index for first, end in ranges for index in range(first, end)}


def body_of(track: Track, entry: Entry) -> bytes | str:
    """An entry as a journal body; what is wrong with one that cannot be one."""
    fields = {name: value for name, value in entry.items() if name != "timestamp"}
    if track.kind != MERGED:
        fields.pop("index", None)
    try:
        return encode_body((1, entry["timestamp"], fields))
    except (OverflowError, InvalidEntry, RecursionError, TypeError) as error:
        return f"{track.topic} at {entry['timestamp']}: {error}"


def check_sum(bodies: Iterable[bytes | str], check: int = 0) -> int:
    """The check of bodies behind those that have the check given."""
    for body in bodies:
        check = zlib.crc32(body if isinstance(body, bytes) else body.encode(), check)
    return check


def entries_of(store: Store, track: Track, window: Window) -> Iterator[Entry]:
    """The entries of a window of a series, one by one."""
    return (entry for block in store.read(track, window) for entry in block)


def is_seen(info: TrackInfo, place: Place) -> bool:
    """Whether a series here is known to be as it was; an older server, which tells no revision, does not say that."""
    return bool(info.revision) and place.seen == seen(info)


def seen(info: TrackInfo) -> list[Any]:
    """What is kept of a series here, to see whether it changed."""
    return [info.count, info.first_timestamp, info.last_timestamp, info.revision]


def alike(one: Any, other: Any) -> bool:
    """Equal, where NaN is itself; fields may have another order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and (one == other or all(map(alike, one, other)))
    return bool(one == other or (one != one and other != other))
