"""Whether a series at the target of a transfer is what was brought there, and can be gone on with (`transfer.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any

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


def note_revisions(target: Store, ledger: Ledger) -> None:
    """Keep under which revision the target has the sequences that were sent, to know them again without reading."""
    there = There(target)
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
        if _lacks(there, place) or (place.whole and not is_seen(info, place)):
            ledger.begin(track)
        return True
    return (is_as_brought(there, place) and not _is_another(info, place)) or _is_beginning(
        source, target, ledger, track, there
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


def is_as_brought(there: TrackInfo, place: Place) -> bool:
    """Whether a sequence there is what was brought, by what is known without reading."""
    if there.count != place.brought:
        return False
    return place.there == there.revision if place.there else _ends(there) == place.ends


def _ends(info: TrackInfo) -> list[float] | None:
    first, last = info.first_timestamp, info.last_timestamp
    return None if first is None or last is None else [first, last]


def _is_another(info: TrackInfo, place: Place) -> bool:
    """Whether a sequence here cannot be what it was, or that with more behind it, by what is known without reading."""
    if place.seen is None:
        return False
    count, first = place.seen[:2]
    is_longer = info.count > count and info.first_timestamp == first
    return not is_longer and not is_seen(info, place)


def _is_beginning(source: Store, target: Store, ledger: Ledger, track: Track, there: TrackInfo) -> bool:
    """Whether the entries there are the beginning of those here. They do not merge: sent twice, they would be there
    twice. So where others than this machine have sent, this is looked at."""
    before = ledger.place(track)
    left_out = before.left_out if there.count or before.brought <= 0 else []
    without = {index for first, end in left_out for index in range(first, end)}
    ours = entries_of(source, track, Window(limit=there.count + len(without)))
    wanted = islice((entry for entry in ours if entry["index"] not in without), there.count)
    index = 0
    for one, other in zip_longest(wanted, entries_of(target, track, Window())) if there.count else ():
        if one is None or other is None or not alike(one, {**other, "index": one["index"]}):
            return False
        index = one["index"] + 1
    place = ledger.begin(track)
    place.index, place.brought, place.ends, place.there = index, there.count, _ends(there), there.revision
    _keep_left_out(place, before, left_out)
    return True


def _keep_left_out(place: Place, before: Place, left_out: list[list[int]]) -> None:
    """What was refused up to where the target's entries end stays so, and is still to be told where it was not."""
    for first, end in left_out:
        place.index = end if first == place.index else place.index
    place.left_out = [known for known in left_out if known[0] < place.index]
    told = max(0, _count(left_out) - before.refused)
    place.refused = max(0, _count(place.left_out) - told)
    place.reasons = before.reasons[: place.refused]


def _count(ranges: list[list[int]]) -> int:
    return sum(end - first for first, end in ranges)


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
