"""Row 4: the disk is full at any point. OSError, never SIGBUS; every acknowledged entry is there once space returns."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ml_dash
from ml_dash import Experiment
from ml_dash.store import MERGED, Track

from . import figures
from .abandon import Recording, read_all
from .checks import check_clean
from .processes import Counters, kill, start, wait_for
from .programs import on_full_disk
from .sizes import size
from .writers import PREFIX

PAGE = 4096
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class SmallDisk:
    """A mounted tmpfs, filled with ballast."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            size, step = 0, 1 << 20
            while step >= PAGE:
                try:
                    os.posix_fallocate(fd, size, step)
                    size += step
                except OSError:
                    step //= 2
            os.ftruncate(fd, max(0, size - leave))
        finally:
            os.close(fd)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)


class SmallFiles:
    """Where nothing can be mounted: no file may grow beyond what the largest has, and a little."""

    def __init__(self, folder: Path) -> None:
        self.folder, (self._soft, self._hard) = folder, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, leave: int) -> None:
        """Let files grow by so many bytes."""
        sizes = [path.stat().st_size for path in self.folder.rglob("*.jsonl")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes, default=0) + leave, self._hard))

    def free(self) -> None:
        """Lift the limit."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._soft, self._hard))


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk | SmallFiles]:
    """A disk of 40 MB, or a limit on the size of files."""
    if request.param == "limit":
        small = SmallFiles(tmp_path)
        yield small
        small.free()
        return
    with _mounted(tmp_path / "disk", "40m") as folder:
        yield SmallDisk(folder)


class _mounted:
    def __init__(self, folder: Path, space: str) -> None:
        self._folder, self._space = folder, space

    def __enter__(self) -> Path:
        self._folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self._space}", "tmpfs", self._folder],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("needs the right to mount a tmpfs (the limit on file sizes is tested in its place)")
        return self._folder

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["umount", "-l", self._folder], check=True)


def _full(call: object, *args: object, **options: object) -> bool:
    """Whether a call met the full disk; any other error is a failure."""
    try:
        call(*args, **options)  # type: ignore[operator]
    except OSError as error:
        if error.errno not in FULL:
            raise
        figures.count("calls that met a full disk")
        return True
    return False


class Recorded:
    """What was acknowledged."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.n, self.logged = recording, 0, 0

    def append(self, text: str = "") -> bool:
        """One entry; whether it met the full disk."""
        full = _full(self.recording.tracks("t").append, _ts=float(self.n), n=self.n, text=text)
        self.n += not full
        return full

    def log(self) -> bool:
        """One metric."""
        full = _full(self.recording.metrics("m").log, n=self.logged)
        self.logged += not full
        return full

    def check(self, folder: Path) -> None:
        """Everything, and nothing else."""
        found = read_all(folder)
        assert [entry["n"] for entry in found.get("t", [])] == list(range(self.n))
        assert [entry["n"] for entry in found.get("metrics m", [])] == list(range(self.logged))


@pytest.mark.parametrize("durability", ["normal", "strict"])
def test_rotation(disk: SmallDisk | SmallFiles, journal_mode: str, durability: str) -> None:
    """No room for the next segment: append raises, and so does each one after it; what was acknowledged is readable on
    the full disk, and recording goes on when there is space again."""
    folder = disk.folder / "run"
    recorded = Recorded(Recording(folder, durability=durability, segment_bytes=1 << 20))
    for _ in range(200):
        recorded.append("x" * 500)
    disk.fill(2 * PAGE)
    refused = 0
    for _ in range(20_000):
        refused += recorded.append("y" * 1000)
        if refused == 5:
            break
    assert refused == 5
    recorded.check(folder)
    assert len(recorded.recording.tracks("t")) == recorded.n
    disk.free()
    assert not recorded.append()
    assert not _full(recorded.recording.session.flush)
    recorded.check(folder)
    recorded.recording.close()
    recorded.check(folder)
    check_clean(folder)


@pytest.mark.parametrize("end", ["close", "die", "go on"])
def test_flush(disk: SmallDisk | SmallFiles, journal_mode: str, end: str) -> None:
    """Flushed with anything from nothing to enough space left, so that boundary, data, state and index each meet the
    full disk: OSError or done; all is readable at once; then the recorder goes on, closes or dies."""
    full = 0
    for number, leave in enumerate((*range(0, size(8, 20) * PAGE, PAGE), 60 * PAGE)):
        folder = disk.folder / f"run {number}"
        recorded = Recorded(Recording(folder, segment_bytes=1 << 19))
        for n in range(120):
            recorded.append("x" * 100)
            if n % 10 == 0:
                recorded.log()
            if n == 60:
                recorded.recording.session.flush()
        disk.fill(leave)
        full += _full(recorded.recording.session.flush)
        recorded.check(folder)
        for _ in range(5):
            recorded.append("z" * 100)
            recorded.log()
        full += _full(recorded.recording.session.flush)
        if end == "close":
            full += _full(recorded.recording.close)
        elif end == "die":
            recorded.recording.die()
        recorded.check(folder)
        disk.free()
        if end == "go on":
            assert not _full(recorded.recording.session.flush)
            recorded.append()
            recorded.recording.close()
        else:
            Recording(folder).close()
        recorded.check(folder)
        check_clean(folder)
        left = [path.name for path in folder.rglob("*.tmp")]
        assert not left
    assert full > (3 if isinstance(disk, SmallDisk) else 1)


