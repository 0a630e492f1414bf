"""Files into an experiment as a whole: recorded aside, checked, and then in their place at once, or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ..entry import encode_body
from ..experiment import Experiment
from ..files import FILES
from ..log import TRACK as LOG
from ..store import MERGED, Batch, Track
from ..stores.layout import is_experiment
from ..stores.local import LocalStore
from .model import Advance
from .run import Prepared

ASIDE = ".import-"
"""How the folders begin, hidden in the root, in which imports are recorded aside."""
_LOCK = ".lock"

log = logging.getLogger("ml_dash")

Progress = Callable[[Prepared], AbstractContextManager[Advance]]


def store_whole(prefix: str, root: str | os.PathLike[str], prepared: Sequence[Prepared], progress: Progress) -> None:
    """Store the rows of files that were found sound in an experiment under a root folder, which is created if needed.

    A new experiment appears when it is complete. To one that exists the rows are added, whose run stays what it is: who
    records it now goes on, one that ended is not opened again.

    Args:
        progress: gives for each file what is told the bytes that were stored.

    Raises:
        InvalidFile: a file changed since it was read. OSError: a full disk. Nothing was stored.
    """
    target = Experiment(prefix, dash_root=root, dash_url="")
    existed = target.root.exists()
    FILES.make_folder(target.root)
    _sweep(target.root)
    aside = target.root / f"{ASIDE}{uuid.uuid4().hex}"
    FILES.make_folder(aside)
    lock = FILES.open_lock(aside / _LOCK)
    try:
        FILES.lock(lock, wait=True)
        staged = _recorded(prefix, aside, prepared, progress)
        if not _moved(staged.folder, target.folder):
            _added(staged.folder, target.folder, [str(one.path) for one in prepared])
    finally:
        FILES.close_lock(lock)
        shutil.rmtree(aside, ignore_errors=True)
        if not existed and not any(target.root.iterdir()):
            target.root.rmdir()


def _recorded(prefix: str, aside: Path, prepared: Sequence[Prepared], progress: Progress) -> Experiment:
    staged = Experiment(prefix, dash_root=aside, dash_url="")
    with staged.run:
        for one in prepared:
            with progress(one) as advance:
                one.store(staged, advance)
        staged.log("imported", files=[str(one.path) for one in prepared])
    return staged


def _moved(staged: Path, target: Path) -> bool:
    """Whether the experiment could take its place by one renaming; not so where there is something already."""
    if is_experiment(target):
        return False
    FILES.make_folder(target.parent)
    try:
        os.rename(staged, target)
    except OSError:
        if target.exists():  # somebody's experiment since, or a folder above other experiments
            return False
        raise
    FILES.sync_folder(target.parent)
    return True


def _added(staged: Path, target: Path, paths: list[str]) -> None:
    """The tracks added to those of an experiment that exists, with a line in its log."""
    source, store = LocalStore(staged, readonly=True), LocalStore(target)
    try:
        tracks = {track: path for track in map(_track, source.topics()) if (path := source.path_of(track)) is not None}
        fields = {"level": "info", "message": "imported", "files": paths}
        line = Batch(f"import-{uuid.uuid4().hex}", 1, {0: LOG}, [encode_body((0, time.time(), fields))])
        store.adopt(tracks, line)
    finally:
        source.close()
        store.close()


def _track(topic: str) -> Track:
    return Track(MERGED, topic)


def _sweep(root: Path) -> None:
    """Remove what imports left that were killed: nobody holds their lock."""
    for aside in root.glob(f"{ASIDE}*"):
        try:
            lock = FILES.open_lock(aside / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            continue  # just being made, or removed
        try:
            if FILES.lock(lock, wait=False):
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", aside, error)
        finally:
            FILES.close_lock(lock)
