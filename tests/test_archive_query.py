"""The archive read by DuckDB, as `docs/operations.md` shows it: values equal what the store returns."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from http_server import Server
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.server.app import create_app
from ml_dash.store import Track
from ml_dash.stores.bucket import Bucket
from mongo_catalogs import AT_ONCE, archive_all, batch, bucket_of, new_catalog, read, unique_prefix
from own_python import interpreter

pytest_plugins = ["servers.fixtures"]
duckdb = pytest.importorskip("duckdb")

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
PREFIX = unique_prefix()


@pytest.fixture(scope="module")
def bucket(s3_server: Any) -> Bucket:
    """One for all tests of this file: they only read."""
    return bucket_of(s3_server)


@pytest.fixture(scope="module")
def catalog(client: Any, bucket: Bucket) -> Iterator[MongoCatalog]:
    """A recording, archived: 600 entries, whose first ones came again later with other values."""
    with new_catalog(client, bucket) as catalog:
        for number in range(1, 7):
            catalog.store(PREFIX).append(batch(number))
        catalog.store(PREFIX).append(batch(1, 30, writer="late", start=2.005))
        archive_all(catalog, PREFIX)
        yield catalog


def block(language: str) -> str:
    """The query of the page."""
    found = re.search(rf"<!-- tested: archive query -->\n```{language}\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    return found[1]


def expected(catalog: MongoCatalog) -> tuple[int, float, float]:
    """What the page's query must answer, from the store."""
    window = [entry for entry in read(catalog.store(PREFIX)) if 2 <= entry["timestamp"] <= 3]
    mean = sum(entry["q"][0] for entry in window) / len(window)
    return len(window), mean, max(entry["range"] for entry in window if "range" in entry)


def test_the_documented_python_query(
    client: Any, catalog: MongoCatalog, bucket: Bucket, s3_server: Any, tmp_path: Path
) -> None:
    """The page's program, run as a user would, prints what the store says."""
    database = catalog._tables._database.name
    served = MongoCatalog(client=client, database=database, bucket=bucket)
    code = block("python").replace("alice/robotics/pick", PREFIX)
    code += "print('ANSWER', *map(repr, result.fetchall()[0]))\n"
    with Server(create_app(served, tokens=None)) as api:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, **s3_server.env, "ML_DASH_URL": api.url, "ML_DASH_TOKEN": "none"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r"ANSWER (\S+) (\S+) (\S+)", done.stdout)
    assert found is not None, done.stdout
    count, mean, farthest = expected(catalog)
    assert int(found[1]) == count
    assert float(found[2]) == pytest.approx(mean, abs=1e-12)
    assert float(found[3]) == farthest


OVER_S3 = """
import json, sys
from importlib.util import find_spec
from pathlib import Path
import duckdb

for name in ("httpfs", "aws"):
    folder = Path(find_spec("duckdb_extension_" + name).origin).parent
    duckdb.sql(f"LOAD '{next(folder.rglob('*.duckdb_extension'))}'")
for statement in sys.argv[1:]:
    answer = duckdb.sql(statement)
    rows = answer.fetchall() if answer is not None else []
print(json.dumps(rows))
"""
"""The statements that it is given, by DuckDB with the extensions that its own shell fetches; the last one's rows."""


