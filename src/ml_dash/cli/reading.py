"""Reading from wherever experiments are: a folder with its journals and sidecars, or a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    import pyarrow as pa

    from ..catalog import ExperimentInfo, LocalCatalog
    from ..store import Store, Track, Window


class NoFolder(click.ClickException):
    """The root that was given is no folder."""

    exit_code = 2


class Place(Protocol):
    """Experiments that can be looked at: a `LocalCatalog` or an `HttpCatalog`."""

    def experiments(self, pattern: str = "*") -> list[ExperimentInfo]: ...

    def prefixes(self, pattern: str = "*") -> list[str]: ...

    def find(self, prefix: str) -> ExperimentInfo: ...

    def store(self, prefix: str) -> Store: ...


def place_of(root: str) -> Place:
    """The experiments under a root folder, or on a server where the root is its address (token: `ML_DASH_TOKEN`).

    Raises:
        NoFolder: the root is no folder.
    """
    if is_address(root):
        from ..http_catalog import HttpCatalog

        server = HttpCatalog(root, os.environ.get("ML_DASH_TOKEN"))
        context = click.get_current_context(silent=True)
        if context is not None:
            context.call_on_close(server.close)
        return server
    return catalog_of(root)


def catalog_of(root: str) -> LocalCatalog:
    """The experiments under a root folder.

    Raises:
        UsageError: it is a server's address. NoFolder: it is no folder.
    """
    from ..catalog import LocalCatalog

    if is_address(root):
        raise click.UsageError(f"this works on a folder, {root} is a server")
    catalog = LocalCatalog(root, readonly=True)
    if not catalog.root.is_dir():
        what = "is a file, not a folder" if catalog.root.exists() else "does not exist"
        raise NoFolder(f"{catalog.root} {what}: give --dash-root, or set ML_DASH_ROOT")
    return catalog


def is_address(root: str) -> bool:
    """Whether a root names a server."""
    return root.startswith(("http://", "https://"))


def where(place: Place) -> str:
    """The folder or the server's address, for messages."""
    return str(getattr(place, "url", None) or getattr(place, "root", ""))


def topics_of(store: Store, kind: str) -> list[str]:
    """The topics of a kind, sorted; without looking at the series where the store knows them apart."""
    topics = getattr(store, "topics", None)
    return topics(kind) if topics is not None else [info.topic for info in store.tracks(kind)]


def table_of(store: Store, track: Track, window: Window) -> pa.Table:
    """A track's window as an Arrow table: through its sidecar where there is one, else of its entries."""
    table: Any = getattr(store, "table", None)
    if table is not None and (window.columns is None or not any("." in column for column in window.columns)):
        return table(track, window)
    from ..formats.arrow import table_from_entries

    return table_from_entries(entry for block in store.read(track, window) for entry in block)
