"""Row 9 of the fault plan: a server killed under load, and a network that loses answers and doubles requests.

Several writers record through it; every batch is applied once, which sequences would show, and the state equals the
model. The database behind a server is somebody else's row.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

import ml_dash
from faulty_proxy import FaultyProxy
from http_server import Server, wait_until
from ml_dash import Experiment
from ml_dash.catalog import LocalCatalog
from ml_dash.delivery import Delivery
from ml_dash.errors import NotDelivered
from ml_dash.journal_reader import streams
from ml_dash.sending import Sender
from ml_dash.server.app import create_app
from ml_dash.stores.http import HttpStore

from .figures import count
from .sizes import LONG, SEED

PREFIX = "ada/faults/run"
KILLS = 200 if LONG else 30
ROUNDS, SCALE = (60, 10) if LONG else (12, 1)
WRITERS = 3


class Recorder:
    """Writes to one experiment from a thread, and remembers what append acknowledged."""

    def __init__(self, number: int, url: str, root: Path | None) -> None:
        self.number = number
        self.experiment = Experiment(PREFIX, dash_root=root, dash_url=url)
        self.appended = self.logged = 0

    def record(self, many: int) -> None:
        """Some entries of a track of its own, of one that all share, and of sequences, its own and all writers'."""
        for _ in range(many):
            n = self.appended
            self.experiment.tracks(f"own/{self.number}").append(n=n, q=[0.1 * n] * 5, _ts=n * 0.001)
            self.experiment.tracks("shared").append(**{f"w{self.number}": n}, _ts=n * 0.001)
            self.appended += 1
            if n % 10 == 0:
                self.experiment.metrics(f"m/{self.number}").log(n=self.logged)
                self.experiment.metrics("shared").log(who=self.number, n=self.logged)
                self.experiment.log(f"line {self.logged}", who=self.number, n=self.logged)
                self.logged += 1

    def check(self, stored: Experiment) -> None:
        """Everything is there, once."""
        own = stored.tracks(f"own/{self.number}").list_entries()
        assert [entry["n"] for entry in own] == list(range(self.appended))
        shared = stored.tracks("shared").list_entries()
        assert [e[f"w{self.number}"] for e in shared if f"w{self.number}" in e] == list(range(self.appended))
        logged = stored.metrics(f"m/{self.number}").read()["entries"]
        assert [entry["n"] for entry in logged] == list(range(self.logged))
        for lines in (stored.metrics("shared").read()["entries"], stored.log.read()):
            mine = [line["n"] for line in lines if line.get("who") == self.number]
            assert mine == list(range(self.logged)), "lost, doubled, or in another order"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other quickly: the waits are tested elsewhere."""
    from ml_dash import delivery

    monkeypatch.setattr(delivery, "LEAST_S", 0.005)
    monkeypatch.setattr(delivery, "MOST_S", 0.1)
    monkeypatch.setattr(delivery, "SEND_EVERY_S", 0.05)


@pytest.fixture
def recorders(tmp_path: Path) -> Iterator[Callable[[str], list[Recorder]]]:
    """Writers of one experiment: two with a copy of their own, one without."""
    made: list[Recorder] = []

    def make(url: str) -> list[Recorder]:
        roots = [tmp_path / "a", tmp_path / "b", None]
        made.extend(Recorder(number, url, root) for number, root in enumerate(roots[:WRITERS]))
        for recorder in made:
            recorder.experiment.run.start()
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotDelivered)
        yield make
        for recorder in made:
            recorder.experiment.close()


def delivered(recorders: list[Recorder]) -> bool:
    """Whether everything that was recorded is on the server."""
    found = [_delivery(recorder).flush(2.0) for recorder in recorders]
    return all(found)


def _delivery(recorder: Recorder) -> Delivery:
    session = recorder.experiment._session
    assert session is not None
    assert session._delivery is not None
    return session._delivery


@pytest.mark.timeout(900)
def test_a_network_that_loses_and_doubles(recorders: Callable[[str], list[Recorder]], tmp_path: Path) -> None:
    """A fifth of the answers lost after commit, a tenth of the requests doubled, some refused, some cut."""
    root = tmp_path / "served"
    chances = {"lose": 0.2, "double": 0.1, "refuse": 0.05, "cut": 0.05}
    with (
        Server(create_app(LocalCatalog(root), tokens=None)) as server,
        FaultyProxy(server.port, chances, SEED) as proxy,
    ):
        made = recorders(proxy.url)
        for round in range(10 * ROUNDS):
            for recorder in made:
                recorder.record(300)
            for recorder in made:
                _delivery(recorder).flush(0.2)
            if round >= ROUNDS and proxy.done["lose"] > 10 * SCALE and proxy.done["double"] > 5 * SCALE:
                break
        wait_until(lambda: delivered(made), 120)
        with ml_dash.open(PREFIX, dash_root=root) as stored:
            for recorder in made:
                recorder.check(stored)
        proxy.chances.clear()
        assert proxy.done["lose"] > 10 * SCALE
        assert proxy.done["double"] > 5 * SCALE
        for fate in ("lose", "double", "refuse", "cut"):
            count(f"requests with fate '{fate}'", proxy.done[fate])


class Killed:
    """`ml-dash serve` that is killed and started again at its address."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.log = root, log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        words = ["serve", "-r", str(self.root), "--port", str(self.port), "--insecure-local"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "ml_dash.cli", *words], stdout=log, stderr=log)
        wait_until(self.answers, 60)

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """Without a word."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.timeout(1800)
def test_a_server_killed_under_load(recorders: Callable[[str], list[Recorder]], tmp_path: Path) -> None:
    """Killed at random moments, also inside a batch; recording never stops, and nothing is lost or doubled."""
    server = Killed(tmp_path / "served", tmp_path / "log")
    server.start()
    made, chance, stop = recorders(server.url), random.Random(SEED), threading.Event()
    threads = [threading.Thread(target=_keep_recording, args=(recorder, stop), daemon=True) for recorder in made]
    try:
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.3))
            server.kill()
            server.start()
        stop.set()
        for thread in threads:
            thread.join()
        wait_until(lambda: delivered(made), 120)
    finally:
        stop.set()
        server.kill()
    with ml_dash.open(PREFIX, dash_root=server.root) as stored:
        for recorder in made:
            assert recorder.appended > 100
            recorder.check(stored)
    count("kills of the server", KILLS)
    count("entries acknowledged while the server was killed", sum(2 * r.appended + 3 * r.logged for r in made))


def _keep_recording(recorder: Recorder, stop: threading.Event) -> None:
    while not stop.is_set():
        recorder.record(20)
        time.sleep(0.01)


@pytest.mark.timeout(900)
def test_recorders_killed_under_load(tmp_path: Path) -> None:
    """Recording processes killed while they send over a bad network: what append acknowledged arrives, once."""
    root, chances = tmp_path / "served", {"lose": 0.2, "double": 0.1}
    with (
        Server(create_app(LocalCatalog(root), tokens=None)) as server,
        FaultyProxy(server.port, chances, SEED) as proxy,
    ):
        acknowledged, chance = set[int](), random.Random(SEED)
        for round in range(KILLS // 5):
            dash_root, first = tmp_path / "mine" if round % 2 else None, round * 10_000_000
            many = _record_and_die(proxy.url, dash_root, first, chance.uniform(0.2, 0.8))
            acknowledged.update(range(first, first + many))
        for dash_root in (tmp_path / "mine", None):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotDelivered)
                last = Recorder(0, proxy.url, dash_root)
                with last.experiment.run:
                    wait_until(lambda last=last: _delivery(last).flush(5.0), 60)  # type: ignore[misc]
        with ml_dash.open(PREFIX, dash_root=root) as stored:
            found = [entry["n"] for entry in stored.metrics("m").read()["entries"]]
            assert len(found) == len(set(found)), "doubled"
            assert acknowledged <= set(found)
            assert acknowledged <= {entry["n"] for entry in stored.tracks("t").list_entries()}
        count("kills of recorders over HTTP", KILLS // 5)
        count("entries acknowledged by recorders that were killed", 2 * len(acknowledged))
        proxy.chances.clear()


_PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
from ml_dash import Experiment, delivery
delivery.LEAST_S, delivery.MOST_S, delivery.SEND_EVERY_S = 0.005, 0.1, 0.05
url, root, n = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
exp = Experiment("ada/faults/run", dash_root=root, dash_url=url).run.start()
track, metric = exp.tracks("t"), exp.metrics("m")
while True:
    track.append(n=n, _ts=float(n))
    metric.log(n=n)
    n += 1
    if n % 50 == 0:
        print(n, flush=True)
"""


