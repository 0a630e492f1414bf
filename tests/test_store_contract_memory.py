"""The model keeps the contract it is the model of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_dash.store import Store
from ml_dash.stores.memory import MemoryStore
from store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """`MemoryStore` keeps the contract but for durability."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store."""
        store = MemoryStore()
        yield store
        store.close()
