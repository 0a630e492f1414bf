"""`ml-dash status`: what waits for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .app import OK, PROBLEM
from .output import note, print_json, print_table, size
from .remote_options import roots_of

if TYPE_CHECKING:
    from ..spool import Waiting


@click.command()
@options.root_option
@options.json_option
def status(dash_root: str, as_json: bool) -> int:
    """Show what is recorded here and not yet on its server.

    Looks under --dash-root and in your state folder. Exit code 1 when something waits that no running process sends, or
    was refused, or was dropped for want of room.
    """
    from ..spool import waiting

    found = [one for one in waiting(roots_of(dash_root)) if _undelivered(one) or one.recording or any(_lost(one))]
    if as_json:
        print_json([_as_dict(one) for one in found])
    elif found:
        rows = [(one.destination.prefix, one.destination.url, _amount(one), _state(one), *_lost(one)) for one in found]
        heads = ["&PREFIX", "SERVER", ">WAITS", "STATE", ">REFUSED", ">DROPPED"]
        print_table(heads, [tuple(value or "-" for value in row) for row in rows])
    else:
        note("nothing waits")
    left = any(any(_lost(one)) or (not one.recording and _undelivered(one)) for one in found)
    return PROBLEM if left else OK


def _lost(one: Waiting) -> tuple[int, int]:
    """Entries the server refused, and entries there was no room for."""
    return one.dead_letters, one.dropped


def _undelivered(one: Waiting) -> bool:
    return bool(one.streams or one.documents)


def _amount(one: Waiting) -> str:
    """What waits: entries in bytes; where only the run's status and parameters do, those."""
    return "run, parameters" if one.documents and not one.bytes else size(one.bytes)


def _state(one: Waiting) -> str:
    if one.recording:
        return "recording"
    return "waits: ml-dash sync" if _undelivered(one) else "delivered"


def _as_dict(one: Waiting) -> dict[str, object]:
    return {
        "prefix": one.destination.prefix,
        "url": one.destination.url,
        "folder": str(one.folder),
        "bytes": one.bytes,
        "streams": one.streams,
        "documents": one.documents,
        "recording": one.recording,
        "refused": one.dead_letters,
        "dropped": one.dropped,
    }
