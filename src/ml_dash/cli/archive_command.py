"""`ml-dash archive` and `objects`, and `compact` for a database: the long-term form of what a server keeps.

`archive` and `compact` work on the database, not through a server: they are the operator's, take minutes, and a token,
which belongs to owners, does not grant them. They are safe beside running servers, which do the same in the background.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import options, remote_options
from .output import count, note, print_json, progress, size

if TYPE_CHECKING:
    from ..mongo_catalog import MongoCatalog

F = TypeVar("F", bound=Callable[..., Any])


def database_options(command: F) -> F:
    """`--mongo-uri`, `--database` and `--s3-url`, as `serve` has them."""
    bucket = click.option("--s3-url", envvar="ML_DASH_S3_URL", help="The archive: s3://bucket/folder (ML_DASH_S3_URL).")
    database = click.option("--database", default="ml_dash", show_default=True, help="The database's name.")
    mongo = click.option("--mongo-uri", envvar="ML_DASH_MONGO_URI", help="The MongoDB of a server (ML_DASH_MONGO_URI).")
    return mongo(database(bucket(command)))


def _catalog(mongo_uri: str, database: str, s3_url: str | None) -> MongoCatalog:
    from ..mongo_catalog import MongoCatalog

    return MongoCatalog(mongo_uri, database, s3_url=s3_url)


def _chosen(catalog: MongoCatalog, patterns: Sequence[str]) -> list[str]:
    """The experiments of the patterns, all of them without one; raises ClickException where a pattern meets none."""
    found: dict[str, None] = {}
    for pattern in patterns or ("*",):
        matching = catalog.prefixes(pattern)
        if not matching and patterns:
            raise click.ClickException(f"no experiment matches {pattern!r}")
        found |= dict.fromkeys(matching)
    return sorted(found)


def compact_database(patterns: Sequence[str], mongo_uri: str, database: str, s3_url: str | None, as_json: bool) -> None:
    """Merge the segments of experiments in a database; what they replace goes with the next upkeep of a server."""
    catalog = _catalog(mongo_uri, database, s3_url)
    try:
        chosen = _chosen(catalog, patterns)
        merged = _each(chosen, "compacting", catalog.compact)
    finally:
        catalog.close()
    if as_json:
        print_json([{"prefix": prefix, "merged": merged[prefix]} for prefix in chosen])
    else:
        note(f"{count(sum(merged.values()), 'segment')} of {count(len(chosen), 'experiment')} merged")


def _each(prefixes: Sequence[str], what: str, work: Callable[[str], int]) -> dict[str, int]:
    """The work's number for each experiment, with a bar."""
    done: dict[str, int] = {}
    with progress() as bars:
        task = bars.add_task(what, total=len(prefixes))
        for prefix in prefixes:
            bars.update(task, description=f"{what} {prefix}")
            done[prefix] = work(prefix)
            bars.advance(task)
    return done


# ---------------------------------------------------------------- archive


@click.command()
@click.argument("prefixes", metavar="[PREFIX]...", nargs=-1)
@database_options
@click.option("--no-wait", is_flag=True, help="Archive only what was compacted a minute ago or earlier.")
@options.json_option
def archive(
    prefixes: tuple[str, ...], mongo_uri: str | None, database: str, s3_url: str | None, no_wait: bool, as_json: bool
) -> None:
    """Move what is in MongoDB to S3, compacted.

    Segments are merged into Parquet parts; a minute later, when no reader needs what they replace, the parts are
    copied to the bucket. A server does the same in the background; this is for "now". It can be stopped and repeated
    at any time, beside running servers.
    """
    if not mongo_uri or not s3_url:
        raise click.UsageError("Which database, and where to? Give --mongo-uri and --s3-url, as to 'ml-dash serve'.")
    catalog = _catalog(mongo_uri, database, s3_url)
    try:
        chosen = _chosen(catalog, prefixes)
        merged = _each(chosen, "compacting", catalog.compact)
        if not no_wait:
            _settle(catalog, chosen)
        _each(chosen, "sweeping", catalog.sweep)
        stored = _each(chosen, "archiving", catalog.archive)
        found = {prefix: catalog.every_archived(prefix) for prefix in chosen}
    finally:
        catalog.close()
    rows = [_row(prefix, merged[prefix], stored[prefix], found[prefix]) for prefix in chosen]
    if as_json:
        print_json(rows)
        return
    sizes = size(sum(row["archived_bytes"] for row in rows))
    note(f"{count(sum(stored.values()), 'object')} stored, {sizes} of {count(len(chosen), 'experiment')} archived")
    for row in rows:
        if not row["exact"]:
            note(f"{row['prefix']}: a part of it is in the database only")


def _settle(catalog: MongoCatalog, prefixes: Sequence[str]) -> None:
    """Wait until what was merged may go."""
    waiting = [prefix for prefix in prefixes if catalog.is_settling(prefix)]
    if not waiting:
        return
    wait_s = catalog.policy.grace_s + 1.0
    note(f"waiting {wait_s:.0f} s for readers of what was merged")
    time.sleep(wait_s)


def _row(prefix: str, merged: int, stored: int, series: Sequence[Any]) -> dict[str, Any]:
    objects = [found for one in series for found in one.objects]
    return {
        "prefix": prefix,
        "merged": merged,
        "stored": stored,
        "objects": len(objects),
        "archived_bytes": sum(found.size_bytes for found in objects),
        "exact": all(one.exact for one in series),
    }


# ---------------------------------------------------------------- objects


@click.command()
@click.argument("prefix")
@click.argument("topic", required=False)
@options.kind_option
@remote_options.url_option
@remote_options.token_option
@options.json_option
def objects(prefix: str, topic: str | None, kind: str, url: str | None, token: str | None, as_json: bool) -> int:
    """Print the archive's objects, for DuckDB, Spark or Ray.

    One address a line. A pattern over the bucket may also meet objects that are about to go; this list does not. Exit
    code 1 where they are not the whole series, each instant once: 'ml-dash archive' makes them so.
    """
    from .. import wire

    server = remote_options.server(url, token)
    try:
        query = [("prefix", prefix), ("kind", kind), *([("topic", topic)] if topic else [])]
        answer = server.connection.send("GET", wire.OBJECTS, query)
        series = server.connection.decoded(answer.content)["series"]
    finally:
        server.close()
    if as_json:
        print_json(series)
    for one in series:
        if not as_json:
            for found in one["objects"]:
                click.echo(found["url"])
        if not one["exact"]:
            note(f"{one['topic']}: not all of it, or an instant more than once; 'ml-dash archive' helps")
    if not series:
        note("nothing is archived")
    return 0 if series and all(one["exact"] for one in series) else 1
