"""Rewriting a data file in one pass and bounded memory: compaction, one line per timestamp, ascending; deletion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreCorrupt
from ..files import Files
from ..line import to_lines
from ..store import Entry
from .datafile import DataFile, Snapshot
from .index import Block, Fingerprint, Index
from .sweep import sweep

_COPY_BYTES = 1 << 20
_LINES = 128


def compact_file(data: DataFile, files: Files, pace: Callable[[], None]) -> bool:
    """Rewrite an unsorted data file in place. Only under the store's lock.

    The new file is complete and synced before it takes the old one's name, so a crash leaves one or the other.
    A file with lines that are no entries is a person's edit: it is left as it is, and readers merge.

    Returns:
        Whether the file was rewritten.
    """
    data.heal()
    index = data.summary()
    if index.is_sorted or index.foreign:
        return False
    _rewrite(data, files, pace, None)
    return True


def delete_between(data: DataFile, files: Files, pace: Callable[[], None], low: float, high: float) -> int:
    """Rewrite a data file without the entries of a window. Only under the store's lock.

    Returns:
        How many entries are left.

    Raises:
        StoreCorrupt: lines that are no entries, a person's edit: what would become of them nobody can say.
    """
    data.heal()
    if data.summary().foreign:
        raise StoreCorrupt(f"{data.path} has lines that are no entries: mend it, or delete the whole track")
    return sum(block.entries for block in _rewrite(data, files, pace, (low, high)).blocks)


def _rewrite(data: DataFile, files: Files, pace: Callable[[], None], without: tuple[float, float] | None) -> Index:
    hidden = data.path.with_name(f".{data.path.name}.compact")
    with data.snapshot() as snapshot:
        assert snapshot is not None
        fd = files.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            merged = _write_merged(snapshot, fd, files, pace, without)
            files.sync(fd)
            _replace(hidden, data, files)
            data.forget()
            data.saved(Fingerprint.of(os.fstat(fd)), merged, whole=True)
        except BaseException:
            files.remove(hidden)
            raise
        finally:
            files.close(fd)
    return merged


def _replace(hidden: Path, data: DataFile, files: Files) -> None:
    files.replace(hidden, data.path)
    files.sync_folder(data.path.parent)


def _write_merged(
    snapshot: Snapshot, fd: int, files: Files, pace: Callable[[], None], without: tuple[float, float] | None
) -> Index:
    index = Index()
    for part in sweep(snapshot.blocks, snapshot.load):
        pace()
        if without is not None:
            part = _outside(part, *without, snapshot)
        if isinstance(part, Block):
            _copy(snapshot, part, fd, files)
            index.add_block(part._replace(offset=index.size))
            continue
        for first in range(0, len(part), _LINES):
            timed = [(entry.pop("timestamp"), entry) for entry in part[first : first + _LINES]]
            lines = to_lines(timed)
            files.write(fd, lines)
            index.add_lines(timed[0][0], timed[-1][0], len(lines), len(timed))
    return index


def _outside(part: Block | list[Entry], low: float, high: float, snapshot: Snapshot) -> Block | list[Entry]:
    """The entries of a part that are not in the window; the part itself where none of them is."""
    if isinstance(part, Block):
        if part.last < low or part.first > high:
            return part
        part = snapshot.load(part)
    return [entry for entry in part if not low <= entry["timestamp"] <= high]


def _copy(snapshot: Snapshot, block: Block, fd: int, files: Files) -> None:
    for done in range(0, block.length, _COPY_BYTES):
        size = min(_COPY_BYTES, block.length - done)
        files.write(fd, files.read_at(snapshot.fd, size, block.offset + done))
