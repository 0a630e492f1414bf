"""A recording whose files a test can make fail, and that can "die" without a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_dash.files import FILES, Files
from ml_dash.log import Log
from ml_dash.metrics import MetricsManager
from ml_dash.session import Session
from ml_dash.stores.local import LocalStore
from ml_dash.tracks import TracksManager


class Recording:
    """What `Experiment` puts together, with chosen files and without background threads: every run is the same."""

    def __init__(self, folder: Path, *, files: Files = FILES, durability: str = "normal", **options: Any) -> None:
        self.store = LocalStore(folder, files=files)
        self.session = Session(
            self.store,
            folder / ".journal",
            recording=True,
            durability=durability,
            files=files,
            background=False,
            **options,
        )
        self.tracks, self.metrics, self.log = TracksManager(), MetricsManager(), Log()
        for part in (self.tracks, self.metrics, self.log):
            part.bind(self.session)

    def close(self) -> None:
        """End it well."""
        self.session.close()

    def die(self) -> None:
        """Let go of everything as a killed process does: nothing is written any more, every lock is free."""
        journal = self.session.journal
        assert journal is not None
        for fd in (journal._lock_fd, self.store._lock_fd):
            if fd >= 0:
                FILES.close_lock(fd)
        self.store._lock_fd = -1
        self.session.after_fork_in_child()
        self.session.closed = True


def read_all(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every track, metric and log as a reader sees them, without changing anything."""
    session = Session(LocalStore(folder, readonly=True), folder / ".journal", recording=False)
    found = {}
    tracks, metrics, log = TracksManager(), MetricsManager(), Log()
    for part in (tracks, metrics, log):
        part.bind(session)
    for info in tracks.list():
        found[info.topic] = list(tracks(info.topic).list_entries())
    for info in metrics.list():
        found[f"metrics {info.topic}"] = metrics(info.topic).read()["entries"]
    found["log"] = list(log.read())
    session.close()
    return found
