"""`ml-dash push`: experiments of a folder to a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import click

from . import options
from .app import OK, PROBLEM
from .output import count, note, progress
from .remote_options import server, token_option, url_option

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..ledger import Ledger
    from ..store import Document, Store, Track


@click.command()
@click.argument("patterns", metavar="PREFIX...", nargs=-1, required=True, shell_complete=options.complete_prefix)
@url_option
@token_option
@options.root_option
def push(patterns: tuple[str, ...], url: str | None, token: str | None, dash_root: str) -> int:
    """Send experiments that were recorded here to a server.

    PREFIX may be a pattern. Interrupted, it goes on where it was when it is called again; called again later it sends
    what is new, and what the server has not any more.
    """
    from .. import run_record
    from ..ledger import identity, ledger_of
    from ..spool import JOURNALS

    problem = False
    with closing(server(url, token)) as there, progress() as bars:
        here = options.catalog_of(dash_root)
        for prefix in options.some_prefixes(here, patterns):
            ledger = ledger_of("push", identity(here.folder(prefix)), there.url, prefix)
            alive = partial(run_record.is_writing, here.folder(prefix) / JOURNALS)
            settle = partial(run_record.settled, is_alive=alive)
            source, target = here.store(prefix), there.store(prefix)
            problem |= not carry(prefix, source, target, ledger, bars, f"to {there.url}", settle)
    return PROBLEM if problem else OK


def carry(
    prefix: str,
    source: Store,
    target: Store,
    ledger: Ledger,
    bars: Progress,
    where: str,
    settle: Callable[[Document], Document] = lambda document: document,
) -> bool:
    """Move one experiment, with a bar for each series, and say what came of it; whether all of it is there now."""
    from ..transfer import AlreadyThere, move

    tasks: dict[Track, int] = {}

    def tell(track: Track, done: int, total: int) -> None:
        if track not in tasks:
            tasks[track] = bars.add_task(f"{prefix} {track.topic}", total=total)
        bars.update(tasks[track], completed=done)  # type: ignore[arg-type]

    try:
        moved = move(source, target, ledger, tell, settle)
    except AlreadyThere as error:  # the experiments behind it are moved all the same
        click.echo(f"{prefix}: {error}", err=True)
        return False
    click.echo(f"{prefix}: {count(moved.entries, 'entry')} {where}")
    for reason in moved.refused[:10]:
        click.echo(f"  left out: {reason}")
    if moved.left_out > len(moved.refused[:10]):
        note(f"  and {moved.left_out - len(moved.refused[:10])} more")
    return not moved.left_out
