"""The archive from outside: the route, the commands, and the server's background upkeep as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from http_server import Server, wait_until
from ml_dash import mongo_catalog
from ml_dash.catalog import LocalCatalog
from ml_dash.cli.app import run as ml_dash
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.server.app import create_app
from ml_dash.stores.bucket import Bucket
from ml_dash.stores.compactor import Policy
from mongo_catalogs import AT_ONCE, LOSS, STATE, archive_all, batch, new_catalog, read, unique_prefix

pytest_plugins = ["servers.fixtures"]

PREFIX = unique_prefix()


@pytest.fixture
def catalog(client: Any, bucket: Bucket) -> Iterator[MongoCatalog]:
    """Three batches of two series."""
    with new_catalog(client, bucket, replace(AT_ONCE, grace_s=0.0)) as catalog:
        for number in (1, 2, 3):
            catalog.store(PREFIX).append(batch(number))
        yield catalog


@pytest.fixture
def api(client: Any, catalog: MongoCatalog, bucket: Bucket) -> Iterator[Server]:
    """A server on that database, whose own upkeep waits as long as it does by default."""
    database = catalog._tables._database.name
    with Server(create_app(MongoCatalog(client=client, database=database, bucket=bucket), tokens=None)) as server:
        yield server


class Said(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(
    catalog: MongoCatalog, mongo_server: Any, s3_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., Said]:
    """Runs a command on the database, with a grace period as short as in these tests."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mongo_catalog, "Policy", lambda: AT_ONCE)
    database = catalog._tables._database.name
    where = ["--mongo-uri", mongo_server.uri, "--database", database]

    def invoke(*arguments: str, on_database: bool = True) -> Said:
        capsys.readouterr()
        return Said(ml_dash([*arguments, *(where if on_database else [])]), *capsys.readouterr())

    return invoke


# ---------------------------------------------------------------- the route


def test_the_route_lists_what_counts(catalog: MongoCatalog, bucket: Bucket, api: Server) -> None:
    """Addresses, ranges and sizes of the objects, and whether they are the whole series."""

    def listed(**query: str) -> Any:
        answer = httpx2.get(f"{api.url}/v1/objects", params={"prefix": PREFIX, **query}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()["series"]

    assert listed() == [{"topic": "robot/state", "exact": False, "objects": []}]
    archive_all(catalog, PREFIX)
    (series,) = listed(topic="robot/state")
    assert series["exact"] is True
    (found,) = series["objects"]
    assert found["url"].removeprefix(bucket.url + "/") in set(bucket.keys())
    assert (found["first"], found["last"], found["entries"]) == (1.0, 3.99, 300)
    assert [one["topic"] for one in listed(kind="metrics")] == ["loss"]
    assert listed(topic="nobody") == []
    catalog.store(PREFIX).append(batch(4, 5, start=4.0))
    assert listed()[0]["exact"] is False, "something is in the database only"
    missing = httpx2.get(f"{api.url}/v1/objects", params={"prefix": "ada/archive/nobody"}, timeout=60)
    assert missing.status_code == 404


def test_overlapping_objects_are_not_exact(catalog: MongoCatalog) -> None:
    """Two objects that hold the same instants say so until they are compacted."""
    archive_all(catalog, PREFIX)
    catalog.store(PREFIX).append(batch(2, 10, writer="late", start=2.0))
    for doc in catalog._series(PREFIX):
        catalog._compactor.compact(doc, few=True)
    catalog.sweep(PREFIX)
    catalog.archive(PREFIX)
    (series,) = catalog.archived(PREFIX, "robot/state")
    assert (len(series.objects), series.exact) == (2, False)
    archive_all(catalog, PREFIX)
    (series,) = catalog.archived(PREFIX, "robot/state")
    assert (len(series.objects), series.exact) == (1, True)
    catalog.store(PREFIX).remove_window(STATE, 2.0, 2.1)
    assert catalog.archived(PREFIX, "robot/state")[0].exact is False, "objects still hold what was deleted"


def test_a_folder_has_no_archive(tmp_path: Path) -> None:
    """A server on a folder answers with an empty list, not with an error."""
    from ml_dash import Experiment

    with Experiment(PREFIX, dash_root=tmp_path).run as experiment:
        experiment.tracks("a").append(x=1.0, _ts=1.0)
    with Server(create_app(LocalCatalog(tmp_path), tokens=None)) as api:
        answer = httpx2.get(f"{api.url}/v1/objects", params={"prefix": PREFIX}, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"series": []})


# ---------------------------------------------------------------- commands


