"""No room for more that waits for a server: append raises, drops and counts, or waits, as the program chose."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ml_dash
from ml_dash import Experiment, room, spool_journal
from ml_dash.catalog import LocalCatalog
from ml_dash.delivery import FIRST
from ml_dash.errors import InvalidQuery, NotDelivered, NotOpen
from ml_dash.journal import Journal
from ml_dash.journal_reader import Stream
from ml_dash.room import Disk, SpoolFiles
from ml_dash.spool import POLICIES, dropped
from ml_dash.spool_journal import SpoolJournal
from store_contract import STATE, body

pytest.importorskip("httpx2")
pytest.importorskip("uvicorn")
from http_server import Server, wait_until
from ml_dash.columns import encode_columns
from ml_dash.server.app import create_app

PREFIX = "alice/robotics/full"
GIB = 1 << 30


class FakeDisk:
    """A disk whose room a test opens and closes."""

    def __init__(self) -> None:
        self.has_room = True
        self.asked = 0

    def __call__(self, folder: object) -> Disk:
        self.asked += 1
        return Disk(6 * GIB if self.has_room else 5 * GIB - 1, 100 * GIB)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    """The disk of all tests here."""
    found = FakeDisk()
    monkeypatch.setattr(room, "disk_of", found)
    monkeypatch.setattr(room, "ALWAYS_BYTES", 0)
    return found


@pytest.fixture(params=["map", "write"])
def new(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Any]]:
    """Journals of small segments, in both ways of writing them."""
    monkeypatch.setenv("ML_DASH_JOURNAL", request.param)
    made: list[Journal] = []

    def make(policy: str) -> SpoolJournal:
        folder = tmp_path / "run" / ".journal"
        journal = SpoolJournal(folder, when_full=policy, files=SpoolFiles(), segment_bytes=4096)
        assert journal.track_id(STATE) == 1
        made.append(journal)
        return journal

    yield make
    for journal in made:
        journal.close()
        journal.release()


def stored(journal: Journal) -> list[bytes]:
    return list(Stream(journal.path).bodies(FIRST, None, living=True))


def fill(journal: Journal, disk: FakeDisk) -> int:
    """Close the room and append until the first one does not fit; how many are stored."""
    disk.has_room = False
    for number in range(1000):
        if journal.position + 300 > 4096 and number:
            return number
        journal.write(body(float(number), 1, n=number, text="x" * 200))
    raise AssertionError("it never was full")


def test_raising_is_what_happens_by_default(new: Callable[[str], Any], disk: FakeDisk) -> None:
    """Nothing is dropped behind the program's back, and what returned is kept."""
    journal = new("raise")
    journal.write(body(-1.0, 1, n=-1))
    count = fill(journal, disk)
    with pytest.raises(OSError, match="left to others"):
        journal.write(body(9.0, 1, text="x" * 300))
    assert len(stored(journal)) == count + 1
    assert journal.told() == ""


