"""Backup and restore as `docs/operations.md` describes them, tried: a folder, a database and its bucket, `pull`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from http_server import Server
from ml_dash import Experiment
from ml_dash.catalog import LocalCatalog
from ml_dash.cli.app import run
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.server.app import create_app
from ml_dash.stores.bucket import Bucket
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
