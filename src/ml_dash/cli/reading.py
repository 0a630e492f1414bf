"""Reading from wherever experiments are: a folder with its journals and sidecars, or a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    import pyarrow as pa

    from ..catalog import ExperimentInfo, LocalCatalog
    from ..store import Entry, Store, Track, Window


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

    check_folder(root)
    catalog = LocalCatalog(root, readonly=True)
    if not catalog.root.is_dir():
        what = "is a file, not a folder" if catalog.root.exists() else "does not exist"
        raise NoFolder(f"{catalog.root} {what}: give --dash-root, or set ML_DASH_ROOT")
    return catalog


def check_folder(root: str) -> None:
    """Raise UsageError where the root is a server's address, with the way to a folder."""
    if is_address(root):
        context = click.get_current_context(silent=True)
        hint = _INSTEAD.get("" if context is None else str(context.info_name), _PULL)
        raise click.UsageError(f"this works on a folder, and {root} is a server; {hint.format(root)}")


_PULL = "ml-dash pull PREFIX --url {} -r FOLDER copies experiments into one"
_INSTEAD = {
    "compact": "a server compacts by itself",
    "demo": "record into a folder, then ml-dash push PREFIX --url {}",
    "import": "import into a folder, then ml-dash push PREFIX --url {}",
    "push": "the server is --url {}",
    "pull": "the server is --url {}",
    "recover": "journals are where they were recorded, and ml-dash sync sends what waits in them",
    "status": "it shows what waits here, for all servers",
    "sync": "it sends what waits here, to all servers",
}


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


def blocks_of(store: Store, track: Track, window: Window) -> Iterator[list[Entry]]:
    """The entries of a window in blocks; of a sequence too, whose own windows are of indexes and not of time."""
    if track.kind == "tracks" or window.start is None is window.end:
        return store.read(track, window)
    low, high = (-inf if window.start is None else window.start), (inf if window.end is None else window.end)
    return (
        found
        for block in store.read(track, window)
        if (found := [entry for entry in block if low <= entry["timestamp"] <= high])
    )


def table_of(store: Store, track: Track, window: Window) -> pa.Table:
    """A series' window as an Arrow table: through the sidecar of a track where there is one, else of its entries."""
    table: Any = getattr(store, "table", None) if track.kind == "tracks" else None
    if table is not None and (window.columns is None or not any("." in column for column in window.columns)):
        return table(track, window)
    from ..formats.arrow import table_from_entries

    return table_from_entries(entry for block in blocks_of(store, track, window) for entry in block)
