"""`ml-dash ls`: experiments with their status, and the topics of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from . import options, reading
from .output import STATUS_STYLES, count, note, print_json, print_table, size
from .times import ago, duration, from_iso

if TYPE_CHECKING:
    from ..catalog import ExperimentInfo
    from ..store import TrackInfo


@click.command()
@click.argument("patterns", metavar="[PREFIX]...", nargs=-1, shell_complete=options.complete_prefix)
@click.option("-t", "--topics", is_flag=True, help="The topics of each experiment too.")
@options.place_option
@options.json_option
def ls(patterns: tuple[str, ...], topics: bool, dash_root: str, as_json: bool) -> None:
    """List experiments with their status, or the topics of one.

    PREFIX may be a pattern ('alice/*') or a part of the path; one experiment's own prefix lists its topics.
    """
    catalog = reading.place_of(dash_root)
    found = [catalog.find(prefix) for prefix in options.some_prefixes(catalog, patterns)]
    one = len(found) == 1 and len(patterns) == 1 and patterns[0] in (found[0].prefix, options.LATEST)
    if as_json:
        print_json([_as_dict(catalog, info, topics or one) for info in found])
    elif one or topics:
        for number, info in enumerate(found):
            click.echo("\n" * (number > 0) + _headline(info))
            print_topics(series_of_run(catalog, info.prefix))
    elif found:
        _print_experiments(found)
    else:
        note(f"no experiments in {reading.where(catalog)}")


def _as_dict(catalog: reading.Place, info: ExperimentInfo, topics: bool) -> dict[str, Any]:
    listed = {kind: [series_dict(one) for one in infos] for kind, infos in series_of_run(catalog, info.prefix).items()}
    return {**info.to_dict(), "topics": listed} if topics else info.to_dict()


def series_dict(info: TrackInfo) -> dict[str, Any]:
    """A series as plain values, for JSON."""
    return {
        "topic": info.topic,
        "entries": info.count,
        "first_timestamp": info.first_timestamp,
        "last_timestamp": info.last_timestamp,
        "size_bytes": info.size_bytes,
        "columns": dict(info.columns),
    }


def series_of_run(catalog: reading.Place, prefix: str) -> dict[str, list[TrackInfo]]:
    """Every series of an experiment by kind."""
    store = catalog.store(prefix)
    return {kind: store.tracks(kind) for kind in options.KINDS}


def _headline(info: ExperimentInfo) -> str:
    words = [info.prefix, status_text(info), ago(info.started_at), _lasted(info)]
    return "  ".join(word for word in words if word)


def status_text(info: ExperimentInfo) -> str:
    """The status; of a run that is not heard of, since when."""
    silent = info.status == "silent" and info.last_heard
    return f"{info.status}, last heard {ago(info.last_heard)}" if silent else info.status or ""


def _lasted(info: ExperimentInfo) -> str:
    start, end = from_iso(info.started_at), from_iso(info.ended_at)
    return duration((end - start).total_seconds()) if start and end else ""


def _print_experiments(found: list[ExperimentInfo]) -> None:
    rows = [(i.prefix, status_text(i) or "-", i.tracks, ago(i.started_at), _lasted(i), " ".join(i.tags)) for i in found]
    headings = ["&PREFIX", "STATUS", ">TRACKS", ">STARTED", ">LASTED"]
    if any(info.tags for info in found):
        headings.append("~TAGS")
    rows = [row[: len(headings)] for row in rows]  # type: ignore[misc]
    print_table(headings, rows, styles=[STATUS_STYLES.get(info.status or "", "dim") for info in found])


def print_topics(series: dict[str, list[TrackInfo]]) -> None:
    """The series of an experiment as a table."""
    rows = [
        (
            info.topic if kind == "tracks" else f"{kind}: {info.topic}",
            f"{info.count:,}",
            _span(info),
            rate(info) if kind == "tracks" else "",
            size(info.size_bytes),
            ", ".join(f"{name} {short_type(kind)}" for name, kind in info.columns.items()),
        )
        for kind, infos in series.items()
        for info in infos
    ]
    if rows:
        print_table(["&TOPIC", ">ENTRIES", ">SPAN", ">RATE", ">SIZE", "~COLUMNS"], rows)
    else:
        note(f"  {count(0, 'topic')}")


def short_type(name: str) -> str:
    """A column's type in few characters: `float[7]` for `list[float; 7]`."""
    return re.sub(r"list\[([^;\[]*); (\.\.\.|\d+)\]", lambda m: f"{m[1]}[{'' if m[2] == '...' else m[2]}]", name)


def _span(info: TrackInfo) -> str:
    if info.first_timestamp is None or info.last_timestamp is None:
        return ""
    return duration(info.last_timestamp - info.first_timestamp)


def rate(info: TrackInfo) -> str:
    """The mean rate of a track's entries: `100 Hz`."""
    if info.first_timestamp is None or info.last_timestamp is None or info.last_timestamp == info.first_timestamp:
        return ""
    return f"{(info.count - 1) / (info.last_timestamp - info.first_timestamp):.4g} Hz"
