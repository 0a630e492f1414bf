"""A database or an archive that does not answer: clients hear which, the log why, once."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ml_dash.catalog import LocalCatalog
from ml_dash.errors import ExperimentNotFound, StoreUnavailable, TooManyWriters
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.server.app import create_app
from ml_dash.server.outages import Once
from ml_dash.stores.bucket import ArchiveUnavailable, Bucket, open_bucket
from mongo_catalogs import archive_all, batch, new_catalog, unique_prefix

pytest_plugins = ["servers.fixtures"]

PREFIX = "ada/robots/pick"
MONGO = (
    "MongoDB: ServerSelectionTimeoutError: db.lab.internal:27017: [Errno 111] Connection refused (configured timeouts:"
    " socketTimeoutMS: 60000.0ms), Timeout: 5.0s, Topology Description: <TopologyDescription id: 6566, servers:"
    " [<ServerDescription ('db.lab.internal', 27017) server_type: Unknown>]>"
)
S3 = "archive s3://recordings/dash: GenericError: HTTP error: error sending request"
ASKED = {"prefix": PREFIX, "topic": "t"}


class Lines(logging.Handler):
    """What the server's log would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(Once())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.name != "ml_dash.server.requests":
            self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Lines]:
    """The log, with the server's filter."""
    lines, logger = Lines(), logging.getLogger("ml_dash")
    before = logger.level
    logger.setLevel(logging.INFO)  # which also forgets what loggers below it were found to let through
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestClient, list[Exception]]]:
    """A server whose store raises what the list holds, while it holds something."""
    catalog, raised = LocalCatalog(tmp_path), list[Exception]()
    store = catalog.store

    def failing(prefix: str) -> Any:
        if raised:
            raise raised[0]
        return store(prefix)

    monkeypatch.setattr(catalog, "store", failing)
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        yield client, raised


@pytest.mark.parametrize("path", ["/readyz", "/v1/entries", "/v1/tracks", "/v1/writers"])
@pytest.mark.parametrize(
    ("error", "told"),
    [(StoreUnavailable(MONGO), "the database does not answer"),
     (ArchiveUnavailable(S3), "the archive does not answer"),
     (TooManyWriters("ada/x/one: too many writers at once, batch 7 found no number"),
      "too many write to this experiment at once; nothing was stored")],
)  # fmt: skip
def test_clients_hear_which_part_and_nothing_else(
    fault: tuple[TestClient, list[Exception]], path: str, error: Exception, told: str
) -> None:
    """No host, no topology, no bucket in the answer, with a token or without; when to come back is there."""
    client, raised = fault
    raised.append(error)
    query = {"/readyz": {}, "/v1/tracks": {"prefix": PREFIX}, "/v1/writers": {"prefix": PREFIX, "writer": "w"}}
    answer = client.get(path, params=query.get(path, ASKED))
    assert (answer.status_code, answer.json()["error"]) == (503, {"code": "unavailable", "message": told})
    assert int(answer.headers["retry-after"]) > 0


def test_the_log_has_the_reason_once(fault: tuple[TestClient, list[Exception]], log: Lines) -> None:
    """Its first sentence; again when it changes, and when the database had answered meanwhile."""
    client, raised = fault
    raised[:] = [StoreUnavailable(MONGO)]
    for _ in range(5):
        client.get("/readyz")
        client.get("/healthz")
    first = "the database does not answer: MongoDB: ServerSelectionTimeoutError: db.lab.internal:27017: [Errno 111] "
    assert log.lines == [first + "Connection refused"]
    raised[:] = [StoreUnavailable("MongoDB: NotPrimaryError: not primary, full error: {'ok': 0}")]
    client.get("/readyz")
    client.get("/v1/entries", params=ASKED)
    assert log.lines[1:] == ["the database does not answer: MongoDB: NotPrimaryError: not primary"]
    raised.clear()
    for _ in range(2):
        assert client.get("/readyz").status_code == 200
    assert log.lines[2:] == ["the database answers again"]
    raised[:] = [StoreUnavailable("MongoDB: NotPrimaryError: not primary, full error: {'ok': 0}")]
    client.get("/readyz")
    assert log.lines[3:] == ["the database does not answer: MongoDB: NotPrimaryError: not primary"]


def test_upkeep_says_once_what_lasts(log: Lines) -> None:
    """A warning is told from others by what it is about; after ten minutes it comes again."""
    record = logging.getLogger("ml_dash").makeRecord
    once, passed = Once(), []
    for number in range(100):
        for topic in ("a", "b"):
            words = ("ml_dash", logging.WARNING, "", 0, "upkeep of %r: %s", (topic, MONGO), None)
            line = record(*words)
            line.created = 1000.0 + 10 * number
            if once.filter(line):
                passed.append((number, line.getMessage()))
    assert [number for number, _ in passed] == [0, 0, 60, 60]
    assert passed[0][1].endswith("Connection refused")


def test_an_archive_that_answers_again_is_told(log: Lines, tmp_path: Path) -> None:
    """Once, with its next success."""
    bucket = open_bucket(f"file://{tmp_path}")
    bucket.put("a", b"x")
    good, bucket._store = bucket._store, bucket_that_hangs(0)._store
    for _ in range(2):
        with pytest.raises(ArchiveUnavailable):
            bucket.size("a")
    bucket._store = good
    assert [bucket.size("a"), bucket.size("a")] == [1, 1]
    assert log.lines == ["the archive answers again"]


def bucket_that_hangs(port: int) -> Bucket:
    """A bucket on a port where somebody accepts, and says nothing; nobody on port 0."""
    return open_bucket(
        "s3://recordings/dash", stall_s=0.3, endpoint=f"http://127.0.0.1:{port}", region="us-east-1",
        access_key_id="a", secret_access_key="b", client_options={"allow_http": True},
    )  # fmt: skip


def test_no_name_of_others_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an experiment does not exist, the answer is the same whatever names are near."""
    catalog = LocalCatalog(tmp_path)

    def find(prefix: str) -> Any:
        raise ExperimentNotFound("no experiment 'ada/x/y'; did you mean 'adam/x/y'?")

    monkeypatch.setattr(catalog, "find", find)
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        answer = client.get("/v1/objects", params={"prefix": "ada/x/y"})
    assert answer.status_code == 404
    assert "adam" not in answer.text


@pytest.mark.timeout(300)
def test_an_archive_that_hangs_is_answered_with_503(client: Any, bucket: Bucket) -> None:
    """A read that needs an object is refused within twice the time for a stall; what is not archived is served."""
    prefix = unique_prefix()
    with new_catalog(client, bucket) as catalog, socket.create_server(("127.0.0.1", 0)) as hanging:
        catalog.store(prefix).append(batch(1))
        catalog.store(prefix).append(batch(2))
        archive_all(catalog, prefix)
        database = catalog._tables._database.name
        served = MongoCatalog(client=client, database=database, bucket=bucket_that_hangs(hanging.getsockname()[1]))
        with TestClient(create_app(served, tokens=None), base_url="http://localhost") as asked:
            started = time.monotonic()
            answer = asked.get("/v1/entries", params={"prefix": prefix, "topic": "robot/state"})
            assert time.monotonic() - started < 5
            assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the archive does not answer")
            assert int(answer.headers["retry-after"]) > 0
            assert asked.get("/v1/tracks", params={"prefix": prefix}).status_code == 200
            assert asked.get("/readyz").status_code == 200
