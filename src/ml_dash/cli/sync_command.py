"""`ml-dash sync`: send what runs could not deliver."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .app import OK, PROBLEM
from .output import count, note, size
from .remote_options import roots_of, token_option

if TYPE_CHECKING:
    from ..spool import Waiting


@click.command()
@click.option("--wait", default=0.0, metavar="SECONDS", type=click.FloatRange(0), help="Try again for so long.")
@options.root_option
@token_option
def sync(wait: float, dash_root: str, token: str | None) -> int:
    """Send what runs could not deliver to their servers.

    Looks under --dash-root and in your state folder. A run that is recording now sends its own. The next start of an
    experiment does the same. Exit code 1 when something still waits.
    """
    from ..spool import waiting

    deadline = time.monotonic() + wait
    while True:
        left = [one for one in waiting(roots_of(dash_root)) if _has_something(one)]
        failed = [one for one in left if not _deliver(one, token)]
        if not failed or time.monotonic() >= deadline:
            break
        time.sleep(min(5.0, max(0.0, deadline - time.monotonic())))
    if not left:
        note("nothing waits")
    return PROBLEM if failed else OK


def _has_something(one: Waiting) -> bool:
    return bool(one.left or one.documents) and not (one.recording and not one.left)


def _deliver(one: Waiting, token: str | None) -> bool:
    from ..errors import MlDashError
    from ..remote import deliver_left

    name = f"{one.destination.prefix} to {one.destination.url}"
    try:
        done = deliver_left(one.folder, one.destination, token)
    except MlDashError as error:
        click.echo(f"{name}: {size(one.bytes)} wait: {error}", err=True)
        return False
    click.echo(f"{name}: {count(done.entries, 'entry')} delivered")
    if done.copies:
        text = "  a copy of this folder was sent before: what both hold is twice in metrics and logs"
        click.echo(text, err=True)
    if done.refused:
        click.echo(f"  {count(done.refused, 'entry')} refused, kept in {Path(one.folder) / '.dead-letters'}")
    return not done.refused
