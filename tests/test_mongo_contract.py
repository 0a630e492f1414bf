"""The MongoDB store keeps the contract, as written and after everything was compacted into Parquet."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.store import Batch, Store
from ml_dash.stores.compactor import Policy
from ml_dash.stores.mongo import MongoStore
from store_contract import StoreContract

pytest_plugins = ["servers.fixtures"]

AT_ONCE = Policy(grace_s=0.0, stub_s=0.0, min_segments=2, part_entries=1000)
"""Nothing waits for anybody: right only where nobody else reads."""


@pytest.fixture
def catalog(client: Any) -> Iterator[MongoCatalog]:
    """A database of its own: the stand-in scans whole collections, so a shared one would slow every test down."""
    name = f"test_{secrets.token_hex(6)}"
    yield MongoCatalog(client=client, database=name, policy=AT_ONCE)
    client.drop_database(name)


@pytest.fixture
def prefix() -> str:
    """An experiment nobody recorded."""
    return f"ada/contract/{secrets.token_hex(6)}"


class TestMongoStore(StoreContract):
    """As written."""

    @pytest.fixture
    def store(self, catalog: MongoCatalog, prefix: str) -> Iterator[Store]:
        """An empty store."""
        store = catalog.store(prefix)
        yield store
        store.close()

    @pytest.fixture
    def again(self, catalog: MongoCatalog, prefix: str) -> Callable[[], Store]:
        """Another server process's view of the same data."""
        return lambda: catalog.store(prefix)


class Compacting(MongoStore):
    """Compacts everything after each batch, and removes what was replaced at once."""

    catalog: MongoCatalog
    alone: threading.Lock
    """Stands for the lease of a series: the stand-in's updates of one document are not atomic."""

    def append(self, batch: Batch) -> None:
        super().append(batch)
        upkeep = self.catalog._upkeep
        for track in batch.tracks.values():
            doc = self._find(track)
            if doc is not None:
                with self.alone:
                    upkeep._compactor.compact(doc, few=True, whole=batch.number % 3 == 0)
                    upkeep.sweep(doc)


class TestCompactedStore(StoreContract):
    """Every entry went through a Parquet part, some through several."""

    @pytest.fixture
    def store(self, catalog: MongoCatalog, prefix: str) -> Iterator[Store]:
        """An empty store."""
        plain = catalog.store(prefix)
        store = Compacting(plain._tables, plain._reader, prefix)
        store.catalog, store.alone = catalog, threading.Lock()
        yield store
        store.close()

    @pytest.fixture
    def again(self, catalog: MongoCatalog, prefix: str) -> Callable[[], Store]:
        """Another server process's view of the same data."""
        return lambda: catalog.store(prefix)
