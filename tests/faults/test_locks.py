"""Locks: who starts, who is dead, who inherits what; and limits on open files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ml_dash.files import Files, drop_locks
from ml_dash.journal_reader import is_alive, is_dead, streams
from ml_dash.store import MERGED, Track

from .abandon import Recording, read_all


class Watching(Files):
    """Calls back when a path is opened whose name ends with a text."""

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, 0

    def open(self, path: Path | str, flags: int, mode: int = 0o644) -> int:
        if str(path).endswith(self.name):
            self.seen += 1
            self.opened()
        return super().open(path, flags, mode)

    def opened(self) -> None:
        """What happens then."""


def test_unborn_journal_is_nobody_elses(tmp_path: Path) -> None:
    """While one process makes its journal's folder, another one recovers: it leaves the half-made folder alone."""

    class Meanwhile(Watching):
        def opened(self) -> None:
            other = Recording(tmp_path)
            other.session.flush()
            other.close()

    files = Meanwhile("/lock")
    recording = Recording(tmp_path, files=files)
    recording.tracks("t").append(_ts=1.0, n=1)
    recording.close()
    assert files.seen
    assert [entry["n"] for entry in read_all(tmp_path)["t"]] == [1]


def test_remains_of_births_and_removals_go(tmp_path: Path) -> None:
    """Folders of processes that died while they made or removed a journal are removed; other people's stay."""
    Recording(tmp_path).close()
    journals = tmp_path / ".journal"
    for name in (".new-000000000000000000000000000a", ".gone-000000000000000000000000000b", "notes", ".mine"):
        (journals / name).mkdir()
        (journals / name / "0000000001.seg").write_bytes(b"?")
    (journals / "readme.txt").write_text("mine")
    Recording(tmp_path).close()
    assert sorted(one.name for one in journals.iterdir() if not one.name.startswith((".d", ".b"))) == [
        ".mine", "notes", "readme.txt",
    ]  # fmt: skip
    assert (journals / "notes" / "0000000001.seg").exists()


def test_alive_and_dead(tmp_path: Path) -> None:
    """A journal is alive while its lock is held, whoever asks and however often; then exactly one asker gets it."""
    recording = Recording(tmp_path)
    recording.tracks("t").append(_ts=1.0, n=1)
    (stream,) = streams(tmp_path / ".journal")
    assert is_alive(stream)
    assert is_dead(stream) is None
    recording.die()
    assert not is_alive(stream)
    first = is_dead(stream)
    assert first is not None
    assert is_dead(stream) is None
    Files().close_lock(first)
    Recording(tmp_path).close()
    assert [entry["n"] for entry in read_all(tmp_path)["t"]] == [1]


def test_dropped_locks_are_free(tmp_path: Path) -> None:
    """After what a forked child does first, every lock this process had, or was waiting for, is others' to take."""
    files = Files()
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        files.lock(files.open_lock(path), wait=True)
    for path in paths:
        fd = os.open(path, os.O_RDWR)
        assert not files.lock(fd, wait=False)
        os.close(fd)
    drop_locks()
    for path in paths:
        fd = os.open(path, os.O_RDWR)
        assert files.lock(fd, wait=False), path
        os.close(fd)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_more_series_than_open_files(tmp_path: Path) -> None:
    """One flush of many more topics than files may be open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    recording = Recording(tmp_path)
    for n in range(150):
        recording.tracks(f"t/{n}").append(_ts=1.0, n=n)
        recording.metrics(f"m/{n}").log(n=n)
    used = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        recording.session.flush()
        recording.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = read_all(tmp_path)
    assert all(found[f"t/{n}"] == [{"timestamp": 1.0, "n": n}] for n in range(150))
    assert all(len(found[f"metrics m/{n}"]) == 1 for n in range(150))


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Opening, recording, failing and closing leave no file open."""
    from .faulty import FaultyFiles

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to count open files")
    before = sorted(os.listdir("/proc/self/fd"))
    for k in range(0, 60, 3):
        folder = tmp_path / f"run {k}"
        try:
            recording = Recording(folder, files=FaultyFiles(fail_at=k), segment_bytes=1 << 12)
        except OSError:
            continue
        for n in range(40):
            try:
                recording.tracks("t").append(_ts=float(n), n=n, text="x" * 300)
            except OSError:
                pass
        for act in (recording.session.flush, lambda: recording.store.compact(Track(MERGED, "t")), recording.close):  # noqa: B023
            try:
                act()
            except OSError:
                pass
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_flushes_wait_for_each_other(tmp_path: Path) -> None:
    """A flush in one thread does not return before what was appended earlier is stored, whoever stores it."""
    recording = Recording(tmp_path)
    track = recording.tracks("t")
    wrong: list[Any] = []

    def work(number: int) -> None:
        for n in range(30):
            track.append(_ts=float(30 * number + n), n=30 * number + n)
            track.flush()
            raw = (tmp_path / "tracks" / "t" / "data.jsonl").read_bytes()
            if b'"n":%d}' % (30 * number + n) not in raw:
                wrong.append((number, n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording.close()
    assert not wrong
