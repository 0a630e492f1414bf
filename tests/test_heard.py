"""When a server last heard of a run: a robot that died and one behind a broken link look alike, and neither crashed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from click.testing import CliRunner

import ml_dash
from http_server import Server, wait_until
from ml_dash import Experiment, delivery, presence
from ml_dash.catalog import Catalog, ExperimentInfo, LocalCatalog
from ml_dash.cli.app import cli
from ml_dash.errors import InvalidEntry, StoreUnavailable
from ml_dash.heard import HEARD, heard_at, note_heard
from ml_dash.http_catalog import HttpCatalog
from ml_dash.journal import Journal
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.presence import Presence
from ml_dash.server import hearing
from ml_dash.server.app import create_app
from ml_dash.server.hearing import Hearing
from ml_dash.stores.http import HttpStore
from ml_dash.stores.memory import MemoryStore

pytest_plugins = ["servers.fixtures"]

PREFIX = "ada/robots/pick"
HOURS = 3 * 3600.0


class Behind:
    """What several server processes have in common, and a way to have heard nothing for three hours."""

    def __init__(self, make: Callable[[], Catalog], age: Callable[[], None]) -> None:
        self.make, self.age = make, age


def _folder(root: Path) -> Behind:
    def age() -> None:
        before, folder = time.time() - HOURS, root / PREFIX
        note_heard(folder, before)
        os.utime(folder / "experiment.json", (before, before))

    return Behind(lambda: LocalCatalog(root), age)


def _database(client: Any, name: str) -> Behind:
    def age() -> None:
        client[name]["experiments"].update_one({"prefix": PREFIX, "gone": 0}, {"$set": {"heard": time.time() - HOURS}})

    return Behind(lambda: MongoCatalog(client=client, database=name), age)


@pytest.fixture(params=["folder", "database"])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Behind]:
    """Where servers keep experiments."""
    if request.param == "folder":
        yield _folder(tmp_path / "served")
        return
    client, name = request.getfixturevalue("client"), f"test_{secrets.token_hex(6)}"
    yield _database(client, name)
    client.drop_database(name)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients look every few milliseconds and say at once that they are there; servers note each word."""
    monkeypatch.setattr(delivery, "SEND_EVERY_S", 0.02)
    monkeypatch.setattr(presence, "STILL_HERE_S", 0.02)
    monkeypatch.setattr(hearing, "NOTE_EVERY_S", 0.0)


