"""Options and arguments that commands share, and what they mean: roots, prefixes, topics, windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from .output import exact, note
from .reading import catalog_of as catalog_of
from .reading import place_of, topics_of, where
from .times import MomentType

if TYPE_CHECKING:
    from ..errors import MlDashError
    from ..experiment import Experiment
    from ..store import Entry, Store, Track, TrackInfo, Window
    from .reading import Place
    from .times import Moment

F = TypeVar("F", bound=Callable[..., Any])

LATEST = "latest"
KINDS = ("tracks", "metrics", "logs")


# ---------------------------------------------------------------- completion


def _root_of(ctx: click.Context) -> str:
    import os

    return str(ctx.params.get("dash_root") or os.environ.get("ML_DASH_ROOT") or ".dash")


def complete_prefix(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The prefixes that begin so."""
    try:
        known = place_of(_root_of(ctx)).prefixes()
    except Exception:
        return []  # completion has no place to complain
    return [CompletionItem(prefix) for prefix in [*known, LATEST] if prefix.startswith(incomplete)]


def complete_topic(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The topics of the experiment on the line that begin so."""
    try:
        place = place_of(_root_of(ctx))
        prefix = one_prefix(place, str(ctx.params.get("prefix") or LATEST))
        topics = topics_of(place.store(prefix), str(ctx.params.get("kind") or "tracks"))
    except Exception:
        return []
    return [CompletionItem(topic) for topic in sorted(topics) if topic.startswith(incomplete)]


# ---------------------------------------------------------------- options


def _root(help_: str) -> Callable[[F], F]:
    return click.option(
        "-r",
        "--dash-root",
        default=".dash",
        show_default=True,
        envvar="ML_DASH_ROOT",
        type=click.Path(),
        is_eager=True,
        help=help_,
    )


def root_option(command: F) -> F:
    """`--dash-root`."""
    return _root("Folder that holds the recordings (or ML_DASH_ROOT).")(command)


def place_option(command: F) -> F:
    """`--dash-root`, of commands that look at servers too."""
    return _root("Folder of the recordings, or a server's address (or ML_DASH_ROOT).")(command)


def prefix_argument(command: F) -> F:
    """The experiment: a prefix, or `latest`."""
    return click.argument("prefix", shell_complete=complete_prefix)(command)


def topics_argument(command: F) -> F:
    """Topics or patterns; none means all."""
    return click.argument("topics", nargs=-1, shell_complete=complete_topic)(command)


def kind_option(command: F) -> F:
    """Tracks, or one of the sequences."""
    return click.option(
        "-k",
        "--kind",
        default="tracks",
        show_default=True,
        type=click.Choice(KINDS),
        is_eager=True,
        help="What to read.",
    )(command)


def window_options(command: F) -> F:
    """`--start` and `--end`."""
    end = click.option("-e", "--end", type=MomentType(), help="Last time: seconds, +5, -2 or a date.")
    start = click.option("-s", "--start", type=MomentType(), help="First time: seconds, +5, -2 or a date.")
    return start(end(command))


def columns_option(command: F) -> F:
    """`--columns a,b.c`."""
    return click.option("-c", "--columns", help="Fields to keep, separated by commas: q,pose.x")(command)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


# ---------------------------------------------------------------- what they mean


def one_prefix(catalog: Place, text: str) -> str:
    """The prefix of one experiment: as it is, `latest`, or the path of its folder.

    Raises:
        ExperimentNotFound: with the nearest names, or those that a pattern matches.
    """
    from ..errors import ExperimentNotFound, InvalidPrefix

    if text == LATEST:
        return _latest(catalog)
    path = Path(text)
    if path.is_absolute() or text.startswith("."):
        text = _below(path, getattr(catalog, "root", None)) or text
    text = text.rstrip("/")
    try:
        return catalog.find(text).prefix
    except (ExperimentNotFound, InvalidPrefix) as error:
        raise _not_one(catalog, text, error) from None


def _not_one(catalog: Place, text: str, error: MlDashError) -> MlDashError:
    """What to say of a name that is no experiment's: a pattern or part of names, or nobody's."""
    from ..catalog import not_found
    from ..errors import ExperimentNotFound

    hits = catalog.prefixes(text) if text else []
    if hits:
        shown = ", ".join(hits[:3]) + (", ..." if len(hits) > 3 else "")
        return ExperimentNotFound(f"{text!r} is not the whole prefix of one experiment; it matches {shown}")
    swapped = _meant(catalog, text)
    if swapped:
        return ExperimentNotFound(
            f"no experiment {text!r} in {where(catalog)}; the prefix comes first: {swapped} {text}"
        )
    if text and text.count("/") < 2:
        return not_found(text, [*catalog.prefixes(), LATEST], where(catalog))
    return error


def _meant(catalog: Place, text: str) -> str | None:
    """The word behind the prefix on the command line that is a prefix, where the two were swapped."""
    context = click.get_current_context(silent=True)
    params = {} if context is None else context.params
    words = [*(params.get("topics") or ()), *(params.get(name) for name in ("topic", "expression", "query"))]
    known = set(catalog.prefixes())
    return next((word for word in words if word in known and word != text), None)


def _latest(catalog: Place) -> str:
    from ..errors import ExperimentNotFound

    known = [info for info in catalog.experiments() if info.started_at]
    if not known:
        raise ExperimentNotFound(f"nothing was recorded in {where(catalog)}")
    return max(known, key=lambda info: info.started_at or "").prefix


def _below(path: Path, root: Path | None) -> str | None:
    try:
        return None if root is None else path.resolve().relative_to(root).as_posix()
    except (ValueError, OSError):
        return None


def some_prefixes(catalog: Place, patterns: Sequence[str]) -> list[str]:
    """The experiments that match any pattern (all of them without one); raises ExperimentNotFound for one in vain."""
    if not patterns:
        return catalog.prefixes()
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [] if pattern == LATEST else catalog.prefixes(pattern)
        found.update(dict.fromkeys(hits or [one_prefix(catalog, pattern)]))
    return sorted(found)


def open_run(root: str, prefix: str) -> Experiment:
    """An experiment opened for reading; raises ExperimentNotFound with the nearest names."""
    from ..experiment import open_experiment

    catalog = catalog_of(root)
    return open_experiment(one_prefix(catalog, prefix), dash_root=catalog.root)


def matching(topics: Iterable[str], patterns: Sequence[str], prefix: str, kind: str = "tracks") -> list[str]:
    """The topics that match any pattern (all without one); raises TrackNotFound for one in vain."""
    from ..catalog import matches
    from ..errors import TrackNotFound
    from ..names import offer

    known = list(topics)
    found: set[str] = set(known if not patterns else ())
    for pattern in patterns:
        hits = {topic for topic in known if matches(topic, pattern)}
        if not hits:
            what = "topic" if kind == "tracks" else kind
            raise TrackNotFound(f"no {what} {pattern!r} in {prefix}; {offer(pattern, known)}")
        found |= hits
    return [topic for topic in known if topic in found]


def window_of(
    infos: Sequence[TrackInfo], start: Moment | None, end: Moment | None, columns: str | None = None
) -> Window:
    """The window on some series together: relative times count from the first and the last entry of them all."""
    from ..store import Window

    stamps = [stamp for info in infos for stamp in (info.first_timestamp, info.last_timestamp) if stamp is not None]
    first, last = min(stamps, default=None), max(stamps, default=None)
    low, high = (None if moment is None else moment.at(first, last) for moment in (start, end))
    if low is not None and high is not None and low > high:
        note(f"nothing is selected: --start, {exact(low)}, is after --end, {exact(high)}")
    return Window(low, high, _names(columns))


def _names(columns: str | None) -> tuple[str, ...] | None:
    if columns is None:
        return None
    names = tuple(name for part in columns.split(",") if (name := part.strip()))
    if not names:
        raise click.BadParameter("names no column", param_hint="--columns")
    return names


def check_columns(store: Store, tracks: Sequence[Track], columns: Sequence[str] | None) -> None:
    """Every column is one that some of the series has; raises InvalidWindow with the nearest names."""
    from ..errors import InvalidWindow
    from ..names import offer
    from ..store import Window, fixed_names

    for name in columns or ():
        fixed = name in fixed_names(tracks[0].kind) if tracks else True
        if not fixed and not any(_first(store, track, Window(columns=(name,))) for track in tracks):
            topics = ", ".join(track.topic for track in tracks[:3]) + (", ..." if len(tracks) > 3 else "")
            raise InvalidWindow(f"no column {name!r} in {topics}; {offer(name, _columns_of(store, tracks))}")


def _columns_of(store: Store, tracks: Sequence[Track]) -> list[str]:
    """The fields of some series, and the parts of those that are dicts in their first entries."""
    from ..store import Window

    chosen = {track.topic for track in tracks}
    infos = [info for kind in {track.kind for track in tracks} for info in store.tracks(kind)]
    parts = [part for track in tracks for entry in _first(store, track, Window()) for part in _parts(entry)]
    return list(dict.fromkeys([name for info in infos if info.topic in chosen for name in info.columns] + parts))


def _parts(value: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if above:
            yield f"{above}{name}"
        if isinstance(inner, dict):
            yield from _parts(inner, f"{above}{name}.")


def _first(store: Store, track: Track, window: Window) -> list[Entry]:
    """The first entries of a window."""
    return next(iter(store.read(track, window)), [])
