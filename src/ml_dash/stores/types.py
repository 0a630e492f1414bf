"""The types that occur in a track, kept beside it so that listing does not read it again. Derived and disposable.

    .types    {"version", "size", "mtime_ns", "ctime_ns", "inode", "covered", "tail", "types": {field: [type names]}}

It fits where size, times and inode are the file's. A file that only grew (the same inode, and the same
bytes before the place up to which it was covered) is read from that place on. Kept for sorted files only: merging may
take a type away, which a union never does.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec

from ..files import Files
from ..schema import observe
from .datafile import Snapshot
from .derived import Derived
from .index import Fingerprint
from .layout import DATA

VERSION = 1
TAIL_BYTES = 4096

Seen = dict[str, set[str]]


class _Known(msgspec.Struct):
    version: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    covered: int
    tail: int
    types: dict[str, list[str]]


_decoder = msgspec.json.Decoder(_Known)


def types_path(data: Path) -> Path:
    """Where the types of a data file live."""
    return data.with_name(".types" if data.name == DATA else f".{data.name}.types")


def types_of(data: Path, snapshot: Snapshot, files: Files, *, keep: Derived) -> Seen:
    """The type names that occur in each field of a sorted file; read from the kept ones as far as they fit.

    Args:
        keep: where to keep what was learned.
    """
    covered, seen = 0, Seen()
    for place in keep.places(types_path(data)):
        known = _load(place, files)
        if known is not None and known.covered >= covered and (_fits(known, snapshot) or _only_grew(known, snapshot)):
            covered, seen = known.covered, {name: set(types) for name, types in known.types.items()}
            if _fits(known, snapshot):
                keep.used(place)
                return seen
    for block in snapshot.blocks:
        if block.offset + block.length > covered:
            observe(seen, snapshot.load(block))
    target = keep.target(types_path(data), 0)
    if target is not None:
        _save(target, snapshot, seen, files)
        if target.name.startswith("00"):  # one in 256: the bound holds without a look at the whole cache each time
            keep.wrote(target, files)
    return seen


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


def _save(path: Path, snapshot: Snapshot, seen: Seen, files: Files) -> None:
    types = {name: sorted(names) for name, names in seen.items()}
    known = _Known(VERSION, *snapshot.fingerprint, snapshot.end, _tail(snapshot, snapshot.end), types)
    if not os.access(path.parent, os.W_OK):
        return
    try:
        files.write_atomically(path, msgspec.json.encode(known), durable=False)
    except OSError:
        pass
