"""The existing `ml-dash` package records to this server and reads back: its routes, and that package itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import ml_dash
from faulty_proxy import FaultyProxy
from http_server import Server
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create
from ml_dash.server.compat import id_of, path_of
from ml_dash.server.compat_entries import flat, nested
from own_python import interpreter
from peak import soon

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIX = "ada/robots/arm/pick"


@pytest.fixture
def tokens(tmp_path: Path) -> FileTokens:
    return FileTokens(tmp_path / "served" / ".server" / "tokens.json")


@pytest.fixture
def client(tmp_path: Path, tokens: FileTokens) -> Iterator[TestClient]:
    """The server, with a token that may write Ada's."""
    headers = {"Authorization": f"Bearer {create(tokens, 'old', [Grant('ada', True)])[1]}"}
    with TestClient(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens), headers=headers) as client:
        yield client


def opened(client: TestClient) -> str:
    """The id of an experiment, opened as that client does it."""
    project = client.post(
        "/api/namespaces/ada/nodes", json={"type": "PROJECT", "name": "robots", "slug": "robots"}
    ).json()
    folder = client.post(
        "/api/namespaces/ada/nodes",
        json={"type": "FOLDER", "projectId": project["project"]["id"], "parentId": "ROOT", "name": "arm"},
    ).json()
    made = client.post(
        "/api/namespaces/ada/nodes",
        json={
            "type": "EXPERIMENT", "name": "pick", "parentId": folder["node"]["id"], "projectSlug": "robots",
            "description": "picks", "tags": ["a"], "metadata": {"m": 1},
        },
    ).json()  # fmt: skip
    assert made["node"]["id"] == made["experiment"]["id"]
    return str(made["experiment"]["id"])


def test_opening_and_closing(client: TestClient, tmp_path: Path) -> None:
    """The path of nodes becomes the prefix; the run begins and ends."""
    node = opened(client)
    assert path_of(node) == PREFIX
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        assert (stored.status, stored.info["readme"], stored.info["tags"]) == ("running", "picks", ["a"])
        for status, ours in (("FAILED", "failed"), ("COMPLETED", "completed")):
            assert client.patch(f"/api/nodes/{node}", json={"status": status}).status_code == 200
            assert stored.status == ours
    assert client.patch(f"/api/nodes/{node}", json={"status": "DONE"}).status_code == 400


def test_tracks(client: TestClient, tmp_path: Path) -> None:
    """Batches and single entries, read in every format, listed by pattern."""
    node = opened(client)
    one = f"/api/experiments/{node}/tracks"
    batch = {"entries": [{"timestamp": 1, "q": [1.0, 2.0]}, {"timestamp": 2.0, "q": None, "n": {"a": 1}}]}
    assert client.post(f"{one}/robot%2Fpos/append_batch", json=batch).json() == {"count": 2}
    client.post(f"{one}/robot%2Fpos/append", json={"timestamp": 1.0, "data": {"v": 3}})
    client.post(one, json={"topic": "camera"})
    expected = [{"timestamp": 1.0, "q": [1.0, 2.0], "v": 3}, {"timestamp": 2.0, "q": None, "n": {"a": 1}}]
    found = client.get(f"{one}/robot%2Fpos/data")
    assert found.json() == {"entries": expected, "count": 2}
    some = client.get(f"{one}/robot%2Fpos/data", params={"end_timestamp": "1.5", "columns": "v,n", "format": "jsonl"})
    assert [json.loads(line) for line in some.content.splitlines()] == [{"timestamp": 1.0, "v": 3}]
    assert client.get(f"{one}/robot%2Fpos/data", params={"format": "parquet"}).content[:4] == b"PAR1"
    assert len(client.get(f"{one}/robot%2Fpos/data", params={"format": "mocap"}).json()["frames"]) == 2
    (listed,) = client.get(one, params={"topic": "robot/*"}).json()["tracks"]
    assert (listed["topic"], listed["totalEntries"], listed["firstTimestamp"]) == ("robot/pos", 2, 1.0)
    assert client.get(one, params={"topic": "camera/*"}).json() == {"tracks": []}
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        assert stored.tracks("robot/pos").list_entries() == expected


