"""`ml-dash cat`, `head` and `tail`: entries as lines, also of a run that is being recorded."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from . import options, reading
from .lines import Named, merged, writer
from .output import GOING_ON, note

if TYPE_CHECKING:
    from ..store import Entry, Store, Track, Window
    from .times import Moment

POLL_S = 0.2
HOLD_S = 0.5
"""The newest instant may still gain fields: it is shown when a later one has come, or after this long."""


@click.command()
@options.prefix_argument
@options.topics_argument
@options.window_options
@options.columns_option
@options.kind_option
@options.place_option
@options.json_option
def cat(
    prefix: str,
    topics: tuple[str, ...],
    start: Moment | None,
    end: Moment | None,
    columns: str | None,
    kind: str,
    dash_root: str,
    as_json: bool,
) -> None:
    """Print entries, one a line.

    TOPICS may be patterns ('robot/*'); several topics come in the order of time. --json prints them as data.jsonl
    holds them; of several topics each as {"topic": ..., "entry": ...}.
    """
    store, tracks = _chosen(dash_root, prefix, kind, topics)
    window = _window(store, tracks, start, end, columns)
    writer(tracks, as_json=as_json)(merged(store, tracks, window))


@click.command()
@options.prefix_argument
@options.topics_argument
@click.option("-n", "--lines", default=10, show_default=True, type=click.IntRange(0), help="How many entries.")
@options.columns_option
@options.kind_option
@options.place_option
@options.json_option
def head(
    prefix: str, topics: tuple[str, ...], lines: int, columns: str | None, kind: str, dash_root: str, as_json: bool
) -> None:
    """Print the first entries of each topic."""
    store, tracks = _chosen(dash_root, prefix, kind, topics)
    window = _window(store, tracks, None, None, columns)
    for track in tracks:
        _title(track, tracks, as_json)
        first = itertools.islice(merged(store, [track], window), lines)
        writer([track], as_json=as_json)(first)


@click.command()
@options.prefix_argument
@options.topics_argument
@click.option("-n", "--lines", default=10, show_default=True, type=click.IntRange(0), help="How many entries.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what a running experiment records, until it ends.")
@options.columns_option
@options.kind_option
@options.place_option
@options.json_option
def tail(
    prefix: str,
    topics: tuple[str, ...],
    lines: int,
    follow: bool,
    columns: str | None,
    kind: str,
    dash_root: str,
    as_json: bool,
) -> None:
    """Print the last entries of each topic; with -f, follow a run.

    Following shows every new instant once, when a later one has come or nothing was added to it for half a second; with
    its topic, unless one was named. What arrives with an older timestamp than the last one shown is left to `cat`.
    """
    catalog = reading.place_of(dash_root)
    prefix = options.one_prefix(catalog, prefix)
    store, tracks = _chosen(dash_root, prefix, kind, topics, allow_none=follow)
    may_come = follow and catalog.find(prefix).status in GOING_ON
    window = _window(store, tracks, None, None, columns, may_come=may_come)
    ends = {track: last_entries(store, track, window, lines) for track in tracks}
    if follow:
        entries = [(track, entry) for track, found in ends.items() for entry in found]
        named = len(topics) != 1 or topics[0] not in {track.topic for track in tracks}  # others may join
        writer(tracks, as_json=as_json, named=named)(sorted(entries, key=lambda one: float(one[1]["timestamp"])))
        _follow(catalog, prefix, kind, topics, window, Shown.of(ends), as_json, named)
        return
    for track, found in ends.items():
        _title(track, tracks, as_json)
        writer([track], as_json=as_json)((track, entry) for entry in found)


def _title(track: Track, tracks: Sequence[Track], as_json: bool) -> None:
    if len(tracks) > 1 and not as_json:
        click.echo(("" if track is tracks[0] else "\n") + click.style(f"==> {track.topic} <==", bold=True))


# ---------------------------------------------------------------- which entries


def _chosen(
    root: str, prefix: str, kind: str, patterns: Sequence[str], *, allow_none: bool = False
) -> tuple[Store, list[Track]]:
    """The store of an experiment and the series that match; raises TrackNotFound, unless a run may still begin one."""
    from ..store import Track

    catalog = reading.place_of(root)
    prefix = options.one_prefix(catalog, prefix)
    store = catalog.store(prefix)
    topics = reading.topics_of(store, kind)
    try:
        found = options.matching(topics, patterns, prefix, kind)
    except LookupError:
        if not allow_none:
            raise
        found = []
    return store, [Track(kind, topic) for topic in found]


def _window(
    store: Store,
    tracks: Sequence[Track],
    start: Moment | None,
    end: Moment | None,
    columns: str | None,
    *,
    may_come: bool = False,
) -> Window:
    """The window that is asked for; a column nobody recorded is an error, unless a run may still record it."""
    from ..errors import InvalidWindow

    relative = any(moment is not None and moment.relative_to for moment in (start, end))
    infos = store.tracks(tracks[0].kind) if relative and tracks else []
    chosen = {track.topic for track in tracks}
    window = options.window_of([info for info in infos if info.topic in chosen], start, end, columns)
    try:
        options.check_columns(store, tracks, window.columns)
    except InvalidWindow as error:
        if not may_come:
            raise
        note(f"so far {error}")
    return window


def last_entries(store: Store, track: Track, window: Window, count: int) -> list[Entry]:
    """The last entries of a series, found from its end: a long recording is not read as a whole."""
    from ..store import MERGED, Window

    if count == 0:
        return []
    info = next((one for one in store.tracks(track.kind) if one.topic == track.topic), None)
    if info is None or info.last_timestamp is None or info.first_timestamp is None:
        return []
    if track.kind != MERGED:
        first = max(info.count - count, 0)
        return [entry for block in store.read(track, Window(columns=window.columns, first=first)) for entry in block]
    whole = info.last_timestamp - info.first_timestamp
    span = whole * 1.5 * count / max(info.count, 1)
    while True:
        start = info.last_timestamp - span if span < whole else None
        blocks = store.read(track, Window(start, None, window.columns))
        entries = [entry for block in blocks for entry in block]
        if len(entries) >= count or start is None:
            return entries[-count:]
        span = max(span * 4, whole / 1000)


# ---------------------------------------------------------------- following


class Shown:
    """What a follower has printed of each series, and the newest instant it holds back."""

    def __init__(self) -> None:
        self._last: dict[Track, float] = {}
        self._held: dict[Track, tuple[Entry, float]] = {}

    @classmethod
    def of(cls, printed: dict[Track, list[Entry]]) -> Shown:
        """A follower that has printed these entries."""
        shown = cls()
        for track, entries in printed.items():
            if entries:
                shown._last[track] = _position(track, entries[-1])
        return shown

    def fresh(self, store: Store, track: Track, window: Window, *, all_: bool, now: float) -> list[Entry]:
        """The entries to print now; with `all_` nothing is held back."""
        entries = self._behind(store, track, window)
        held = self._held.pop(track, None)
        if entries and not all_ and track.kind == "tracks":
            newest = entries[-1]
            since = held[1] if held is not None and held[0] == newest else now
            if now - since < HOLD_S:
                self._held[track] = (entries.pop(), since)
        if entries:
            self._last[track] = _position(track, entries[-1])
        return entries

    def _behind(self, store: Store, track: Track, window: Window) -> list[Entry]:
        from ..store import MERGED, Window

        last = self._last.get(track)
        if track.kind == MERGED:
            after = Window(None if last is None else math.nextafter(last, math.inf), None, window.columns)
        else:
            after = Window(columns=window.columns, first=0 if last is None else int(last) + 1)
        return [entry for block in store.read(track, after) for entry in block]


def _position(track: Track, entry: Entry) -> float:
    return float(entry["timestamp"] if track.kind == "tracks" else entry["index"])


def _follow(
    catalog: reading.Place,
    prefix: str,
    kind: str,
    patterns: Sequence[str],
    window: Window,
    shown: Shown,
    as_json: bool,
    with_topic: bool,
) -> None:
    """Print what is recorded until nobody records any more."""
    from ..catalog import matches
    from ..store import Track

    while True:
        running = catalog.find(prefix).status in GOING_ON  # asked before reading: the last entries are not missed
        store = catalog.store(prefix)
        topics = [
            t
            for t in reading.topics_of(store, kind)
            if not patterns or any(matches(t, pattern) for pattern in patterns)
        ]
        tracks = [Track(kind, topic) for topic in topics]
        now = time.monotonic()
        named: list[Named] = [
            (track, entry) for track in tracks for entry in shown.fresh(store, track, window, all_=not running, now=now)
        ]
        writer(tracks, as_json=as_json, named=with_topic)(sorted(named, key=lambda one: float(one[1]["timestamp"])))
        sys.stdout.flush()
        if not running:
            note(f"{prefix} is not being recorded any more")
            return
        time.sleep(POLL_S)