def test_archive_and_objects_commands(
    catalog: MongoCatalog, bucket: Bucket, api: Server, run: Callable[..., Said]
) -> None:
    """`ml-dash archive` moves everything, said again it has nothing to do; `ml-dash objects` prints the addresses."""
    expected = read(catalog.store(PREFIX)), read(catalog.store(PREFIX), LOSS)
    done = run("archive", "--s3-url", bucket.url, PREFIX)
    assert done.code == 0, done.err
    assert "2 objects stored" in done.err
    again = run("archive", "--s3-url", bucket.url, "--json")
    assert f'"prefix": "{PREFIX}"' in again.out
    assert '"stored": 0' in again.out
    assert '"exact": true' in again.out
    listed = run("objects", PREFIX, "robot/state", "--url", api.url, on_database=False)
    assert listed.code == 0, listed.out
    assert listed.out.splitlines() == [f"{bucket.url}/{found.key}" for found in catalog.objects(PREFIX)]
    catalog.store(PREFIX).append(batch(4, 5, start=4.0))
    partly = run("objects", PREFIX, "--url", api.url, on_database=False)
    assert partly.code == 1
    assert read(catalog.store(PREFIX))[: len(expected[0])] == expected[0]
    assert read(catalog.store(PREFIX), LOSS)[: len(expected[1])] == expected[1]


def test_compact_command(catalog: MongoCatalog, run: Callable[..., Said]) -> None:
    """`ml-dash compact --mongo-uri` merges segments; what readers see is the same."""
    expected = read(catalog.store(PREFIX))
    done = run("compact", PREFIX)
    assert done.code == 0, done.err
    assert "6 segments of 1 experiment merged" in done.err
    assert "0 segments" in run("compact").err
    assert read(catalog.store(PREFIX)) == expected
    assert run("compact", "nobody/*").code == 1


def test_the_commands_say_what_is_missing(run: Callable[..., Said]) -> None:
    """Without a bucket or a server: one line and exit code 2."""
    assert "--s3-url" in run("archive").err
    assert run("archive").code == 2
    assert "ML_DASH_URL" in run("objects", PREFIX, on_database=False).err


# ---------------------------------------------------------------- background


def test_two_servers_upkeep_side_by_side(client: Any, bucket: Bucket) -> None:
    """Two processes' upkeep over the same series: a lease keeps one out, and nothing is lost or doubled."""
    with new_catalog(client, bucket, replace(AT_ONCE, min_segments=1, stub_s=3600.0)) as catalog:
        for number in range(1, 9):
            catalog.store(PREFIX).append(batch(number, 50))
        expected = read(catalog.store(PREFIX))
        others = [
            MongoCatalog(client=client, database=catalog._tables._database.name, bucket=bucket, policy=catalog.policy)
            for _ in range(3)
        ]
        (doc,) = catalog._series(PREFIX, "tracks")
        now = catalog._tables.now()
        assert catalog._tables.lease(doc["_id"], now, now + 60)
        assert others[0].upkeep().series == 1, "the series that is taken is left alone, the other is not"
        catalog._tables.release(doc, 0.0)
        threads = [threading.Thread(target=other.upkeep) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read(catalog.store(PREFIX)) == expected


def test_upkeep_stops_between_two_series(client: Any, bucket: Bucket) -> None:
    """Told to stop, a pass ends behind the series at hand."""
    with new_catalog(client, bucket) as catalog:
        catalog.store(PREFIX).append(batch(1))
        stop = threading.Event()
        visit = catalog._upkeep._visit

        def once(doc: Any, done: Any) -> None:
            visit(doc, done)
            stop.set()

        catalog._upkeep._visit = once  # type: ignore[method-assign]
        assert catalog._upkeep.run_once(stop=stop).series == 1


@contextmanager
def serving(*arguments: str, env: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`ml-dash serve` as a process; its address, and the process."""
    command = [sys.executable, "-m", "ml_dash.cli", "serve", "--port", "0", "--insecure-local", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        yield found[0], process
    finally:
        process.kill()
        process.communicate()


def test_serve_looks_after_its_database(
    catalog: MongoCatalog, bucket: Bucket, mongo_server: Any, s3_server: Any
) -> None:
    """`ml-dash serve` merges in the background what is due, and stops in good order while it does."""
    catalog._tables.tracks.update_many({"due": {"$gt": 0}}, {"$set": {"due": 0.0}})
    where = ["--mongo-uri", mongo_server.uri, "--database", catalog._tables._database.name, "--s3-url", bucket.url]
    options = ["--archive-after", "1h", "--keep", "90d"]
    with serving(*where, *options, env=s3_server.env) as (url, process):
        wait_until(lambda: _answers(f"{url}/readyz"), 60)
        wait_until(lambda: all(doc["due"] > 0 for doc in catalog._series(PREFIX)), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert len(read(catalog.store(PREFIX))) == 300


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def test_serve_refuses_retention_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder keeps everything; `--keep` says so instead of doing nothing."""
    assert ml_dash(["serve", "--keep", "9d", "--port", "0"]) == 2
    assert "--mongo-uri" in capsys.readouterr().err


def test_the_default_policy_waits_for_readers() -> None:
    """The grace period is longer than a reader may take to read headers."""
    from ml_dash.stores.mongo_reader import PLAN_S

    assert Policy().grace_s > 2 * PLAN_S
