"""`ml_dash.find`: one question to every recording under a root, or on a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .analysis.moments import Moments, search_all
from .analysis.recording import Recording
from .catalog import Catalog, LocalCatalog, not_found
from .store import MERGED, Track


def find(
    root: str | os.PathLike[str] | Catalog,
    pattern: str,
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
) -> Moments:
    """The windows of time in which an expression is true, in every experiment whose prefix matches.

    Args:
        root: the folder that holds the experiments (`dash_root`), or a catalog.
        pattern: of prefixes, such as "alice/pick/*"; "alice" alone means everything below it.
        expression, topic, for_s, max_gap_s: as for `Experiment.find`.

    Returns:
        Moments in order of prefix and time; each knows its `prefix` and can `cut()` the tracks of its experiment.
        `moments.skipped` tells which experiments lack a topic or column that the expression names.

    Raises:
        ExperimentNotFound: no prefix matches.
        InvalidQuery: the expression cannot be read, or no experiment has what it names.
    """
    catalog = LocalCatalog(root, readonly=True) if isinstance(root, (str, os.PathLike)) else root
    prefixes = _prefixes(catalog, pattern)
    if not prefixes:
        raise not_found(pattern, _prefixes(catalog, "*"), getattr(catalog, "root", "the catalog"))
    return search_all(_recordings(catalog, prefixes), expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)


def _prefixes(catalog: Catalog, pattern: str) -> list[str]:
    if isinstance(catalog, LocalCatalog):
        return catalog.prefixes(pattern)
    return [info.prefix for info in catalog.experiments(pattern)]


def _recordings(catalog: Catalog, prefixes: list[str]) -> Iterator[Callable[[], Recording]]:
    for prefix in prefixes:
        yield partial(_recording, catalog, prefix)


def _recording(catalog: Catalog, prefix: str) -> Recording:
    store: Any = catalog.store(prefix)
    table = getattr(store, "table", None)
    return Recording(
        prefix,
        lambda topic, window: store.read(Track(MERGED, topic), window),
        getattr(store, "topics", lambda: [info.topic for info in store.tracks()]),
        None if table is None else lambda topic, window: table(Track(MERGED, topic), window),
    )
