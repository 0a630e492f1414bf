"""Every command that is sent to MongoDB is served by a declared index.

The contract's and the archive's tests are held to the same by the connection they use
(`mongo_commands.checked_client`); here are the paths that they do not take, and proof that the check can fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.server.auth import Grant, create, revoke
from ml_dash.server.mongo_tokens import MongoTokens
from ml_dash.stores.mongo_tables import INDEXES
from mongo_catalogs import STATE, archive_all, batch, bucket_of, new_catalog, read, unique_prefix
from mongo_commands import Question, checked_client, problem, questions

pytest_plugins = ["servers.fixtures"]

PREFIX = unique_prefix()


@pytest.fixture(scope="module")
def asked(client: Any, s3_server: Any) -> Mapping[str, tuple[Question, str, dict[str, Any]]]:
    """What a life of experiments, tokens, archive, deletion and upkeep asks."""
    with new_catalog(client, bucket_of(s3_server)) as catalog:
        store = catalog.store(PREFIX)
        for number in (1, 2, 3):
            store.append(batch(number))
        store.append(batch(3))
        store.applied("robot")
        store.update_document("params", lambda known: {"a": 1})
        store.tracks()
        catalog.experiments("ada/*")
        catalog.prefixes()
        catalog.find(PREFIX)
        archive_all(catalog, PREFIX)
        catalog.archived(PREFIX)
        store.remove_window(STATE, 1.5, 2.5)
        read(store)
        catalog.upkeep()
        catalog.clean_bucket()
        store.forget("robot")
        store.remove(STATE)
        catalog.upkeep()
        tokens = MongoTokens(catalog._tables._database)
        token, _ = create(tokens, "robot", [Grant("ada", True)], None)
        tokens.get(token.id)
        tokens.all()
        revoke(tokens, token.id)
        catalog.remove(PREFIX)
        catalog.remove_leftovers()
    return client.recorder.seen  # type: ignore[no-any-return]


def test_every_question_has_an_index(asked: Mapping[str, Any], client: Any) -> None:
    """Filters begin with an index's first keys, and orders are those of the index."""
    assert client.recorder.problems() == []
    touched = {question.collection for question, _, _ in asked.values()}
    assert touched == {*INDEXES, "tokens"}, "every collection was asked"
    assert len(asked) >= 30, "the life is a full one"


def test_mongodb_explains_every_question_without_a_scan(asked: Mapping[str, Any], client: Any) -> None:
    """On a real MongoDB: its own plan of each command has no scan of a collection and no sort in memory."""
    told = client.admin.command("buildInfo")
    if not os.environ.get("ML_DASH_TEST_MONGO_URI") or "ferretdbVersion" in told:
        pytest.skip("explain needs a real MongoDB: ML_DASH_TEST_MONGO_URI")
    found = [
        scan_of(shape, _plan(client, command))
        for shape, (question, _, command) in asked.items()
        if question.collection in INDEXES
    ]
    assert [text for text in found if text is not None] == []


def scan_of(shape: str, plan: Any) -> str | None:
    """What is wrong with a plan: a scan, a sort in memory, or that it is none."""
    stages = set(_stages(plan))
    return f"{shape}: {sorted(stages)}" if not stages or stages & {"COLLSCAN", "SORT"} else None


@pytest.mark.parametrize(
    ("plan", "is_wrong"),
    [
        ({"queryPlanner": {"winningPlan": {"stage": "FETCH", "inputStage": {"stage": "IXSCAN"}}}}, False),
        ({"queryPlanner": {"winningPlan": {"stage": "SORT", "inputStage": {"stage": "IXSCAN"}}}}, True),
        ({"stages": [{"$cursor": {"queryPlanner": {"winningPlan": {"stage": "COLLSCAN"}}}}]}, True),
        ({"queryPlanner": {"winningPlan": {"shards": [{"winningPlan": {"stage": "COLLSCAN"}}]}}}, True),
        ({"queryPlanner": {}}, True),
    ],
)
def test_plans_are_understood(plan: Any, is_wrong: bool) -> None:
    """Plans of one server, of an aggregation and of shards; an empty one is no proof."""
    assert (scan_of("find", plan) is not None) == is_wrong


def _plan(client: Any, command: dict[str, Any]) -> Any:
    """The plan in an empty database that has the indexes."""
    MongoCatalog(client=client, database="test_explain").prepare()
    bare = {name: value for name, value in command.items() if not name.startswith(("$", "lsid", "txn", "writeConcern"))}
    bare.pop("readConcern", None)
    return client["test_explain"].command({"explain": bare, "verbosity": "queryPlanner"})


def _stages(plan: Any) -> Iterator[str]:
    """The names of all stages of a plan, on however many shards."""
    if isinstance(plan, Mapping):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for value in plan.values():
            yield from _stages(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _stages(value)


# ---------------------------------------------------------------- the check can fail


@pytest.mark.parametrize(
    ("collection", "filter", "sort"),
    [
        ("segments", {}, {}),
        ("segments", {"st": "live"}, {}),
        ("segments", {"lo": {"$gte": 1.0}}, {}),
        ("segments", {"t": "a", "st": "live"}, {"lo": 1}),
        ("segments", {"t": "a", "lv": 0}, {"hi": -1}),
        ("segments", {"t": "a", "enc": "parquet"}, {}),
        ("segments", {"t": {"$ne": "a"}}, {}),
        ("segments", {"$or": [{"t": "a"}, {"st": "live"}]}, {}),
        ("tracks", {"topic": "robot/state"}, {}),
        ("tracks", {"due": {"$lte": 1.0}}, {"lease": 1}),
        ("bodies", {"at": {"$lte": 1.0}}, {}),
        ("experiments", {"prefix": "ada/arm/run"}, {}),
        ("tokens", {"name": "robot"}, {}),
        ("nobody", {"x": 1}, {}),
    ],
)
def test_a_question_without_an_index_is_found(collection: str, filter: Any, sort: dict[str, int]) -> None:
    """What would scan or sort is named."""
    command = {"find": collection, "filter": filter, "sort": sort}
    (question,) = questions("find", command)
    assert problem(question) is not None


def test_a_dropped_index_is_found(asked: Mapping[str, Any]) -> None:
    """Without any one of the declared indexes some question would scan, or it is there to keep keys unique."""
    needless = []
    for collection, indexes in INDEXES.items():
        for keys, unique in indexes:
            left = {**INDEXES, collection: [one for one in indexes if one[0] != keys]}
            if not unique and not any(problem(question, left) for question, _, _ in asked.values()):
                needless.append((collection, keys))
    assert needless == []


def test_the_connection_fails_a_module_that_scans(mongo_server: Any) -> None:
    """The end of a checked connection names the scan."""
    with pytest.raises(AssertionError, match="find segments"), checked_client(mongo_server.uri) as client:
        list(client["test_scan"]["segments"].find({"st": "live"}))


def test_the_indexes_exist(client: Any) -> None:
    """What is declared is created."""
    with new_catalog(client, None) as catalog:
        catalog.prepare()
        for name, indexes in INDEXES.items():
            if indexes:
                there = [list(found["key"].items()) for found in catalog._tables._database[name].list_indexes()]
                assert all([*keys] in there for keys, _ in indexes), name


def test_errors_are_this_packages() -> None:
    """A database that is not there is StoreUnavailable, which is retried."""
    nowhere = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    with connect(nowhere) as away, pytest.raises(StoreUnavailable, match="MongoDB"):
        MongoCatalog(client=away).prefixes()
