"""Entries as lines: JSON for scripts, short text for people; several series in the order of time."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from ..line import to_line
from . import reading
from .output import exact, has_unicode, number, width_of

if TYPE_CHECKING:
    from ..store import Entry, Store, Track, Window

Named = tuple["Track", "Entry"]


def merged(store: Store, tracks: Sequence[Track], window: Window) -> Iterator[Named]:
    """The entries of several series by time; of one series, as it is stored."""
    return heapq.merge(*(_entries(store, track, window) for track in tracks), key=lambda named: named[1]["timestamp"])


def _entries(store: Store, track: Track, window: Window) -> Iterator[Named]:
    for block in reading.blocks_of(store, track, window):
        for entry in block:
            yield track, entry


def writer(tracks: Sequence[Track], *, as_json: bool, named: bool | None = None) -> Callable[[Iterable[Named]], None]:
    """A function that prints entries, with their topic where there are several, or as `named` says."""
    several = len(tracks) > 1 if named is None else named
    topic_width = min(max((len(track.topic) for track in tracks), default=0), 30)
    limit = width_of(sys.stdout)
    if as_json:
        return lambda entries: _write(_json_line(track, entry, several) for track, entry in entries)
    return lambda entries: _write(
        _text_line(track, entry, topic_width if several else 0, limit) + "\n" for track, entry in entries
    )


def _write(lines: Iterable[str]) -> None:
    write = sys.stdout.write
    for line in lines:
        write(line)


def _json_line(track: Track, entry: Entry, several: bool) -> str:
    line = to_line(entry["timestamp"], {name: value for name, value in entry.items() if name != "timestamp"}).decode()
    if several:
        line = f'{{"topic":{orjson.dumps(track.topic).decode()},"entry":{line.rstrip()}}}\n'
    return line if has_unicode() else _escaped(line)


def _escaped(line: str) -> str:
    """The same JSON in ASCII."""
    return "".join(one if one < "\x7f" else one.encode("unicode-escape").decode() for one in line)


def _text_line(track: Track, entry: Entry, topic_width: int, limit: int) -> str:
    """An entry in one line. The timestamp is never shortened: one copies it into a window."""
    words = [_aligned(entry["timestamp"])]
    if topic_width:
        words.append(track.topic.ljust(topic_width))
    fields = {name: value for name, value in entry.items() if name != "timestamp"}
    line = "  ".join([*words, *(f"{name}={text_of(value)}" for name, value in fields.items())]).rstrip()
    if len(line) <= limit:
        return line
    return cut("  ".join([*words, *(f"{name}={text_of(value, number)}" for name, value in fields.items())]), limit)


def _aligned(timestamp: float) -> str:
    """Every digit of a timestamp, its point where those of its neighbours are."""
    whole, point, rest = exact(timestamp).partition(".")
    return f"{whole:>5}{point}{rest:<6}"


def text_of(value: Any, shown: Callable[[float], str] = exact) -> str:
    """A value in few characters, lists without commas; `shown` writes the floats."""
    if isinstance(value, float):
        return shown(value)
    if isinstance(value, list):
        return f"[{' '.join(text_of(item, shown) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{' '.join(f'{name}={text_of(item, shown)}' for name, item in value.items())}}}"
    if isinstance(value, str):
        return value if value.isprintable() and " " not in value and value else repr(value)
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def cut(line: str, width: int) -> str:
    """The line, shortened to a width."""
    if len(line) <= width:
        return line
    return line[: width - 1] + "…" if has_unicode() else line[: width - 3] + "..."
