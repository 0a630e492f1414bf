"""A part in the database is kept in documents of 1 MiB, of which a window fetches those that it needs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from ml_dash.entry import encode_body
from ml_dash.errors import StoreCorrupt
from ml_dash.mongo_catalog import MongoCatalog, connect
from ml_dash.store import MERGED, Batch, Track, Window
from ml_dash.stores.compactor import Policy
from ml_dash.stores.mongo_tables import Tables

pytest_plugins = ["servers.fixtures"]

COUNT, BATCH = 50_000, 5_000
TRACK, PREFIX = Track(MERGED, "robot/state"), "ada/parts/run"


@pytest.fixture(scope="module")
def parted(mongo_server: Any) -> Iterator[tuple[MongoCatalog, Any]]:
    """A catalog with one track of one part, and its database."""
    client: Any = connect(mongo_server.uri)
    name = f"test_{secrets.token_hex(6)}"
    catalog = MongoCatalog(client=client, database=name, policy=Policy(grace_s=0.0))
    store = catalog.store(PREFIX)
    for number, first in enumerate(range(0, COUNT, BATCH), start=1):
        bodies = [encode_body((1, float(n), {"q": values(n)})) for n in range(first, first + BATCH)]
        store.append(Batch("w", number, {1: TRACK}, bodies))
    catalog.compact(PREFIX)
    catalog.sweep(PREFIX)
    yield catalog, client[name]
    client.drop_database(name)
    client.close()


def values(n: int) -> list[float]:
    """Numbers with full mantissas, so that the part is large."""
    return [(n * 7919 + k) ** 0.5 for k in range(21)]


def window(catalog: MongoCatalog, first: float, last: float) -> list[int]:
    """The numbers of the entries that a window gives, each checked."""
    found = [entry for block in catalog.store(PREFIX).read(TRACK, Window(first, last)) for entry in block]
    assert all(entry["q"] == values(int(entry["timestamp"])) for entry in found)
    return [int(entry["timestamp"]) for entry in found]


def test_a_window_fetches_some_of_the_documents(
    parted: tuple[MongoCatalog, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows anywhere are right, and fetch at most half of the part; the whole is right too."""
    catalog, database = parted
    header = database["segments"].find_one({"st": "live"})
    assert header["chunks"] > 3
    fetched: list[int] = []
    chunk = Tables.chunk

    def counting(tables: Tables, of: Any, number: int) -> bytes | None:
        fetched.append(number)
        return chunk(tables, of, number)

    monkeypatch.setattr(Tables, "chunk", counting)
    for first in (0, 8_000, 15_990, 49_990):
        fetched.clear()
        assert window(catalog, first, first + 9) == list(range(first, first + 10))
        assert 0 < len(fetched) <= header["chunks"] / 2 + 1
    fetched.clear()
    assert window(catalog, 0.0, COUNT) == list(range(COUNT))
    assert fetched == []  # all of it comes at once, and its checksum is checked


def test_a_document_that_went_is_planned_anew(
    parted: tuple[MongoCatalog, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document that is missing while its header is live is first looked for again, then said to be damaged."""
    catalog, _ = parted
    chunk, missing = Tables.chunk, [True]
    monkeypatch.setattr(Tables, "chunk", lambda *asked: None if missing and missing.pop() else chunk(*asked))
    assert window(catalog, 15_000, 15_009) == list(range(15_000, 15_010))
    monkeypatch.setattr(Tables, "chunk", lambda *asked: None)
    with pytest.raises(StoreCorrupt):
        window(catalog, 15_000, 15_009)


def test_a_damaged_document_is_an_error(parted: tuple[MongoCatalog, Any]) -> None:
    """What was changed in the database is never given out."""
    catalog, database = parted
    header = database["segments"].find_one({"st": "live"})
    key = {"_id": f"{header['bid']}#1"}
    sound = database["bodies"].find_one(key)["body"]
    database["bodies"].update_one(key, {"$set": {"body": b"\0" + bytes(sound)[1:]}})
    try:
        with pytest.raises(StoreCorrupt):
            window(catalog, 10_000, 10_009)
    finally:
        database["bodies"].update_one(key, {"$set": {"body": sound}})
