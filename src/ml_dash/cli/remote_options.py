"""What the commands that talk to a server share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..http_catalog import HttpCatalog

F = TypeVar("F", bound=Callable[..., Any])


def url_option(command: F) -> F:
    """`--url`."""
    return click.option("-u", "--url", envvar="ML_DASH_URL", help="The server: https://host (or ML_DASH_URL).")(command)


def token_option(command: F) -> F:
    """`--token`."""
    return click.option(
        "--token", envvar="ML_DASH_TOKEN", help="What the server knows you by; better in ML_DASH_TOKEN."
    )(command)


def server(url: str | None, token: str | None) -> HttpCatalog:
    """The server of the options; raises UsageError where none is named."""
    from ..http_catalog import HttpCatalog

    if not url:
        raise click.UsageError("Which server? Give --url, or set ML_DASH_URL.")
    return HttpCatalog(url, token)


def roots_of(dash_root: str) -> list[Path]:
    """Where something may wait for a server: a root, and the user's state folder."""
    from ..spool import state_folder

    return [Path(dash_root).expanduser().resolve(), state_folder() / "spool"]