def over_s3(server: Any, *statements: str) -> Any:
    """Rows from DuckDB reading the bucket itself."""
    done = subprocess.run(
        [interpreter("duckdb_s3"), "-c", OVER_S3, *statements],
        env={**os.environ, **server.env}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def secret(server: Any) -> str:
    """The page's statement: the one for another server than AWS where the bucket's is one."""
    endpoint = server.env.get("AWS_ENDPOINT_URL", "").removeprefix("http://")
    found = re.search(rf"^{'-- ' if endpoint else ''}(CREATE SECRET .*);$", PAGE.read_text(), re.M)
    assert found is not None
    return found[1].replace("s3.lab:7070", endpoint)


@pytest.mark.timeout(300)
def test_the_documented_sql_over_s3(catalog: MongoCatalog, s3_server: Any) -> None:
    """DuckDB's own S3 reader, with the page's secret, on the addresses that `ml-dash objects` prints."""
    urls = [f"{catalog.bucket_url}/{found.key}" for found in catalog.objects(PREFIX, "robot/state")]
    select = re.sub(r"\['s3://[^\]]*\]", repr(urls), documented_select())
    count, mean, farthest = expected(catalog)
    assert over_s3(s3_server, secret(s3_server), select) == [[count, pytest.approx(mean, abs=1e-12), farthest]]


@pytest.mark.timeout(300)
def test_the_documented_pattern_over_s3(client: Any, bucket: Bucket, s3_server: Any) -> None:
    """The page's pattern, whose names are columns, meets every entry of the owner that it names."""
    found = re.search(r"`(kind=tracks/owner=alice/[^`]*)`", PAGE.read_text())
    assert found is not None
    owner = f"eve{secrets.token_hex(4)}"  # with no topic that has a %, see the page
    with new_catalog(client, bucket, AT_ONCE) as other:
        sent = batch(1)
        other.store(f"{owner}/lab/run").append(replace(sent, tracks={**sent.tracks, 1: Track("tracks", "gripper")}))
        archive_all(other, f"{owner}/lab/run")
        pattern = f"{other.bucket_url}/{found[1].replace('alice', owner)}"
    rows = over_s3(
        s3_server, secret(s3_server),
        f"SELECT project, experiment, topic, count(*), count(DISTINCT timestamp) "
        f"FROM read_parquet('{pattern}', hive_partitioning = true, union_by_name = true) GROUP BY ALL",
    )  # fmt: skip
    assert rows == [["lab", "run", "gripper", 100, 100]]


def documented_select() -> str:
    """The page's SQL behind the secret, without its comments."""
    found = re.search(r"```sql\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    return re.sub(r"--.*", "", found[1][found[1].index("SELECT") :])


def downloaded(catalog: MongoCatalog, bucket: Bucket, folder: Path) -> list[str]:
    """Copies of a series' current objects, under their keys."""
    paths = []
    for found in catalog.objects(PREFIX, "robot/state"):
        path = folder / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.range(found.key, 0, found.size_bytes))
        paths.append(str(path))
    return paths


def test_the_documented_sql(catalog: MongoCatalog, bucket: Bucket, tmp_path: Path) -> None:
    """The page's SQL over copies of the objects says the same as the store."""
    sql = re.sub(r"\['s3://[^\]]*\]", repr(downloaded(catalog, bucket, tmp_path)), documented_select())
    count, mean, farthest = duckdb.sql(sql).fetchall()[0]
    assert (count, farthest) == (expected(catalog)[0], expected(catalog)[2])
    assert mean == pytest.approx(expected(catalog)[1], abs=1e-12)


def test_every_value_is_what_the_store_returns(catalog: MongoCatalog, bucket: Bucket, tmp_path: Path) -> None:
    """Timestamps, lists, integers, texts, parts of a struct and infinities, entry by entry."""
    paths = downloaded(catalog, bucket, tmp_path)
    rows = duckdb.sql(
        f"SELECT timestamp, q, step, note, pose.x, range FROM read_parquet({paths}, union_by_name=true) ORDER BY 1"
    ).fetchall()
    entries = read(catalog.store(PREFIX))
    assert len(rows) == len(entries) == 630
    for row, entry in zip(rows, entries, strict=True):
        pose = entry.get("pose", {})
        stored = (*(entry.get(name) for name in ("timestamp", "q", "step", "note")), pose.get("x"), entry.get("range"))
        assert (row[0], list(row[1]), *row[2:]) == stored


def test_paths_prune(client: Any, bucket: Bucket, catalog: MongoCatalog, tmp_path: Path) -> None:
    """The names in the path are columns, with the values as they were recorded, and select files."""
    with new_catalog(client, bucket, AT_ONCE) as other:
        other.store("bob b/drone/a/b").append(batch(1))
        archive_all(other, "bob b/drone/a/b")
        for found in other.objects("bob b/drone/a/b"):
            path = tmp_path / found.key
            path.parent.mkdir(parents=True)
            path.write_bytes(bucket.range(found.key, 0, found.size_bytes))
    downloaded(catalog, bucket, tmp_path)
    everything = f"read_parquet('{tmp_path}/**/*.parquet', hive_partitioning=true, union_by_name=true)"
    groups = duckdb.sql(
        f"SELECT owner, experiment, topic, count(*) FROM {everything} GROUP BY ALL ORDER BY 1"
    ).fetchall()
    assert groups == [
        ("ada", PREFIX.rpartition("/")[2], "robot/state", 630),
        ("bob b", "a/b", "robot/state", 100),
    ]
    plan = duckdb.sql(f"EXPLAIN ANALYZE SELECT count(*) FROM {everything} WHERE owner = 'bob b'").fetchall()[0][1]
    assert "Scanning Files: 1/" in plan or "Total Files Read: 1" in plan, plan