@pytest.fixture
def mute(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `quick`, and clients send what there is and nothing else, as older ones do."""
    monkeypatch.setattr(presence, "STILL_HERE_S", 1e9)


@contextmanager
def seen(url: str) -> Iterator[Callable[[], ExperimentInfo]]:
    """What a server says of the experiment."""
    catalog = HttpCatalog(url)
    yield lambda: catalog.find(PREFIX)
    catalog.close()


def record(url: str, **options: Any) -> Experiment:
    """A run that has begun, known to the server, with nothing left to send."""
    experiment = Experiment(PREFIX, **{"dash_root": None, "dash_url": url, **options}).run.start()
    experiment.tracks("robot/state").append(q=1.0, _ts=1.0).flush()
    return experiment


# ---------------------------------------------------------------- a run that says nothing


@pytest.mark.usefixtures("quick")
def test_an_idle_run_is_heard_by_every_process(behind: Behind) -> None:
    """A run with nothing to send goes on running, also for the other processes of the server; its end is its end."""
    with Server(create_app(behind.make(), tokens=None)) as one, Server(create_app(behind.make(), tokens=None)) as other:
        experiment = record(one.url)
        with seen(other.url) as info:
            behind.age()
            before = info().last_heard
            wait_until(lambda: info().status == "running" and info().last_heard != before)
            experiment.close()
            behind.age()
            assert info().status == "completed"


@pytest.mark.usefixtures("mute")
def test_a_run_that_is_not_heard_is_silent_until_it_is(behind: Behind) -> None:
    """Readers do not make it heard; the next entry does. What a reader is told is what the list shows."""
    with Server(create_app(behind.make(), tokens=None)) as server, seen(server.url) as info:
        experiment = record(server.url)
        assert info().status == "running"
        behind.age()
        with ml_dash.open(PREFIX, dash_root=None, dash_url=server.url) as reader:
            assert len(reader.tracks("robot/state")) == 1
            assert (reader.status, reader.info["last_heard"]) == ("silent", info().last_heard)
        assert info().status == "silent"
        experiment.tracks("robot/state").append(q=2.0, _ts=2.0).flush()
        assert info().status == "running"
        behind.age()
        experiment.close()
        assert info().status == "completed"


@pytest.mark.usefixtures("mute")
def test_the_existing_client_is_heard_with_each_request_that_writes(behind: Behind) -> None:
    """It says no word of its own: each batch, line of the log or parameter counts, and a read does not."""
    with (
        Server(create_app(behind.make(), tokens=None)) as server,
        seen(server.url) as info,
        httpx2.Client(base_url=server.url) as client,
    ):
        body = {"type": "EXPERIMENT", "name": "pick", "projectSlug": "robots"}
        begun = client.post("/api/namespaces/ada/nodes", json=body).json()
        path = f"/api/experiments/{begun['experiment']['id']}"
        behind.age()
        assert client.get(f"{path}/tracks").status_code == 200
        assert info().status == "silent"
        client.post(f"{path}/parameters", json={"data": {"a": 1}}).raise_for_status()
        assert info().status == "running"


def test_word_of_an_unknown_run_makes_none(behind: Behind) -> None:
    """Who says that it is there, of an experiment that nobody recorded or that was deleted, changes nothing."""
    catalog = behind.make()
    with Server(create_app(catalog, tokens=None)) as server, closing(HttpStore(server.url, PREFIX)) as store:
        store.still_here("robot")
        assert catalog.experiments() == []


def test_what_the_server_fails_on_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that only the server is to blame for says nothing of the run; one that is refused does."""
    catalog = LocalCatalog(tmp_path / "served")
    noted: list[str] = []
    fates: list[Exception] = [StoreUnavailable("off"), OSError("broken"), InvalidEntry("bad")]

    def store(prefix: str) -> Any:
        raise fates[0]

    monkeypatch.setattr(catalog, "store", store)
    monkeypatch.setattr(catalog, "note_heard", lambda prefix: bool(noted.append(prefix)))
    query = {"prefix": PREFIX, "topic": "robot/state"}
    with Server(create_app(catalog, tokens=None)) as server, httpx2.Client(base_url=server.url) as client:
        statuses = []
        while fates:
            sent = client.post(
                "/v1/batches",
                params=query,
                content=b'{"timestamp": 1.0, "q": 1.0}\n',
                headers={"Content-Type": "application/x-ndjson"},
            )
            statuses.append((sent.status_code, list(noted)))
            fates.pop(0)
    assert statuses == [(503, []), (500, []), (422, [PREFIX])]


# ---------------------------------------------------------------- thresholds and files


@pytest.mark.usefixtures("mute")
def test_the_time_after_which_a_run_is_silent_can_be_set(tmp_path: Path) -> None:
    """A server that waits for a moment calls a run silent after it; a run recorded in the folder itself never is."""
    catalog = LocalCatalog(tmp_path / "served", silent_after_s=0.05)
    with Server(create_app(catalog, tokens=None)) as server, seen(server.url) as info:
        experiment = record(server.url)
        wait_until(lambda: info().status == "silent")
        experiment.close()
    own = Experiment("ada/robots/own", dash_root=tmp_path / "served").run.start()
    os.utime(own.folder / "experiment.json", (1.0, 1.0))
    assert (catalog.find("ada/robots/own").status, catalog.find("ada/robots/own").last_heard) == ("running", None)
    own.close()


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    """Whatever stands in `.heard`, the document's own time is left."""
    (tmp_path / "experiment.json").write_text("{}")
    os.utime(tmp_path / "experiment.json", (5.0, 5.0))
    for text in (b"", b"yesterday", b"\xff"):
        (tmp_path / HEARD).write_bytes(text)
        assert heard_at(tmp_path) == 5.0
    note_heard(tmp_path, 7.5)
    assert heard_at(tmp_path) == 7.5
    assert heard_at(tmp_path / "nothing") is None


def test_what_lies_ahead_is_not_heard(tmp_path: Path) -> None:
    """After the clock was set back, a note or a document from before does not hide for a day that nobody is heard; a
    file server whose clock is a little ahead was heard now."""
    (tmp_path / "experiment.json").write_text("{}")
    now = time.time()
    hour_ago = float(int(now - 3600))
    os.utime(tmp_path / "experiment.json", (now + 86400, now + 86400))
    assert heard_at(tmp_path) is None
    note_heard(tmp_path, hour_ago)
    assert heard_at(tmp_path) == hour_ago
    note_heard(tmp_path, now + 86400)
    os.utime(tmp_path / "experiment.json", (hour_ago, hour_ago))
    assert heard_at(tmp_path) == hour_ago
    os.utime(tmp_path / "experiment.json", (now + 30, now + 30))
    assert now <= (heard_at(tmp_path) or 0.0) <= time.time()


@pytest.mark.usefixtures("mute")
def test_commands_say_since_when(tmp_path: Path) -> None:
    """`ls`, `ls PREFIX` and `info` show a silent run with the time, on the server and on its folder."""
    behind = _folder(tmp_path / "served")
    with Server(create_app(behind.make(), tokens=None)) as server:
        experiment = record(server.url)
        behind.age()
        for place in (server.url, str(tmp_path / "served")):
            for words in (["ls"], ["ls", PREFIX], ["info", PREFIX]):
                shown = CliRunner().invoke(cli, [*words, "-r", place], standalone_mode=False).output
                assert "silent, last heard 3 h ago" in shown, shown
        experiment.close()


# ---------------------------------------------------------------- what it costs


def test_requests_are_noted_now_and_then() -> None:
    """One note for many requests; an unknown experiment is looked for again, a store that fails is left alone."""
    noted: list[str] = []

    class Noting:
        def note_heard(self, prefix: str) -> bool:
            noted.append(prefix)
            if prefix == "failing":
                raise StoreUnavailable("off")
            return prefix != "unknown"

    heard = Hearing(cast(Catalog, Noting()))
    for prefix in ("known", "unknown", "failing") * 3:
        if heard.is_due(prefix):
            heard.note(prefix)
    assert noted == ["known", "unknown", "failing", "unknown", "unknown"]
    heard.forget("known")
    assert heard.is_due("known")
    assert not Hearing(cast(Catalog, object())).is_due("known")


class Told(MemoryStore):
    """A store that is told, and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def still_here(self, writer: str) -> None:
        """Note it, and fail."""
        self.told.append(writer)
        raise StoreUnavailable("off")


class Own:
    """As much of a journal as is asked for."""

    writer, is_forked = "robot", False


def test_only_who_sends_nothing_says_so() -> None:
    """Word is given when nothing was sent for the time, by who records; that it fails reaches nobody."""
    store, own, child = Told(), cast(Journal, Own()), Own()
    child.is_forked = True
    patient, eager = Presence(store, 1e9), Presence(store, 0.0)
    for sent in (0, 1, 2):
        eager.keep(own, sent)
        patient.keep(own, 2)
    eager.keep(None, 2)
    eager.keep(cast(Journal, child), 2)
    assert store.told == []
    eager.keep(own, 2)
    assert store.told == ["robot"]
    Presence(MemoryStore(), 0.0).keep(own, -1)  # a store that wants no such word


@pytest.mark.usefixtures("quick")
def test_a_server_that_went_away_is_not_noticed_by_an_idle_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that do not arrive are no failed delivery: no error, no wait, no warning; later entries arrive as ever."""
    tried: list[str] = []
    said = HttpStore.still_here

    def still_here(self: HttpStore, writer: str) -> None:
        try:
            said(self, writer)
        except StoreUnavailable:
            tried.append(writer)
            raise

    monkeypatch.setattr(HttpStore, "still_here", still_here)
    catalog = LocalCatalog(tmp_path / "served")
    with Server(create_app(catalog, tokens=None)) as server:
        experiment = record(server.url)
    wait_until(lambda: len(tried) > 2)
    session: Any = experiment._session
    assert session._delivery.error is None
    experiment.tracks.flush()  # a warning would fail the test
    with Server(create_app(catalog, tokens=None), server.port):
        experiment.tracks("robot/state").append(q=2.0, _ts=2.0).flush()
        experiment.close()
    assert catalog.find(PREFIX).status == "completed"
