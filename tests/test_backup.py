"""Backup and restore as `docs/operations.md` describes them, tried: a folder, a database and its bucket, `pull`."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from http_server import Server
from ml_dash import Experiment
from ml_dash.catalog import LocalCatalog
from ml_dash.cli.app import run
from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.server.app import create_app
from ml_dash.store import Batch
from ml_dash.stores.bucket import Bucket
from ml_dash.stores.http import HttpStore
from mongo_catalogs import AT_ONCE, LOSS, STATE, archive_all, batch, bucket_of, new_catalog, read, unique_prefix

pytest_plugins = ["servers.fixtures"]

PREFIX = unique_prefix()


def recorded(catalog: MongoCatalog) -> MongoCatalog:
    """Part of it archived, part in compacted parts, part as written, part deleted, and a document."""
    store = catalog.store(PREFIX)
    for number in (1, 2, 3):
        store.append(batch(number))
    archive_all(catalog, PREFIX)
    store.append(batch(4))
    catalog.compact(PREFIX)
    store.append(batch(5))
    store.remove_window(STATE, 1.5, 1.6)
    store.update_document("params", lambda known: {"robot": "arm"})
    return catalog


def everything(catalog: MongoCatalog) -> list[Any]:
    """What an experiment holds."""
    store = catalog.store(PREFIX)
    return [repr(read(store, STATE)), read(store, LOSS), store.read_document("params"), store.applied("robot")]


def dump(client: Any, source: str, target: str) -> None:
    """Every collection with its indexes, as `mongodump --oplog` and `mongorestore` carry it to another database."""
    for name in client[source].list_collection_names():
        documents = list(client[source][name].find({"_id": {"$gte": ""}}))
        if documents:
            client[target][name].insert_many(documents)


def test_database_then_objects(client: Any, s3_server: Any) -> None:
    """A dump, and a copy of the objects made after it, are the whole; recording goes on there, and retries stay once.

    Between the two, compaction replaces objects and the janitor waits its day: what the dump names is still copied.
    """
    source_bucket, target_bucket = bucket_of(s3_server), bucket_of(s3_server)
    with new_catalog(client, source_bucket) as catalog:
        expected = everything(recorded(catalog))
        copy = f"{catalog._tables._database.name}_restored"
        try:
            dump(client, catalog._tables._database.name, copy)
            archive_all(catalog, PREFIX)
            for key in list(source_bucket.keys()):
                target_bucket.put(key, _object(source_bucket, key))
            restored = MongoCatalog(client=client, database=copy, bucket=target_bucket, policy=AT_ONCE)
            assert everything(restored) == expected
            restored.store(PREFIX).append(batch(5))
            assert everything(restored) == expected, "a batch that came before changes nothing"
            restored.store(PREFIX).append(batch(6))
            archive_all(restored, PREFIX)
            store = restored.store(PREFIX)
            assert [entry["index"] for entry in read(store, LOSS)] == list(range(60))
            assert len(read(store)) == 600 - 11
        finally:
            client.drop_database(copy)


def _object(bucket: Bucket, key: str) -> bytes:
    size = bucket.size(key)
    assert size is not None
    return bucket.range(key, 0, size)


def test_objects_before_the_database_may_miss_one(client: Any, s3_server: Any) -> None:
    """The order matters: a part archived between the copy and the dump is named, and not in the copy."""
    bucket = bucket_of(s3_server)
    with new_catalog(client, bucket) as catalog:
        catalog.store(PREFIX).append(batch(1))
        early = set(bucket.keys())
        archive_all(catalog, PREFIX)
        assert {found.key for found in catalog.objects(PREFIX)} - early, "named by a later dump, missing in the copy"


def test_pull_and_push(client: Any, s3_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ml-dash pull` takes everything off a server on MongoDB while it runs; `push` brings it to an empty one."""
    with new_catalog(client, bucket_of(s3_server)) as catalog, new_catalog(client, None) as fresh:
        expected = everything(recorded(catalog))
        for number, one in enumerate((catalog, fresh)):
            served = MongoCatalog(client=client, database=one._tables._database.name, bucket=_bucket(one))
            with Server(create_app(served, tokens=None)) as api:
                word = "push" if number else "pull"
                assert run([word, PREFIX, "--url", api.url, "--dash-root", str(tmp_path / "copy")]) == 0
        assert everything(fresh)[:3] == expected[:3]


def _bucket(catalog: MongoCatalog) -> Bucket | None:
    return None if catalog._archive is None else catalog._archive.bucket


def test_a_folder_is_copied(tmp_path: Path) -> None:
    """The folder of a server, copied while it is stopped, serves the same, and goes on."""
    with Experiment(PREFIX, dash_root=tmp_path / "served").run as experiment:
        experiment.params.set(robot="arm")
        experiment.tracks("a").extend(_ts=[1.0, 2.0], x=[1, 2])
        experiment.metrics("train").log(loss=0.5)
    shutil.copytree(tmp_path / "served", tmp_path / "restored")
    (prefix,) = LocalCatalog(tmp_path / "restored").prefixes()
    with Experiment(prefix, dash_root=tmp_path / "restored").run as experiment:
        experiment.tracks("a").append(_ts=3.0, x=3)
        experiment.metrics("train").log(loss=0.25)
    found = LocalCatalog(tmp_path / "restored").store(prefix)
    assert [entry["x"] for block in found.read(STATE._replace(topic="a")) for entry in block] == [1, 2, 3]
    losses = [entry["loss"] for block in found.read(LOSS._replace(topic="train")) for entry in block]
    assert losses == [0.5, 0.25]


