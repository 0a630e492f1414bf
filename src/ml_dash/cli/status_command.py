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
    was refused.
    """
    from ..spool import waiting

    found = list(waiting(roots_of(dash_root)))
    if as_json:
        print_json([_as_dict(one) for one in found])
    elif found:
        rows = [
            (one.destination.prefix, one.destination.url, size(one.bytes), _state(one), one.dead_letters or "-")
            for one in found
        ]
        print_table(["&PREFIX", "SERVER", ">WAITS", "STATE", ">REFUSED"], rows)
    else:
        note("nothing waits")
    return (
        PROBLEM
        if any(one.dead_letters or (not one.recording and (one.streams or one.documents)) for one in found)
        else OK
    )


def _state(one: Waiting) -> str:
    if one.recording:
        return "recording"
    return "waits: ml-dash sync" if one.streams or one.documents else "delivered"


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
    }