def test_parameters_logs_and_metrics(client: TestClient, tmp_path: Path) -> None:
    """Dotted names are nested here and flat there; logs keep their time."""
    node = opened(client)
    one = f"/api/experiments/{node}"
    assert client.get(f"{one}/parameters").status_code == 404
    client.post(f"{one}/parameters", json={"data": {"model.lr": 0.1, "model.size": 7, "seed": 1}})
    client.post(f"{one}/parameters", json={"data": {"model.lr": 0.2}})
    assert client.get(f"{one}/parameters").json()["data"] == {"model.lr": 0.2, "model.size": 7, "seed": 1}
    logs = [{"timestamp": "2026-01-01T00:00:00Z", "level": "warn", "message": "m", "metadata": {"a": 1}}]
    assert client.post(f"{one}/logs", json={"logs": logs}).json()["created"] == 1
    points = {"dataPoints": [{"loss": 1.0, "index": 9}, {"loss": 2.0}]}
    assert client.post(f"{one}/metrics/train/append-batch", json=points).json()["endIndex"] == "1"
    assert client.post(f"{one}/metrics/train/append", json={"data": {"loss": 3.0}}).json()["startIndex"] == "2"
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        assert stored.params.get() == {"model": {"lr": 0.2, "size": 7}, "seed": 1}
        (line,) = stored.log.read()
        assert (line["timestamp"], line["level"], line["message"]) == (1767225600.0, "warning", "m")
        losses = stored.metrics("train").read()["entries"]
        assert [entry["loss"] for entry in losses] == [1.0, 2.0, 3.0]
        assert losses[0]["index_"] == 9


def test_names_there_and_back() -> None:
    """Flat and nested parameters, ids and paths."""
    for document in ({}, {"a": 1}, {"a": {"b": {"c": []}}, "d": {}}, {"a": {"b": 1, "c": 2}}):
        assert nested(flat(document)) == document
    for path in ("ada/p/n", "a/b/c d/é"):
        assert path_of(id_of(path)) == path


@pytest.mark.parametrize(
    "entries",
    [None, {}, [1], [{}], [{"timestamp": None}], [{"timestamp": "1"}], [{"timestamp": True}], [{"timestamp": 1 << 60}],
     [{"timestamp": 1.0}, {"timestamp": float("inf")}], [{"timestamp": 1.0, "x": 1 << 70}]],
)  # fmt: skip
def test_bad_batches(client: TestClient, entries: Any) -> None:
    """4xx, nothing stored."""
    node = opened(client)
    content = json.dumps({"entries": entries}).encode()
    answer = client.post(f"/api/experiments/{node}/tracks/t/append_batch", content=content)
    assert answer.status_code in (400, 422), answer.text
    assert client.get(f"/api/experiments/{node}/tracks/t/data").json()["count"] == 0


@pytest.mark.parametrize("topic", ["..", "a%2F..%2Fb", "%00", "%20", "a%2F%2Fb"])
def test_hostile_topics(client: TestClient, topic: str) -> None:
    """No track of such a name."""
    node = opened(client)
    batch = {"entries": [{"timestamp": 1.0}]}
    assert client.post(f"/api/experiments/{node}/tracks/{topic}/append_batch", json=batch).status_code in (
        400,
        404,
        405,
    )


@pytest.mark.parametrize(
    "garbage", ["!!!", "AAAA", "é", "YQ", "..", id_of("ada"), id_of("ada/p/tracks"), id_of("a/../b")]
)
def test_ids_that_were_never_given(client: TestClient, garbage: str) -> None:
    """4xx on every route, and no experiment comes into being."""
    one = f"/api/experiments/{garbage}"
    for path, sent in {
        f"{one}/tracks/t/append_batch": {"entries": [{"timestamp": 1.0}]},
        f"{one}/parameters": {"data": {"x": 1}},
        f"{one}/logs": {"logs": [{"message": "m"}]},
    }.items():
        assert client.post(path, json=sent).status_code in (400, 404, 405)
    assert client.patch(f"/api/nodes/{garbage}", json={"status": "COMPLETED"}).status_code in (400, 404, 405)
    assert client.get("/v1/experiments").json() == {"experiments": []}