# ---------------------------------------------------------------- push and pull, where something was lost


class NoUpkeep(MongoCatalog):
    """The stand-in loses one of two updates of a document that come at once, which MongoDB does not: of upkeep, which
    begins with each server, and of what a test deletes there."""

    def run_upkeep(self, stop: threading.Event, every_s: float = 30.0) -> None:
        """Until told to stop, nothing."""
        stop.wait()


class Served:
    """A server that is there while a command runs: in between it may be restored from a backup."""

    port = 0

    def __init__(self, catalog: Callable[[], Any], state: Callable[[], Any], restore: Callable[[Any], None]) -> None:
        self.catalog, self.state, self.restore = catalog, state, restore

    def call(self, word: str, *words: str, place: str = "--url") -> int:
        """Run a command with the server's address, which stays the same; its exit code."""
        with Server(create_app(self.catalog(), tokens=None), self.port) as api:
            self.port = api.port
            return run([word, PREFIX, place, api.url, *words])

    def push(self, root: Path) -> int:
        """Everything of the folder there."""
        return self.call("push", "--dash-root", str(root))

    def pull(self, root: Path) -> int:
        """Everything there in the folder."""
        return self.call("pull", "--dash-root", str(root))


@pytest.fixture(params=["folder", "database"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A server over a folder, and one over a database."""
    if request.param == "folder":
        root, copies = tmp_path / "served", iter(range(100))

        def copied() -> Path:
            return Path(shutil.copytree(root, tmp_path / f"backup-{next(copies)}"))

        def restore(copy: Path) -> None:
            shutil.rmtree(root)
            shutil.copytree(copy, root)

        yield Served(lambda: LocalCatalog(root), copied, restore)
        return
    client = request.getfixturevalue("client")
    with new_catalog(client, None) as catalog:
        database = catalog._tables._database
        everyone = {"_id": {"$gte": ""}}

        def state() -> dict[str, list[Any]]:
            return {name: list(database[name].find(everyone)) for name in database.list_collection_names()}

        def restored(found: dict[str, list[Any]]) -> None:
            for name in database.list_collection_names():
                database[name].delete_many(everyone)
                if found.get(name):
                    database[name].insert_many(found[name])

        yield Served(lambda: NoUpkeep(client=client, database=database.name), state, restored)


def record(root: Path, first: int, entries: int = 100, note: str = "begun") -> Path:
    """Tracks, metrics and logs from an index on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Experiment(PREFIX, dash_root=root).run as experiment:
            experiment.tracks("robot/state").extend(
                _ts=[n * 0.01 for n in range(first, first + entries)], n=[*range(entries)]
            )
            experiment.tracks("once").append(_ts=1.0, x=first)
            for n in range(first, first + 50):
                experiment.metrics("loss").log(loss=n)
            experiment.log(note)
    return root


def held(catalog: Any) -> list[Any]:
    """Every series of the experiment, with all its entries."""
    store = catalog.store(PREFIX)
    return [
        (kind, info.topic, read(store, STATE._replace(kind=kind, topic=info.topic)))
        for kind in ("tracks", "metrics", "logs")
        for info in store.tracks(kind)
    ]


def test_a_backup_is_pushed_to_an_emptied_server_again_and_again(served: Served, tmp_path: Path) -> None:
    """The ledger says that everything was brought; what was deleted since is brought again, and once."""
    mine, backup = record(tmp_path / "mine", 0), tmp_path / "backup"
    expected = held(LocalCatalog(mine))
    assert (served.push(mine), served.pull(backup)) == (0, 0)
    for _ in range(2):
        assert served.call("rm", "--yes", place="--dash-root") == 0
        assert served.push(backup) == 0
        assert held(served.catalog()) == expected
    assert served.push(backup) == 0
    assert held(served.catalog()) == expected


def test_a_server_restored_twice(served: Served, tmp_path: Path) -> None:
    """After each restore of the same older backup, what the robot's folder has more comes back."""
    mine = record(tmp_path / "mine", 0)
    assert served.push(mine) == 0
    older = served.state()
    record(mine, 100)
    expected = held(LocalCatalog(mine))
    for _ in range(2):
        assert served.push(mine) == 0
        assert held(served.catalog()) == expected
        served.restore(older)
    assert held(served.catalog()) != expected


def test_a_backup_made_during_a_push_is_restored_after_it(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the first batches of a transfer that is whole for the ledger."""
    mine = record(tmp_path / "mine", 0)
    expected = held(LocalCatalog(mine))
    interrupt(monkeypatch, 5)
    assert served.push(mine) != 0
    half = served.state()
    for _ in range(2):
        assert served.push(mine) == 0
        assert held(served.catalog()) == expected
        served.restore(half)


def interrupt(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The connection ends behind some batches of 20 entries, the last one's answer being lost; then it is back."""
    append, calls = HttpStore.append, iter(range(1, 10**6))

    def lost(store: HttpStore, batch: Batch) -> None:
        append(store, batch)
        if next(calls) == call:
            raise StoreUnavailable("the answer is lost")

    monkeypatch.setattr(HttpStore, "append", lost)
    monkeypatch.setattr("ml_dash.transfer.BATCH_ENTRIES", 20)


@pytest.mark.parametrize("call", [2, 8, 10])
def test_a_killed_push_and_then_an_emptied_server(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Nothing of what arrived before is left out, and metrics begin at their beginning."""
    mine = record(tmp_path / "mine", 0)
    interrupt(monkeypatch, call)
    assert served.push(mine) != 0
    assert served.call("rm", "--yes", place="--dash-root") == 0
    assert served.push(mine) == 0
    assert held(served.catalog()) == held(LocalCatalog(mine))


@pytest.mark.parametrize("lost", ["", f"{PREFIX}/tracks", f"{PREFIX}/metrics"])
def test_a_backup_that_lost_files_is_pulled_again(served: Served, tmp_path: Path, lost: str) -> None:
    """All of the folder, or a part of it: it is whole after the next pull, and metrics and logs are there once."""
    mine, backup = record(tmp_path / "mine", 0), tmp_path / "backup"
    assert served.push(mine) == 0
    for _ in range(2):
        assert served.pull(backup) == 0
        assert held(LocalCatalog(backup)) == held(LocalCatalog(mine))
        shutil.rmtree(backup / lost)
    assert served.pull(backup) == 0
    assert held(LocalCatalog(backup)) == held(LocalCatalog(mine))


def test_a_track_cut_short_in_the_backup_is_pulled_again(served: Served, tmp_path: Path) -> None:
    """A file that a full disk or a crash has shortened."""
    mine, backup = record(tmp_path / "mine", 0), tmp_path / "backup"
    assert (served.push(mine), served.pull(backup)) == (0, 0)
    file = max((backup / PREFIX / "tracks").rglob("data.jsonl"), key=lambda one: one.stat().st_size)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:50]))
    assert served.pull(backup) == 0
    assert held(LocalCatalog(backup)) == held(LocalCatalog(mine))


def test_what_was_deleted_on_the_server_comes_back_with_a_push(served: Served, tmp_path: Path) -> None:
    """As `docs/operations.md` says; deleted here too, it is gone."""
    mine = record(tmp_path / "mine", 0)
    expected = held(LocalCatalog(mine))
    assert served.push(mine) == 0
    for words in (("robot/state", "-s", "0.2", "-e", "0.3"), ("robot/state",), ("-k", "metrics")):
        assert served.call("rm", "--yes", *words, place="--dash-root") == 0
        assert held(served.catalog()) != expected
        assert served.push(mine) == 0
        assert held(served.catalog()) == expected
    for place in ("here", "there"):
        words = ("rm", PREFIX, "once", "--yes", "--dash-root")
        assert (run([*words, str(mine)]) if place == "here" else served.call("rm", "once", "-y", place="-r")) == 0
    assert served.push(mine) == 0
    assert held(served.catalog()) == held(LocalCatalog(mine))


def test_a_correction_of_the_same_size_travels(served: Served, tmp_path: Path) -> None:
    """Neither the number of entries nor their bytes change: the revision does, in folders and databases, over HTTP."""
    mine, backup = record(tmp_path / "mine", 0), tmp_path / "backup"
    for value in (0, 7, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Experiment(PREFIX, dash_root=mine).run as experiment:
                experiment.tracks("once").append(_ts=1.0, x=value)
        assert (served.push(mine), served.pull(backup)) == (0, 0)
        (corrected,) = (one for _, topic, one in held(LocalCatalog(backup)) if topic == "once")
        assert corrected == [{"timestamp": 1.0, "x": value}]
        assert held(served.catalog()) == held(LocalCatalog(backup)) == held(LocalCatalog(mine))


def test_a_pull_goes_on_behind_an_experiment_that_differs(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup that has other metrics of one experiment says so, ends with 1, and has all the others."""
    mine, backup = record(tmp_path / "mine", 0), record(tmp_path / "backup", 5)
    shutil.copytree(mine / PREFIX, mine / f"{PREFIX}-later")
    owner = PREFIX.split("/")[0]
    with Server(create_app(served.catalog(), tokens=None), served.port) as api:
        assert run(["push", f"{owner}/*", "--url", api.url, "--dash-root", str(mine)]) == 0
        assert run(["pull", f"{owner}/*", "--url", api.url, "--dash-root", str(backup)]) == 1
    assert "metrics 'loss'" in capsys.readouterr().err
    assert read(LocalCatalog(backup).store(f"{PREFIX}-later")) == read(LocalCatalog(mine).store(PREFIX))
