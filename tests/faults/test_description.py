"""Row 16 of the fault plan: requests made of the OpenAPI description, right and wrong ones, against the application.

schemathesis makes them; most carry a good token, and in half of them an experiment that exists and a real batch are put
in the place of what was made up, so that requests get further than the first check. Asked in-process: 2,000 in CI,
20,000 in the long run.
"""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_dash import wire
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create
from ml_dash.server.describe import openapi
from ml_dash.server.routes import OPERATIONS
from ml_dash.store import Batch
from ml_dash.zstd import compress
from store_contract import LOGS, LOSS, STATE, body

from .figures import count
from .sizes import SEED, rng, size

CASES = size(2_000, 20_000)
PREFIX = "ada/described/run"
KEPT = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
)
VARIED = [one.id for one in OPERATIONS if one.params]
SHARE = -(-CASES // len(VARIED))
DESCRIBED = schemathesis.openapi.from_dict(openapi("test"))


@schemathesis.serializer(wire.BATCH, wire.NDJSON)
def as_it_is(context: Any, value: Any) -> bytes:
    """Bodies that are bytes go as such."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The application on an empty folder."""
    root: Path = tmp_path_factory.mktemp("described")
    tokens = FileTokens(root / ".server" / "tokens.json")
    catalog = LocalCatalog(root)
    token = create(tokens, "described", [Grant("ada", True)])[1]
    return Served(create_app(catalog, tokens=tokens), catalog, token)


class Served(NamedTuple):
    """The application, what is behind it, and a token that may write."""

    app: Any
    catalog: LocalCatalog
    token: str

    def fill(self) -> None:
        """Have the experiment that requests ask for, also after one of them removed it or its tracks."""
        store = self.catalog.store(PREFIX)
        if store.read_document("params") is None:
            store.update_document("params", lambda known: {"lr": 0.1})
        if not store.tracks():
            bodies = [body(float(n), 1 + n % 3, x=n, q=[0.5 * n, 1.0]) for n in range(30)]
            store.append(Batch(secrets.token_hex(8), 1, {1: STATE, 2: LOSS, 3: LOGS}, bodies))


def cases(operation: Any) -> st.SearchStrategy[Any]:
    """Requests that keep to the description, and such that do not."""
    return st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )


def _completed(case: Any, token: str) -> bool:
    """A token, and what exists in the place of what was made up for some of the parts; whether that was done.

    Chance is made of the case: drawn from Hypothesis, which loves zeros, half of the requests would have no token.
    """
    chance = rng(case.query, case.headers, case.body)
    if chance.random() < 0.9:
        case.headers["Authorization"] = f"Bearer {token}"
    if chance.random() < 0.3:
        return False
    query = case.query if isinstance(case.query, dict) else {}
    known = {"prefix": PREFIX, "topic": STATE.topic, "kind": "tracks", "name": "params", "writer": "w"}
    for name, value in known.items():
        if name in query and chance.random() < 0.8:
            query[name] = value
    if case.operation.method == "post" and chance.random() < 0.7:
        number = chance.randrange(1, 1_000)
        content = compress(wire.encode_batch(Batch("sent", number, {1: STATE}, [body(float(number), n=number)])))
        case.body, case.media_type = content, wire.BATCH
        case.headers.update({"Content-Encoding": "zstd", "Content-Digest": wire.digest(content)})
    return True


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [one.id for one in OPERATIONS])
def test_every_answer_is_described(served: Served, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No 5xx, no status, media type or body that the description does not have, whatever is asked."""
    statuses = Counter[int]()
    # A live stream ends after its first look: nobody waits for entries that never come.
    monkeypatch.setattr(served.app.state.api.board, "stopping", name == "follow")
    operation = DESCRIBED.find_operation_by_id(name)
    operation.app = served.app

    @seed(SEED)
    @settings(
        max_examples=SHARE,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(operation))
    def ask(case: Any) -> None:
        completed = _completed(case, served.token)
        served.fill()
        answer = case.call()
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=[*KEPT, *(() if completed else (negative_data_rejection,))])

    ask()
    assert sum(statuses.values()) >= (SHARE if name in VARIED else 1)
    assert {200, 204} & set(statuses), f"nothing got through: {statuses}"
    for status in sorted(statuses):
        count(f"requests made of the description, answered {status}", statuses[status])
