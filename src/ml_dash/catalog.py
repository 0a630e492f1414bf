"""Which experiments there are: under a root folder, or on a server. The command line and the server list through it."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import run_record
from .address import RESERVED_SEGMENTS, check_prefix
from .errors import ExperimentNotFound, InvalidPrefix, MlDashError
from .files import FILES, Files
from .heard import SILENT_AFTER_S, note_heard, standing
from .journal_reader import is_alive, streams
from .names import offer
from .spool import JOURNALS
from .store import MERGED, Batch, Document, Entry, Store, Track, TrackInfo, Window
from .stores.derived import BESIDE, in_cache
from .stores.layout import MARKS, is_experiment
from .stores.local import LocalStore
from .view import View

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT_OPEN = 64
GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class ExperimentInfo:
    """What a list of experiments shows of one.

    `status` is "running", "silent", "completed", "failed", "cancelled" or "crashed", None where nobody said (files of
    another program). "silent" is a running one that its server has not heard of for a while; `last_heard` is when it
    did, None for what was recorded in the folder itself. Times are ISO 8601 in UTC. `tracks` counts its tracks.
    """

    prefix: str
    status: str | None
    created_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    tracks: int = 0
    tags: tuple[str, ...] = ()
    readme: str | None = None
    last_heard: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**asdict(self), "tags": list(self.tags)}


class Catalog(Protocol):
    """The experiments of one root or one server."""

    def experiments(self, pattern: str = "*") -> list[ExperimentInfo]:
        """The experiments whose prefix matches (see `matches`), sorted by prefix."""
        ...

    def store(self, prefix: str) -> Store:
        """The store of an experiment; one that nobody recorded is empty, and is created by its first append.

        Raises:
            InvalidPrefix: (a ValueError) it could not name an experiment.
        """
        ...

    def remove(self, prefix: str) -> None:
        """Delete an experiment with everything in it.

        Raises:
            ExperimentNotFound: (a LookupError) nobody recorded it; the message offers the nearest names.
            MlDashError: somebody is recording it now.
        """
        ...


# ---------------------------------------------------------------- names


def matches(name: str, pattern: str) -> bool:
    """Whether a prefix or topic is meant by a pattern.

    `*`, `?` and `[abc]` as in a shell, except that `*` also passes "/"; the name itself; or a part of the path above
    it: "robot" means "robot/state" too.
    """
    return name == pattern or fnmatchcase(name, pattern) or name.startswith(pattern.rstrip("/") + "/")


def not_found(prefix: str, known: Sequence[str], where: object) -> ExperimentNotFound:
    """The error for an experiment that nobody recorded, with the nearest names."""
    return ExperimentNotFound(f"no experiment {prefix!r} in {where}; {offer(prefix, known)}")


# ---------------------------------------------------------------- a folder of experiments


class LocalCatalog:
    """The experiments under a root folder.

    Args:
        root: the folder (`dash_root`); one that does not exist holds none.
        readonly: nothing below the root is created or changed, so it works on read-only media.
        silent_after_s: a run that others send is silent when it was not heard of for so long.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        readonly: bool = False,
        files: Files = FILES,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        self.root, self._readonly, self.files = Path(root).expanduser().resolve(), readonly, files
        self.silent_after_s = silent_after_s
        self._lock = threading.Lock()
        self._stores: weakref.WeakValueDictionary[str, JournaledStore] = weakref.WeakValueDictionary()
        self._recent: deque[JournaledStore] = deque(maxlen=_KEPT_OPEN)

    def experiments(self, pattern: str = "*") -> list[ExperimentInfo]:
        """The experiments whose prefix matches, sorted by prefix."""
        return [self._info(prefix) for prefix in self.prefixes(pattern)]

    def prefixes(self, pattern: str = "*") -> list[str]:
        """The prefixes of the experiments that match, sorted: cheaper than `experiments`."""
        return sorted(prefix for prefix in self._walk_for(pattern) if matches(prefix, pattern))

    def _walk_for(self, pattern: str) -> Iterator[str]:
        """All prefixes that a pattern can mean: who asks for one experiment has no other folder looked at."""
        if _is_prefix(pattern) and GLOB.isdisjoint(pattern):
            return _walk(self.folder(pattern), pattern.count("/") + 1, pattern)
        return _walk(self.root)

    def find(self, prefix: str) -> ExperimentInfo:
        """One experiment; raises ExperimentNotFound with the nearest names, or InvalidPrefix."""
        if not is_experiment(self.folder(prefix)):
            raise not_found(prefix, self.prefixes(), self.root)
        return self._info(prefix)

    def folder(self, prefix: str) -> Path:
        """Where an experiment lives."""
        return self.root.joinpath(*check_prefix(prefix))

    def store(self, prefix: str) -> JournaledStore:
        """The store of an experiment; what the journals of running processes still hold is read with it."""
        folder = self.folder(prefix)
        with self._lock:
            store = self._stores.get(prefix)
            if store is None or store.closed:
                store = JournaledStore(folder, readonly=self._readonly, files=self.files)
                self._stores[prefix] = store
            if store not in self._recent:
                self._recent.append(store)
            return store

    def note_heard(self, prefix: str) -> bool:
        """Who sends an experiment here was heard of just now; False where there is no such experiment."""
        folder = self.folder(prefix)
        if not is_experiment(folder):
            return False
        note_heard(folder, time.time(), self.files)
        return True

    def remove(self, prefix: str) -> None:
        """Delete an experiment with everything in it; experiments below its folder stay."""
        self.find(prefix)
        folder = self.folder(prefix)
        self._refuse_running(prefix, folder)
        with self._lock:
            store = self._stores.pop(prefix, None)
        if store is not None:
            store.close()
        self._delete(prefix, folder)

    def _refuse_running(self, prefix: str, folder: Path) -> None:
        if any(is_alive(stream) for stream in streams(folder / JOURNALS, self.files)):
            raise MlDashError(f"{prefix} is being recorded now; end the run first")

    def _delete(self, prefix: str, folder: Path) -> None:
        """Out of sight by renaming, then gone: whoever looks sees a whole experiment or none."""
        bin_ = folder.parent / f".removed-{uuid.uuid4().hex}"
        if all(one == prefix for one in _walk(folder, prefix.count("/") + 1, prefix)):
            os.rename(folder, bin_)
            try:
                self._refuse_running(prefix, bin_)  # a run may have begun since
            except MlDashError:
                os.rename(bin_, folder)
                raise
        else:
            self.files.make_folder(bin_)
            for one in list(os.scandir(folder)):
                if not one.is_dir() or one.name.startswith(".") or one.name in RESERVED_SEGMENTS:
                    os.rename(one.path, bin_ / one.name)
        shutil.rmtree(bin_)
        for above in folder.parents:
            if above == self.root or not _remove_if_empty(above):
                break

    def _info(self, prefix: str) -> ExperimentInfo:
        folder = self.folder(prefix)
        document = _document(folder)

        def alive(writer: str) -> bool:
            return run_record.is_writing(folder / JOURNALS, writer, self.files)

        found = standing(folder, document, alive, self.silent_after_s)
        return ExperimentInfo(
            prefix,
            found.status if _text(document, "status") else None,
            last_heard=found.last_heard,
            created_at=_text(document, "created_at"),
            started_at=_text(document, "started_at"),
            ended_at=_text(document, "ended_at"),
            tracks=_count(folder / MERGED),
            tags=_tags(document.get("tags")),
            readme=_text(document, "readme"),
        )


