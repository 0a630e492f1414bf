"""Row 11 of the fault plan: S3 failing, and the process killed, at each step of archiving, while readers run.

Readers never miss data that was acknowledged before they began; what a fault left half done is done by the next pass;
what no segment names is collected.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.store import Batch, Track, Window
from ml_dash.stores.mongo import MongoStore
from mongo_catalogs import batch, bucket_of, new_catalog, read, unique_prefix

from .archive_steps import COLLECTING, GRACE_S, POLICY, STORING, SWEEPING, Step, arm, fail, is_armed, take
from .crew import Crew
from .figures import count
from .sizes import rng, size

pytest_plugins = ["servers.fixtures"]

TIMES = size(5, 50)
PREFIX = unique_prefix()
ENTRIES = 40


@pytest.fixture(scope="module")
def client(mongo_server: Any) -> Iterator[Any]:
    """A connection to the test server."""
    with connect(mongo_server.uri) as client:
        yield client


class Nursery:
    """A process whose children are killed."""

    def __init__(self, environment: dict[str, str]) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("archive_steps.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment, "PYTHONPATH": paths},
        )  # fmt: skip

    def end_of(self, told: dict[str, Any]) -> int:
        """How the child of a trial ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@pytest.fixture(scope="module")
def nursery(s3_server: Any) -> Iterator[Nursery]:
    """Children that reach both servers."""
    made = Nursery(s3_server.env)
    yield made
    made.close()


class Readers(Crew):
    """Threads that read whole series and windows all the time, and compare with what was recorded."""

    def __init__(self, store: MongoStore, topics: Sequence[str], turn: int) -> None:
        super().__init__(partial(self._run, rng("reader", turn, n)) for n in range(2))
        self._store, self._topics, self.reads = store, topics, 0

    def _run(self, dice: random.Random) -> None:
        while not self.stopping.is_set() and not self.problems:
            topic, low = dice.choice(self._topics), dice.choice((0, 10, 39))
            try:
                found = [e["step"] for e in read(self._store, Track("tracks", topic), Window(low / 100))]
            except Exception as error:
                self.problems.append(f"{topic}: {error!r}")
                return
            if found != list(range(low, ENTRIES)):
                self.problems.append(f"{topic} from {low}: {found}")
            self.reads += 1
            self.stopping.wait(0.02)  # the archiver has to get its turn, too


def trials(work: str, steps: Sequence[Step]) -> list[tuple[str, Step, str]]:
    """Each step, failing and killing, in a series of its own."""
    return [(f"{work}/{fault}/{step}", step, fault) for step in steps for fault in ("fail", "kill")]


class Trial:
    """Meets the faults of one database."""

    def __init__(self, catalog: MongoCatalog, uri: str, nursery: Nursery) -> None:
        self.catalog, self.uri, self.nursery = catalog, uri, nursery
        assert catalog._archive is not None
        self.bucket_url = catalog._archive.bucket.url
        self.ids = {doc["topic"]: doc["_id"] for doc in catalog._series(PREFIX, "tracks")}

    def meet(self, work: str, topic: str, step: Step, fault: str) -> None:
        """Archive one series up to the fault."""
        t = self.ids.get(topic, "")
        if fault == "kill":
            database = self.catalog._tables._database.name
            told = {
                "uri": self.uri,
                "database": database,
                "bucket": self.bucket_url,
                "step": step,
                "work": work,
                "t": t,
            }
            assert self.nursery.end_of(told) == -signal.SIGKILL, f"{work}: no process met {step}"
            count("archiving processes killed")
            return
        arm(self.catalog, step, fail)
        with pytest.raises(StoreUnavailable, match="this step fails"):
            take(self.catalog, work, t)
        assert not is_armed(self.catalog, step)
        count("archiving steps that failed")

    def finish(self, work: str) -> None:
        """The next pass, without a fault."""
        for t in self.ids.values():
            take(self.catalog, work, t)


def fill(catalog: MongoCatalog, topics: Sequence[str]) -> None:
    """The same entries in every series, in two batches, so that there is something to compact."""
    bodies = batch(0, ENTRIES).bodies
    states = [body for body in bodies if body[1] == 1]
    assert len(states) == ENTRIES
    for half, part in enumerate((states[::2], states[1::2]), start=1):
        for topic in topics:
            catalog.store(PREFIX).append(Batch(f"{topic}".replace("/", "."), half, {1: Track("tracks", topic)}, part))


@pytest.mark.parametrize("turn", range(TIMES))
def test_every_step_may_fail_or_be_the_last(
    turn: int, client: Any, mongo_server: Any, s3_server: Any, nursery: Nursery
) -> None:
    """Storing, sweeping and collecting, with readers running throughout."""
    storing, sweeping = trials("store", STORING), trials("sweep", SWEEPING)
    topics = [topic for topic, _, _ in (*storing, *sweeping)]
    bucket = bucket_of(s3_server)
    with new_catalog(client, bucket, POLICY) as catalog:
        fill(catalog, topics)
        catalog._reader.plan_s = GRACE_S / 2
        other = MongoCatalog(client=client, database=catalog._tables._database.name, bucket=bucket, policy=POLICY)
        trial = Trial(other, mongo_server.uri, nursery)
        # Where the faults are, so that the readers' own bucket stays whole.
        assert other._archive is not None
        other._archive.bucket = type(bucket)(bucket._store, bucket.url)
        with Readers(catalog.store(PREFIX), topics, turn) as readers:
            other.compact(PREFIX)
            time.sleep(GRACE_S + 0.1)  # the grace period is what is waited for
            trial.finish("sweep")
            for topic, step, fault in storing:
                trial.meet("store", topic, step, fault)
            trial.finish("store")
            time.sleep(GRACE_S + 0.1)
            for topic, step, fault in sweeping:
                trial.meet("sweep", topic, step, fault)
            trial.finish("sweep")
            leave_orphans(other, trials("collect", COLLECTING), trial)
        count("reads meanwhile", readers.reads)
        assert readers.problems == []
        assert readers.reads > 10
        check_end(catalog, topics)


def leave_orphans(catalog: MongoCatalog, found: Sequence[tuple[str, Step, str]], trial: Trial) -> None:
    """The janitor meets its faults over an object that nothing names, each time a new one."""
    assert catalog._archive is not None
    bucket = catalog._archive.bucket
    named = next(iter(catalog.objects(PREFIX))).key
    for number, (_, step, fault) in enumerate(found):
        bucket.put(f"{named[: -len('.parquet')]}{number:04}.parquet", b"left by a crash")
        take(catalog, "collect", "")  # marks it; the janitor's second look is the one that deletes
        trial.meet("collect", "", step, fault)
    for _ in range(3):
        take(catalog, "collect", "")


def check_end(catalog: MongoCatalog, topics: Sequence[str]) -> None:
    """Everything is in the archive, nothing is in the bucket that is not named, no body is left in the database."""
    assert catalog._archive is not None
    objects = catalog.archived(PREFIX)
    assert sorted(series.topic for series in objects) == sorted(topics)
    assert all(series.exact for series in objects)
    assert set(catalog._archive.bucket.keys()) == {found.key for series in objects for found in series.objects}
    for doc in catalog._series(PREFIX):
        catalog._tables.delete_orphans(doc["_id"], catalog._tables.now() + 1)
    assert list(catalog._tables.bodies.find({}, {"_id": 1})) == []
    for topic in topics:
        assert [entry["step"] for entry in read(catalog.store(PREFIX), Track("tracks", topic))] == list(range(ENTRIES))
