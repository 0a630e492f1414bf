"""The server as a process: slow and stalled connections, a stop in the middle of work, several on one database."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from click.testing import CliRunner

import ml_dash
from http_server import Endless, Server, ServerProcess, wait_until
from ml_dash import Experiment, wire
from ml_dash.catalog import LocalCatalog
from ml_dash.cli.serve_command import serve as serve_command
from ml_dash.errors import StoreUnavailable
from ml_dash.server import run
from ml_dash.server.app import create_app
from ml_dash.server.limits import Patience
from ml_dash.store import Batch
from ml_dash.stores.http import HttpStore
from store_contract import LOSS, STATE, body, entries

pytest_plugins = ["servers.fixtures"]

PREFIX = "ada/robots/pick"
STOPPED = (0, -signal.SIGTERM)
"""How an orderly end by SIGTERM looks; uvicorn raises the signal once more when all is done."""


# ---------------------------------------------------------------- slow and stalled connections


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Endless, Server]]:
    """Such a store behind a server that gives its readers half a second."""
    catalog, store = LocalCatalog(tmp_path), Endless()
    monkeypatch.setattr(catalog, "store", lambda prefix: store)
    with Server(create_app(catalog, tokens=None, patience=Patience(send_s=0.5))) as server:
        yield store, server


def _ask(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=10)
    line.sendall(f"GET /v1/entries?prefix={PREFIX}&topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return line


def test_a_reader_who_stalls_is_cut(endless: tuple[Endless, Server]) -> None:
    """Who takes nothing any more holds no files and no memory of the server's for longer than the time for it."""
    store, server = endless
    with _ask(server.port) as line:
        assert line.recv(1000)
        assert store.closed.wait(10)
    assert store.given < 1_000


