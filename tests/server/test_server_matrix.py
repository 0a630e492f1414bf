"""Row 15 of the fault plan: every route of the application with every kind of token, and with other owners' ids.

The table is made of the application's own routes: one that nobody thought of here fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ml_dash import wire
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import EVERY_OWNER, FileTokens, Grant, create, revoke
from ml_dash.server.compat import id_of
from ml_dash.server.routes import OPERATIONS
from ml_dash.store import Batch
from ml_dash.zstd import compress
from store_contract import STATE, body

MINE, OTHERS, NOBODYS = "ada/robots/pick", "bob/robots/pick", "bob/robots/nothing"
OPEN = {"/healthz", "/readyz", "/openapi.json"}
"""The only routes that need no token."""
UNSCOPED = {"/v1/access", "/v1/experiments GET", "/metrics", "/graphql"}
"""Routes that name no owner: what they answer is made of the token."""


@dataclass(frozen=True)
class Asked:
    """A request that would be right, with the right token."""

    content: Any = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    writes: bool = False
    status: int = 200


def _batch() -> Asked:
    content = compress(wire.encode_batch(Batch("w2", 1, {1: STATE}, [body(2.0, x=2)])))
    headers = {"Content-Type": wire.BATCH, "Content-Encoding": "zstd", "Content-Digest": wire.digest(content)}
    return Asked(content, headers=headers)


def _described() -> dict[str, Asked]:
    """A request for each operation of the description."""
    values = {"topic": STATE.topic, "writer": "w2", "name": "params"}
    bodies = {
        "append": _batch(),
        "write_document": Asked(b'{"written": true}', headers={"Content-Type": wire.JSON}),
    }
    found = {}
    for one in OPERATIONS:
        asked = bodies.get(one.id, Asked())
        query = {param.name: values[param.name] for param in one.params if param.required and param.name != "prefix"}
        found[f"{one.path} {one.method}"] = replace(asked, query=query, writes=one.writes, status=one.status)
    return found


NODE = "/api/experiments/{id}"
REQUESTS: dict[str, Asked] = {
    **_described(),
    "/metrics GET": Asked(),
    "/openapi.json GET": Asked(),
    "/graphql POST": Asked({"query": "{ me { id } }"}),
    "/api/namespaces/{owner}/nodes POST": Asked({"type": "PROJECT", "slug": "p"}, writes=True),
    "/api/nodes/{id} PATCH": Asked({"status": "COMPLETED"}, writes=True),
    f"{NODE}/tracks POST": Asked({"topic": "t"}, writes=True),
    f"{NODE}/tracks GET": Asked(),
    f"{NODE}/tracks/{{topic:path}}/append_batch POST": Asked({"entries": [{"timestamp": 2.0}]}, writes=True),
    f"{NODE}/tracks/{{topic:path}}/append POST": Asked({"timestamp": 2.0, "data": {}}, writes=True),
    f"{NODE}/tracks/{{topic:path}}/data GET": Asked(),
    f"{NODE}/metrics/{{topic:path}}/append-batch POST": Asked({"dataPoints": [{"x": 1}]}, writes=True),
    f"{NODE}/metrics/{{topic:path}}/append POST": Asked({"data": {"x": 1}}, writes=True),
    f"{NODE}/parameters POST": Asked({"data": {"x": 1}}, writes=True),
    f"{NODE}/parameters GET": Asked(),
    f"{NODE}/logs POST": Asked({"logs": [{"message": "m"}]}, writes=True),
}


def routes(app: Starlette) -> list[str]:
    """Every `path METHOD` of an application; what HEAD does is what GET does."""
    found = [f"{route.path} {method}" for route in app.routes for method in sorted(route.methods or {"?"})]  # type: ignore[attr-defined]
    return [one for one in found if not one.endswith(" HEAD") or one.removesuffix(" HEAD") + " GET" not in found]


EVERY = routes(create_app(LocalCatalog("unused"), tokens=None))
GUARDED = [one for one in EVERY if one.split()[0] not in OPEN]
SCOPED = [one for one in GUARDED if not {one, one.split()[0]} & UNSCOPED]


@pytest.fixture
def tokens(tmp_path: Path) -> FileTokens:
    """The server's tokens."""
    return FileTokens(tmp_path / ".server" / "tokens.json")


