"""`ml-dash compact`, `recover`, `verify` and `du`: looking after what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .archive_command import compact_database, database_options
from .output import count, note, print_json, print_table, progress, size

if TYPE_CHECKING:
    from ..catalog import LocalCatalog
    from ..store import Track
    from ..stores.local import LocalStore

prefixes_argument = click.argument("prefixes", metavar="[PREFIX]...", nargs=-1, shell_complete=options.complete_prefix)

PROBLEM = 1


# ---------------------------------------------------------------- compact


@click.command()
@prefixes_argument
@click.option("--columns", is_flag=True, help="Also leave the columns and types beside the data, for all readers.")
@options.root_option
@database_options
@options.json_option
def compact(
    prefixes: tuple[str, ...],
    columns: bool,
    dash_root: str,
    mongo_uri: str | None,
    database: str,
    s3_url: str | None,
    as_json: bool,
) -> None:
    """Give every track one line per timestamp, ascending.

    Readers do that merging on the fly; afterwards they need not. Closing a run does it anyway, and so does a server in
    the background. With --mongo-uri the segments in a database are merged.
    """
    if mongo_uri and columns:
        raise click.UsageError("--columns is for folders")
    if mongo_uri:
        compact_database(prefixes, mongo_uri, database, s3_url, as_json)
        return
    catalog = options.catalog_of(dash_root)
    done: list[dict[str, Any]] = []
    chosen = options.some_prefixes(catalog, prefixes)
    with progress() as bars:
        task = bars.add_task("compacting", total=len(chosen))
        for prefix in chosen:
            bars.update(task, description=prefix)
            done += _compacted(catalog, prefix, columns=columns)
            bars.advance(task)
    if as_json:
        print_json(done)
    elif done:
        rows = [
            (one["prefix"], one["topic"], *(_size_of(one, f"{what}_bytes") for what in ("before", "after", "columns")))
            for one in done
        ]
        headings = ["&PREFIX", "&TOPIC", ">BEFORE", ">AFTER", ">COLUMNS MADE"]
        print_table(headings if columns else headings[:-1], rows if columns else [row[:-1] for row in rows])
    else:
        form = "that form and its columns" if columns else "that form"
        note(f"nothing to do: every track of {count(len(chosen), 'experiment')} has {form} already")


def _size_of(one: dict[str, Any], name: str) -> str:
    return size(one[name]) if name in one else ""


def _compacted(catalog: LocalCatalog, prefix: str, *, columns: bool) -> Iterator[dict[str, Any]]:
    """What was done to each track that something was done to."""
    from ..store import MERGED, Track

    store = _writable(catalog, prefix)
    try:
        if columns:
            store.tracks()  # leaves the types beside every track
        for track in (Track(MERGED, topic) for topic in store.topics()):
            found = _rewritten(store, track) | (_derived(store, track) if columns else {})
            if found:
                yield {"prefix": prefix, "topic": track.topic, **found}
    finally:
        store.close()


def _rewritten(store: LocalStore, track: Track) -> dict[str, int]:
    path = store.path_of(track)
    before = path.stat().st_size if path is not None and path.exists() else 0
    if path is None or not store.compact(track):
        return {}
    return {"before_bytes": before, "after_bytes": path.stat().st_size}


def _derived(store: LocalStore, track: Track) -> dict[str, int]:
    """The size of the columns that were made beside a track; nothing where they were there, or none can be kept."""
    from ..stores.sidecar import sidecar_path, wait_until_settled

    path = store.path_of(track)
    if path is None or not path.exists():
        return {}
    wait_until_settled(path)  # the compaction before may just have written it
    sidecar = sidecar_path(path)
    before = _identity(sidecar)
    store.table(track)
    return {"columns_bytes": sidecar.stat().st_size} if _identity(sidecar) not in (before, None) else {}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _writable(catalog: LocalCatalog, prefix: str) -> LocalStore:
    from ..stores.local import LocalStore

    return LocalStore(catalog.folder(prefix))


# ---------------------------------------------------------------- recover


@click.command()
@prefixes_argument
@options.root_option
@options.json_option
def recover(prefixes: tuple[str, ...], dash_root: str, as_json: bool) -> int:
    """Store what processes that died left in their journals.

    The next run of the experiment does the same; reading includes it anyway. Runs that are being recorded are left
    alone. Exit code 1 when a journal was damaged: its sound records are stored, and it is kept aside.
    """
    catalog = options.catalog_of(dash_root)
    found = [_recovered(catalog, prefix) for prefix in options.some_prefixes(catalog, prefixes)]
    found = [one for one in found if one["journals"] or one["damage"]]
    if as_json:
        print_json(found)
    else:
        for one in found:
            click.echo(
                f"{one['prefix']}: {count(one['journals'], 'journal')}, {count(one['entries'], 'entry')} recovered"
            )
            for damage in one["damage"]:
                click.echo(f"  {damage}")
        if not found:
            note("nothing to recover")
    return PROBLEM if any(one["damage"] for one in found) else 0


def _recovered(catalog: LocalCatalog, prefix: str) -> dict[str, Any]:
    from ..drain import Drain
    from ..journal_reader import is_alive, streams
    from ..spool import JOURNALS

    folder = catalog.folder(prefix) / JOURNALS
    dead = [stream for stream in streams(folder) if not is_alive(stream)]
    result: dict[str, Any] = {"prefix": prefix, "journals": 0, "entries": 0, "damage": []}
    if not dead:
        return result
    store = _writable(catalog, prefix)
    try:
        waiting = _waiting(catalog, prefix)
        drain = Drain(folder, store, None)
        with drain.exclusively() as free:
            result["journals"] = drain.recover() if free else 0
        if not any(is_alive(stream) for stream in streams(folder)):
            store.compact_all()
    finally:
        store.close()
    return {**result, "entries": waiting - _waiting(catalog, prefix), "damage": drain.damage}


def _waiting(catalog: LocalCatalog, prefix: str) -> int:
    """How many entries of an experiment are in journals only."""
    from ..store import Track

    view = catalog.store(prefix).view
    return sum(len(view.pending(Track(kind, t))) for kind in options.KINDS for t in view.pending_topics(kind))


# ---------------------------------------------------------------- verify


@click.command()
@prefixes_argument
@options.root_option
@click.option("-q", "--quiet", is_flag=True, help="Only problems, no notes.")
@options.json_option
def verify(prefixes: tuple[str, ...], dash_root: str, quiet: bool, as_json: bool) -> int:
    """Read every line and journal record, and check derived files.

    Nothing is changed. Exit code 1 when there is a problem; notes tell what the next use mends by itself.
    """
    from ..verify import size_to_verify
    from ..verify import verify as look

    catalog = options.catalog_of(dash_root)
    chosen = options.some_prefixes(catalog, prefixes)
    found: list[dict[str, Any]] = []
    with progress(quiet=as_json) as bars:
        task = bars.add_task("verifying", total=sum(size_to_verify(catalog.folder(prefix)) for prefix in chosen))
        for prefix in chosen:
            bars.update(task, description=prefix)
            for finding in look(catalog.folder(prefix), advance=lambda done: bars.advance(task, done)):
                place = finding.path.relative_to(catalog.root).as_posix()
                found.append({"prefix": prefix, "file": place, "problem": finding.problem, "text": finding.text})
    problems = sum(one["problem"] for one in found)
    if not chosen and not as_json:
        note(f"no experiments in {catalog.root}")
        return 0
    if as_json:
        print_json(found)
        return PROBLEM if problems else 0
    for one in found:
        if one["problem"] or not quiet:
            word = click.style("problem", fg="red") if one["problem"] else "note   "
            click.echo(f"{word}  {one['file']}: {one['text']}")
    note(f"{count(len(chosen), 'experiment')} verified, {count(problems, 'problem')}")
    return PROBLEM if problems else 0


# ---------------------------------------------------------------- du


@click.command()
@prefixes_argument
@click.option("-t", "--topics", is_flag=True, help="The topics of each experiment too.")
@options.root_option
@options.json_option
def du(prefixes: tuple[str, ...], topics: bool, dash_root: str, as_json: bool) -> None:
    """Show what experiments occupy on the disk.

    DATA is what was recorded; DERIVED (index, types, columns) can be deleted at any time; JOURNAL is not stored yet.
    """
    catalog = options.catalog_of(dash_root)
    chosen = options.some_prefixes(catalog, prefixes)
    found: list[dict[str, Any]] = [{"prefix": prefix, **_sizes(catalog.folder(prefix))} for prefix in chosen]
    if topics or (len(chosen) == 1 and len(prefixes) == 1):
        found = [one for prefix in chosen for one in _topic_sizes(catalog, prefix)]
    found.sort(key=lambda one: -sum(value for value in one.values() if isinstance(value, int)))
    if as_json:
        print_json(found)
        return
    if not found:
        note(f"no experiments in {catalog.root}")
        return
    rows = [_size_row(one) for one in found]
    names = ["&PREFIX", "&TOPIC"] if any("topic" in one for one in found) else ["&PREFIX"]
    total = {part: sum(one[part] for one in found) for part in PARTS}
    if len(found) > 1:
        rows.append(_size_row({"prefix": "total", **({"topic": ""} if len(names) > 1 else {}), **total}))
    print_table([*names, ">DATA", ">DERIVED", ">JOURNAL", ">ALL"], rows)


PARTS = ("data_bytes", "derived_bytes", "journal_bytes")


def _size_row(one: dict[str, Any]) -> tuple[str, ...]:
    parts = [one[part] for part in PARTS]
    names = [one["prefix"], one["topic"]] if "topic" in one else [one["prefix"]]
    return (*names, *(size(part) for part in parts), size(sum(parts)))


def _sizes(folder: Path) -> dict[str, int]:
    """What an experiment occupies; experiments below its folder are not part of it."""
    from ..address import RESERVED_SEGMENTS

    total = dict.fromkeys(PARTS, 0)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file():
            total["derived_bytes" if path.name.startswith(".") else "data_bytes"] += path.stat().st_size
        elif path.name in RESERVED_SEGMENTS or path.name.startswith("."):
            for part, amount in _sizes_below(path).items():
                total[part] += amount
    return total


def _sizes_below(folder: Path) -> dict[str, int]:
    total = dict.fromkeys(PARTS, 0)
    for path in folder.rglob("*"):
        try:
            amount = path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # gone meanwhile
        if folder.name == ".journal":
            total["journal_bytes"] += amount
        else:
            total["derived_bytes" if path.name.startswith(".") else "data_bytes"] += amount
    return total


def _topic_sizes(catalog: LocalCatalog, prefix: str) -> list[dict[str, Any]]:
    from ..files import FILES
    from ..stores.layout import Layout

    found = []
    for kind in options.KINDS:
        for topic, path in Layout(catalog.folder(prefix), FILES).topics(kind).items():
            name = topic if kind == "tracks" else f"{kind}: {topic}"
            found.append({"prefix": prefix, "topic": name, **_sizes_below(path.parent)})
    return found
