"""`ml-dash push`: experiments of a folder to a server."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from . import options
from .app import OK, PROBLEM
from .output import count, note, progress
from .remote_options import server, token_option, url_option

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..store import Store, Track
    from ..transfer import Ledger, Moved


@click.command()
@click.argument("patterns", metavar="PREFIX...", nargs=-1, required=True, shell_complete=options.complete_prefix)
@url_option
@token_option
@options.root_option
def push(patterns: tuple[str, ...], url: str | None, token: str | None, dash_root: str) -> int:
    """Send experiments that were recorded here to a server.

    PREFIX may be a pattern. Interrupted, it goes on where it was when it is called again; called again later it sends
    what is new.
    """
    from ..transfer import identity, ledger_of

    moved = []
    with closing(server(url, token)) as there, progress() as bars:
        here = options.catalog_of(dash_root)
        for prefix in options.some_prefixes(here, patterns):
            ledger = ledger_of("push", identity(here.folder(prefix)), there.url, prefix)
            moved.append(carry(prefix, here.store(prefix), there.store(prefix), ledger, bars, f"to {there.url}"))
    return PROBLEM if any(one.refused for one in moved) else OK


def carry(prefix: str, source: Store, target: Store, ledger: Ledger, bars: Progress, where: str) -> Moved:
    """Move one experiment, with a bar for each series, and say what came of it."""
    from ..transfer import move

    tasks: dict[Track, int] = {}

    def tell(track: Track, done: int, total: int) -> None:
        if track not in tasks:
            tasks[track] = bars.add_task(f"{prefix} {track.topic}", total=total)
        bars.update(tasks[track], completed=done)  # type: ignore[arg-type]

    moved = move(source, target, ledger, tell)
    click.echo(f"{prefix}: {count(moved.entries, 'entry')} {where}")
    for reason in moved.refused[:10]:
        click.echo(f"  left out: {reason}")
    if len(moved.refused) > 10:
        note(f"  and {len(moved.refused) - 10} more")
    return moved