DEEP = b"[" * 100_000
HOSTILE = {
    "tracks/t/append_batch": [
        b"", b"[]", b"{", b'{"entries": ' + DEEP,
        b'{"entries": [{"timestamp": 1, "x": ' + DEEP + b"]" * 100_000 + b"}]}",
        b'{"entries": [{"timestamp": 1, "x": ' + b"[" * 700 + b"]" * 700 + b"}, {}]}",
        json.dumps({"entries": [{"timestamp": 1.0}] * 50_001}).encode(),
    ],
    "tracks/t/append": [b'{"timestamp": 1.0, "data": 3}', b'{"data": {"x": 1}}', b'{"timestamp": 1, "data": ' + DEEP],
    "parameters": [
        b'{"data": ' + DEEP, json.dumps({"data": {".".join("a" * 100_000): 1}}).encode(), b'{"data": null}',
        json.dumps({"data": {"a.b": 1, "a": [1], "a.b.c": 1 << 70}}).encode(),
    ],
    "logs": [b'{"logs": 1}', b'{"logs": [1]}', b'{"logs": [{"metadata": ' + DEEP],
    "metrics/m/append-batch": [b'{"dataPoints": {}}', b'{"dataPoints": [1]}', b'{"dataPoints": [{"x": 1e999}, []]}'],
    "metrics/m/append": [b'{"data": [1]}', b"{}"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "which"), [(place, n) for place, bodies in HOSTILE.items() for n in range(len(bodies))]
)
def test_hostile_bodies(client: TestClient, place: str, which: int) -> None:
    """A precise 4xx within a second, and nothing stored."""
    node = opened(client)
    with soon():
        answer = client.post(f"/api/experiments/{node}/{place}", content=HOSTILE[place][which])
    assert answer.status_code in (400, 413, 422), answer.text
    assert set(answer.json()["error"]) >= {"code", "message"}
    for kind in ("tracks", "metrics", "logs"):
        assert client.get("/v1/tracks", params={"prefix": PREFIX, "kind": kind}).json() == {"tracks": []}
    assert client.get(f"/api/experiments/{node}/parameters").status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"query": 1}',
        b'{"query": ["me {"], "variables": [1]}',
        b'{"query": "experimentNode", "variables": 3}',
    ],
)
def test_hostile_questions(client: TestClient, content: bytes) -> None:
    """GraphQL that is none answers in its own form, or is refused."""
    assert client.post("/graphql", content=content).status_code in (200, 400)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": "PROJECT"}, {"type": "PROJECT", "slug": 1}, {"type": "PROJECT", "slug": "../x"},
        {"type": "THING", "name": "n"}, {"type": "EXPERIMENT", "name": "..", "projectSlug": "p"},
        {"type": "EXPERIMENT", "name": "n", "projectSlug": "../.."},
        {"type": "EXPERIMENT", "name": "n"}, {"type": "EXPERIMENT", "name": "n", "parentId": id_of("bob/p")},
        {"type": "EXPERIMENT", "name": "n", "parentId": 7}, {"type": "EXPERIMENT", "name": "n", "projectId": "é"},
        {"type": "FOLDER", "name": "tracks", "projectSlug": [1]},
    ],
)  # fmt: skip
def test_hostile_nodes(client: TestClient, body: Any) -> None:
    """No experiment outside the owner's, none with a name that is none."""
    answer = client.post("/api/namespaces/ada/nodes", json=body)
    assert answer.status_code in (200, 400, 404), answer.text
    assert answer.status_code != 200 or body["type"] in ("PROJECT", "FOLDER")
    assert client.get("/v1/experiments").json() == {"experiments": []}


# ---------------------------------------------------------------- the package itself

PROGRAM = """
import json, sys
from ml_dash import Experiment

exp = Experiment(prefix=sys.argv[2], dash_url=sys.argv[1], dash_root=sys.argv[3] or None, tags=["old"])
with exp.run as exp:
    exp.params.set(lr=0.1, model={"size": 7})
    for i in range(250):
        exp.tracks("robot/state").append(q=[0.5 * i, 1.0], n=i, _ts=i * 0.01)
        exp.tracks("robot/state").append(v=[float(i)], _ts=i * 0.01)
        exp.metrics("train").log(loss=1.0 / (i + 1), n=i)
    exp.tracks("camera").append(frame=1, _ts=0.0)
    exp.log("picked", level="info")
    exp.tracks.flush()
    track = exp.tracks("robot/state")
    print(json.dumps({
        "window": track.read(start_timestamp=1.0, end_timestamp=1.02),
        "columns": track.read(columns=["n"], start_timestamp=2.48),
        "jsonl": track.read(format="jsonl", end_timestamp=0.0).decode(),
        "parquet": track.read(format="parquet")[:4].decode(),
        "mocap": track.read(format="mocap", end_timestamp=0.01)["metadata"]["frameCount"],
        "all": len(track.list_entries()),
        "slice": track.slice(1.0, 2.0).findByTime(1.515)["n"],
        "listed": exp._client.list_tracks(exp._experiment_id, "robot/*"),
    }))
"""


