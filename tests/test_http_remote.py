"""Recording to a server: the same code, the same results, and outages that never reach the recording."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml_dash
from http_server import Server, wait_until
from ml_dash import Experiment, InvalidEntry
from ml_dash.catalog import LocalCatalog
from ml_dash.errors import ExperimentNotFound, NotDelivered, StoreUnavailable, Unauthorized
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create, revoke
from ml_dash.spool import dead_letters, spool_root, waiting
from ml_dash.wire import InvalidAddress

PREFIX = "ada/robots/pick"


class Place:
    """A server that can be switched off and on again at its address."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tokens = FileTokens(root / ".server" / "tokens.json")
        self.token_id, self.token = "", ""
        self.renew()
        self._server: Server | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def renew(self) -> str:
        """A new token that may write Ada's experiments."""
        token, self.token = create(self.tokens, "robot", [Grant("ada", True)])
        self.token_id = token.id
        return self.token

    def on(self) -> None:
        """Start answering."""
        self._server = Server(create_app(LocalCatalog(self.root), tokens=self.tokens), self.port).start()

    def off(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def stored(self, prefix: str = PREFIX) -> Experiment:
        """The experiment as the server has it, read without the server."""
        return ml_dash.open(prefix, dash_root=self.root)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A server that answers."""
    place = Place(tmp_path / "served")
    place.on()
    yield place
    place.off()


@pytest.fixture(params=["local first", "server only"])
def new(request: pytest.FixtureRequest, place: Place, root: Path) -> Callable[..., Experiment]:
    """Makes experiments that go to the server, with and without a copy here."""

    def make(prefix: str = PREFIX, **options: Any) -> Experiment:
        dash_root = root if request.param == "local first" else None
        return Experiment(prefix, **{"dash_root": dash_root, "dash_url": place.url, "token": place.token, **options})

    return make


def record(experiment: Experiment, count: int, start: int = 0) -> None:
    """Some of everything."""
    for number in range(start, start + count):
        experiment.tracks("robot/state").append(q=[0.5 * number, 1.0], n=number, _ts=number * 0.001)
    experiment.metrics("train").log(loss=float(start))
    experiment.log(f"from {start}")


def summary(experiment: Experiment) -> dict[str, Any]:
    """What there is to read, without the times of day."""
    return {
        "state": experiment.tracks("robot/state").list_entries(),
        "loss": [entry["loss"] for entry in experiment.metrics("train").read()["entries"]],
        "log": [entry["message"] for entry in experiment.log.read()],
        "params": experiment.params.get(),
        "tracks": [(info.topic, info.count) for info in experiment.tracks.list()],
    }


def expected(count: int, starts: list[int], **params: Any) -> dict[str, Any]:
    """What `record` leaves."""
    return {
        "state": [{"timestamp": n * 0.001, "q": [0.5 * n, 1.0], "n": n} for n in range(count)],
        "loss": [float(start) for start in starts],
        "log": [f"from {start}" for start in starts],
        "params": params,
        "tracks": [("robot/state", count)],
    }


# ---------------------------------------------------------------- a server that answers


def test_a_recording_arrives(new: Callable[..., Experiment], place: Place, tmp_path: Path) -> None:
    """What was recorded is on the server when the run ends, its documents too, and nothing waits here."""
    with new().run as experiment:
        experiment.params.set(lr=0.1, arm={"dof": 7})
        record(experiment, 3000)
    assert experiment.status == "completed"
    with place.stored() as there:
        assert summary(there) == expected(3000, [0], lr=0.1, arm={"dof": 7})
        assert there.status == "completed"
    assert list(waiting([tmp_path / "dash", tmp_path / "state"])) == []


def test_reads_see_every_append(new: Callable[..., Experiment]) -> None:
    """In the same process a read includes what was appended before it, delivered or not, in every kind."""
    with new().run as experiment:
        experiment.params.set(a=1)
        for done in range(5):
            record(experiment, 100, 100 * done)
            assert summary(experiment) == expected(100 * (done + 1), [100 * n for n in range(done + 1)], a=1)
            if done % 2:
                experiment.tracks.flush()


def test_flush_is_durable_on_the_server(new: Callable[..., Experiment], place: Place) -> None:
    """When flush returns, another reader of the server sees everything."""
    with new().run as experiment:
        record(experiment, 50)
        experiment.params.set(a=1)
        assert experiment.tracks("robot/state").flush() is experiment.tracks("robot/state")
        with place.stored() as there:
            assert summary(there) == expected(50, [0], a=1)


def test_entries_go_without_a_flush(new: Callable[..., Experiment], place: Place) -> None:
    """Within a few seconds what was appended is on the server by itself, the last entry too, though nothing follows."""
    with new().run as experiment:
        for number in range(20):
            experiment.tracks("robot/state").append(n=number, _ts=float(number))
        experiment.tracks("robot/state").append(n=20, _ts=20.0)

        def there() -> bool:
            try:
                with place.stored() as stored:
                    return len(stored.tracks("robot/state")) == 21
            except LookupError:  # neither the experiment nor its topic, at first
                return False

        wait_until(there)


def test_open_reads_from_the_server(new: Callable[..., Experiment], place: Place) -> None:
    """`ml_dash.open(dash_url=)` gives what was recorded, in every format, and nothing can be written to it."""
    with new().run as experiment:
        experiment.params.set(a=1)
        record(experiment, 500)
    with ml_dash.open(PREFIX, dash_url=place.url, token=place.token) as served, place.stored() as stored:
        assert summary(served) == summary(stored)
        assert served.status == "completed"
        for format in ("json", "jsonl", "mocap"):
            assert served.tracks("robot/state").read(0.1, 0.2, ["n"], format) == stored.tracks("robot/state").read(
                0.1, 0.2, ["n"], format
            )
        assert served.tracks("robot/state").read(format="parquet")[:4] == b"PAR1"
        with pytest.raises(ml_dash.NotOpen, match="reading only"):
            served.tracks("robot/state").append(n=1, _ts=1.0)


def test_unknown_experiments_are_told(place: Place) -> None:
    """One that nobody recorded, and one of another owner, look the same."""
    for prefix in ("ada/no/body", "bob/robots/pick"):
        with pytest.raises(ExperimentNotFound, match="no"):
            ml_dash.open(prefix, dash_url=place.url, token=place.token)


def test_unknown_experiments_of_a_server_name_the_nearest(new: Callable[..., Experiment], place: Place) -> None:
    """A mistyped prefix is answered with those that the token reaches; a mistyped topic with the topics."""
    with new().run as experiment:
        record(experiment, 2)
    options = {"dash_url": place.url, "token": place.token}
    with pytest.raises(ExperimentNotFound, match=f"{place.url}; did you mean '{PREFIX}'"):
        ml_dash.open(PREFIX + "s", **options)
    owner, project, name = PREFIX.split("/")
    with pytest.raises(ExperimentNotFound, match=f"{place.url}; did you mean '{PREFIX}'"):
        ml_dash.open(f"{owner}/{project}s/{name}", **options)  # none beside it: all there are
    with ml_dash.open(PREFIX, **options) as served:
        assert served.tracks("robot/state").read(start_timestamp=1e9)["entries"] == []
        with pytest.raises(ml_dash.TrackNotFound, match="did you mean 'robot/state'"):
            served.tracks("robot/sate").list_entries()


def test_the_environment_names_the_server(place: Place, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """`ML_DASH_URL` and `ML_DASH_TOKEN` do what the arguments do; open prefers what is here."""
    monkeypatch.setenv("ML_DASH_URL", place.url + "/")
    monkeypatch.setenv("ML_DASH_TOKEN", place.token)
    with Experiment(PREFIX, dash_root=root).run as experiment:
        record(experiment, 10)
    with place.stored() as there:
        assert len(there.tracks("robot/state")) == 10
    with ml_dash.open(PREFIX, dash_root=root.parent / "elsewhere") as served:
        assert len(served.tracks("robot/state")) == 10
    with Experiment("ada/only/here", dash_root=root, dash_url="").run as experiment:
        record(experiment, 1)
    with pytest.raises(ExperimentNotFound):
        place.stored("ada/only/here")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://user:secret@host", "https://h?x=1"])
def test_addresses_that_are_none(url: str) -> None:
    """A clear ValueError that does not repeat a password."""
    with pytest.raises(InvalidAddress) as told:
        Experiment(PREFIX, dash_url=url)
    assert isinstance(told.value, ValueError)
    assert "secret" not in str(told.value)


def test_no_root_needs_a_server() -> None:
    """`dash_root=None` alone has nowhere to put anything."""
    with pytest.raises(InvalidAddress, match="dash_url"):
        Experiment(PREFIX, dash_root=None)


def test_two_clients_of_one_experiment(place: Place, tmp_path: Path) -> None:
    """Entries and parameters of two machines unite on the server; neither takes anything from the other."""
    both = [Experiment(PREFIX, dash_root=tmp_path / name, dash_url=place.url, token=place.token) for name in "ab"]
    for number, experiment in enumerate(both):
        experiment.run.start()
        experiment.params.set({"shared": {f"p{number}": number}, "last": number})
        experiment.tracks("t").append(**{f"f{number}": number}, _ts=1.0)
        experiment.tracks.flush()
    with place.stored() as there:
        assert there.info["status"] == "running"
    for experiment in both:
        experiment.run.complete()
    with place.stored() as there:
        assert there.params.get() == {"shared": {"p0": 0, "p1": 1}, "last": 1}
        assert there.tracks("t").list_entries() == [{"timestamp": 1.0, "f0": 0, "f1": 1}]
        assert [one["status"] for one in there.info["processes"]] == ["completed", "completed"]


def test_whole_arrays_larger_than_a_request(new: Callable[..., Experiment], place: Place) -> None:
    """An extend of 40 MB goes in parts and arrives once, in its place between the appends."""
    times = np.arange(100_000) * 0.001
    values = np.random.default_rng(0).random((100_000, 50))
    with new().run as experiment:
        experiment.tracks("big").append(x=1, _ts=-1.0)
        experiment.tracks("big").extend(_ts=times, q=values)
        experiment.tracks("big").append(q=[0.0], _ts=0.0)
        experiment.tracks.flush()
    with place.stored() as there:
        table = there.tracks("big").read(50.0, 50.001)["entries"]
        assert [entry["q"] for entry in table] == values[50_000:50_002].tolist()
        assert there.tracks.list()[0].count == 100_001
        assert there.tracks("big").read(-1.0, 0.0)["entries"] == [
            {"timestamp": -1.0, "x": 1}, {"timestamp": 0.0, "q": [0.0]},
        ]  # fmt: skip


# ---------------------------------------------------------------- a server that does not


def test_an_outage_from_the_start(new: Callable[..., Experiment], place: Place, root: Path) -> None:
    """Without a server the run starts, records, is read and ends; what waits is said; the next start delivers it."""
    place.off()
    experiment = new().run.start()
    experiment.params.set(a=1)
    record(experiment, 200)
    if experiment.root == root:
        assert summary(experiment) == expected(200, [0], a=1)
    assert experiment.params.get("a") == 1
    with pytest.warns(NotDelivered, match="not yet at"):
        experiment.run.complete()
    (left,) = waiting([root, spool_root(place.url)])
    assert (left.destination.url, left.destination.prefix, left.documents) == (place.url, PREFIX, True)
    assert left.bytes > 200 * 20
    place.on()
    with new().run as experiment:
        record(experiment, 200, 200)
        assert summary(experiment) == expected(400, [0, 200], a=1)
    with place.stored() as there:
        assert summary(there) == expected(400, [0, 200], a=1)
    assert list(waiting([root, spool_root(place.url)])) == []


def test_an_outage_in_the_middle(new: Callable[..., Experiment], place: Place) -> None:
    """The server goes and comes back while entries are recorded: everything arrives, once."""
    with new().run as experiment:
        record(experiment, 100)
        experiment.tracks.flush()
        place.off()
        record(experiment, 100, 100)
        with pytest.warns(NotDelivered):
            experiment.tracks.flush(timeout_s=0.3)
        place.on()
        record(experiment, 100, 200)
        wait_until(lambda: _flushes_quietly(experiment))
        with place.stored() as there:
            assert summary(there) == expected(300, [0, 100, 200])


def test_flushes_in_an_outage_do_not_wait(new: Callable[..., Experiment], place: Place) -> None:
    """After one wait in vain, following flushes return at once, each with a warning, until the server has answered."""
    with new().run as experiment:
        place.off()
        record(experiment, 10)
        started = time.monotonic()
        with pytest.warns(NotDelivered, match="sent as soon as it answers"):
            experiment.tracks.flush(timeout_s=0.5)
        assert time.monotonic() - started > 0.4
        for _ in range(20):
            started = time.monotonic()
            with pytest.warns(NotDelivered):
                experiment.tracks.flush(timeout_s=30.0)
            assert time.monotonic() - started < 0.4
        place.on()
        wait_until(lambda: _flushes_quietly(experiment))


def _flushes_quietly(experiment: Experiment) -> bool:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        experiment.tracks.flush()
    return not told


def test_a_strict_flush_raises(new: Callable[..., Experiment], place: Place) -> None:
    """With durability="strict" an entry that is not on the server is an error of flush; nothing is lost."""
    experiment = new(durability="strict")
    with experiment.run:
        place.off()
        record(experiment, 10)
        with pytest.raises(StoreUnavailable):
            experiment.tracks.flush(timeout_s=0.3)
        place.on()
        wait_until(lambda: _is_quiet(experiment))
    with place.stored() as there:
        assert summary(there) == expected(10, [0])


def _is_quiet(experiment: Experiment) -> bool:
    try:
        experiment.tracks.flush()
    except StoreUnavailable:
        return False
    return True


def test_closing_in_an_outage_takes_seconds(new: Callable[..., Experiment], place: Place) -> None:
    """A server that hangs, not merely refuses, does not hang the end of the run."""
    place.off()
    with socket.create_server(("127.0.0.1", place.port)):  # connects, never answers
        experiment = new().run.start()
        record(experiment, 10)
        with pytest.warns(NotDelivered):
            experiment.tracks.flush(timeout_s=0.2)
        started = time.monotonic()
        with pytest.warns(NotDelivered):
            experiment.run.complete()
        assert time.monotonic() - started < 8.0


def test_a_read_in_an_outage_is_told(place: Place, root: Path) -> None:
    """Where only the server has the series, a read says that it does not answer."""
    experiment = Experiment(PREFIX, dash_root=None, dash_url=place.url, token=place.token).run.start()
    record(experiment, 10)
    place.off()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        experiment.tracks("robot/state").read()
    place.on()
    experiment.run.complete()


def test_a_refused_token_keeps_everything(new: Callable[..., Experiment], place: Place) -> None:
    """A token that is revoked pauses the sending, flush says so at once, and a good one later delivers all of it."""
    experiment = new().run.start()
    record(experiment, 10)
    experiment.tracks.flush()
    revoke(place.tokens, place.token_id)
    record(experiment, 10, 10)
    started = time.monotonic()
    with pytest.warns(NotDelivered, match=r"token.*\(401\)"):
        experiment.tracks.flush()
    assert time.monotonic() - started < 10.0
    with pytest.warns(NotDelivered, match="token"):
        experiment.run.complete()
    place.renew()
    with new().run:
        pass
    with place.stored() as there:
        assert summary(there) == expected(20, [0, 10])


def test_a_strict_flush_tells_a_refused_token(new: Callable[..., Experiment], place: Place) -> None:
    """With durability="strict" it is Unauthorized, a PermissionError."""
    experiment = new(durability="strict", token="mld_wrong").run.start()
    record(experiment, 1)
    with pytest.raises(Unauthorized, match="401"):
        experiment.tracks.flush()
    with pytest.warns(NotDelivered):
        experiment.run.complete()


# ---------------------------------------------------------------- processes that die


def _die(options: dict[str, Any], count: int) -> None:
    experiment = Experiment(PREFIX, **options).run.start()
    record(experiment, count)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_delivered_by_the_next(new: Callable[..., Experiment], place: Place, root: Path) -> None:
    """Every entry whose append had returned arrives, once, with the next start, before anything newer."""
    dash_root = new().root if new().root == root else None
    options = {"dash_root": dash_root, "dash_url": place.url, "token": place.token}
    for round in range(2):
        child = multiprocessing.get_context("spawn").Process(target=_die, args=(options, 100))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, round
    with new().run as experiment:
        experiment.tracks("robot/state").append(n="newer", _ts=0.0)
    with place.stored() as there:
        found = summary(there)
        assert found["state"][0]["n"] == "newer"
        assert found["state"][1:] == expected(100, [0, 0])["state"][1:]
        assert (found["loss"], found["log"]) == ([0.0, 0.0], ["from 0", "from 0"])


def test_a_forked_child_sends_its_own(new: Callable[..., Experiment], place: Place) -> None:
    """Parent and child record on over connections of their own; both parts arrive."""
    with new().run as experiment:
        record(experiment, 10)
        experiment.tracks.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                experiment.tracks("child").append(x=1, _ts=1.0)
                experiment.tracks.flush()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        experiment.tracks("parent").append(x=2, _ts=2.0)
        experiment.tracks.flush()
        assert os.waitpid(pid, 0)[1] == 0
        with place.stored() as there:
            assert {info.topic: info.count for info in there.tracks.list()} == {
                "robot/state": 10, "child": 1, "parent": 1,
            }  # fmt: skip


# ---------------------------------------------------------------- entries the server refuses


def test_a_refused_entry_costs_itself_alone(new: Callable[..., Experiment], place: Place) -> None:
    """It is kept beside the recording with the reason and counted in a warning; its neighbours are stored."""
    experiment = new().run.start()
    record(experiment, 5)
    journal = experiment._session.writing()  # type: ignore[union-attr]
    from ml_dash.entry import encode_body

    journal.write(encode_body((1, float("nan"), {"n": "no such time"})))
    record(experiment, 5, 5)
    with pytest.warns(NotDelivered, match="1 entries were refused"):
        experiment.tracks.flush()
    experiment.run.complete()
    with place.stored() as there:
        assert len(there.tracks("robot/state")) == 10
    (letter,) = dead_letters(experiment.folder)
    assert letter["reason"] == "a timestamp is a finite float64"
    assert letter["topic"] == "robot/state"


def test_wrong_arguments_are_refused_as_locally(new: Callable[..., Experiment]) -> None:
    """The errors of append do not depend on where entries go."""
    with new().run as experiment:
        with pytest.raises(InvalidEntry, match="_ts"):
            experiment.tracks("t").append(x=1)
        with pytest.raises(InvalidEntry, match="finite"):
            experiment.tracks("t").append(x=1, _ts=float("inf"))