@pytest.fixture
def client(tmp_path: Path, tokens: FileTokens) -> Iterator[TestClient]:
    """The server, with experiments of two owners."""
    catalog = LocalCatalog(tmp_path)
    for prefix in (MINE, OTHERS):
        store = catalog.store(prefix)
        store.append(Batch("w", 1, {1: STATE}, [body(1.0, x=1)]))
        store.update_document("params", lambda known: {"secret": "of the owner"})
    with TestClient(create_app(catalog, tokens=tokens), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def ask(client: TestClient) -> Callable[..., httpx2.Response]:
    """Asks a route for an experiment with a token."""

    def send(route: str, prefix: str, token: str | None, method: str = "") -> httpx2.Response:
        path, _, verb = route.partition(" ")
        asked = REQUESTS[route]
        # A live stream ends after its first look: nobody waits for entries that never come.
        client.app.state.api.board.stopping = path == wire.LIVE  # type: ignore[attr-defined]
        known = {"id": id_of(prefix), "owner": prefix.split("/")[0], "topic": "robot%2Fstate"}
        place = path.replace(":path}", "}").format(**known)
        query = {"prefix": prefix, **asked.query} if path.startswith("/v1/") and route in SCOPED else asked.query
        headers = {**asked.headers, **({} if token is None else {"Authorization": f"Bearer {token}"})}
        sent: Any = {"json": asked.content} if isinstance(asked.content, dict) else {"content": asked.content}
        return client.request(method or verb, place, params=query, headers=headers, **sent)

    return send


def test_no_route_is_forgotten() -> None:
    """Each route of the application stands in this table, and none that is gone."""
    assert set(EVERY) == set(REQUESTS)
    assert {one.split()[0] for one in EVERY} >= OPEN
    assert len(SCOPED) > 20


def _bad(kind: str, tokens: FileTokens) -> str | None:
    token, text = create(tokens, "test", [Grant("ada", True)])
    if kind == "expired":
        return create(tokens, "test", [Grant("ada", True)], timedelta(seconds=-1))[1]
    if kind == "revoked":
        revoke(tokens, token.id)
        return text
    other = create(tokens, "test", [Grant("ada", True)])[1]
    return {
        "none": None,
        "empty": "",
        "unknown": f"mld_{'a' * 10}_{'b' * 43}",
        "truncated": text[:-1],
        "longer": text + "a",
        "its hash": f"mld_{token.id}_{token.digest[:43]}",
        "another's secret": f"mld_{token.id}_{other[15:]}",
    }[kind]


KINDS = ["none", "empty", "unknown", "expired", "revoked", "truncated", "longer", "its hash", "another's secret"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_no_good(
    ask: Callable[..., httpx2.Response], client: TestClient, tokens: FileTokens, kind: str
) -> None:
    """401 on every guarded route, to the last byte the same for what exists and what does not; nothing changed."""
    text = _bad(kind, tokens)
    for route in GUARDED:
        answers = [ask(route, prefix, text) for prefix in (MINE, OTHERS, NOBODYS, "no prefix")]
        assert {answer.status_code for answer in answers} == {401}, route
        assert answers[0].headers["www-authenticate"].startswith("Bearer")
        assert len({answer.content for answer in answers}) == 1, route
        if route.endswith(" GET"):
            assert ask(route, MINE, text, "HEAD").status_code == 401
    assert _untouched(client, tokens)


def _untouched(client: TestClient, tokens: FileTokens) -> bool:
    """Nothing was changed in either experiment, and nothing came into being."""
    reader = {"Authorization": f"Bearer {create(tokens, 'r', [Grant(EVERY_OWNER, False)])[1]}"}
    listed = client.get("/v1/experiments", headers=reader).json()["experiments"]
    for prefix in (MINE, OTHERS):
        query = {"prefix": prefix}
        found = client.get("/v1/entries", params={**query, "topic": STATE.topic}, headers=reader).json()
        params = client.get("/v1/documents", params={**query, "name": "params"}, headers=reader).json()
        kinds = [client.get("/v1/tracks", params={**query, "kind": kind}, headers=reader) for kind in wire.KINDS]
        counts = [len(one.json()["tracks"]) for one in kinds]
        if found["count"] != 1 or params != {"secret": "of the owner"} or counts != [1, 0, 0]:
            return False
    return [one["prefix"] for one in listed] == [MINE, OTHERS]


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("route", SCOPED)
def test_others_experiments_do_not_exist(
    ask: Callable[..., httpx2.Response], client: TestClient, tokens: FileTokens, route: str, writes: bool
) -> None:
    """404 for what another owner has and for what nobody has, to the last byte the same; nothing changed."""
    grants = [Grant("ada", writes), Grant("bo", True), Grant("bobby", True), Grant("BOB", True)]
    text = create(tokens, "test", grants)[1]
    there, nowhere = (ask(route, prefix, text) for prefix in (OTHERS, NOBODYS))
    assert (there.status_code, there.json()["error"]["code"]) == (404, "not_found")
    assert there.content == nowhere.content
    assert {k: v for k, v in there.headers.items() if k != "date"} == dict(nowhere.headers)
    assert _untouched(client, tokens)


@pytest.mark.parametrize("route", SCOPED)
def test_reading_tokens_change_nothing(
    ask: Callable[..., httpx2.Response], client: TestClient, tokens: FileTokens, route: str
) -> None:
    """403 on every route that writes, success on every other."""
    answer = ask(route, MINE, create(tokens, "test", [Grant("ada", False)])[1])
    asked = REQUESTS[route]
    assert answer.status_code == (403 if asked.writes else asked.status), answer.text
    assert _untouched(client, tokens)


@pytest.mark.parametrize("route", GUARDED)
@pytest.mark.parametrize("owner", ["ada", EVERY_OWNER])
def test_writing_tokens_do_everything(
    ask: Callable[..., httpx2.Response], tokens: FileTokens, route: str, owner: str
) -> None:
    """Success on every route, for an owner or for all of them: the refusals above are the token's."""
    answer = ask(route, MINE, create(tokens, "test", [Grant(owner, True)])[1])
    assert answer.status_code == REQUESTS[route].status, answer.text


@pytest.mark.parametrize("route", sorted(set(EVERY) - set(GUARDED)))
def test_open_routes_tell_nothing(ask: Callable[..., httpx2.Response], tokens: FileTokens, route: str) -> None:
    """They answer without a token, the same to everybody, and name no experiment."""
    answers = [ask(route, MINE, text) for text in (None, "", create(tokens, "t", [Grant("ada", True)])[1])]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert "ada" not in answers[0].text


@pytest.mark.parametrize("route", sorted(set(GUARDED) - set(SCOPED)))
def test_routes_without_an_owner_tell_of_the_token_s_only(
    ask: Callable[..., httpx2.Response], tokens: FileTokens, route: str
) -> None:
    """What they answer to Ada does not depend on what Bob has, and does not name him."""
    answer = ask(route, MINE, create(tokens, "test", [Grant("ada", True)])[1])
    assert answer.status_code == 200
    assert "bob" not in answer.text
    assert "of the owner" not in answer.text
