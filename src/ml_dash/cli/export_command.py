"""`ml-dash export`: topics as files of other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from . import options, reading
from .output import note, progress, size

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..store import Entry, Store, Track, TrackInfo, Window
    from .times import Moment

FORMATS = ("jsonl", "json", "csv", "parquet", "mocap")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
ENDINGS = {"jsonl": ".jsonl", "json": ".json", "csv": ".csv", "parquet": ".parquet", "mocap": ".mocap.json"}


@click.command()
@options.prefix_argument
@options.topics_argument
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), help="Default: the ending of --output, else jsonl.")
@click.option("-o", "--output", type=click.Path(), help="A file, or for several topics a folder.  [default: stdout]")
@options.window_options
@options.columns_option
@options.kind_option
@options.place_option
def export(
    prefix: str,
    topics: tuple[str, ...],
    form: str | None,
    output: str | None,
    start: Moment | None,
    end: Moment | None,
    columns: str | None,
    kind: str,
    dash_root: str,
) -> None:
    """Write topics as JSON lines, JSON, CSV, Parquet or motion capture.

    Several topics go into a folder, a file each. A file appears when it is complete: one that was there before is
    replaced then.
    """
    from ..store import Track

    catalog = reading.place_of(dash_root)
    prefix = options.one_prefix(catalog, prefix)
    store = catalog.store(prefix)
    infos = {info.topic: info for info in store.tracks(kind)}
    chosen = [infos[topic] for topic in options.matching(infos, topics, prefix, kind)]
    form = form or SUFFIXES.get(Path(output or "").suffix, "jsonl")
    window = options.window_of(chosen, start, end, columns)
    options.check_columns(store, [Track(kind, info.topic) for info in chosen], window.columns)
    targets = _targets(chosen, output, form)
    if targets is None:
        _print(store, Track(kind, chosen[0].topic), window, form)
        return
    with progress() as bars:
        for info, path in zip(chosen, targets, strict=True):
            _write(_Job(store, Track(kind, info.topic), window, form, info.count, bars), path)
    note(f"wrote {', '.join(f'{path} ({size(path.stat().st_size)})' for path in targets[:4])}{_more(len(targets) - 4)}")


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _targets(chosen: Sequence[TrackInfo], output: str | None, form: str) -> list[Path] | None:
    """The file of each topic; None for stdout."""
    if not chosen:
        raise click.ClickException("nothing was recorded there")
    if output is None:
        if len(chosen) > 1:
            raise click.UsageError(f"{len(chosen)} topics need a folder: -o FOLDER (or name one topic)")
        return None
    path = Path(output)
    if len(chosen) == 1 and not (path.is_dir() or output.endswith(("/", os.sep))):
        return [path]
    if not path.is_dir() and (path.exists() or path.suffix in SUFFIXES):
        raise click.UsageError(f"{path} is a file's name; {len(chosen)} topics need a folder")
    return [path / f"{name}{ENDINGS[form]}" for name in _names([info.topic for info in chosen])]


def _names(topics: Sequence[str]) -> list[str]:
    """File names as the recorder's own folders are named: none taken twice."""
    from ..address import folder_for, identity

    owners: dict[str, str] = {}
    names = []
    for topic in topics:
        name = folder_for(topic, owners.get)
        owners[identity(name)] = topic
        names.append(name)
    return names


def _print(store: Store, track: Track, window: Window, form: str) -> None:
    if form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text: give a file, -o FILE.parquet")
    sys.stdout.flush()
    for chunk in _Job(store, track, window, form, 0, None).chunks():
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _write(job: _Job, path: Path) -> None:
    """The file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            job.into(file)
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(unfinished):
            error.filename = str(path)  # the name that was given
        raise


class _Job:
    """One topic on its way into one file."""

    def __init__(
        self, store: Store, track: Track, window: Window, form: str, count: int, bars: Progress | None
    ) -> None:
        self._store, self._track, self._window, self._form = store, track, window, form
        self._bars = bars
        self._task = bars.add_task(track.topic, total=count * (2 if form == "csv" else 1)) if bars else None

    def into(self, file: IO[bytes]) -> None:
        """Write the topic."""
        if self._form == "parquet":
            self._parquet(file)
            return
        for chunk in self.chunks():
            file.write(chunk)

    def chunks(self) -> Iterator[bytes]:
        """The file's content, a piece at a time where the format allows."""
        makers: dict[str, Callable[[], Iterable[bytes]]] = {
            "jsonl": self._jsonl,
            "json": self._json,
            "csv": self._csv,
            "mocap": self._mocap,
            "parquet": self._parquet_bytes,
        }
        yield from makers[self._form]()

    def _blocks(self) -> Iterator[list[Entry]]:
        for block in reading.blocks_of(self._store, self._track, self._window):
            yield block
            if self._bars is not None and self._task is not None:
                self._bars.advance(self._task, len(block))

    def _jsonl(self) -> Iterator[bytes]:
        from ..formats.json import to_jsonl

        for block in self._blocks():
            yield to_jsonl(self._track.topic, iter([block]))

    def _json(self) -> Iterator[bytes]:
        count = 0
        yield b'{"entries":['
        for lines in self._jsonl():
            entries = lines.splitlines()
            yield (b"," if count else b"") + b",".join(entries)
            count += len(entries)
        yield b'],"count":%d}\n' % count

    def _csv(self) -> Iterator[bytes]:
        from ..formats.csv import csv_chunks

        return csv_chunks(self._blocks)

    def _mocap(self) -> Iterator[bytes]:
        import orjson

        from ..formats.mocap import to_mocap
        from .output import spelled

        yield orjson.dumps(spelled(to_mocap(self._track.topic, self._blocks()))) + b"\n"

    def _parquet_bytes(self) -> Iterator[bytes]:
        import io

        buffer = io.BytesIO()
        self._parquet(buffer)
        yield buffer.getvalue()

    def _parquet(self, file: IO[bytes]) -> None:
        from ..formats.parquet import stream_parquet

        table: Any = reading.table_of(self._store, self._track, self._window)
        stream_parquet(table.schema, [table], file)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=table.num_rows, total=table.num_rows)
