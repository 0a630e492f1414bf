"""`ml-dash rm`: delete an experiment, topics of it, or a stretch of time, here or on a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from . import options
from .output import count, note, size
from .reading import place_of

if TYPE_CHECKING:
    from ..catalog import LocalCatalog
    from ..http_catalog import HttpCatalog
    from ..store import Store, TrackInfo
    from .times import Moment

    Changeable = LocalCatalog | HttpCatalog


@click.command()
@options.prefix_argument
@options.topics_argument
@options.kind_option
@options.window_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.place_option
def rm(
    prefix: str,
    topics: tuple[str, ...],
    kind: str,
    start: Moment | None,
    end: Moment | None,
    yes: bool,
    dash_root: str,
) -> None:
    """Delete an experiment, some of its topics, or a stretch of time, for good.

    PREFIX is one experiment, no pattern; TOPICS may be patterns. With --start or --end only what lies between goes, of
    TOPICS or of every track. Asks before anything is deleted.
    """
    place: Changeable = place_of(dash_root)  # type: ignore[assignment]
    prefix = options.one_prefix(place, prefix)
    if start is not None or end is not None:
        _remove_window(place, prefix, topics, kind, start, end, yes)
    elif topics or _is_given("kind"):  # "-k logs" alone is all the logs, and nothing else
        _remove_topics(place, prefix, topics, kind, yes)
    else:
        _confirm(f"Delete {prefix} with {_amount(place.store(prefix))}?", yes)
        place.remove(prefix)
        note(f"deleted {prefix}")


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _remove_topics(place: Changeable, prefix: str, topics: Sequence[str], kind: str, yes: bool) -> None:
    from ..store import Track

    with _changing(place, prefix) as store:
        chosen = options.matching([info.topic for info in store.tracks(kind)], topics, prefix, kind)
        _confirm(f"Delete {', '.join(chosen)} of {prefix}?", yes)
        for topic in chosen:
            store.remove(Track(kind, topic))
    note(f"deleted {count(len(chosen), 'topic')} of {prefix}")


def _remove_window(
    place: Changeable,
    prefix: str,
    topics: Sequence[str],
    kind: str,
    start: Moment | None,
    end: Moment | None,
    yes: bool,
) -> None:
    from ..store import MERGED, Track

    if kind != MERGED:
        raise click.UsageError(f"--start and --end are for tracks: a part of {kind} would move the indexes behind it")
    with _changing(place, prefix) as store:
        infos = {info.topic: info for info in store.tracks()}
        chosen = options.matching(infos, topics, prefix)
        window = options.window_of([infos[topic] for topic in chosen], start, end)
        hit = [topic for topic in chosen if _overlaps(infos[topic], window.start, window.end)]
        if not hit:
            return note(f"nothing of {prefix} lies there")
        _confirm(f"Delete {_said(window.start, window.end)} of {', '.join(hit)} in {prefix}?", yes)
        for topic in hit:
            store.remove_window(Track(MERGED, topic), window.start, window.end)
    return note(f"deleted {_said(window.start, window.end)} of {count(len(hit), 'topic')} in {prefix}")


def _overlaps(info: TrackInfo, start: float | None, end: float | None) -> bool:
    if info.first_timestamp is None or info.last_timestamp is None:
        return False
    return (start is None or start <= info.last_timestamp) and (end is None or end >= info.first_timestamp)


def _said(start: float | None, end: float | None) -> str:
    if start is None:
        return f"everything up to {end} s"
    return f"everything from {start} s on" if end is None else f"everything from {start} s to {end} s"


@contextmanager
def _changing(place: Changeable, prefix: str) -> Iterator[Store]:
    """The store of an experiment, to be changed; here with what dead processes left in it, and not while it runs."""
    from ..catalog import LocalCatalog

    store: Store = _local(place, prefix) if isinstance(place, LocalCatalog) else place.store(prefix)
    try:
        yield store
    finally:
        store.close()


def _local(catalog: LocalCatalog, prefix: str) -> Store:
    from ..drain import Drain
    from ..errors import MlDashError
    from ..journal_reader import is_alive, streams
    from ..spool import JOURNALS
    from ..stores.local import LocalStore

    folder = catalog.folder(prefix)
    if any(is_alive(stream) for stream in streams(folder / JOURNALS)):
        raise MlDashError(f"{prefix} is being recorded now; end the run first")
    store = LocalStore(folder)
    drain = Drain(folder / JOURNALS, store, None)
    with drain.exclusively() as free:
        if free:
            drain.recover()
    return store


def _amount(store: Store) -> str:
    infos = [info for kind in ("tracks", "metrics", "logs") for info in store.tracks(kind)]
    topics = sum(info.topic != "logs" for info in infos)
    return f"{count(topics, 'topic')}, {size(sum(info.size_bytes for info in infos))}"


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody to ask: give --yes to delete without asking")
    click.confirm(question, abort=True, err=True)