def test_dropping_counts(
    new: Callable[[str], Any], disk: FakeDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Exactly what is not stored is counted, columns by their entries; it is told once and noted for `status`; with
    room again everything is recorded; a full disk is not looked at for every entry."""
    caplog.set_level(logging.WARNING, "ml_dash")
    now = [100.0]
    monkeypatch.setattr(spool_journal.time, "monotonic", lambda: now[0])
    journal = new("drop")
    journal.write(body(-1.0, 1, n=-1))
    count = 1 + fill(journal, disk)
    asked = disk.asked
    for number in range(500):
        journal.write(body(float(number), 1, text="y" * 300))
    journal.write_apart(encode_columns("t", 1, [1.0, 2.0, 3.0], {"x": [1.0, 2.0, 3.0]})[1])
    assert disk.asked - asked == 1
    assert len(stored(journal)) == count
    assert journal.told() == "503 entries were dropped, because there was no room on the disk (when_full='drop')"
    assert journal.told() == ""
    assert dropped(tmp_path / "run") == 503
    journal.prepare()
    journal.prepare()
    assert caplog.text.count("entries are dropped and counted") == 1
    disk.has_room, now[0] = True, 200.0
    journal.write(body(9.0, 1, text="z" * 300))
    journal.write_apart(encode_columns("t", 1, [1.0], {"x": [1.0]})[1])
    assert len(stored(journal)) == count + 2
    assert journal.told() == ""


def test_waiting_loses_nothing(new: Callable[[str], Any], disk: FakeDisk, caplog: pytest.LogCaptureFixture) -> None:
    """An append waits, others too, without holding what flush needs; with room again all of them are stored, once."""
    caplog.set_level(logging.WARNING, "ml_dash")
    journal = new("wait")
    journal.write(body(-1.0, 1, n=-1))
    count = 1 + fill(journal, disk)
    late = [body(1000.0 + n, 1, text="w" * 300) for n in range(3)]
    threads = [threading.Thread(target=journal.write, args=(one,)) for one in late]
    for thread in threads:
        thread.start()
    wait_until(lambda: journal._is_full)
    journal.prepare()
    assert caplog.text.count("append waits") == 1
    journal.sync()
    assert len(stored(journal)) == count
    assert all(thread.is_alive() for thread in threads)
    disk.has_room = True
    for thread in threads:
        thread.join(30)
    assert sorted(stored(journal)[count:]) == sorted(late)
    assert journal.told() == ""


def test_who_waits_is_told_of_the_end(
    new: Callable[[str], Any], disk: FakeDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed by another thread, an append that waits raises NotOpen; it never hangs."""
    caplog.set_level(logging.WARNING, "ml_dash")
    journal = new("wait")
    journal.write(body(-1.0, 1, n=-1))
    fill(journal, disk)
    told: list[BaseException] = []

    def append() -> None:
        try:
            journal.write(body(9.0, 1, text="x" * 300))
        except NotOpen as error:
            told.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    wait_until(lambda: journal._is_full)
    journal.prepare()
    assert caplog.text.count("append waits") == 1
    journal.close()
    thread.join(30)
    assert len(told) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_our_own_threads_go_on(new: Callable[[str], Any], disk: FakeDisk, policy: str) -> None:
    """What a logging handler records of what the sending thread logs neither has it wait for itself nor ends it."""
    journal = new(policy)
    journal.write(body(-1.0, 1, n=-1))
    fill(journal, disk)
    thread = threading.Thread(target=journal.write, args=(body(9.0, 1, text="x" * 300),), name="ml_dash-send")
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert journal.told().startswith("1 entries were dropped")


def test_no_wait_inside_a_logging_handler(new: Callable[[str], Any], disk: FakeDisk) -> None:
    """It would hold the handler's lock, which the threads that make room need when they log: dropped, and counted."""
    journal = new("wait")
    journal.write(body(-1.0, 1, n=-1))
    fill(journal, disk)
    logger, bridge = logging.Logger("bridge"), logging.Handler()
    bridge.emit = lambda record: journal.write(body(9.0, 1, text="x" * 300))  # type: ignore[method-assign]
    logger.addHandler(bridge)
    thread = threading.Thread(target=logger.warning, args=("here",), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert journal.told().startswith("1 entries were dropped")


def test_what_fits_is_not_dropped(new: Callable[[str], Any], disk: FakeDisk) -> None:
    """An entry that there was no room for does not cost those after it that fit where no new segment is needed."""
    journal = new("drop")
    journal.write(body(-1.0, 1, n=-1))
    disk.has_room, journal.limit = False, 0  # the slow way, as in a strict run
    journal.write(body(0.0, 1, text="x" * 5000))
    for number in range(5):
        journal.write(body(float(number), 1, n=number))
    assert len(stored(journal)) == 6
    assert journal.told().startswith("1 entries")


@pytest.mark.parametrize("policy", ["drop", "wait"])
@pytest.mark.parametrize("root", [True, False], ids=["local first", "server only"])
def test_an_outage_that_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, root: bool, call_status: Callable[..., Any]
) -> None:
    """No append raises. Dropped entries are all that is missing afterwards; flush and the end warn of them and
    `ml-dash status` shows them. Who waited has lost nothing."""
    monkeypatch.setattr(room, "ALWAYS_BYTES", 8 << 20)
    monkeypatch.setattr("ml_dash.delivery.MOST_S", 0.1)
    monkeypatch.setenv("ML_DASH_STATE", str(tmp_path / "state"))
    disk = FakeDisk()
    monkeypatch.setattr(room, "disk_of", disk)
    served = tmp_path / "served"
    with Server(create_app(LocalCatalog(served), tokens=None)) as server:
        port, url = server.port, server.url
    experiment = Experiment(PREFIX, dash_root=tmp_path / "dash" if root else None, dash_url=url, when_full=policy)
    text, total = "x" * 100_000, 200
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", NotDelivered)
        experiment.run.start()
        disk.has_room = False

        def append() -> None:
            for number in range(total):
                experiment.tracks("t").append(n=number, text=text, _ts=float(number))

        thread = threading.Thread(target=append)
        thread.start()
        if policy == "drop":
            thread.join(60)
        else:
            journal = experiment._session.journal  # type: ignore[union-attr]
            wait_until(lambda: journal._is_full)  # type: ignore[union-attr]
        assert thread.is_alive() == (policy == "wait")
        with Server(create_app(LocalCatalog(served), tokens=None), port):
            disk.has_room = True
            thread.join(60)
            experiment.tracks.flush(timeout_s=60)
            said = [str(one.message) for one in told]
            experiment.run.complete()
    with ml_dash.open(PREFIX, dash_root=served) as there:
        found = [entry["n"] for entry in there.tracks("t").list_entries()]
    missing = total - len(found)
    assert found == list(range(len(found)))
    shown = json.loads(call_status(tmp_path / "dash"))
    if policy == "wait":
        assert (missing, shown) == (0, [])
    else:
        assert 0 < missing < total
        assert [one for one in said if "dropped" in one] == [
            f"{missing} entries were dropped, because there was no room on the disk (when_full='drop')"
        ]
        assert [one["dropped"] for one in shown] == [missing]


@pytest.mark.parametrize("root", [True, False], ids=["local first", "server only"])
def test_a_segment_larger_than_the_room_goes_when_it_has_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    """Arrays that alone take all that may always be written are one segment, which nothing follows: it makes room all
    the same. Recording, flush and the end go on without it, and everything is on the server once."""
    np = pytest.importorskip("numpy")
    monkeypatch.setattr(room, "ALWAYS_BYTES", 9 << 20)
    monkeypatch.setattr("ml_dash.delivery.SEND_EVERY_S", 0.02)
    monkeypatch.setenv("ML_DASH_STATE", str(tmp_path / "state"))
    disk, served, count = FakeDisk(), tmp_path / "served", 900_000
    monkeypatch.setattr(room, "disk_of", disk)
    with Server(create_app(LocalCatalog(served), tokens=None)) as server:
        dash = tmp_path / "dash" if root else None
        with Experiment(PREFIX, dash_root=dash, dash_url=server.url, when_full="wait").run as experiment:
            experiment.tracks("t").append(n=1, _ts=-1.0).flush()
            disk.has_room = False
            experiment.tracks("big").extend(_ts=np.arange(count, dtype=float), x=np.zeros(count, dtype=np.float32))
            thread = threading.Thread(target=lambda: experiment.tracks("t").append(n=2, _ts=-0.5))
            thread.start()
            experiment.tracks.flush(timeout_s=60)
            thread.join(30)
            assert not thread.is_alive()
            experiment.tracks.flush(timeout_s=60)
    with ml_dash.open(PREFIX, dash_root=served) as there:
        assert [entry["n"] for entry in there.tracks("t").list_entries()] == [1, 2]
        assert len(there.tracks("big")) == count


@pytest.fixture
def call_status() -> Callable[[Path], str]:
    """`ml-dash status --json`."""
    from click.testing import CliRunner

    from ml_dash.cli.status_command import status

    return lambda root: CliRunner().invoke(status, ["-r", str(root), "--json"], standalone_mode=False).stdout


def test_a_policy_that_is_none(tmp_path: Path) -> None:
    """Said at once, with the ones there are; and a copy for another process has the same one."""
    with pytest.raises(InvalidQuery, match="when_full is one of raise, drop, wait, got 'ignore'"):
        Experiment(PREFIX, dash_root=tmp_path, when_full="ignore")
    for policy in POLICIES:
        experiment = Experiment(PREFIX, dash_root=tmp_path, when_full=policy)
        make, arguments = experiment.__reduce__()[:2]
        assert make(*arguments)._when_full == policy


def test_the_quick_way_is_the_same_one() -> None:
    """The common append takes the code of the common journal: nothing is added to it."""
    assert SpoolJournal.write is Journal.write
    assert {name for name in vars(SpoolJournal) if name.startswith("write")} == {"write_slowly", "write_apart"}
