"""What a reader sees: the store's answer with what journals still hold merged into it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path

from .columns import expand, is_columns
from .drain import not_applied
from .entry import decode_body, merge, select, track_number
from .errors import StoreCorrupt
from .files import FILES, Files
from .journal_files import Mark
from .journal_reader import Stream, is_alive, streams
from .line import from_line, to_line
from .schema import observe, summary
from .store import MERGED, Entry, Store, Track, TrackInfo, Window, fixed_names
from .stores.grouping import timestamp_of

ATTEMPTS = 5
LOOKED_UP = 64
"""Late entries in journals that are looked for in the store one by one; beyond, reading everything is as good."""

log = logging.getLogger("ml_dash")


class View:
    """Reads one experiment: store and journals together, without taking a lock or changing anything."""

    def __init__(self, store: Store, folder: Path | None, files: Files = FILES) -> None:
        self._store, self._folder, self._files = store, folder, files

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order, by the rules of `Store.read`, every append that returned before included."""
        if track.kind == MERGED:
            return self._read_merged(track, window)
        return self._read_sequence(track, window)

    def count(self, track: Track) -> int | None:
        """The number of entries of a series; None where only reading it tells."""
        if track.kind != MERGED:
            return self._count_sequence(track)
        for _ in range(ATTEMPTS):
            before = self._numbers()
            waiting, stored = merge(self.pending(track)), self._extent(track)
            twins = None if stored is None else self._twins(track, waiting, stored[1])
            if stored is None or twins is None:
                return None
            if before == self._numbers():  # else a batch moved meanwhile
                return stored[0] + len(waiting) - twins
        return None

    def _twins(self, track: Track, waiting: list[Entry], latest: float) -> int | None:
        """How many of ascending entries the store has a part of; None where these are too many to look up."""
        late = [entry["timestamp"] for entry in waiting if entry["timestamp"] <= latest]
        if len(late) > LOOKED_UP:
            return None
        return sum(any(self._store.read(track, Window(stamp, stamp))) for stamp in late)

    def _count_sequence(self, track: Track) -> int | None:
        for _ in range(ATTEMPTS):
            before = self._numbers()
            waiting, stored = len(self.pending(track)), self._extent(track)
            if stored is None or before == self._numbers():  # else a batch moved meanwhile
                return None if stored is None else stored[0] + waiting
        return None

    def _extent(self, track: Track) -> tuple[int, float] | None:
        """How many entries the store has, and the latest timestamp; None where it cannot tell without reading."""
        extent = getattr(self._store, "extent", None)
        return None if extent is None else extent(track)

    def pending(self, track: Track, start: float | None = None, end: float | None = None) -> list[Entry]:
        """What journals hold of a series and the store has not applied, in the order of appending."""
        found: list[Entry] = []
        for stream in self._streams():
            ids = {track_id for track_id, known in stream.tracks().items() if known == track}
            if ids:
                try:
                    found.extend(_entries(stream, self._behind(stream), ids, start, end))
                except StoreCorrupt as error:
                    log.warning("reading without a journal: %s", error)
        return found

    def _all_pending(self, kind: str) -> dict[str, _Waiting]:
        """By topic what `pending` gives, each journal read once."""
        found = defaultdict[str, _Waiting](_Waiting)
        for stream in self._streams():
            topics = {number: track.topic for number, track in stream.tracks().items() if track.kind == kind}
            if topics:
                try:
                    behind = self._behind(stream)  # before the entries: what is moved meanwhile is another revision
                    for number, entry in _numbered(stream, behind, topics.keys()):
                        found[topics[number]].entries.append(entry)
                    for waiting in found.values():
                        waiting.note(stream.writer, behind)
                except StoreCorrupt as error:
                    log.warning("reading without a journal: %s", error)
        return found

    def _behind(self, stream: Stream) -> Mark:
        """Where the part of a stream begins that the store has not applied."""
        again, first, _ = not_applied(stream, self._applied(stream.writer))
        return again.start if again else first

    def _applied(self, writer: str) -> int:
        """What the store has of a writer; nothing where a newer version keeps that: then all that is there is read."""
        try:
            return self._store.applied(writer)
        except StoreCorrupt:
            return 0

    def tracks(self, kind: str) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic, what journals still hold included."""
        # Journals first, as when reading: what is moved in between is then in the store's answer.
        pending = self._all_pending(kind)
        found = {info.topic: info for info in self._store.tracks(kind)}
        for topic, waiting in pending.items():
            stored = found.get(topic)
            track = Track(kind, topic)
            info = self._added(track, stored, merge(waiting.entries)) or self._described(track, stored)
            found[topic] = replace(info, revision=waiting.revision(info.revision))
        return [found[topic] for topic in sorted(found)]

    def pending_topics(self, kind: str) -> set[str]:
        """The topics of a kind that some journal names."""
        return {track.topic for stream in self._streams() for track in stream.tracks().values() if track.kind == kind}

    def _added(self, track: Track, stored: TrackInfo | None, waiting: list[Entry]) -> TrackInfo | None:
        """What is known of a track with ascending entries beside those stored; None where they may change some."""
        if stored is None or track.kind != MERGED or stored.first_timestamp is None or stored.last_timestamp is None:
            return None
        first, last = waiting[0]["timestamp"], waiting[-1]["timestamp"]
        if first <= stored.last_timestamp:
            at_hand = hasattr(self._store, "extent")  # a server would be asked for each
            if not at_hand or self._twins(track, waiting, stored.last_timestamp) != 0:
                return None
        seen = {name: set(types.split(" | ")) for name, types in stored.columns.items()}
        observe(seen, waiting)
        return replace(
            stored,
            count=stored.count + len(waiting),
            first_timestamp=min(first, stored.first_timestamp),
            last_timestamp=max(last, stored.last_timestamp),
            columns=summary(seen, fixed_names(track.kind)),
        )

    def _described(self, track: Track, stored: TrackInfo | None) -> TrackInfo:
        """What is known of a series from reading it, because part of it is not in the store yet."""
        seen: dict[str, set[str]] = {}
        count, stamps = 0, []
        for block in self.read(track):
            observe(seen, block)
            count += len(block)
            stamps += [min(e["timestamp"] for e in block), max(e["timestamp"] for e in block)]
        known = stored if stored is not None else TrackInfo(track.topic, 0, None, None)
        columns = summary(seen, fixed_names(track.kind))
        first, last = min(stamps, default=None), max(stamps, default=None)
        return replace(known, count=count, first_timestamp=first, last_timestamp=last, columns=columns)

    def _streams(self) -> list[Stream]:
        """The journals in the order in which they will be applied: what dead writers left comes first."""
        found = streams(self._folder, self._files) if self._folder is not None else []
        return sorted(found, key=is_alive) if len(found) > 1 else found

    def _read_merged(self, track: Track, window: Window) -> Iterator[list[Entry]]:
        # Journals first: what a drain moves in between is then found twice, and merges with its twin.
        waiting = merge(self.pending(track, window.start, window.end))
        if not waiting:
            yield from self._store.read(track, window)
            return
        columns = window.columns
        whole = None if columns is None else tuple(dict.fromkeys(n for c in columns for n in (c, c.split(".")[0])))
        for block in _interleave(self._store.read(track, Window(window.start, window.end, whole)), waiting):
            selected = select(block, columns)
            if selected:
                yield selected

    def _read_sequence(self, track: Track, window: Window) -> Iterator[list[Entry]]:
        """Sequences do not merge, so a batch must not be seen on both sides: read again when one moved, at last with
        appends kept out where the store can."""
        if window.limit is not None:  # a part that is stored as a whole keeps its indices, whatever moves behind it
            reading = self._store.read(track, Window(first=window.first, limit=window.limit))
            part = [entry for block in reading for entry in block]
            if len(part) == window.limit:
                yield from _nonempty(select(part, window.columns, fixed_names(track.kind)))
                return
        settled = getattr(self._store, "settled", nullcontext)
        for attempt in range(1, ATTEMPTS + 1):
            with settled() if attempt == ATTEMPTS else nullcontext():
                before = self._numbers()
                waiting = self.pending(track)
                stored = self._extent(track)
                first = 0 if stored is None else window.first
                entries = [entry for block in self._store.read(track, Window(first=first)) for entry in block]
                if before == self._numbers():
                    break
        count = len(entries) if stored is None else stored[0]
        entries.extend({"index": index, **entry} for index, entry in enumerate(waiting, count))
        last = float("inf") if window.limit is None else window.first + window.limit
        wanted = [entry for entry in entries if window.first <= entry["index"] < last]
        yield from _nonempty(select(wanted, window.columns, fixed_names(track.kind)))

    def _numbers(self) -> list[tuple[str, int]]:
        return [(stream.writer, self._applied(stream.writer)) for stream in self._streams()]


@dataclass(slots=True)
class _Waiting:
    """What journals hold of one series."""

    entries: list[Entry] = field(default_factory=list)
    known: int = 0
    sources: list[str] = field(default_factory=list)

    def note(self, writer: str, behind: Mark) -> None:
        """The entries that came since are of one journal: as it is only added to, place and number say which."""
        if len(self.entries) > self.known:
            self.sources.append(f"{writer}-{behind.segment}-{behind.offset}-{len(self.entries) - self.known}")
            self.known = len(self.entries)

    def revision(self, stored: str) -> str:
        """The revision of the series, of which the store knows one."""
        return "+".join([stored, *self.sources])


def _nonempty(block: list[Entry]) -> Iterator[list[Entry]]:
    if block:
        yield block


def _entries(
    stream: Stream, first: Mark, ids: AbstractSet[int], start: float | None, end: float | None
) -> Iterator[Entry]:
    return (entry for _, entry in _numbered(stream, first, ids, start, end))


def _numbered(
    stream: Stream, first: Mark, ids: AbstractSet[int], start: float | None = None, end: float | None = None
) -> Iterator[tuple[int, Entry]]:
    """Entries of some tracks in the order of appending, each with its track's number."""
    low = float("-inf") if start is None else start
    high = float("inf") if end is None else end
    for raw in stream.bodies(first, living=is_alive(stream)):
        try:
            # Looked at before it is decoded: a window is a small part of what waits.
            stamp = timestamp_of(raw) if track_number(raw) in ids else nan
            if stamp is not None and not low <= stamp <= high:
                continue
            body = decode_body(raw)
        except (ValueError, IndexError, RecursionError):
            continue  # what nobody can read; the drain sets it aside and says so
        rows = expand(body, start, end) if is_columns(body) else iter([[(body[1], body[2])]])
        for timestamp, fields in (row for block in rows for row in block):
            if low <= timestamp <= high:
                entry = from_line(to_line(timestamp, fields))
                if entry is not None:
                    yield body[0], entry


def _interleave(blocks: Iterator[list[Entry]], waiting: list[Entry]) -> Iterator[list[Entry]]:
    """Ascending blocks with ascending newer entries merged in."""
    position = 0
    for block in blocks:
        last = block[-1]["timestamp"]
        stop = position
        while stop < len(waiting) and waiting[stop]["timestamp"] <= last:
            stop += 1
        yield merge([*block, *waiting[position:stop]]) if stop > position else block
        position = stop
    if position < len(waiting):
        yield waiting[position:]
