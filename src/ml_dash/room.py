"""How much of a disk may fill with what waits for a server: all but a tenth of it, or but 5 GiB where that is less.

An outage must not take the disk from everything else on the machine. At the end of the room a journal gets no new
segment, as on a full disk (`spool_journal.py`); when the server answers the room comes back. The first 64 MiB may
always be written.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

from .files import Files

KEPT_BYTES, KEPT_PART = 5 << 30, 10
ALWAYS_BYTES = 64 << 20
WARN_PERCENT = 80


class Disk(NamedTuple):
    """Bytes of a disk: what a user may still write, and all of it."""

    free: int
    size: int

    @property
    def kept(self) -> int:
        """What a spool leaves free."""
        return min(self.size // KEPT_PART, KEPT_BYTES)


def disk_of(folder: Path | str) -> Disk:
    """The disk that a folder is on."""
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
    import shutil  # loads every compressor

    usage = shutil.disk_usage(folder)
    return Disk(usage.free, usage.total)


class Room(NamedTuple):
    """What a spool takes, and what it may take more."""

    used: int
    left: int

    @property
    def is_scarce(self) -> bool:
        """Whether it is time to warn."""
        return 100 * self.used >= WARN_PERCENT * (self.used + self.left) and self.used > ALWAYS_BYTES


def room_of(folder: Path, used: int) -> Room:
    """The room of a spool that takes so many bytes."""
    disk = disk_of(folder)
    return Room(used, max(0, disk.free - disk.kept, ALWAYS_BYTES - used))


def amount(size: int) -> str:
    """A number of bytes as people say it."""
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if size < 999.5 * factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e9:.3g} GB"


class SpoolFiles(Files):
    """The operating system's files, of which a journal gets no new segment where the room ends."""

    def open(self, path: Path | str, flags: int, mode: int = 0o644) -> int:
        """A descriptor; raises OSError (no space left) for a segment that there is no room for."""
        if flags & os.O_CREAT and (str(path).endswith(".new") or Path(path).name.startswith(".apart-")):
            _check(Path(path).parent)
        return super().open(path, flags, mode)


def _check(stream: Path) -> None:
    disk = disk_of(stream)
    if disk.free > disk.kept or _size(stream) < ALWAYS_BYTES:
        return
    text = f"no room for more that waits for the server: the last {amount(disk.kept)} of the disk are left to others"
    raise OSError(errno.ENOSPC, text, str(stream))


def _size(stream: Path) -> int:
    with os.scandir(stream) as found:
        return sum(one.stat().st_size for one in found if one.name.endswith(".seg"))
