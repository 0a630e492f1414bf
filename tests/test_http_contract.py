"""The HTTP store keeps the contract: client, server and a local folder behind it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from http_server import Server
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create
from ml_dash.store import Store
from ml_dash.stores.http import HttpStore
from store_contract import StoreContract


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's address, and a token that may do everything there."""
    root: Path = tmp_path_factory.mktemp("served")
    tokens = FileTokens(root / ".server" / "tokens.json")
    _, token = create(tokens, "contract", [Grant("ada", True)])
    with Server(create_app(LocalCatalog(root), tokens=tokens)) as server:
        yield server.url, token


class TestHttpStore(StoreContract):
    """Over a server on a local folder."""

    @pytest.fixture
    def prefix(self) -> str:
        """An experiment nobody recorded."""
        return f"ada/contract/{secrets.token_hex(6)}"

    @pytest.fixture
    def store(self, served: tuple[str, str], prefix: str) -> Iterator[Store]:
        """An empty store."""
        store = HttpStore(served[0], prefix, served[1])
        yield store
        store.close()

    @pytest.fixture
    def again(self, served: tuple[str, str], prefix: str) -> Iterator[Callable[[], Store]]:
        """Another client's view of the same data."""
        opened: list[Any] = []

        def open_again() -> Store:
            opened.append(HttpStore(served[0], prefix, served[1]))
            return opened[-1]

        yield open_again
        for store in opened:
            store.close()