class JournaledStore:
    """A local store as everybody sees it: what running or dead processes have in their journals is read with it."""

    def __init__(self, folder: Path, *, readonly: bool = False, files: Files = FILES) -> None:
        derive = in_cache() if readonly else BESIDE
        self.store = LocalStore(folder, readonly=readonly, files=files, derive=derive, tells_copies=True)
        self.closed = False
        self.view = View(self.store, folder / JOURNALS, files)
        self._finalizer = weakref.finalize(self, self.store.close)

    def append(self, batch: Batch) -> None:
        """As `Store.append`."""
        self.store.append(batch)

    def applied(self, writer: str) -> int:
        """As `Store.applied`."""
        return self.store.applied(writer)

    def forget(self, writer: str) -> None:
        """As `Store.forget`."""
        self.store.forget(writer)

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """As `Store.read`, journals included."""
        return self.view.read(track, window)

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """As `Store.tracks`, journals included."""
        return self.view.tracks(kind)

    def topics(self, kind: str = MERGED) -> list[str]:
        """The topics alone, sorted: no series is looked at."""
        return sorted({*self.store.topics(kind), *self.view.pending_topics(kind)})

    def table(self, track: Track, window: Window = Window()) -> pa.Table:
        """A track as an Arrow table, journals included (`columnar.track_table`)."""
        from .columnar import track_table

        return track_table(self, track, window)

    def remove(self, track: Track) -> None:
        """As `Store.remove`."""
        self.store.remove(track)

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """As `Store.remove_window`."""
        self.store.remove_window(track, start, end)

    def read_document(self, name: str) -> Document | None:
        """As `Store.read_document`."""
        return self.store.read_document(name)

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """As `Store.update_document`."""
        return self.store.update_document(name, change)

    def close(self) -> None:
        """As `Store.close`; the catalog opens it again when it is asked for."""
        self.closed = True
        self._finalizer()


# ---------------------------------------------------------------- looking at folders


def _walk(folder: Path, depth: int = 0, above: str = "") -> Iterator[str]:
    """The prefixes of the experiments in a folder. Hidden folders and the layout's own are not entered."""
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    if depth >= 3 and any(one.name in MARKS for one in found) and _is_prefix(above):
        yield above
    for one in found:
        if one.name.startswith(".") or one.name in RESERVED_SEGMENTS or depth > 64:
            continue
        if _is_folder(one):
            yield from _walk(Path(one.path), depth + 1, f"{above}/{one.name}" if above else one.name)


def _is_folder(one: os.DirEntry[str]) -> bool:
    """A folder, or a link to one that does not lead back up."""
    try:
        if not one.is_symlink():
            return one.is_dir()
        return one.is_dir() and not Path(one.path).absolute().is_relative_to(os.path.realpath(one.path))
    except OSError:
        return False


def _is_prefix(text: str) -> bool:
    try:
        check_prefix(text)
    except InvalidPrefix:
        return False
    return True


def _document(folder: Path) -> Document:
    """`experiment.json`, or nothing where it is missing or damaged: a list shows the experiment all the same."""
    store = LocalStore(folder, readonly=True)
    try:
        return store.read_document(run_record.DOCUMENT) or {}
    except OSError:
        return {}


def _count(folder: Path) -> int:
    try:
        return sum(one.is_dir() and not one.name.startswith(".") for one in os.scandir(folder))
    except OSError:
        return 0


def _text(document: Document, name: str) -> str | None:
    """A text of the document; whatever else somebody wrote there is left out."""
    value = document.get(name)
    return value if isinstance(value, str) else None


def _tags(tags: Any) -> tuple[str, ...]:
    return tuple(map(str, tags)) if isinstance(tags, list) else ()


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
