"""How a client goes about a server that does not take what it is sent: waits, retries, smaller parts, words, room."""

from __future__ import annotations

import errno
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import ml_dash
from http_server import Server, wait_until
from ml_dash import Experiment, delivery, room, wire
from ml_dash.catalog import LocalCatalog
from ml_dash.delivery import Delivery
from ml_dash.documents import Remote
from ml_dash.errors import NotDelivered, StoreUnavailable, Unauthorized
from ml_dash.room import Disk, amount, room_of
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create
from ml_dash.spool import Destination, dead_letters
from ml_dash.store import Batch
from ml_dash.stores.connection import Connection
from ml_dash.stores.http import HttpStore
from ml_dash.stores.memory import MemoryStore
from ml_dash.wire import Unavailable
from store_contract import LOSS, body, entries

PREFIX = "ada/robots/pick"


# ---------------------------------------------------------------- waiting between attempts


def attempts(tmp_path: Path, errors: list[Exception]) -> tuple[list[float], list[float], Delivery]:
    """The bounds that waits are drawn from, and the time before which nothing is asked, for a series of failures."""
    caps: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0.0
        caps.append(high)
        return high

    class Failing(MemoryStore):
        def update_document(self, name: str, change: Any) -> Any:
            raise errors.pop(0)

    local = MemoryStore()
    local.update_document("params", lambda known: {"a": 1})
    remote = Remote(Failing(), Destination("http://robot", PREFIX), False, {"params": lambda known, new: new})
    one, held = Delivery(tmp_path, remote, local, None, draw=draw), list[float]()
    for _ in range(len(errors)):
        one._round(None)
        held.append(max(0.0, one._not_before - time.monotonic()))
    return caps, held, one


