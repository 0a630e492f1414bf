"""`ml-dash serve`: experiments over HTTP, from a folder or from MongoDB."""

from __future__ import annotations

import logging
from datetime import timedelta

import click

from . import options
from .output import note
from .token_command import Lifetime

_NEVER_S = 1e12
"""JSON, by which worker processes get the settings, knows no infinity."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for any free port.")
@options.root_option
@click.option("--mongo-uri", envvar="ML_DASH_MONGO_URI", help="Keep experiments in MongoDB (or ML_DASH_MONGO_URI).")
@click.option("--database", default="ml_dash", show_default=True, help="The database's name.")
@click.option("--s3-url", envvar="ML_DASH_S3_URL", help="Archive to s3://bucket/folder (or ML_DASH_S3_URL).")
@click.option(
    "--archive-after", default="1h", show_default=True, type=Lifetime(), help="Age at which compacted parts go to S3."
)
@click.option("--keep", default="never", type=Lifetime(), help="Delete entries so long after they came: 90d, 52w.")
@click.option(
    "--silent-after", default="2m", show_default=True, type=Lifetime(), help="A run not heard of for so long is silent."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Server processes.")
@click.option("--insecure-local", is_flag=True, help="No tokens: everybody on this machine may do everything.")
@click.option("--log", default="text", show_default=True, type=click.Choice(["text", "json"]), help="Form of the log.")
def serve(
    host: str,
    port: int,
    dash_root: str,
    mongo_uri: str | None,
    database: str,
    s3_url: str | None,
    archive_after: timedelta | None,
    keep: timedelta | None,
    silent_after: timedelta | None,
    workers: int,
    insecure_local: bool,
    log: str,
) -> None:
    """Serve experiments over HTTP, from a folder or from MongoDB.

    Nothing can be read without a token: make one with 'ml-dash token create'. Behind a proxy that speaks TLS the server
    listens on 127.0.0.1. Ctrl-C or SIGTERM stops it once running requests are answered.
    """
    try:
        from ..server.run import Settings, bind, set_up_logging
        from ..server.run import serve as run
    except ModuleNotFoundError as missing:
        from ..errors import MissingExtra

        raise MissingExtra(missing.name or "a module", "server") from missing
    settings = Settings(
        root=dash_root,
        mongo_uri=mongo_uri,
        database=database,
        s3_url=s3_url,
        archive_after_s=archive_after.total_seconds() if archive_after else None,
        keep_s=keep.total_seconds() if keep else None,
        silent_after_s=silent_after.total_seconds() if silent_after else _NEVER_S,
        host=host,
        port=port,
        workers=workers,
        insecure_local=insecure_local,
        log=log,
    )
    listening = bind(settings)
    where = f"[{host}]" if ":" in host else host
    set_up_logging(log)
    say = note if log == "text" else logging.getLogger("ml_dash.server").info
    say(f"serving {'MongoDB ' + database if mongo_uri else dash_root} at http://{where}:{listening.getsockname()[1]}")
    if insecure_local:
        say("without tokens, for this machine only")
    run(settings, listening)
