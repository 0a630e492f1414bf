"""The archive on a real S3 server: parts move there, windows read from there, and only what is named stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.store import Batch, Track, Window
from ml_dash.stores import parts
from ml_dash.stores.archive import LONGEST, folder_of
from ml_dash.stores.bucket import Bucket, RangeFile
from ml_dash.stores.memory import MemoryStore
from mongo_catalogs import (
    AT_ONCE,
    LOSS,
    STATE,
    archive_all,
    batch,
    bucket_of,
    new_catalog,
    read,
    unique_prefix,
)
from servers.running import S3Server

pytest_plugins = ["servers.fixtures"]

PREFIX = unique_prefix()
WINDOWS = (
    Window(),
    Window(3.0, 4.5),
    Window(2.995, 3.0),
    Window(None, 1.25),
    Window(8.5, None),
    Window(40.0, 50.0),
    Window(2.0, 6.0, ("step",)),
    Window(2.0, 6.0, ("pose.x", "note")),
    Window(2.0, 6.0, ("no such field",)),
)


@pytest.fixture
def catalog(client: Any, bucket: Bucket) -> Iterator[MongoCatalog]:
    """A database and a bucket folder of their own."""
    with new_catalog(client, bucket) as catalog:
        yield catalog


def fill(catalog: MongoCatalog, batches: int = 9, entries: int = 100) -> MemoryStore:
    """Record; what must be read back, from the model."""
    model, store = MemoryStore(), catalog.store(PREFIX)
    for number in range(1, batches + 1):
        for target in (model, store):
            target.append(batch(number, entries))
    return model


def bodies(catalog: MongoCatalog) -> int:
    """How many bodies the database holds."""
    return len(list(catalog._tables.bodies.find({"_id": {"$gte": ""}}, {"_id": 1})))


def test_archived_series_read_as_they_were_recorded(catalog: MongoCatalog, bucket: Bucket) -> None:
    """Every window, column selection and summary is the same, though the database holds no body any more."""
    model = fill(catalog)
    before = catalog.store(PREFIX).tracks()
    assert archive_all(catalog, PREFIX) == 2, "one part of each series"
    assert bodies(catalog) == 0, "the database's copies are gone"
    store = catalog.store(PREFIX)
    for window in WINDOWS:
        assert read(store, STATE, window) == read(model, STATE, window), window
    for window in (Window(), Window(first=50, limit=7), Window(first=85)):
        assert read(store, LOSS, window) == read(model, LOSS, window), window
    after = store.tracks()
    assert [replace(info, size_bytes=0) for info in after] == [replace(info, size_bytes=0) for info in before]
    assert sorted(found.key for found in catalog.objects(PREFIX, kind="metrics")) == sorted(bucket.keys("kind=metrics"))


class Counting:
    """A bucket that counts what is fetched."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self.requests, self.fetched = bucket, 0, 0
        fetch = bucket.range

        def counted(key: str, start: int, end: int) -> bytes:
            self.requests, self.fetched = self.requests + 1, self.fetched + end - start
            return fetch(key, start, end)

        bucket.range = counted  # type: ignore[method-assign]


def test_a_window_fetches_row_groups_not_objects(client: Any, bucket: Bucket) -> None:
    """A short window out of a large object fetches a fraction of it, in a few requests."""
    with new_catalog(client, bucket, replace(AT_ONCE, part_entries=1 << 20)) as catalog:
        model = fill(catalog, batches=20, entries=3000)
        archive_all(catalog, PREFIX)
        (found,) = catalog.objects(PREFIX, "robot/state")
        counting = Counting(bucket)
        window = Window(310.0, 310.5)
        assert read(catalog.store(PREFIX), STATE, window) == read(model, STATE, window)
        assert found.size_bytes > 1_000_000, "an object worth reading in parts"
        assert counting.fetched < found.size_bytes / 2, f"{counting.fetched} of {found.size_bytes} bytes"
        assert counting.requests <= 8


