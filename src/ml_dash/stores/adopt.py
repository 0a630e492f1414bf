"""Tracks of one folder added to those of another, all of them or none, also when the process is killed meanwhile.

Each track's new file, what it held and then what is added, is complete and on the device before the first of them
takes its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..files import Files

UNFINISHED = ".data.jsonl.import"
_COPY_BYTES = 1 << 20


def adopt(added: Mapping[Path, Path], files: Files, last: Callable[[], None]) -> None:
    """Add data files to others. Only under the store's lock.

    Args:
        added: for each data file, the one it is added to, healed; one that does not exist is made.
        last: called when everything is written and nothing can be seen yet; where it raises nothing changes.

    Raises:
        OSError: a full disk; nothing was added.
    """
    unfinished = {target.with_name(UNFINISHED): target for target in added.values()}
    try:
        for source, target in added.items():
            _join(target, source, target.with_name(UNFINISHED), files)
        last()
        for hidden, target in unfinished.items():
            files.replace(hidden, target)
    except BaseException:
        for hidden in unfinished:
            files.remove(hidden)
        raise
    for target in unfinished.values():
        files.sync_folder(target.parent)


def _join(first: Path, second: Path, into: Path, files: Files) -> None:
    fd = files.open(into, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        for path in (first, second):
            if path.exists():
                _copy(path, fd, files)
        files.sync(fd)
    finally:
        files.close(fd)


def _copy(path: Path, into: int, files: Files) -> None:
    fd = files.open(path, os.O_RDONLY)
    try:
        offset = 0
        while piece := files.read_at(fd, _COPY_BYTES, offset):
            files.write(into, piece)
            offset += len(piece)
    finally:
        files.close(fd)
