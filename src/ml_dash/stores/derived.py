"""Where what readers work out (columns, types) is kept: beside the data, or in the user's cache folder.

Whoever may write an experiment keeps it beside the data, for everybody. A reader that is to change nothing keeps it in
the cache folder, named by the data file's path; what is kept says itself which state of the file it is of. The folder
is bounded: what was used longest ago goes first.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..files import Files
from ..room import disk_of

CACHE_BYTES = 4 << 30
"""What the cache folder holds at most, unless `ML_DASH_CACHE_BYTES` says otherwise (0: nothing)."""


@dataclass(frozen=True, slots=True)
class Derived:
    """Where derived files are looked for and kept.

    Args:
        beside: whether they may be written beside the data. There they are looked for in any case.
        cache: a folder to keep them in instead, of at most `limit` bytes.
    """

    beside: bool = False
    cache: Path | None = None
    limit: int = CACHE_BYTES

    def places(self, beside: Path) -> list[Path]:
        """Where a derived file may be, given its place beside the data."""
        return [beside] if self.cache is None else [beside, self._cached(beside)]

    def target(self, beside: Path, size: int) -> Path | None:
        """Where a derived file of this size is to be written; None where it is not to be kept."""
        if self.beside:
            return beside
        if self.cache is None or size > self.limit:
            return None
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            return self._cached(beside) if size < disk_of(self.cache).free / 2 else None
        except OSError:
            return None

    def _cached(self, beside: Path) -> Path:
        assert self.cache is not None
        from hashlib import sha256  # OpenSSL is milliseconds of start

        name = sha256(os.fsencode(os.path.abspath(beside))).hexdigest()[:32]
        return self.cache / f"{name}{beside.suffix or beside.name}"

    def used(self, path: Path) -> None:
        """A derived file was of use: in the cache it counts as new."""
        if path.parent == self.cache:
            with suppress(OSError):
                os.utime(path)

    def wrote(self, path: Path, files: Files) -> None:
        """A derived file was written: the cache gives up what was used longest ago, down to its bound."""
        if path.parent != self.cache:
            return
        with suppress(OSError):
            kept = sorted((stat.st_mtime_ns, stat.st_size, one) for one, stat in _files_of(self.cache) if one != path)
            total = sum(size for _, size, _ in kept) + os.stat(path).st_size
            for _, size, one in kept:
                if total <= self.limit:
                    return
                files.remove(one)
                total -= size


NOTHING, BESIDE = Derived(), Derived(beside=True)


def in_cache() -> Derived:
    """Kept in the user's cache folder: `ML_DASH_CACHE`, else the system's place for caches."""
    limit = os.environ.get("ML_DASH_CACHE_BYTES", "")
    size = int(limit) if limit.isdecimal() else CACHE_BYTES
    return Derived(cache=_cache_folder(), limit=size) if size else NOTHING


def _cache_folder() -> Path | None:
    chosen = os.environ.get("ML_DASH_CACHE")
    try:
        if chosen:
            return Path(os.path.abspath(os.path.expanduser(chosen)))
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ml-dash" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "ml-dash"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-dash"
    except RuntimeError:  # nobody's home
        return None


def _files_of(folder: Path) -> list[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as found:
        return [(Path(one.path), one.stat()) for one in found if one.is_file(follow_symlinks=False)]
