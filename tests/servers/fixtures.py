"""Pytest fixtures: one server of each kind for a whole test run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .running import MongoServer, OtherMongo, OtherS3, S3Server

if TYPE_CHECKING:
    from ml_dash.stores.bucket import Bucket

USED: list[str] = []


@pytest.fixture(scope="session")
def mongo_server(
    tmp_path_factory: pytest.TempPathFactory, record_testsuite_property
) -> Iterator[MongoServer | OtherMongo]:
    """A MongoDB-wire server with `.uri` and `.title`; tests use a database of their own in it."""
    other = os.environ.get("ML_DASH_TEST_MONGO_URI")
    if other:
        server = OtherMongo(other)
        USED.append(server.title)
        record_testsuite_property("mongo_server", server.title)
        yield server
        return
    own = MongoServer(tmp_path_factory.mktemp("mongo"))
    own.start()
    USED.append(own.title)
    record_testsuite_property("mongo_server", own.title)
    yield own
    own.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, record_testsuite_property) -> Iterator[S3Server | OtherS3]:
    """An S3 bucket with `.url`, `.env` and `.title`; tests use a folder of their own in it."""
    other = os.environ.get("ML_DASH_TEST_S3_URL")
    if other:
        USED.append(OtherS3(other).title)
        record_testsuite_property("s3_server", OtherS3(other).title)
        yield OtherS3(other)
        return
    own = S3Server(tmp_path_factory.mktemp("s3"))
    own.start()
    USED.append(own.title)
    record_testsuite_property("s3_server", own.title)
    yield own
    own.stop()


@pytest.fixture(scope="module")
def client(mongo_server: MongoServer | OtherMongo) -> Iterator[Any]:
    """A connection to the test server; each command sent over it has to have an index."""
    from mongo_commands import checked_client

    with checked_client(mongo_server.uri) as client:
        yield client


@pytest.fixture
def bucket(s3_server: S3Server | OtherS3) -> Bucket:
    """A folder of its own in the test server's bucket."""
    from mongo_catalogs import bucket_of

    return bucket_of(s3_server)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the tests ran on."""
    if USED:
        terminalreporter.write_line("servers of this run: " + "; ".join(USED))
