"""`ml-dash plot`: columns over time in the terminal, or as a picture file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, reading
from .output import count, note, width_of

if TYPE_CHECKING:
    from ..store import Store, Track, Window
    from .series import Series
    from .times import Moment

MAX_PANELS = 8
DOTS = 2
"""Dot columns in a character."""


@click.command()
@options.prefix_argument
@click.argument("topic", shell_complete=options.complete_topic)
@click.argument("columns", nargs=-1)
@options.window_options
@click.option("-H", "--height", default=6, show_default=True, type=click.IntRange(2, 60), help="Lines of each panel.")
@click.option("-w", "--width", type=click.IntRange(30), help="Characters in a line.  [default: the terminal's]")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="A PNG, SVG or PDF file instead (extra `plot`).")
@options.kind_option
@options.place_option
def plot(
    prefix: str,
    topic: str,
    columns: tuple[str, ...],
    start: Moment | None,
    end: Moment | None,
    height: int,
    width: int | None,
    output: str | None,
    kind: str,
    dash_root: str,
) -> None:
    """Draw columns of a topic over time.

    With -k metrics or -k logs those, over their index. COLUMNS are fields or parts of them (q, 'q[0]', pose.x); none
    means the first that hold numbers. Every extreme value stays visible, however long the recording.
    """
    from ..store import Track

    catalog = reading.place_of(dash_root)
    prefix = options.one_prefix(catalog, prefix)
    store = catalog.store(prefix)
    track = Track(kind, options.matching(reading.topics_of(store, kind), [topic], prefix, kind)[0])
    window = _window(store, track, start, end)
    if output is not None:
        _save(store, track, window, columns, Path(output))
        return
    _draw(store, track, window, columns, height, width or min(width_of(sys.stdout), 160))


def _window(store: Store, track: Track, start: Moment | None, end: Moment | None) -> Window:
    infos = [info for info in store.tracks(track.kind) if info.topic == track.topic] if start or end else []
    return options.window_of(infos, start, end)


def _draw(store: Store, track: Track, window: Window, columns: Sequence[str], height: int, width: int) -> None:
    from .plot_text import glyphs_for, plot
    from .series import series_of

    series = series_of(store, track, window)
    stamps = _plain(series.times)
    chosen = _chosen(series, columns, track.topic, lambda: _other_types(store, track))
    shown = dict(list(chosen.items())[: MAX_PANELS if not columns else None])
    for_dots = width * DOTS * 2
    thin = {name: thinned(stamps, _plain(values), for_dots) for name, values in shown.items()}
    times, panels = _united(thin)
    unit = "s" if track.kind == "tracks" else ""
    click.echo(plot(times, panels, width=width, height=height, glyphs=glyphs_for(sys.stdout.encoding), unit=unit))
    if len(shown) < len(chosen):
        left = ", ".join(list(chosen)[len(shown) : len(shown) + 6])
        note(f"{count(len(chosen) - len(shown), 'more column')}, to draw by name: {left}")


def _other_types(store: Store, track: Track) -> Mapping[str, str]:
    return next((info.columns for info in store.tracks(track.kind) if info.topic == track.topic), {})


def _chosen(
    series: Series, columns: Sequence[str], topic: str, types: Callable[[], Mapping[str, str]]
) -> Mapping[str, Sequence[float | None]]:
    """The columns that were named, whole fields with all their parts; raises InvalidWindow for one in vain."""
    from ..errors import InvalidWindow
    from ..names import offer

    if not columns:
        return series.columns
    chosen: dict[str, Sequence[float | None]] = {}
    for column in columns:
        parts = {n: v for n, v in series.columns.items() if n == column or n.startswith((f"{column}[", f"{column}."))}
        if not parts and column in (known := types()):
            there = f"; with numbers: {', '.join(map(repr, series.columns))}" if series.columns else ""
            raise InvalidWindow(f"column {column!r} of {topic} holds no numbers but {_plainly(known[column])}{there}")
        if not parts:
            raise InvalidWindow(f"no column {column!r} with numbers in {topic}; {offer(column, series.columns)}")
        chosen.update(parts)
    return chosen


def _plainly(kind: str) -> str:
    return "text" if kind == "str" else kind


def _plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


Thin = list[tuple[float, float | None]]


def thinned(times: Sequence[float], values: Sequence[float | None], buckets: int) -> Thin:
    """Pairs that draw the same picture: of each stretch of time the first, least, greatest and last value.

    Values that are no finite number stay, because they break the line.
    """
    if len(times) <= buckets * 4:
        return list(zip(times, values, strict=True))
    start, scale = times[0], buckets / ((times[-1] - times[0]) or 1.0)
    kept: Thin = []
    bucket: Thin = []
    place = 0
    for time, value in zip(times, values, strict=True):
        if value is None:
            continue
        here = int((time - start) * scale)
        if here != place:
            kept += _extremes(bucket)
            bucket, place = [], here
        bucket.append((time, value))
    return kept + _extremes(bucket)


def _extremes(bucket: Thin) -> Thin:
    if len(bucket) <= 4:
        return bucket
    broken = [pair for pair in bucket if pair[1] != pair[1] or pair[1] in (float("inf"), float("-inf"))]
    finite = [pair for pair in bucket if pair not in broken] if broken else bucket
    if not finite:
        return broken[:1]
    low = min(finite, key=lambda pair: pair[1] or 0.0)
    high = max(finite, key=lambda pair: pair[1] or 0.0)
    return sorted({finite[0], low, high, finite[-1], *broken[:1]}, key=lambda pair: pair[0])


def _united(columns: Mapping[str, Thin]) -> tuple[list[float], dict[str, list[float | None]]]:
    """Columns of different instants on one time axis, None where a column has no value."""
    times = sorted({time for pairs in columns.values() for time, _ in pairs})
    places = {time: number for number, time in enumerate(times)}
    united: dict[str, list[float | None]] = {name: [None] * len(times) for name in columns}
    for name, pairs in columns.items():
        for time, value in pairs:
            united[name][places[time]] = value
    return times, united


def _save(store: Store, track: Track, window: Window, columns: Sequence[str], path: Path) -> None:
    from ..analysis.tabular import needs

    plots = needs(".plots")
    table = reading.table_of(store, track, window)
    if track.kind != "tracks":
        table = table.sort_by("timestamp").drop_columns(["index"])  # the time of logging
    plots.save(plots.plot(table, list(columns) or None, title=track.topic), path)
    note(f"wrote {path}")