def test_what_comes_late_merges_with_the_archive(catalog: MongoCatalog, bucket: Bucket) -> None:
    """Entries over archived timestamps win field by field, before and after everything is archived anew."""
    model = fill(catalog, batches=3)
    archive_all(catalog, PREFIX)
    first = set(bucket.keys())
    late = batch(1, 50, writer="late", start=2.0)
    for target in (model, catalog.store(PREFIX)):
        target.append(late)
    assert read(catalog.store(PREFIX)) == read(model)
    archive_all(catalog, PREFIX)
    assert read(catalog.store(PREFIX)) == read(model)
    assert read(catalog.store(PREFIX), LOSS) == read(model, LOSS)
    catalog.clean_bucket()
    assert catalog.clean_bucket() == len(first), "the objects of the first round are named by nothing"
    named = {found.key for kind in ("tracks", "metrics") for found in catalog.objects(PREFIX, kind=kind)}
    assert set(bucket.keys()) == named
    assert read(catalog.store(PREFIX)) == read(model)


def test_orphans_go_after_the_wait_and_not_before(client: Any, bucket: Bucket) -> None:
    """An object that no segment names, as a crash after the upload leaves it, goes on a second look, after the wait."""
    with new_catalog(client, bucket, replace(AT_ONCE, stub_s=3600.0)) as catalog:
        model = fill(catalog, batches=2)
        archive_all(catalog, PREFIX)
        (found,) = catalog.objects(PREFIX, "robot/state")
        orphan = f"{found.key.removesuffix('.parquet')[:-4]}0000.parquet"
        bucket.put(orphan, b"left by a crash")
        now = catalog._tables.now
        assert [catalog.clean_bucket() for _ in range(3)] == [0, 0, 0]
        catalog._tables.now = lambda: now() + 3601.0  # type: ignore[method-assign]
        assert catalog.clean_bucket() == 1
        assert orphan not in set(bucket.keys())
        assert read(catalog.store(PREFIX)) == read(model)


def test_a_deleted_series_leaves_the_bucket(catalog: MongoCatalog, bucket: Bucket) -> None:
    """A removed series is gone for readers at once and from the bucket once upkeep looked; its neighbour stays."""
    model = fill(catalog, batches=2)
    archive_all(catalog, PREFIX)
    catalog.store(PREFIX).remove(STATE)
    assert read(catalog.store(PREFIX)) == []
    catalog.upkeep()
    catalog.clean_bucket()
    catalog.clean_bucket()
    assert list(bucket.keys("kind=tracks")) == []
    assert read(catalog.store(PREFIX), LOSS) == read(model, LOSS)


def test_a_deleted_window_leaves_the_archive(catalog: MongoCatalog, bucket: Bucket) -> None:
    """Deleted entries are gone at once, and after compaction no object holds them; what is recorded again stays."""
    fill(catalog, batches=4)
    archive_all(catalog, PREFIX)
    before = read(catalog.store(PREFIX))
    catalog.store(PREFIX).remove_window(STATE, 2.0, 2.5)
    kept = [entry for entry in before if not 2.0 <= entry["timestamp"] <= 2.5]
    assert read(catalog.store(PREFIX)) == kept
    archive_all(catalog, PREFIX)
    assert read(catalog.store(PREFIX)) == kept
    assert sum(found.entries for found in catalog.objects(PREFIX, "robot/state")) == len(kept)
    catalog.store(PREFIX).append(batch(2, 5, writer="again", start=2.0))
    assert len(read(catalog.store(PREFIX))) == len(kept) + 5


def test_retention_deletes_what_came_long_ago(client: Any, bucket: Bucket) -> None:
    """Entries older than the policy's age go from the database and the bucket; younger ones stay, and indices too."""
    with new_catalog(client, bucket, replace(AT_ONCE, keep_s=3600.0)) as catalog:
        fill(catalog, batches=3)
        archive_all(catalog, PREFIX)
        catalog.upkeep()
        assert len(read(catalog.store(PREFIX))) == 300, "nothing is old yet"
        now = catalog._tables.now
        catalog._tables.now = lambda: now() + 3601.0  # type: ignore[method-assign]
        catalog.store(PREFIX).append(batch(4))
        catalog.upkeep()
        store = catalog.store(PREFIX)
        assert [entry["timestamp"] for entry in read(store)] == [4.0 + k / 100 for k in range(100)]
        assert [entry["index"] for entry in read(store, LOSS)] == list(range(30, 40)), "indices stay"
        assert [info.count for info in store.tracks("metrics")] == [10]
        catalog.clean_bucket()
        catalog.clean_bucket()
        named = {found.key for kind in ("tracks", "metrics") for found in catalog.objects(PREFIX, kind=kind)}
        assert set(bucket.keys()) == named


