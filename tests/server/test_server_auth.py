"""Tokens: how they are made, kept, shown and revoked; the matrix of routes and tokens stands beside this."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ml_dash import wire
from ml_dash.catalog import LocalCatalog
from ml_dash.errors import InvalidPrefix, InvalidQuery
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create, revoke
from ml_dash.server.monitor import JsonLines
from ml_dash.server.routes import OPERATIONS, Operation
from ml_dash.store import Batch
from ml_dash.zstd import compress
from store_contract import STATE, body

MINE, OTHERS, NOBODYS = "ada/robots/pick", "bob/robots/pick", "bob/robots/nothing"


@pytest.fixture
def catalog(tmp_path: Path) -> LocalCatalog:
    """Experiments of two owners."""
    catalog = LocalCatalog(tmp_path)
    for prefix in (MINE, OTHERS):
        store = catalog.store(prefix)
        store.append(Batch("w", 1, {1: STATE}, [body(1.0, x=1)]))
        store.update_document("params", lambda known: {"secret": "of the owner"})
    return catalog


@pytest.fixture
def tokens(tmp_path: Path) -> FileTokens:
    """The server's tokens."""
    return FileTokens(tmp_path / ".server" / "tokens.json")


@pytest.fixture
def client(catalog: LocalCatalog, tokens: FileTokens) -> Iterator[TestClient]:
    """The server."""
    with TestClient(create_app(catalog, tokens=tokens), raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, operation: Operation, prefix: str, token: str | None) -> Any:
    """One request that would be right, on an experiment, with a token."""
    known = {"prefix": prefix, "topic": STATE.topic, "writer": "w2", "name": "params", "kind": "tracks"}
    query = {param.name: known[param.name] for param in operation.params if param.required}
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    content = b""
    if operation.id == "append":
        content = compress(wire.encode_batch(Batch("w2", 1, {1: STATE}, [body(2.0, x=2)])))
        headers |= {"Content-Type": wire.BATCH, "Content-Encoding": "zstd", "Content-Digest": wire.digest(content)}
    elif operation.id == "write_document":
        content = b'{"written": true}'
        headers |= {"Content-Type": wire.JSON}
    return client.request(operation.method, operation.path, params=query, content=content, headers=headers)


GUARDED = [one for one in OPERATIONS if not one.open and one.id != "follow"]


def good(tokens: FileTokens, *grants: Grant) -> str:
    return create(tokens, "test", grants)[1]


def test_a_list_shows_what_the_token_reaches(client: TestClient, tokens: FileTokens) -> None:
    """Whatever the pattern."""
    headers = {"Authorization": f"Bearer {good(tokens, Grant('ada', False))}"}
    for pattern in ("*", "bob/*", "bob/robots/pick", "ada/*"):
        found = client.get("/v1/experiments", params={"pattern": pattern}, headers=headers).json()["experiments"]
        assert [one["prefix"] for one in found] == ([MINE] if pattern in ("*", "ada/*") else [])


def test_what_a_token_may_do_is_told_to_it(client: TestClient, tokens: FileTokens) -> None:
    """Its grants and the limits, not its secret."""
    token, text = create(tokens, "test", [Grant("ada", True), Grant("bob", False)])
    found = client.get("/v1/access", headers={"Authorization": f"bearer {text}"}).json()
    assert found["grants"] == [{"owner": "ada", "write": True}, {"owner": "bob", "write": False}]
    assert found["token"] == token.id
    assert text not in json.dumps(found)


def test_open_routes_tell_nothing(client: TestClient) -> None:
    """Health needs no token; metrics and everything else do; an unknown path is a plain 404."""
    expected = {"/healthz": 200, "/readyz": 200, "/metrics": 401, "/openapi.json": 200, "/v1": 404, "/": 404}
    assert {path: client.get(path).status_code for path in expected} == expected
    assert client.post("/v1/entries").status_code == 405


@pytest.mark.parametrize(
    "path", ["/v1/access/", "/healthz/", "/v1/entries/", "/api/experiments/x/tracks/", "//v1/access"]
)
def test_no_address_is_a_redirect(client: TestClient, path: str) -> None:
    """A slash too many is a plain 404 that names the path as it was sent, not a way to another host."""
    answer = client.get(f"http://testserver{path}", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, "location" in answer.headers) == (404, False)
    assert answer.json()["error"]["message"] == f"there is no GET {path}"