def test_a_slow_reader_is_served(endless: tuple[Endless, Server]) -> None:
    """Who takes a little now and then stays, far beyond the time for a stall."""
    store, server = endless
    with _ask(server.port) as line:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert line.recv(1 << 20)
            time.sleep(0.05)
        assert not store.closed.is_set()
    assert store.closed.wait(10)


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"\r\n"]
)
def test_a_head_that_stalls_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """A connection on which no whole request comes is closed, also one that trickles a byte at a time."""
    monkeypatch.setattr(run, "WAIT_S", 0.5)
    with (
        Server(create_app(LocalCatalog(tmp_path), tokens=None)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as line,
    ):
        started = time.monotonic()
        line.sendall(sent)
        line.settimeout(0.1)
        while time.monotonic() - started < 10:
            try:
                if not line.recv(1000):
                    break
            except TimeoutError:
                if sent.endswith(b" "):
                    line.sendall(b"x")
            except ConnectionError:
                break
        assert time.monotonic() - started < 5


# ---------------------------------------------------------------- processes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers; those that still run are killed at the end."""
    made: list[ServerProcess] = []

    def make(*words: str) -> ServerProcess:
        made.append(ServerProcess(tmp_path / f"log-{len(made)}", *words))
        return made[-1]

    yield make
    for one in made:
        one.stop(signal.SIGKILL)


def test_a_stop_finishes_what_has_begun(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A body that is half there when SIGTERM comes is read to its end, stored and answered; nobody new is let in."""
    server = start("-r", str(tmp_path / "served"), "--insecure-local")
    content = wire.encode_batch(Batch("w", 1, {1: STATE}, [body(1.0, x="a" * 1_000)]))
    head = (
        f"POST {wire.BATCHES}?prefix={PREFIX} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {wire.BATCH}\r\n"
        f"Content-Digest: {wire.digest(content)}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(head.encode() + content[:500])
        wait_until(lambda: "requests_running 2.0" in httpx2.get(f"{server.url}/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _connects(port))
        line.sendall(content[500:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(30) in STOPPED
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        assert len(stored.tracks(STATE.topic)) == 1


@pytest.mark.parametrize(("words", "expected"), [([], 120.0), (["--silent-after", "5m"], 300.0),
                                                 (["--silent-after", "never"], 1e12)])  # fmt: skip
def test_when_a_run_is_silent_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], expected: float
) -> None:
    """`--silent-after` reaches the catalog that tells."""
    known: list[float] = []

    def serve(settings: run.Settings, listening: socket.socket) -> None:
        listening.close()
        catalog, _ = run.catalog_of(msgspec.json.decode(msgspec.json.encode(settings), type=run.Settings))
        known.append(getattr(catalog, "silent_after_s", 0.0))

    monkeypatch.setattr(run, "serve", serve)
    monkeypatch.setattr(run, "set_up_logging", lambda form: None)
    answer = CliRunner().invoke(serve_command, ["-r", str(tmp_path), "--port", "0", "--insecure-local", *words])
    assert (answer.exit_code, known) == (0, [expected]), answer.output


def test_a_log_of_json_is_nothing_else(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """From the first line, which says where the server is, to the last."""
    server = start("-r", str(tmp_path / "served"), "--insecure-local")
    httpx2.get(f"{server.url}/v1/experiments")
    assert server.stop() in STOPPED
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert lines[0]["text"].endswith(f"at {server.url}")
    assert [line["operation"] for line in lines if line["text"] == "request"][-1] == "list_experiments"


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class Counted:
    """What `/metrics` of a server says, asked over a connection of its own."""

    def __init__(self, url: str) -> None:
        self.samples = {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in httpx2.get(f"{url}/metrics").text.splitlines()
            if line and not line.startswith("#")
        }

    @property
    def stored(self) -> float:
        """Entries."""
        return self.samples["ml_dash_entries_stored_total"]


def _stored_by_worker(folder: Path) -> dict[int, float]:
    """The entries that each worker process counted, by its number."""
    from prometheus_client.mmap_dict import MmapedDict

    found: dict[int, float] = {}
    for path in folder.glob("*/counter_*.db"):
        values = {json.loads(one[0])[1]: one[1] for one in MmapedDict.read_all_values_from_file(str(path))}
        found[int(path.stem.rpartition("_")[2])] = values.get("ml_dash_entries_stored_total", 0.0)
    return found


def test_metrics_of_several_workers_are_sums(
    start: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever worker is asked: all that was stored, never less than before, also when a worker is killed. The
    folder in which they count is gone afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    server = start("-r", str(tmp_path / "served"), "--insecure-local", "--workers", "2")
    sent, seen = [0], [0.0]

    def send() -> bool:
        query = {"prefix": PREFIX, "topic": "t"}
        line = b'{"timestamp": %d}' % sent[0]
        headers = {"Content-Type": wire.NDJSON}
        assert httpx2.post(f"{server.url}{wire.BATCHES}", params=query, content=line, headers=headers).is_success
        sent[0] += 1
        seen.append(Counted(server.url).stored)
        assert seen[-1] == sent[0]
        return min(_stored_by_worker(folder).values()) > 0

    wait_until(lambda: len(_stored_by_worker(folder)) == 2, 60)
    wait_until(send, 60)
    workers = _stored_by_worker(folder)
    assert sum(workers.values()) == sent[0]
    os.kill(max(workers), signal.SIGKILL)
    wait_until(lambda: len(_stored_by_worker(folder)) == 3)
    send()
    assert seen == sorted(seen)
    found = Counted(server.url).samples
    assert found["ml_dash_requests_running"] == 1.0
    assert found['ml_dash_requests_total{operation="append",status="200"}'] == sent[0]
    assert found['ml_dash_request_seconds_count{operation="append"}'] == sent[0]
    assert server.stop() in STOPPED
    assert list(folder.glob("ml-dash-metrics-*")) == []


@pytest.mark.timeout(300)
def test_several_servers_on_one_database(
    start: Callable[..., ServerProcess], mongo_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever server a client asks: one set of tokens, each batch once, what one stored the other one reads; one that
    is killed is not missed. No token is in any log."""
    database = f"test_{secrets.token_hex(6)}"
    where = ("--mongo-uri", mongo_server.uri, "--database", database)
    words = [sys.executable, "-m", "ml_dash.cli", "token", "create", "--write", "ada", *where]
    token = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    servers = [start(*where), start(*where)]
    stores = [HttpStore(server.url, PREFIX, token) for server in servers]
    try:
        tracks = {1: STATE, 2: LOSS}
        for number in range(1, 21):
            batch = Batch("w", number, tracks, [body(float(number), 1, n=number), body(float(number), 2, loss=number)])
            stores[number % 2].append(batch)
            stores[(number + 1) % 2].append(batch)  # the answer was lost, and the retry goes to the other one
        for store in stores:
            assert [entry["n"] for entry in entries(store)] == list(range(1, 21))
            assert [entry["loss"] for entry in entries(store, LOSS)] == list(range(1, 21))
        servers[0].stop(signal.SIGKILL)
        with pytest.raises(StoreUnavailable):
            stores[0].applied("w")
        monkeypatch.setenv("ML_DASH_TOKEN", token)
        with Experiment("ada/robots/second", dash_root=None, dash_url=servers[1].url).run as experiment:
            experiment.tracks("t").append(x=1, _ts=1.0)
        with ml_dash.open("ada/robots/second", dash_url=servers[1].url) as there:
            assert there.tracks("t").list_entries() == [{"timestamp": 1.0, "x": 1}]
        assert servers[1].stop() in STOPPED
    finally:
        for store in stores:
            store.close()
        _drop(mongo_server.uri, database)
    for server in servers:
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        assert {"append", "read"} <= {line.get("operation") for line in lines}
        assert token not in server.log.read_text()
        assert token[15:] not in server.log.read_text()


def _drop(uri: str, database: str) -> None:
    import pymongo

    with pymongo.MongoClient(uri) as client:
        client.drop_database(database)


def test_a_password_of_the_database_is_in_no_log(start: Callable[..., ServerProcess]) -> None:
    """A database that does not answer is named in the log by its address, once, and to nobody else; the server lives
    and says that it is not ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"mongodb://robot:hunter2secret@127.0.0.1:{port}/?serverSelectionTimeoutMS=300"
    server = start("--mongo-uri", uri)
    answer = httpx2.get(f"{server.url}/readyz", timeout=60)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    refused = httpx2.get(f"{server.url}/v1/experiments", headers={"Authorization": f"Bearer mld_{'a' * 10}_{'b' * 43}"},
                         timeout=60)  # fmt: skip
    assert refused.status_code == 503
    for found in (answer, refused):
        assert found.json()["error"] == {"code": "unavailable", "message": "the database does not answer"}
    said = [line for line in server.log.read_text().splitlines() if "the database does not answer" in line]
    assert len(said) == 1
    assert str(port) in said[0]
    assert "Topology" not in server.log.read_text()
    for text in (answer.text, refused.text, server.log.read_text()):
        assert "hunter2secret" not in text
    assert server.stop() in STOPPED