def test_upkeep_archives_by_itself(catalog: MongoCatalog, bucket: Bucket) -> None:
    """The server's background passes compact, archive and sweep without being told."""
    model = fill(catalog, batches=4)
    catalog._upkeep._policy = replace(AT_ONCE, idle_s=0.0)
    now, passes = catalog._tables.now, 0
    while bodies(catalog) and passes < 10:
        passes += 1
        catalog._tables.now = lambda passes=passes: now() + 120.0 * passes  # type: ignore[method-assign]
        done = catalog.upkeep()
        assert done.failed == 0
    assert bodies(catalog) == 0, f"after {passes} passes"
    assert len(list(bucket.keys())) == 2
    assert read(catalog.store(PREFIX)) == read(model)


def test_a_bucket_that_goes_away_does_not_stop_compaction(client: Any, tmp_path: Path) -> None:
    """Upkeep merges what comes in while the archive cannot be reached, and catches up afterwards."""
    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        with new_catalog(client, bucket_of(server), replace(AT_ONCE, idle_s=0.0)) as catalog:
            model = fill(catalog, batches=2)
            catalog.compact(PREFIX)
            catalog.sweep(PREFIX)
            catalog.archive(PREFIX)
            server.kill()
            for number in (3, 4, 5):
                for target in (model, catalog.store(PREFIX)):
                    target.append(batch(number))
            catalog._tables.tracks.update_many({"due": {"$gt": 0}}, {"$set": {"due": 0.0}})
            done = catalog.upkeep()
            assert (done.failed, done.merged) == (2, 6), "both series merged their three, and neither could be swept"
            server.start()
            archive_all(catalog, PREFIX)
            assert read(catalog.store(PREFIX)) == read(model)
    finally:
        server.stop()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_object_that_fails_under_a_read_is_no_end_of_the_series(
    failing: int, client: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that goes away in the middle of an answer: who reads over HTTP gets an error, not the first half."""
    from http_server import Server
    from ml_dash.http_catalog import HttpCatalog
    from ml_dash.server.app import create_app

    with new_catalog(client, bucket) as catalog:
        model = fill(catalog, batches=3, entries=1000)
        archive_all(catalog, PREFIX)
        objects = catalog.objects(PREFIX, "robot/state")
        assert len(objects) == 3
        fetch = bucket.range

        def fails(key: str, start: int, end: int) -> bytes:
            if key == objects[failing].key:
                raise StoreUnavailable("the bucket is away")
            return fetch(key, start, end)

        served = MongoCatalog(client=client, database=catalog._tables._database.name, bucket=bucket)
        with Server(create_app(served, tokens=None)) as api:
            there = HttpCatalog(api.url)
            with monkeypatch.context() as patch:
                patch.setattr(bucket, "range", fails)
                with pytest.raises(StoreUnavailable):
                    read(there.store(PREFIX))
            window = Window(19.5, 31.0)
            assert read(there.store(PREFIX), STATE, window) == read(model, STATE, window)
            there.close()


def test_a_read_goes_on_when_its_object_goes(client: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is compacted, archived anew and collected while it is read: the read goes on in what replaced it."""
    monkeypatch.setattr(parts, "ROW_GROUP_ENTRIES", 500)
    monkeypatch.setattr(RangeFile, "TAIL", 4096)
    with new_catalog(client, bucket, replace(AT_ONCE, part_entries=40_000)) as catalog:
        model = fill(catalog, batches=5, entries=500)
        archive_all(catalog, PREFIX)
        reading = catalog.store(PREFIX).read(STATE)
        found = [*next(reading)]
        assert len(found) == 500, "a row group of five"
        first = set(bucket.keys())
        for target in (model, catalog.store(PREFIX)):
            target.append(batch(1, 5, writer="late", start=20.0))
        archive_all(catalog, PREFIX)
        catalog.clean_bucket()
        catalog.clean_bucket()
        assert not first & set(bucket.keys()), "what was planned is gone"
        found += [entry for block in reading for entry in block]
        assert found == read(model)


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("topic", ["robot/state", "a b/ö=%", "x" * 1000, "ü" * 500, "deep/" * 60 + "end"])
def test_keys_prune_by_path_and_fit_into_s3(topic: str, client: Any, bucket: Bucket) -> None:
    """An object is below its owner, project, experiment and topic; its key is within S3's 1,024 bytes."""
    track, prefix = Track("tracks", topic), f"{'ö' * 100}/{'p' * 200}/{'deep/' * 40}run one"
    with new_catalog(client, bucket) as catalog:
        recorded = batch(1, 30)
        catalog.store(prefix).append(Batch("w", 1, {1: track, 2: LOSS}, recorded.bodies))
        archive_all(catalog, prefix)
        (found,) = catalog.objects(prefix, topic)
        assert found.topic == topic
        assert found.key.startswith(folder_of(prefix, "tracks", topic) + "/")
        names = [part.split("=")[0] for part in found.key.split("/")[:-1]]
        assert names == ["kind", "owner", "project", "experiment", "topic"]
        assert all(len(part) <= LONGEST + len("experiment=") for part in found.key.split("/"))
        assert len(found.key.encode()) <= 900
        assert found.key in set(bucket.keys(folder_of(prefix, "tracks", topic)))
        assert len(read(catalog.store(prefix), track)) == 30


# ---------------------------------------------------------------- the bucket is away


def test_an_unreachable_bucket_is_an_error_never_a_part_of_the_answer(client: Any, tmp_path: Path) -> None:
    """Reads that need the archive fail as a whole, recording goes on, and all is there once the bucket is back."""
    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        with new_catalog(client, bucket_of(server)) as catalog:
            model = fill(catalog, batches=2)
            archive_all(catalog, PREFIX)
            server.kill()
            for target in (model, catalog.store(PREFIX)):
                target.append(batch(3))
            store = catalog.store(PREFIX)
            with pytest.raises(StoreUnavailable, match="archive s3://") as caught:
                read(store)
            assert "127.0.0.1" not in str(caught.value), "who reads over HTTP is told no address"
            assert read(store, STATE, Window(3.0)) == read(model, STATE, Window(3.0)), "this needs no object"
            with pytest.raises(StoreUnavailable, match="archive s3://"):
                archive_all(catalog, PREFIX)
            server.start()
            assert read(store) == read(model)
            archive_all(catalog, PREFIX)
            assert read(store) == read(model)
            assert read(store, LOSS) == read(model, LOSS)
    finally:
        server.stop()


def test_over_http_an_unreachable_bucket_is_503_with_retry_after(client: Any, tmp_path: Path) -> None:
    """The answer names the time to come back, and holds no entry."""
    import httpx2

    from http_server import Server
    from ml_dash.server.app import create_app

    server = S3Server(tmp_path / "s3")
    server.start()
    try:
        with new_catalog(client, bucket_of(server)) as catalog:
            fill(catalog, batches=2)
            archive_all(catalog, PREFIX)
            with Server(create_app(catalog, tokens=None)) as api:
                query = {"prefix": PREFIX, "topic": "robot/state"}
                formats = ("json", "ndjson", "arrow", "parquet")

                def answers() -> list[httpx2.Response]:
                    found = [{**query, "format": format} for format in formats]
                    return [httpx2.get(f"{api.url}/v1/entries", params=one, timeout=60) for one in found]

                assert [answer.status_code for answer in answers()] == [200] * 4
                server.kill()
                for answer in answers():
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["Retry-After"]) >= 1
                    assert answer.json()["error"]["code"] == "unavailable"
                server.start()
                assert [answer.status_code for answer in answers()] == [200] * 4
    finally:
        server.stop()