def _record_and_die(url: str, root: Path | None, start: int, after_s: float) -> int:
    """A recording process that is killed; how many entries it acknowledged beyond doubt."""
    words = [sys.executable, "-c", _PROGRAM, url, "" if root is None else str(root), str(start)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        lines = process.stdout.read().split()
    last = [int(line) for line in lines if line.isdigit()]
    return max(last, default=start) - start


@pytest.mark.parametrize("first", ["original", "copy", "copy that dies"])
@pytest.mark.parametrize("dash_root", [True, False], ids=["local first", "server only"])
def test_a_copied_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, dash_root: bool) -> None:
    """A disk image taken in an outage and started on a second machine: whoever delivers first, both lose nothing.

    Behind the batch that arrived before, original and copy cut their next one differently: one number, two contents.
    Where the copy dies before it has told the server that it is finished, the store has to tell them apart.
    """
    root, states = tmp_path / "served", {name: tmp_path / name for name in ("original", "copy")}
    monkeypatch.setattr("ml_dash.delivery.SEND_EVERY_S", 1000.0)

    def opened(name: str) -> Recorder:
        monkeypatch.setenv("ML_DASH_STATE", str(states[name] / "state"))
        return Recorder(0, server.url, states[name] / "dash" if dash_root else None)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotDelivered)
        with Server(create_app(LocalCatalog(root), tokens=None)) as server:
            one = opened("original")
            one.experiment.run.start()
            one.record(500)
            assert _delivery(one).flush(10)
        one.record(300)
        shutil.copytree(states["original"], states["copy"])
        one.record(300)
        _delivery(one).flush(0.3)
        one.experiment.run.complete()
        with Server(create_app(LocalCatalog(root), tokens=None), server.port) as server:
            if first == "copy that dies":
                _deliver_and_die(states["copy"], server.url)
            for name in ("copy", "original") if first == "copy" else ("original", "copy"):
                last = opened(name)
                with last.experiment.run:
                    last.experiment.tracks(name).append(n=1, _ts=1.0)
                    wait_until(lambda last=last: _delivery(last).flush(5.0), 60)  # type: ignore[misc]
    with ml_dash.open(PREFIX, dash_root=root) as stored:
        read = {topic: [e["n"] for e in stored.tracks(topic).list_entries()] for topic in ("own/0", "original", "copy")}
        assert read == {"own/0": list(range(1_100)), "original": [1], "copy": [1]}
        logged = {entry["n"] for entry in stored.metrics("m/0").read()["entries"]}
        assert logged == set(range(110))


def _deliver_and_die(state: Path, url: str) -> None:
    """What a process does that sends a stream and is killed before it lets go of it."""
    (journals,) = state.rglob(".journal")
    store = HttpStore(url, PREFIX)
    for stream in streams(journals):
        before = store.applied(stream.writer)
        Sender(store, state / "letters").send(stream, None, None)
        assert store.applied(stream.writer) == before + 1
    store.close()
