"""Row 10 of the fault plan: the database killed with -9 and restarted under load. Nothing acknowledged is lost.

Three writers, a reader and upkeep work throughout. Writers send a batch until it is acknowledged; a sequence would show
what was stored twice, tracks what was lost. The same with an archive behind the database, whose server is killed: while
it is away recording goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ml_dash.entry import encode_body
from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.store import Batch, Entry, Track
from ml_dash.stores.bucket import Bucket
from ml_dash.stores.compactor import Policy
from mongo_catalogs import bucket_of, read, unique_prefix
from servers.running import MongoServer, S3Server

from .crew import Crew
from .figures import count
from .sizes import size

KILLS, DATABASES = 5, size(1, 10)
ARCHIVE_KILLS, ARCHIVES = size(3, 5), size(1, 6)
"""The stand-in scans, so a new one takes over before the old one has grown slow."""
WRITERS = 3
BATCHES_BETWEEN = 3
ENTRIES = 20
PREFIX = unique_prefix()
SHARED, LOSS = Track("tracks", "shared"), Track("metrics", "loss")
GRACE_S = 2.0
POLICY = Policy(grace_s=GRACE_S, min_segments=4, idle_s=0.5, lease_s=5.0)
ARCHIVING = Policy(
    grace_s=GRACE_S, stub_s=GRACE_S, min_segments=4, idle_s=0.5, lease_s=5.0, part_entries=100, archive_after_s=0.0
)
HURRIED = {"serverSelectionTimeoutMS": 2000, "connectTimeoutMS": 2000, "socketTimeoutMS": 20_000}
PATIENCE_S = 120.0


class Load(Crew):
    """What runs while the database dies and comes back."""

    def __init__(self, uri: str, policy: Policy = POLICY, bucket: Bucket | None = None) -> None:
        works: list[Callable[[], None]] = [partial(self._write, writer) for writer in range(WRITERS)]
        super().__init__([*works, self._read, self._keep])
        self._client, self._policy, self._bucket = connect(uri, **HURRIED), policy, bucket
        self.acknowledged = [0] * WRITERS
        self.refused = self.reads = self.passes = 0
        self.last_refusal = ""

    def catalog(self) -> MongoCatalog:
        """As one more server process has it."""
        catalog = MongoCatalog(client=self._client, database="faults", policy=self._policy, bucket=self._bucket)
        catalog._reader.plan_s = GRACE_S / 2
        return catalog

    def get_on(self, batches: int) -> None:
        """Until every writer had so many more batches acknowledged, or something went wrong."""
        wanted = [number + batches for number in self.acknowledged]
        self.wait_for(lambda: all(map(int.__ge__, self.acknowledged, wanted)), f"the writers do not get to {wanted}")

    def wait_for(self, done: Callable[[], bool], otherwise: str) -> None:
        """Until something is so, or something else went wrong."""
        end = time.monotonic() + PATIENCE_S
        while not self.problems and not done():
            state = f"{self.acknowledged}; {self.refused} refused, last: {self.last_refusal}"
            assert time.monotonic() < end, f"{otherwise}: {state}"
            time.sleep(0.005)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _write(self, writer: int) -> None:
        store = self.catalog
        number = 0
        while not self.stopping.is_set():
            number += 1
            made = batch_of(writer, number)
            while not self._done(lambda made=made: store().store(PREFIX).append(made)):  # type: ignore[misc]
                self.refused += 1
            self.acknowledged[writer] = number

    def _done(self, request: Callable[[], Any]) -> bool:
        try:
            request()
        except StoreUnavailable as error:
            self.last_refusal = str(error)
            return False
        return True

    def _read(self) -> None:
        """What was acknowledged before a read began is in it."""
        while not self.stopping.is_set():
            before = list(self.acknowledged)
            with suppress(StoreUnavailable):
                check(read(self.catalog().store(PREFIX), SHARED), read(self.catalog().store(PREFIX), LOSS), before)
                self.reads += 1
            self.stopping.wait(0.02)

    def _keep(self) -> None:
        while not self.stopping.is_set():
            with suppress(StoreUnavailable):
                self.catalog().upkeep()
                self.passes += 1
            self.stopping.wait(0.1)


def batch_of(writer: int, number: int) -> Batch:
    """A batch of a track that all share, field by field, and of a sequence."""
    bodies = []
    for k in range(ENTRIES):
        step = (number - 1) * ENTRIES + k
        bodies.append(encode_body((1, step / 100, {f"w{writer}": step})))
    bodies.append(encode_body((2, float(number), {"writer": writer, "number": number})))
    return Batch(f"writer{writer}", number, {1: SHARED, 2: LOSS}, bodies)


def check(shared: list[Entry], losses: list[Entry], acknowledged: list[int], *, exactly: bool = False) -> None:
    """Each writer's entries are there without a gap, at least up to what was acknowledged, and once."""
    for writer, number in enumerate(acknowledged):
        steps = [entry[f"w{writer}"] for entry in shared if f"w{writer}" in entry]
        assert steps == list(range(len(steps))), f"writer {writer}: a gap"
        assert len(steps) >= number * ENTRIES, f"writer {writer}: {len(steps)} of {number * ENTRIES} entries"
        numbers = [entry["number"] for entry in losses if entry["writer"] == writer]
        assert numbers == list(range(1, len(numbers) + 1)), f"writer {writer}: {numbers}"
        assert len(numbers) >= number
        assert not exactly or (len(steps), len(numbers)) == (number * ENTRIES, number)