def test_a_token_in_the_address_is_no_token(client: TestClient, tokens: FileTokens) -> None:
    """Secrets do not belong into addresses, which are logged everywhere."""
    token = good(tokens, Grant("ada", True))
    assert client.get("/v1/access", params={"token": token}).status_code == 401


def test_no_secret_in_logs(
    client: TestClient, tokens: FileTokens, caplog: pytest.LogCaptureFixture, catalog: LocalCatalog
) -> None:
    """Neither tokens nor queries nor content, good or bad, in text or as JSON; the token's id is there."""
    token, text = create(tokens, "test", [Grant("ada", True)])
    with caplog.at_level(logging.DEBUG, "ml_dash"):
        for operation in GUARDED:
            ask(client, operation, MINE, text)
            ask(client, operation, MINE, text[:-1])
    lines = "\n".join(JsonLines().format(record) for record in caplog.records)
    assert text not in lines
    assert text[15:40] not in lines
    assert "of the owner" not in lines
    assert f'"token": "{token.id}"' in lines
    assert '"operation": "append"' in lines


# ---------------------------------------------------------------- keeping tokens


def test_tokens_are_kept_as_hashes(tokens: FileTokens) -> None:
    """In a file that only its user can read, without the secret."""
    _, text = create(tokens, "robot", [Grant("ada", True)], timedelta(days=1))
    assert text[15:] not in tokens.path.read_text()
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600
    (kept,) = FileTokens(tokens.path).all()
    assert (kept.name, kept.grants) == ("robot", (Grant("ada", True),))
    assert datetime.fromisoformat(kept.expires_at or "") > datetime.now(UTC)


def test_a_change_counts_at_once(client: TestClient, tokens: FileTokens) -> None:
    """A token that another process creates or revokes is known with the next request."""
    other = FileTokens(tokens.path)
    token, text = create(other, "robot", [Grant("ada", True)])
    headers = {"Authorization": f"Bearer {text}"}
    assert client.get("/v1/access", headers=headers).status_code == 200
    revoke(other, token.id)
    assert client.get("/v1/access", headers=headers).status_code == 401


def test_a_broken_file_lets_nobody_in(client: TestClient, tokens: FileTokens) -> None:
    """The server says that it failed, not what is in the file, and goes on once it is mended."""
    text = good(tokens, Grant("ada", True))
    kept = tokens.path.read_bytes()
    for damage in (b"", b"{}", b'{"tokens": [{"id": 1}]}', b"\xff"):
        tokens.path.write_bytes(damage)
        answer = client.get("/v1/access", headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code in (401, 500)
        assert str(tokens.path) not in answer.text
    tokens.path.write_bytes(kept)
    os.utime(tokens.path)
    assert client.get("/v1/access", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def test_tokens_need_an_owner(tokens: FileTokens) -> None:
    """No grants, or owners that cannot be one, make no token."""
    with pytest.raises(InvalidQuery):
        create(tokens, "x", [])
    for owner in ("", "a/b", "..", "*x", "tracks"):
        with pytest.raises(InvalidPrefix):
            create(tokens, "x", [Grant(owner, True)])
    assert tokens.all() == []


# ---------------------------------------------------------------- without tokens


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.1.2.3"])
def test_this_machine_needs_none(catalog: LocalCatalog, host: str) -> None:
    """Where the server was started for this machine only, everything is open to it."""
    with TestClient(create_app(catalog, tokens=None), base_url=f"http://{host}") as client:
        assert len(client.get("/v1/experiments").json()["experiments"]) == 2


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "localhost.evil.example"}, {"Host": ""}, {"Origin": "https://evil.example"},
     {"Origin": "null"}, {"Origin": "http://localhost.evil.example"}],
)  # fmt: skip
def test_web_pages_of_others_are_not_served(catalog: LocalCatalog, headers: dict[str, str]) -> None:
    """A page somewhere cannot reach the local server through the browser, by its own name or by ours."""
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        answer = client.get("/v1/experiments", headers=headers)
        assert answer.status_code in (400, 403)
        assert MINE not in answer.text


def test_insecure_is_for_loopback_only() -> None:
    """A server that others can reach does not start without tokens."""
    from ml_dash.server.run import Settings

    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(InvalidQuery, match="tokens"):
            Settings(host=host, insecure_local=True)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Settings(host=host, insecure_local=True).insecure_local
