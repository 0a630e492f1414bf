"""Compaction: one line per timestamp, ascending, in one pass and bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..files import Files
from ..line import to_lines
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
    hidden = data.path.with_name(f".{data.path.name}.compact")
    with data.snapshot() as snapshot:
        assert snapshot is not None
        fd = files.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            merged = _write_merged(snapshot, fd, files, pace)
            files.sync(fd)
            _replace(hidden, data, files)
            data.forget()
            data.saved(Fingerprint.of(os.fstat(fd)), merged, whole=True)
        except BaseException:
            files.remove(hidden)
            raise
        finally:
            files.close(fd)
    return True


def _replace(hidden: Path, data: DataFile, files: Files) -> None:
    files.replace(hidden, data.path)
    files.sync_folder(data.path.parent)


def _write_merged(snapshot: Snapshot, fd: int, files: Files, pace: Callable[[], None]) -> Index:
    index = Index()
    for part in sweep(snapshot.blocks, snapshot.load):
        pace()
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


def _copy(snapshot: Snapshot, block: Block, fd: int, files: Files) -> None:
    for done in range(0, block.length, _COPY_BYTES):
        size = min(_COPY_BYTES, block.length - done)
        files.write(fd, files.read_at(snapshot.fd, size, block.offset + done))
