"""`ml-dash pull`: experiments of a server into a folder."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from . import options
from .app import OK, PROBLEM
from .output import progress
from .push_command import carry
from .reading import check_folder
from .remote_options import server, token_option, url_option

if TYPE_CHECKING:
    from ..http_catalog import HttpCatalog


@click.command()
@click.argument("patterns", metavar="PREFIX...", nargs=-1, required=True)
@url_option
@token_option
@options.root_option
def pull(patterns: tuple[str, ...], url: str | None, token: str | None, dash_root: str) -> int:
    """Copy experiments from a server into a folder.

    PREFIX may be a pattern. Interrupted, it goes on where it was when it is called again; called again later it fetches
    what is new, and what the folder has not any more.
    """
    from ..catalog import LocalCatalog
    from ..ledger import identity, ledger_of

    check_folder(dash_root)
    here, problem = LocalCatalog(dash_root), False
    with closing(server(url, token)) as there, progress() as bars:
        for prefix in _prefixes(there, patterns):
            ledger = ledger_of("pull", there.url, identity(here.folder(prefix)), prefix)
            target = here.store(prefix)
            problem |= not carry(prefix, there.store(prefix), target, ledger, bars, f"from {there.url}")
            target.store.compact_all()
    return PROBLEM if problem else OK


def _prefixes(there: HttpCatalog, patterns: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = there.prefixes(pattern)
        found.update(dict.fromkeys(hits or [there.find(pattern).prefix]))
    return sorted(found)