S = TypeVar("S", MongoServer, S3Server)


@contextmanager
def running(server: S) -> Iterator[S]:
    """A server that may be killed."""
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MongoServer]:
    """The database."""
    with running(MongoServer(tmp_path / "mongo")) as server:
        yield server


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    """The archive."""
    with running(S3Server(tmp_path / "s3")) as server:
        yield server


@pytest.fixture
def load(server: MongoServer) -> Iterator[Load]:
    """Everybody at work on it."""
    with closing(Load(server.uri)) as load:
        yield load


@pytest.fixture
def archiving(server: MongoServer, s3: S3Server) -> Iterator[Load]:
    """Everybody at work, and what is compacted goes to the archive at once."""
    with closing(Load(server.uri, ARCHIVING, bucket_of(s3))) as load:
        yield load


class Stored:
    """Which objects have been in an archive."""

    def __init__(self, s3: S3Server) -> None:
        self._folder, self._known = s3.folder / "data", set[str]()

    def has_new(self) -> bool:
        """Whether there are two that were not there when this was last said."""
        found = {path.name for path in self._folder.rglob("*.parquet")} - self._known
        if len(found) < 2:
            return False
        self._known |= found
        return True


@pytest.mark.parametrize("turn", range(ARCHIVES))
@pytest.mark.timeout(900)
def test_an_archive_that_is_killed_under_load(turn: int, s3: S3Server, archiving: Load) -> None:
    """Killed between uploads, again and again: recording goes on without it, and everything is there, once."""
    stored = Stored(s3)
    with archiving as load:
        for _ in range(ARCHIVE_KILLS):
            load.wait_for(stored.has_new, "nothing is archived")
            s3.kill()
            load.get_on(BATCHES_BETWEEN)
            s3.start()
            count("archives killed under load")
        load.wait_for(stored.has_new, "nothing is archived after the last kill")
    assert load.problems == []
    assert load.refused == 0, f"a recorder noticed: {load.last_refusal}"
    assert load.reads > 0
    store = load.catalog().store(PREFIX)
    check(read(store, SHARED), read(store, LOSS), load.acknowledged, exactly=True)
    count("batches acknowledged beside an archive that is killed", sum(load.acknowledged))


@pytest.mark.parametrize("turn", range(DATABASES))
@pytest.mark.timeout(900)
def test_a_database_that_is_killed_under_load(turn: int, server: MongoServer, load: Load) -> None:
    """Killed again and again while everybody works: what was acknowledged is there, once, and merges as it should."""
    with load:
        for _ in range(KILLS):
            load.get_on(BATCHES_BETWEEN)
            server.restart()
            count("databases killed under load")
        load.get_on(1)
    assert load.problems == []
    store = load.catalog().store(PREFIX)
    check(read(store, SHARED), read(store, LOSS), load.acknowledged, exactly=True)
    assert load.refused > 0, "no kill met a request"
    assert load.reads > 0
    assert load.passes > 0
    load.catalog().compact(PREFIX)
    check(read(store, SHARED), read(store, LOSS), load.acknowledged, exactly=True)
    count("batches acknowledged by a database that is killed", sum(load.acknowledged))
