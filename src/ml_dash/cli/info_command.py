"""`ml-dash info`: what is known of a run; of a topic its rate, its holes, and for each column the range and course."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..store import MERGED
from . import options, reading
from .lines import cut, text_of
from .ls_command import print_topics, series_dict, series_of_run, short_type, status_text
from .output import count, exact, has_unicode, note, number, print_json, print_table, width_of
from .times import ago, date_of, duration, from_iso

if TYPE_CHECKING:
    from ..catalog import ExperimentInfo
    from ..store import Document, Store, TrackInfo, Window
    from .series import Pace, Series
    from .times import Moment

MAX_COLUMNS = 60
SPARK_WIDTH = 24


@click.command()
@options.prefix_argument
@options.topics_argument
@options.window_options
@click.option(
    "-a", "--all", "every", is_flag=True, help=f"All columns, however many (default: the first {MAX_COLUMNS})."
)
@options.kind_option
@options.place_option
@options.json_option
def info(
    prefix: str,
    topics: tuple[str, ...],
    start: Moment | None,
    end: Moment | None,
    every: bool,
    kind: str,
    dash_root: str,
    as_json: bool,
) -> None:
    """Show a run, or rate, holes, ranges and course of its topics.

    Without TOPICS: status, times, host, command, commit, parameters and the list of topics. With -k metrics or -k logs
    those instead of tracks, in the order of logging.
    """
    catalog = reading.place_of(dash_root)
    prefix = options.one_prefix(catalog, prefix)
    store = catalog.store(prefix)
    if not topics and kind == MERGED:
        _show_run(catalog, prefix, as_json)
        return
    infos = {one.topic: one for one in store.tracks(kind)}
    chosen = [infos[topic] for topic in options.matching(infos, topics, prefix, kind)]
    window = options.window_of(chosen, start, end)
    if as_json:
        print_json([_topic_dict(store, kind, one, window) for one in chosen])
        return
    if not chosen:
        note(f"no {kind} in {prefix}")
    for place, one in enumerate(chosen):
        if place:
            click.echo()
        _show_topic(store, kind, one, window, every)


# ---------------------------------------------------------------- a run


def _show_run(catalog: reading.Place, prefix: str, as_json: bool) -> None:
    store = catalog.store(prefix)
    document = store.read_document("experiment") or {}
    params = store.read_document("params") or {}
    found = catalog.find(prefix)
    series = series_of_run(catalog, prefix)
    if as_json:
        listed = {kind: [series_dict(one) for one in infos] for kind, infos in series.items()}
        folder = _folder(catalog, prefix)
        print_json({**document, **found.to_dict(), "folder": folder, "params": params, "topics": listed})
        return
    click.echo(click.style(prefix, bold=True))
    for name, value in _facts(document, found):
        click.echo(cut(f"  {name:<9} {value}", width_of(sys.stdout)))
    if params:
        click.echo(_folded("params", (f"{name}={text_of(value)}" for name, value in _flat(params))))
    click.echo(f"  {'folder':<9} {_folder(catalog, prefix)}\n")
    print_topics(series)


def _folded(name: str, values: Iterable[str]) -> str:
    """Values under one name, on as many lines as they need: parameters are what one looks up here."""
    width = width_of(sys.stdout)
    lines = [f"  {name:<9}"]
    for value in values:
        if len(lines[-1]) > 12 and len(lines[-1]) + len(value) >= width:
            lines.append(" " * 11)
        lines[-1] += f"{' ' if len(lines[-1]) == 11 else '  '}{value}"
    return "\n".join(lines)


def _folder(catalog: reading.Place, prefix: str) -> str:
    """Where it is: a folder, or a server."""
    folder = getattr(catalog, "folder", None)
    return reading.where(catalog) if folder is None else str(folder(prefix))


def _facts(document: Document, found: ExperimentInfo) -> Iterator[tuple[str, str]]:
    process = (document.get("processes") or [{}])[-1]
    error = [f"({process['error']})"] if process.get("error") else []
    yield "status", " ".join([status_text(found) or "unknown", *error])
    if document.get("started_at"):
        yield "started", f"{_when(document['started_at'])} ({ago(document['started_at'])}){_lasted(document)}"
    if process.get("host"):
        yield "host", f"{process['host']}, process {process.get('pid')}, Python {process.get('python')}"
    if process.get("command"):
        yield "command", " ".join(map(str, process["command"]))
    if process.get("git"):
        yield "commit", f"{process['git']['commit'][:12]}{' with changes' if process['git'].get('dirty') else ''}"
    if document.get("tags"):
        yield "tags", ", ".join(map(str, document["tags"]))
    if document.get("readme"):
        yield "readme", " ".join(str(document["readme"]).split())


def _when(text: str) -> str:
    when = from_iso(text)
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else text


def _lasted(document: Document) -> str:
    start, end = from_iso(document.get("started_at")), from_iso(document.get("ended_at"))
    return f", lasted {duration((end - start).total_seconds())}" if start and end else ""


def _flat(values: Document, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


# ---------------------------------------------------------------- a topic


def _topic_dict(store: Store, kind: str, info: TrackInfo, window: Window) -> dict[str, Any]:
    from .series import summary

    series, pace = _looked_at(store, kind, info, window)
    columns = {name: asdict(summary(series, name)) for name in series.columns}
    return {
        **series_dict(info),
        "entries": len(series.times),
        "rate_hz": pace.rate_hz,
        "usual_step_s": pace.usual_step_s,
        "least_step_s": pace.least_step_s,
        "greatest_step_s": pace.greatest_step_s,
        "gaps": [{"start": start, "length_s": length} for start, length in pace.gaps],
        "numbers": columns,
    }


def _looked_at(store: Store, kind: str, info: TrackInfo, window: Window) -> tuple[Series, Pace]:
    from ..store import Track
    from .series import pace_of, series_of

    series = series_of(store, Track(kind, info.topic), window)
    return series, pace_of(series.times if kind == MERGED else ())


def _show_topic(store: Store, kind: str, info: TrackInfo, window: Window, every: bool) -> None:
    series, pace = _looked_at(store, kind, info, window)
    click.echo(f"{click.style(info.topic, bold=True)}  {count(len(series.times), 'entry')}")
    for line in [*_extent(series), *_paces(pace)] if kind == MERGED else _indexes(series, info):
        click.echo(f"  {line}")
    shown = list(series.columns)[: None if every else MAX_COLUMNS]
    if shown:
        click.echo()
        print_table(
            ["&COLUMN", ">MIN", ">MEAN", ">MAX", ">ABSENT", "~COURSE"],
            [_column_row(name, series) for name in shown],
        )
    if len(shown) < len(series.columns):
        note(f"  and {count(len(series.columns) - len(shown), 'more column')}: --all shows them")
    others = [name for name in info.columns if not any(_is_part(part, name) for part in series.columns)]
    if others:
        click.echo("\n  no numbers: " + ", ".join(f"{name} {short_type(info.columns[name])}" for name in others))


def _is_part(part: str, name: str) -> bool:
    return part == name or part.startswith((f"{name}[", f"{name}."))


def _indexes(series: Series, info: TrackInfo) -> Iterator[str]:
    """Where a sequence begins and ends, and when it was logged."""
    if len(series.times):
        yield f"index {series.times[0] or 0:.0f} to {series.times[-1] or 0:.0f}"
    if info.first_timestamp is not None and info.last_timestamp is not None:
        first, last = date_of(info.first_timestamp), date_of(info.last_timestamp)
        yield f"logged {first} to {last}, {duration(info.last_timestamp - info.first_timestamp)}"


def _extent(series: Series) -> Iterator[str]:
    if not len(series.times):
        return
    first, last = series.times[0], series.times[-1]
    yield f"from {exact(first)} to {exact(last)}, {duration(last - first)}"
    if date_of(first):
        yield f"that is {date_of(first)} to {date_of(last)}"


def _paces(pace: Pace) -> Iterator[str]:
    if pace.rate_hz is None or pace.usual_step_s is None:
        return
    steps = ", ".join(duration(step) for step in (pace.least_step_s, pace.greatest_step_s))
    yield f"{pace.rate_hz:.4g} Hz; usual step {duration(pace.usual_step_s)} (least and greatest {steps})"
    if pace.gaps:
        longest = ", ".join(f"{duration(length)} at {exact(start)}" for start, length in pace.gaps[:3])
        yield f"{count(len(pace.gaps), 'gap')} of more than five usual steps; longest {longest}"
    else:
        yield "no gaps"


def _column_row(name: str, series: Series) -> tuple[str, ...]:
    from .series import sparkline, summary

    found = summary(series, name)
    low, mean, high = ("" if value is None else number(value) for value in (found.low, found.mean, found.high))
    course = sparkline(series, name, SPARK_WIDTH, unicode=has_unicode())
    if found.infinite:
        course += f"{'  ' if course else ''}{found.infinite:,} not finite"
    return name, low, mean, high, f"{found.absent:,}" if found.absent else "", course
