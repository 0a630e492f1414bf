"""The types that occur in a track, kept beside it so that listing does not read it again. Derived and disposable.

    .types    {"version", "size", "mtime_ns", "ctime_ns", "inode", "covered", "tail",
               "types": {field: {type: [start, end, start, end]}}}

It fits where size, times and inode are the file's. A file that only grew (the same inode, and the same
bytes before the place up to which it was covered) is read from that place on. It tells what lines hold: where a later
line replaces a field of an earlier one, merging may take a type away. So each type is kept with the first and the last
stretch of the file that has it: where nothing overlaps one of them, nobody took it away.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..files import Files
from ..schema import observe
from .datafile import Snapshot
from .derived import Derived
from .index import Block, Fingerprint
from .layout import DATA

VERSION = 3
TAIL_BYTES = 4096

Seen = dict[str, set[str]]
Places = dict[str, dict[str, tuple[int, int, int, int]]]
"""For each field the types that occur in it: where the first block that has it begins and ends, and where the last one
does. An index that is made again may cut elsewhere, so these are stretches and not blocks."""


class _Known(msgspec.Struct):
    version: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    covered: int
    tail: int
    types: dict[str, dict[str, tuple[int, int, int, int]]]


_decoder = msgspec.json.Decoder(_Known)


def types_path(data: Path) -> Path:
    """Where the types of a data file live."""
    return data.with_name(".types" if data.name == DATA else f".{data.name}.types")


def types_of(data: Path, snapshot: Snapshot, files: Files, *, keep: Derived) -> Places:
    """The types that occur in each field of a file's lines; read from the kept ones as far as they fit.

    Args:
        keep: where to keep what was learned.
    """
    covered, found = 0, Places()
    for place in keep.places(types_path(data)):
        known = _load(place, files)
        if known is not None and known.covered >= covered and (_fits(known, snapshot) or _only_grew(known, snapshot)):
            covered, found = known.covered, known.types
            if _fits(known, snapshot):
                keep.used(place)
                return found
    for block in snapshot.blocks:
        if block.offset + block.length > covered:
            _note(found, snapshot, block)
    target = keep.target(types_path(data), 0)
    if target is not None:
        _save(target, snapshot, found, files)
        if target.name.startswith("00"):  # one in 256: the bound holds without a look at the whole cache each time
            keep.wrote(target, files)
    return found


def _note(found: Places, snapshot: Snapshot, block: Block) -> None:
    seen = Seen()
    observe(seen, snapshot.load(block))
    here = block.offset, block.offset + block.length
    for name, types in seen.items():
        places = found.setdefault(name, {})
        for one in types:
            places[one] = (*places.get(one, here)[:2], *here)


def names_of(found: Places) -> Seen:
    """The types without their places."""
    return {name: set(types) for name, types in found.items()}


def look_up(seen: Seen, found: Places, apart: Sequence[Block], snapshot: Snapshot) -> None:
    """Add to what overlapping blocks have, merged, the types of an unsorted file's other blocks.

    Args:
        seen: the types in the merged part; added to.
        found: the types in all lines.
        apart: the blocks that overlap no other, in file order.
    """
    starts = [block.offset for block in apart]

    def is_apart(start: int, end: int) -> bool:
        at = bisect_right(starts, start) - 1
        return at >= 0 and end <= starts[at] + apart[at].length

    missing: dict[tuple[str, str], tuple[int, int]] = {}
    for name, types in found.items():
        for one, (start, end, last_start, last_end) in types.items():
            if is_apart(start, end) or is_apart(last_start, last_end):
                seen.setdefault(name, set()).add(one)
            elif one not in seen.get(name, ()):
                missing[name, one] = start, last_end
    for block in apart:  # between those two it may occur once more, or only where it was replaced
        if any(block.offset < end and start < block.offset + block.length for start, end in missing.values()):
            observe(seen, snapshot.load(block))
            missing = {what: where for what, where in missing.items() if what[1] not in seen.get(what[0], ())}


def _load(path: Path, files: Files) -> _Known | None:
    try:
        known = _decoder.decode(files.read(path))
    except (OSError, ValueError):
        return None
    return known if known.version == VERSION else None


def _fits(known: _Known, snapshot: Snapshot) -> bool:
    return Fingerprint(known.size, known.mtime_ns, known.ctime_ns, known.inode) == snapshot.fingerprint


def _only_grew(known: _Known, snapshot: Snapshot) -> bool:
    fits = known.inode == snapshot.fingerprint.inode and known.size < snapshot.fingerprint.size
    return fits and known.tail == _tail(snapshot, known.covered)


def _tail(snapshot: Snapshot, covered: int) -> int:
    """A checksum of the last bytes before a place."""
    start = max(0, covered - TAIL_BYTES)
    return zlib.crc32(snapshot.files.read_at(snapshot.fd, covered - start, start))


def _save(path: Path, snapshot: Snapshot, found: Places, files: Files) -> None:
    known = _Known(VERSION, *snapshot.fingerprint, snapshot.end, _tail(snapshot, snapshot.end), found)
    if not os.access(path.parent, os.W_OK):
        return
    try:
        files.write_atomically(path, msgspec.json.encode(known), durable=False)
    except OSError:
        pass
