"""What an `Experiment` is called with, checked, and what the environment says where an argument is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .analysis.experiment import declared_rates
from .errors import InvalidEntry, InvalidPrefix, InvalidQuery
from .session import DURABILITIES
from .spool import POLICIES

DEFAULT_ROOT = ".dash"

UNSET: Any = object()


def chosen_prefix(prefix: str | None) -> str:
    """The prefix as given, or of the variable `ML_DASH_PREFIX`."""
    if prefix is not None:
        return prefix
    if not os.environ.get("ML_DASH_PREFIX"):
        raise InvalidPrefix("no prefix: write Experiment(prefix='owner/project/name'), or set ML_DASH_PREFIX")
    return os.environ["ML_DASH_PREFIX"]


def watched_rates(watch: bool | Mapping[str, float], *, alone: bool) -> dict[str, float] | None:
    """The rates given to `watch`; None where nothing is watched."""
    if watch is False or watch is None:
        return None
    if alone:
        raise InvalidQuery("watch looks at what is stored here: it needs dash_root beside dash_url")
    given = {} if watch is True else watch
    rates = declared_rates(given)
    if not isinstance(given, Mapping) or len(rates) != len(given):
        raise InvalidQuery(f"watch is True or a dict of topics and rates above 0 Hz, got {watch!r}")
    return rates


def checked_options(durability: str, when_full: str) -> tuple[str, str]:
    """How much a power cut may cost, and what append does where there is no room for more."""
    if durability not in DURABILITIES:
        raise InvalidEntry(f"durability is one of {', '.join(DURABILITIES)}, got {durability!r}")
    if when_full not in POLICIES:
        raise InvalidQuery(f"when_full is one of {', '.join(POLICIES)}, got {when_full!r:.60}")
    return durability, when_full


def server_url(url: str | None) -> str | None:
    """The server's address: as given, or of the variable `ML_DASH_URL`; None for no server."""
    url = url if url is not None else os.environ.get("ML_DASH_URL")
    if not url:
        return None
    from .stores.connection import checked_url

    return checked_url(url)


def resolved_root(root: Any, url: str | None) -> Path:
    """The folder of all experiments, absolute: as given, of the variable `ML_DASH_ROOT`, or the default."""
    if root is None and url is None:
        from .wire import InvalidAddress

        raise InvalidAddress("dash_root=None needs a server: dash_url='https://host', or ML_DASH_URL")
    if root is None and url is not None:
        from .spool import spool_root

        return spool_root(url)
    if root is UNSET:
        root = os.environ.get("ML_DASH_ROOT") or DEFAULT_ROOT
    return Path(root).expanduser().resolve()


def check_root(root: Path) -> None:
    """A clear error for a root that is a file, before anything is created."""
    for folder in (root, *root.parents):
        if folder.exists():
            if not folder.is_dir():
                raise NotADirectoryError(f"dash_root {root}: {folder} is a file, not a folder")
            return
