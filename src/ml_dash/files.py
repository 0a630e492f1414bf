"""Every call to the file system, and the one place where a system's lack has its stated fallback.

| a system lacks            | instead                                                                     |
|---------------------------|-----------------------------------------------------------------------------|
| allocation that holds     | the journal is written with write(2) per append, not through a mapping      |
| (btrfs, ZFS, NFS, FUSE, macOS, Windows)                                                                 |
| `flock` (Windows)         | `msvcrt.locking` on the file's first byte                                   |
| `fdatasync` (macOS, Win.) | `F_FULLFSYNC` or `fsync`                                                    |
| syncing a folder (Windows)| nothing: NTFS journals its metadata                                         |
| renaming over an open file (Windows) | tried again for two seconds while readers let go                |
| fork (Windows)            | nothing to do                                                               |

Tests hand in a subclass to fail or record chosen calls.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_IS_WINDOWS = os.name == "nt"
_SOLID = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay", "f2fs"})
"""File systems where allocated space is a promise: a later store into the mapping cannot meet a full disk."""


class Files:
    """The operating system's files; one instance is shared by everything that stores locally."""

    def open(self, path: Path | str, flags: int, mode: int = 0o644) -> int:
        """A descriptor that is not inherited by programs started from here."""
        return os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), mode)

    def open_lock(self, path: Path | str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        """A descriptor to `lock`, for `close_lock`; a forked child lets go of it at once (`drop_locks`)."""
        with _opening:
            fd = self.open(path, flags)
            _locks.add(fd)
        return fd

    def close_lock(self, fd: int) -> None:
        """Give a lock back and close its descriptor.

        Unlocked first, because a child that is just being forked may have a copy, which would keep the lock.
        """
        with _opening:
            _locks.discard(fd)
            try:
                self.unlock(fd)
            except OSError:
                pass
            self.close(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of the data at the descriptor's position."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of the data at an offset."""
        if not hasattr(os, "pwrite"):
            os.lseek(fd, offset, os.SEEK_SET)
            return self.write(fd, data)
        view = memoryview(data)
        while view:
            done = os.pwrite(fd, view, offset)
            view, offset = view[done:], offset + done
        return None

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from an offset; shorter only at the end of the file."""
        if not hasattr(os, "pread"):
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)
        data = os.pread(fd, size, offset)
        while data and len(data) < size:
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read(self, path: Path | str) -> bytes:
        """A small file as a whole."""
        with open(path, "rb") as file:
            return file.read()

    def size(self, fd: int) -> int:
        """The file's length in bytes."""
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to a length."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks for the whole length, so that a full disk shows here as ENOSPC and never later."""
        os.posix_fallocate(fd, 0, size)

    def sync(self, fd: int) -> None:
        """Everything written to the descriptor is on the device on return."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        elif hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def sync_folder(self, folder: Path | str) -> None:
        """New and renamed names in the folder are on the device on return."""
        if sys.platform == "win32":
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path | str, target: Path | str) -> None:
        """Rename over whatever the target is, at once or not at all."""
        deadline = time.monotonic() + 2.0
        while True:
            try:
                return os.replace(source, target)
            except PermissionError:
                if not _IS_WINDOWS or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def remove(self, path: Path | str) -> None:
        """Remove a file; one that is gone already is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its parents, where they are missing."""
        folder.mkdir(parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, sorted; none where there is no such folder."""
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_folder(self, folder: Path) -> None:
        """Delete a folder with everything in it, as far as that is possible; a link to one stays."""
        import shutil  # loads every compressor

        shutil.rmtree(folder, ignore_errors=True)

    def lock(self, fd: int, *, wait: bool, shared: bool = False) -> bool:
        """Take the file's lock; False where somebody else holds it and `wait` is off.

        The lock is the open description's: it ends with the last descriptor of it, also when the process is killed.
        """
        if sys.platform == "win32":
            return _lock_on_windows(fd, wait=wait)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                error.add_note("no file locks on this file system, which keep processes apart: use another dash_root")
            raise
        return True

    def unlock(self, fd: int) -> None:
        """Give the lock back."""
        if sys.platform == "win32":
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def can_map(self, folder: Path) -> bool:
        """Whether a mapped journal is safe in the folder (see the table above)."""
        forced = os.environ.get("ML_DASH_JOURNAL", "")
        if forced in ("map", "write"):
            return forced == "map"
        return sys.platform == "linux" and _file_system(folder) in _SOLID

    def write_atomically(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Replace a file as a whole: readers see the old bytes or the new ones, also after a crash."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write(fd, data)
            if durable:
                self.sync(fd)
        except BaseException:
            self.close(fd)
            self.remove(temporary)
            raise
        self.close(fd)
        self.replace(temporary, path)
        if durable:
            self.sync_folder(path.parent)


def is_held_here(lock: Any) -> bool:
    """Whether the current thread holds an RLock: inside a signal handler, that it interrupted who holds it."""
    held: bool = lock._is_owned()
    return held


_locks: set[int] = set()
"""The descriptors that hold locks, or are about to."""
_opening = threading.RLock()


def drop_locks() -> None:
    """In a forked child: close every inherited lock. A lock lives as long as any copy of its descriptor, so a child
    that kept one would hide its parent's death, and hold up whoever waits for the lock."""
    global _opening
    _opening = threading.RLock()
    while _locks:
        try:
            os.close(_locks.pop())
        except OSError:
            pass


if hasattr(os, "register_at_fork"):
    # Nobody forks between opening a lock's descriptor and noting it.
    os.register_at_fork(
        before=lambda: _opening.acquire(), after_in_parent=lambda: _opening.release(), after_in_child=drop_locks
    )


def _lock_on_windows(fd: int, *, wait: bool) -> bool:
    if sys.platform == "win32":
        while True:
            os.lseek(fd, 0, os.SEEK_SET)
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.01)
    return False


def _file_system(folder: Path) -> str:
    """The type of the file system a folder is on, from Linux's mount table."""
    best, kind = "", ""
    target = os.path.realpath(folder)
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as table:
            for line in table:
                _, mount, found, *_ = line.split(" ")
                mount = mount.replace("\\040", " ")
                inside = target == mount or target.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, found
    except OSError:
        return ""
    return kind


FILES = Files()