@pytest.fixture(scope="module")
def old_python() -> str:
    """An interpreter with the existing package, in an environment of its own under `.cache`."""
    return interpreter("ml_dash_011")


def run_old(python: str, folder: Path, url: str, token: str, root: str = "") -> subprocess.CompletedProcess[str]:
    """The program above, run by the existing package with a token as its `login` keeps it."""
    config = folder / "config"
    config.mkdir()
    (config / "tokens.json").write_text(json.dumps({"ml-dash-token": token}))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it has our package
    variables = {
        "ML_DASH_CONFIG_DIR": str(config), "ML_DASH_NO_VERSION_CHECK": "1", "HOME": str(folder),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }  # fmt: skip
    return subprocess.run(
        [python, "-c", PROGRAM, url, PREFIX, root],
        env={**inherited, **variables}, cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("root", ["", "kept-too"], ids=["server only", "both"])
def test_the_existing_package_records_here(old_python: str, tokens: FileTokens, tmp_path: Path, root: str) -> None:
    """Opened, written, read back in every format, listed and closed by the package itself; ours reads the same."""
    _, token = create(tokens, "old", [Grant("ada", True)])
    with Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server:
        done = run_old(old_python, tmp_path, server.url, token, root)
    assert done.returncode == 0, done.stderr
    read = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert read["window"]["entries"] == [
        {"timestamp": n * 0.01, "q": [0.5 * n, 1.0], "n": n, "v": [float(n)]} for n in (100, 101, 102)
    ]
    assert [entry["n"] for entry in read["columns"]["entries"]] == [248, 249]
    assert json.loads(read["jsonl"]) == {"timestamp": 0.0, "q": [0.0, 1.0], "n": 0, "v": [0.0]}
    assert (read["parquet"], read["mocap"], read["all"], read["slice"]) == ("PAR1", 2, 250, 151)
    (listed,) = read["listed"]
    assert (listed["topic"], listed["totalEntries"], listed["columns"]) == ("robot/state", 250, ["n", "q", "v"])
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        assert stored.status == "completed"
        assert stored.info["tags"] == ["old"]
        assert stored.params.get() == {"lr": 0.1, "model": {"size": 7}}
        assert [(info.topic, info.count) for info in stored.tracks.list()] == [("camera", 1), ("robot/state", 250)]
        assert [entry["n"] for entry in stored.metrics("train").read()["entries"]] == list(range(250))
        assert "picked" in [line["message"] for line in stored.log.read()]


@pytest.mark.timeout(300)
def test_the_existing_package_is_at_least_once(old_python: str, tokens: FileTokens, tmp_path: Path) -> None:
    """Its batches carry no number: what is sent again merges in tracks, and in a metric it is there twice."""
    _, token = create(tokens, "old", [Grant("ada", True)])
    with (
        Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server,
        FaultyProxy(server.port, {"double": 1.0}, only="append") as proxy,
    ):
        done = run_old(old_python, tmp_path, proxy.url, token)
        assert proxy.done["double"] >= 3
    assert done.returncode == 0, done.stderr
    with ml_dash.open(PREFIX, dash_root=tmp_path / "served") as stored:
        state = stored.tracks("robot/state").list_entries()
        assert [(entry["n"], entry["v"]) for entry in state] == [(n, [float(n)]) for n in range(250)]
        logged = [entry["n"] for entry in stored.metrics("train").read()["entries"]]
        assert sorted(logged) == sorted([*range(250), *range(250)])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("grant", [Grant("ada", False), Grant("bob", True)], ids=["reads only", "another owner's"])
def test_the_existing_package_with_a_wrong_token(
    old_python: str, tokens: FileTokens, tmp_path: Path, grant: Grant
) -> None:
    """It is told at once that it may not, and nothing is stored."""
    _, token = create(tokens, "old", [grant])
    with Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server:
        done = run_old(old_python, tmp_path, server.url, token)
    assert done.returncode != 0
    assert LocalCatalog(tmp_path / "served").prefixes() == []