def test_waits_grow_with_full_jitter(tmp_path: Path) -> None:
    """Drawn from zero to a bound that doubles from a second to a minute, and no further, for ever."""
    caps, held, _ = attempts(tmp_path, [Unavailable("off") for _ in range(40)])
    assert caps[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(caps[6:]) == {60.0}
    assert held == [0.0] * 40


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """Nothing is asked before the time that the server named, however short the draw; without one, only the draw."""
    _, held, _ = attempts(tmp_path, [Unavailable("busy", status=503, retry_after_s=7.0), Unavailable("off")])
    assert 6.5 < held[0] <= 7.0
    assert held[1] == 0.0


@pytest.mark.parametrize("error", [Unauthorized("no"), OSError("disk"), RuntimeError("what")])
def test_other_failures_are_tried_again_too(tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A refused token, a local disk, even a fault of our own: kept, told, and asked again."""
    caplog.set_level(logging.CRITICAL, "ml_dash")
    _, _, one = attempts(tmp_path, [error])
    assert one.error is error


MISSING = b'{"error": {"code": "not_found", "message": "there is none"}}'


class Stub:
    """A server that gives chosen answers to batches, then takes them; it keeps when it was asked."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        self.answers, self.asked, self.taken = list(answers), list[float](), 0
        stub = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, retry_after, body = 200, "", b'{"applied": 0}'
                if self.command == "POST":
                    stub.asked.append(time.monotonic())
                    if stub.answers:
                        status, retry_after = stub.answers.pop(0)
                    else:
                        stub.taken, body = stub.taken + 1, b'{"applied": 1, "count": 1}'
                elif self.path.startswith(wire.DOCUMENTS):
                    status, body = (404, MISSING) if self.command == "GET" else (200, b"{}")
                self.send_response(status)
                if retry_after:
                    self.send_header("Retry-After", retry_after)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stub() -> Iterator[Callable[..., Stub]]:
    made: list[Stub] = []

    def make(*answers: tuple[int, str]) -> Stub:
        made.append(Stub(list(answers)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are short; those that a server asks for are not."""
    monkeypatch.setattr(delivery, "LEAST_S", 0.005)


def test_what_a_server_may_answer_for_now(stub: Callable[..., Stub], in_a_hurry: None) -> None:
    """Each of these is tried again, with the same batch, until it is taken; it arrives once."""
    server = stub(*((status, "") for status in (408, 425, 429, 500, 502, 503, 504, 507)))
    with Experiment(PREFIX, dash_root=None, dash_url=server.url).run as experiment:
        experiment.tracks("t").append(x=1, _ts=1.0)
        experiment.tracks.flush(timeout_s=20.0)
        assert (server.taken, len(server.asked)) == (1, 9)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_names_its_time(stub: Callable[..., Stub], in_a_hurry: None, form: str) -> None:
    """`Retry-After` as seconds or as a date: not asked before."""
    from email.utils import formatdate

    text = "1" if form == "seconds" else formatdate(time.time() + 3.0, usegmt=True)
    server = stub((429, text))
    with Experiment(PREFIX, dash_root=None, dash_url=server.url).run as experiment:
        experiment.tracks("t").append(x=1, _ts=1.0)
        experiment.tracks.flush(timeout_s=20.0)
    assert server.asked[1] - server.asked[0] >= 0.95


# ---------------------------------------------------------------- bodies that are too large


def test_a_server_with_small_limits(tmp_path: Path, in_a_hurry: None) -> None:
    """413 is answered by smaller parts: everything arrives, once; an entry too large by itself is set aside."""
    limits = wire.Limits(compressed=6_000, raw=20_000, entries=150)
    served = tmp_path / "served"
    with (
        Server(create_app(LocalCatalog(served), tokens=None, limits=limits)) as server,
        Experiment(PREFIX, dash_root=None, dash_url=server.url).run as experiment,
    ):
        for n in range(3_000):
            experiment.tracks("t").append(n=n, q=[0.1 * n] * 3, _ts=n * 0.01)
            if n % 100 == 0:
                experiment.metrics("m").log(n=n)
        experiment.tracks("t").append(large="x" * 30_000, _ts=100.0)
        experiment.tracks("t").append(n=-1, _ts=101.0)
        with pytest.warns(NotDelivered, match="1 entries were refused"):
            experiment.tracks.flush()
        (letter,) = dead_letters(experiment.folder)
        assert letter["entry"]["timestamp"] == 100.0
        with ml_dash.open(PREFIX, dash_root=served) as stored:
            assert [e["n"] for e in stored.tracks("t").list_entries()] == [*range(3_000), -1]
            assert [e["n"] for e in stored.metrics("m").read()["entries"]] == list(range(0, 3_000, 100))


def test_a_batch_in_parts_with_a_bad_entry(tmp_path: Path) -> None:
    """Where a single batch has to go in parts, all but the bad entries are stored, once; the error names those."""
    limits = wire.Limits(compressed=6_000, raw=20_000, entries=150)
    with Server(create_app(LocalCatalog(tmp_path), tokens=None, limits=limits)) as server:
        store = HttpStore(server.url, PREFIX)
        bodies = [body(float(n), n=n) for n in range(1_000)]
        bodies[700] = body(700.0, n=700, large="x" * 30_000)
        batch = Batch("w", 1, {1: LOSS}, bodies)
        with pytest.raises(wire.Refused, match="limit is 20000") as told:
            store.append(batch)
        assert ([place for place, _ in told.value.entries], told.value.rest_stored) == ([700], True)
        store.append(batch)
        assert [entry["n"] for entry in entries(store, LOSS)] == [*range(700), *range(701, 1_000)]
        store.close()


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("token", [None, "mld_wrong", "reads"])
def test_how_to_give_a_token_is_said(tmp_path: Path, token: str | None) -> None:
    """Missing, unknown or without the right: the warning names both ways to give another, and no secret."""
    tokens = FileTokens(tmp_path / "served" / ".server" / "tokens.json")
    given = create(tokens, "reads", [Grant("ada", False)])[1] if token == "reads" else token
    with Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server:
        with Experiment(PREFIX, dash_root=None, dash_url=server.url, token=given).run as experiment:
            experiment.tracks("t").append(x=1, _ts=1.0)
            with pytest.warns(NotDelivered) as told:
                experiment.run.complete()
        said = str(told[0].message)
        assert "token=" in said
        assert "ML_DASH_TOKEN" in said
        assert ("none was given" in said) == (token is None)
        assert ("may read the experiments of 'ada'" in said) == (token == "reads")
        assert given is None or given not in said
        # Nothing is lost: with a good token the next run delivers it.
        good = create(tokens, "writes", [Grant("ada", True)])[1]
        with Experiment(PREFIX, dash_root=None, dash_url=server.url, token=good).run as experiment:
            experiment.tracks.flush()
        with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
            assert len(stored.tracks("t").list_entries()) == 1


def test_reading_without_a_token_says_so_too(tmp_path: Path) -> None:
    """`ml_dash.open` and every other request."""
    tokens = FileTokens(tmp_path / "served" / ".server" / "tokens.json")
    with Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server:
        with pytest.raises(Unauthorized, match=r"none was given.*token=.*ML_DASH_TOKEN"):
            ml_dash.open(PREFIX, dash_url=server.url)
        connection = Connection(server.url, "mld_wrong")
        with pytest.raises(Unauthorized, match="ML_DASH_TOKEN") as told:
            connection.send("GET", wire.ACCESS, [])
        assert "mld_wrong" not in str(told.value)
        connection.close()


# ---------------------------------------------------------------- what is said, and where


@pytest.mark.parametrize("root", [True, False], ids=["local first", "server only"])
def test_warnings_point_at_the_user_s_line(tmp_path: Path, root: bool) -> None:
    """Whichever way a flush or an end is called; the amount is one that people can read."""
    place = tmp_path / "dash" if root else None
    experiment = Experiment(PREFIX, dash_root=place, dash_url="http://127.0.0.1:9").run.start()
    track = experiment.tracks("t")
    calls: list[Callable[[], Any]] = [
        lambda: track.append(x=1, _ts=1.0).flush(timeout_s=0.1),
        lambda: experiment.tracks.flush(timeout_s=0.1),
        lambda: experiment.metrics("m").flush(),
        lambda: experiment.run.complete(),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        (warning,) = told
        assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
        assert " bytes of this run" in str(warning.message)
        assert "0.0 MB" not in str(warning.message)


def test_the_end_of_a_with_block_is_the_user_s_line(tmp_path: Path) -> None:
    """Where the block stands."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Experiment(PREFIX, dash_root=tmp_path, dash_url="http://127.0.0.1:9").run as experiment:
            experiment.tracks("t").append(x=1, _ts=1.0)
    assert [warning.filename for warning in told] == [__file__]


def test_amounts() -> None:
    """Three digits and a unit."""
    said = {0: "0 bytes", 999: "999 bytes", 1234: "1.23 kB", 999_499: "999 kB", 999_600: "1 MB", 5 << 30: "5.37 GB"}
    assert {size: amount(size) for size in said} == said


def test_no_root_keeps_the_spool_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `dash_root=None` only what waits is written, to the user's state folder; once it arrived, no entry stays."""
    monkeypatch.chdir(tmp_path)
    served = tmp_path / "served"
    with Server(create_app(LocalCatalog(served), tokens=None)) as server:
        with Experiment(PREFIX, dash_root=None, dash_url=server.url).run as experiment:
            for n in range(100):
                experiment.tracks("t").append(n=n, _ts=float(n))
            experiment.metrics("m").log(loss=1.0)
        state = tmp_path / "state"
        assert experiment.folder.is_relative_to(state)
        kept = [path.name for path in state.rglob("*") if path.is_file() and not path.name.startswith(".")]
        assert set(kept) <= {"experiment.json", "params.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served", "state"]


# ---------------------------------------------------------------- room on the disk


def test_what_is_left_to_others() -> None:
    """A tenth of the disk, or 5 GiB where that is less."""
    gib = 1 << 30
    assert Disk(0, 20 * gib).kept == 2 * gib
    assert Disk(0, 1000 * gib).kept == 5 * gib


def test_when_to_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From eighty percent of what may be used on; never for what may always be written."""
    gib = 1 << 30
    monkeypatch.setattr(room, "disk_of", lambda folder: Disk(7 * gib, 1000 * gib))
    assert [room_of(tmp_path, used * gib).is_scarce for used in (1, 7, 8, 100)] == [False, False, True, True]
    monkeypatch.setattr(room, "disk_of", lambda folder: Disk(gib, 1000 * gib))
    assert not room_of(tmp_path, 60 << 20).is_scarce
    assert room_of(tmp_path, 65 << 20).is_scarce


@pytest.mark.parametrize("root", [True, False], ids=["local first", "server only"])
@pytest.mark.parametrize("mode", ["map", "write"])
def test_an_outage_leaves_room_to_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_a_hurry: None,
    root: bool,
    mode: str,
) -> None:
    """At the end of the room append raises as on a full disk, after a warning; when the server answers, it all arrives
    and recording goes on."""
    monkeypatch.setenv("ML_DASH_JOURNAL", mode)
    monkeypatch.setattr(room, "ALWAYS_BYTES", 8 << 20)
    monkeypatch.setattr(delivery, "MOST_S", 0.1)
    served, free = tmp_path / "served", [6 << 30]
    monkeypatch.setattr(room, "disk_of", lambda folder: Disk(free[0], 100 << 30))
    with Server(create_app(LocalCatalog(served), tokens=None)) as server:
        port, url = server.port, server.url
    caplog.set_level(logging.WARNING, "ml_dash")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotDelivered)
        experiment = Experiment(PREFIX, dash_root=tmp_path / "dash" if root else None, dash_url=url).run.start()
        text, n = "x" * 100_000, 0
        for n in range(100):
            experiment.tracks("t").append(n=n, text=text, _ts=float(n))
        free[0] = (5 << 30) - 1
        with pytest.raises(OSError, match="left to others") as told:
            for n in range(100, 400):
                experiment.tracks("t").append(n=n, text=text, _ts=float(n))
        assert told.value.errno == errno.ENOSPC
        acknowledged = n
        wait_until(lambda: "there is room for" in caplog.text)
        assert caplog.text.count("there is room for") == 1
        with Server(create_app(LocalCatalog(served), tokens=None), port):
            wait_until(lambda: _delivered(experiment))
            free[0] = 6 << 30
            experiment.tracks("t").append(n=acknowledged, _ts=float(acknowledged))
            wait_until(lambda: _delivered(experiment))
            experiment.run.complete()
    with ml_dash.open(PREFIX, dash_root=served) as stored:
        assert [e["n"] for e in stored.tracks("t").list_entries()] == list(range(acknowledged + 1))


def _delivered(experiment: Experiment) -> bool:
    assert experiment._session is not None
    assert experiment._session._delivery is not None
    try:
        return experiment._session._delivery.flush(5.0)
    except StoreUnavailable:
        return False