def test_compaction(disk: SmallDisk | SmallFiles, journal_mode: str) -> None:
    """A file is compacted with anything from nothing to enough space: the old one stays, or the new one is whole."""
    folder, full, done = disk.folder / "run", 0, 0
    recording = Recording(folder, segment_bytes=1 << 20)
    wanted: dict[float, int] = {float(n * 1000): n for n in range(400)}
    recording.tracks("t").extend(_ts=list(wanted), n=list(wanted.values()), text=["x" * 500] * 400)
    for number, leave in enumerate((*range(0, 200 * PAGE, size(16, 3) * PAGE), None), start=1):
        for n in range(40):
            at = float(n * 1000 - number)
            recording.tracks("t").append(_ts=at, n=n, text="x" * 500)
            wanted[at] = n
        recording.session.flush()
        now = (folder / "tracks" / "t" / "data.jsonl").stat().st_size
        leave = 2 * now if leave is None else leave  # at last there is room
        disk.fill(leave if isinstance(disk, SmallDisk) else leave - now)
        met = _full(recording.store.compact, Track(MERGED, "t"))
        full, done = full + met, done + (not met)
        disk.free()
        assert {entry["timestamp"]: entry["n"] for entry in read_all(folder)["t"]} == wanted
    assert full
    assert done
    recording.close()
    assert {entry["timestamp"]: entry["n"] for entry in read_all(folder)["t"]} == wanted
    check_clean(folder)


def test_opening(disk: SmallDisk | SmallFiles, journal_mode: str) -> None:
    """A recording opened on a full disk: OSError that harms nothing, or recording; reading works in any case."""
    folder = disk.folder / "run"
    recorded = Recorded(Recording(folder))
    for _ in range(100):
        recorded.append("x" * 100)
    recorded.recording.die()
    for leave in (*range(0, 12 * PAGE, PAGE), 40 * PAGE):
        disk.fill(leave)
        try:
            recorded.recording = Recording(folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            figures.count("calls that met a full disk")
        else:
            recorded.append()
            recorded.recording.die()
        recorded.check(folder)
        disk.free()
    Recording(folder).close()
    recorded.check(folder)
    check_clean(folder)


def test_experiment_on_a_full_disk(disk: SmallDisk | SmallFiles) -> None:
    """Through the public door: opening and closing say OSError, and the next open stores what was left."""
    disk.fill(0)
    with pytest.raises(OSError), Experiment(PREFIX, dash_root=disk.folder / "new").run:
        pass
    disk.free()
    experiment = Experiment(PREFIX, dash_root=disk.folder)
    try:
        with pytest.raises(OSError, match=r"No space|too large") as raised, experiment.run as exp:
            exp.tracks("t").extend(_ts=[float(n) for n in range(3000)], text=["x" * 100] * 3000)
            disk.fill(0)
    finally:
        disk.free()
    assert "the next open stores it" in "".join(getattr(raised.value, "__notes__", []))
    with ml_dash.open(PREFIX, dash_root=disk.folder) as exp:
        assert len(exp.tracks("t")) == 3000
        assert exp.status in ("crashed", "failed"), "the second where the disk has room for that word"
    with experiment.run as exp:
        assert len(exp.tracks("t")) == 3000
    check_clean(experiment.folder)


def test_the_blocks_own_exception_leaves_it_on_a_full_disk(disk: SmallDisk | SmallFiles) -> None:
    """Who catches KeyError gets KeyError, with a note of what the disk refused."""
    experiment = Experiment(PREFIX, dash_root=disk.folder)
    try:
        with pytest.raises(KeyError, match="mine") as raised, experiment.run as exp:
            exp.tracks("t").extend(_ts=[float(n) for n in range(3000)], text=["x" * 100] * 3000)
            disk.fill(0)
            raise KeyError("mine")
    finally:
        disk.free()
    (note,) = raised.value.__notes__
    assert note.startswith("the run could not be closed either: OSError")
    assert "the next open stores it" in note
    with experiment.run as exp:
        assert len(exp.tracks("t")) == 3000
    check_clean(experiment.folder)


def test_recorder_at_full_speed_while_the_disk_fills(tmp_path: Path, journal_mode: str) -> None:
    """A process that appends as fast as it can, with its threads, while the disk is filled and freed again and again,
    and is then killed: it met OSError only, and all that was acknowledged is there."""
    with _mounted(tmp_path / "disk", "120m") as folder:
        small, counters = SmallDisk(folder), Counters(tmp_path / "counters")
        process = start(on_full_disk, folder, counters.path, journal=journal_mode)
        for _ in range(size(3, 12)):
            refused, acknowledged = counters[1], counters[0]
            wait_for(lambda: counters[0] > acknowledged + 2000, "appends", process)  # noqa: B023
            small.fill(PAGE)
            wait_for(lambda: counters[1] > refused + 50, "the full disk", process)  # noqa: B023
            small.free()
        kill(process)
        small.free()
        with ml_dash.open(PREFIX, dash_root=folder) as exp:
            found = [entry["n"] for entry in exp.tracks("t").list_entries()]
        assert found[: counters[0]] == list(range(counters[0]))
        assert len(found) - counters[0] in (0, 1)
        figures.count("appends refused on a full disk", counters[1])
        with Experiment(PREFIX, dash_root=folder).run as exp:
            assert len(exp.tracks("t")) == len(found)
