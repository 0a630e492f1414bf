"""The existing `ml-dash` package records to this server and reads back: its routes, and that package itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


ROUTES = [
    ("PATCH", "/api/nodes/{id}", {"status": "COMPLETED"}),
    ("POST", "/api/experiments/{id}/tracks", {"topic": "t"}),
    ("GET", "/api/experiments/{id}/tracks", None),
    ("POST", "/api/experiments/{id}/tracks/t/append_batch", {"entries": [{"timestamp": 1.0}]}),
    ("POST", "/api/experiments/{id}/tracks/t/append", {"timestamp": 1.0, "data": {}}),
    ("GET", "/api/experiments/{id}/tracks/t/data", None),
    ("POST", "/api/experiments/{id}/metrics/m/append-batch", {"dataPoints": [{"x": 1}]}),
    ("POST", "/api/experiments/{id}/metrics/m/append", {"data": {"x": 1}}),
    ("POST", "/api/experiments/{id}/parameters", {"data": {"x": 1}}),
    ("GET", "/api/experiments/{id}/parameters", None),
    ("POST", "/api/experiments/{id}/logs", {"logs": [{"message": "m"}]}),
    ("POST", "/api/namespaces/bob/nodes", {"type": "EXPERIMENT", "name": "n", "projectSlug": "p"}),
    ("POST", "/graphql", {"query": "{ me { id } }"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_others_do_not_exist_here_either(
    client: TestClient, tokens: FileTokens, method: str, path: str, body: Any
) -> None:
    """401 without a token, 404 for other owners, 403 for a token that only reads."""
    others, ours = id_of("bob/p/n"), opened(client)
    answer = client.request(method, path.format(id=ours), json=body, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
    if "graphql" in path:
        return
    answer = client.request(method, path.format(id=others), json=body)
    assert answer.status_code == 404
    for garbage in ("!!!", "AAAA", "é"):
        if "{id}" in path:
            assert client.request(method, path.format(id=garbage), json=body).status_code in (400, 404)
    reader = {"Authorization": f"Bearer {create(tokens, 'r', [Grant('ada', False)])[1]}"}
    if method != "GET" and "{id}" in path:
        assert client.request(method, path.format(id=ours), json=body, headers=reader).status_code == 403


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
    sys.path.insert(0, str(ROOT))
    from benchmarks.catalogue import BY_NAME
    from benchmarks.envs import NotInstallable, build

    try:
        return build(BY_NAME["ml_dash_011"]).python
    except NotInstallable as error:
        reason = f"the existing package cannot be installed, so nothing was tried with it: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run_old(python: str, folder: Path, url: str, token: str, root: str = "") -> subprocess.CompletedProcess[str]:
    """The program above, run by the existing package with a token as its `login` keeps it."""
    config = folder / "config"
    config.mkdir()
    (config / "tokens.json").write_text(json.dumps({"ml-dash-token": token}))
    variables = {
        "ML_DASH_CONFIG_DIR": str(config), "ML_DASH_NO_VERSION_CHECK": "1", "HOME": str(folder),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }  # fmt: skip
    return subprocess.run(
        [python, "-c", PROGRAM, url, PREFIX, root],
        env={**os.environ, **variables}, cwd=folder, capture_output=True, text=True, timeout=120,
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
