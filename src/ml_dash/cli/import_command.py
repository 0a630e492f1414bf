"""`ml-dash import`: recordings of others into an experiment."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, reading
from .ls_command import short_type
from .output import count, note, print_json, print_table, progress
from .times import date_of, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..importing import Options, Prepared, Report

FORMATS = ("csv", "tum", "euroc", "jsonl", "parquet", "npz")


@click.command("import")
@options.prefix_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("-n", "--dry-run", is_flag=True, help="Read and check everything, store nothing, show what would be.")
@click.option("-t", "--topic", help="Topic of a single file.  [default: the file's name]")
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), help="Default: by ending and content.")
@click.option("--time", help="The timestamp's column.  [default: the one that is called so]")
@click.option(
    "--unit", type=click.Choice(["s", "ms", "us", "ns", "iso"]), help="Of the timestamp.  [default: by name and size]"
)
@click.option("-g", "--group", multiple=True, help="Make a vector: p=x,y,z; 'auto' finds them by name. Repeatable.")
@click.option("-c", "--columns", help="Columns to keep, separated by commas.")
@click.option("--text", multiple=True, help="A column that is text even where it looks like numbers. Repeatable.")
@click.option("--missing", multiple=True, help="A cell that means no value (NA). An empty one always does. Repeatable.")
@click.option(
    "--wide/--no-wide", default=None, help="Whether '/' in names separates topics.  [default: if all have it]"
)
@click.option(
    "--depth", type=click.IntRange(1), help="Parts of a wide name that are the topic.  [default: all but one]"
)
@options.root_option
@options.json_option
def import_(prefix: str, files: tuple[str, ...], dry_run: bool, dash_root: str, as_json: bool, **how: Any) -> None:
    """Import TUM, EuRoC, CSV, JSON lines, Parquet or NumPy files.

    Everything is read and checked before anything is stored: a broken row, named by its line, leaves the experiment as
    it was, and so does a full disk or Ctrl-C. Rows merge with entries of the same timestamp. PREFIX is created where it
    does not exist; the run of one that does stays what it was.
    """
    from ..address import check_prefix

    reading.check_folder(dash_root)
    _check_files(prefix, files)
    check_prefix(prefix)
    wanted = _options(how)
    if wanted.topic is not None and len(files) > 1 and not how["wide"]:
        raise click.UsageError("--topic is for a single file; several files are topics by their names")
    with progress(quiet=as_json) as bars:
        prepared = [_prepared(Path(path), wanted, bars) for path in files]
        reports = [one.report for one in prepared]
        _check_topics(reports)
        if not dry_run:
            _store(prefix, dash_root, prepared, bars)
    if as_json:
        print_json({"prefix": prefix, "stored": not dry_run, "files": [asdict(report) for report in reports]})
        return
    _show(reports)
    rows = sum(report.rows for report in reports)
    note(f"{'would store' if dry_run else 'stored'} {count(rows, 'row')} in {prefix}")


def _check_files(prefix: str, files: Sequence[str]) -> None:
    for file in files:
        if not Path(file).is_file():
            what = "is a folder" if Path(file).is_dir() else "does not exist"
            hint = f": the prefix comes first, ml-dash import {file} {prefix}" if Path(prefix).is_file() else ""
            raise click.UsageError(f"file {file!r} {what}{hint}")


def _options(how: dict[str, Any]) -> Options:
    from ..importing import Options

    groups = dict(_group(text) for text in how["group"] if text != "auto")
    columns = how["columns"]
    return Options(
        format=how["form"],
        topic=how["topic"],
        time=how["time"],
        unit=how["unit"],
        groups=groups,
        auto_group=True if "auto" in how["group"] else None,
        columns=tuple(name.strip() for name in columns.split(",")) if columns is not None else None,
        text=how["text"],
        missing=how["missing"],
        wide=how["wide"],
        depth=how["depth"],
    )


def _group(text: str) -> tuple[str, tuple[str, ...]]:
    """`p=x,y,z`."""
    found = re.fullmatch(r"([^=,]+)=([^=]+,[^=]+)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no group: write p=x,y,z, or auto", param_hint="--group")
    return found[1].strip(), tuple(name.strip() for name in found[2].split(","))


def _prepared(path: Path, wanted: Options, bars: Any) -> Prepared:
    from ..importing import Prepared

    # A text file is read twice: to learn what its columns are, and for their values.
    with _task(bars, f"reading {path.name}", path, passes=2) as advance:
        return Prepared(path, wanted, advance)


@contextmanager
def _task(bars: Any, text: str, path: Path, passes: int = 1) -> Iterator[Callable[[int], None]]:
    total = path.stat().st_size * passes
    task = bars.add_task(text, total=total)
    yield lambda size: bars.advance(task, size)
    bars.update(task, completed=total)


def _check_topics(reports: Sequence[Report]) -> None:
    """Two files never become one topic unnoticed."""
    owners: dict[str, str] = {}
    for report in reports:
        for topic in report.topics:
            other = owners.setdefault(topic.topic, report.path)
            if other != report.path:
                raise click.UsageError(f"{other} and {report.path} both have topic {topic.topic!r}; import one by one")


def _store(prefix: str, root: str, prepared: Sequence[Prepared], bars: Any) -> None:
    from ..importing.whole import store_whole

    store_whole(prefix, root, prepared, lambda one: _task(bars, f"storing {one.path.name}", one.path))


def _show(reports: Sequence[Report]) -> None:
    rows: list[tuple[str, ...]] = []
    for report in reports:
        click.echo(f"{report.path}: {report.format}, time in {report.time_column!r} ({report.time_unit})")
        for text in report.notes:
            click.echo(f"  {text}")
        for topic in report.topics:
            fields = ", ".join(f"{name} {short_type(kind)}" for name, kind in topic.fields.items())
            first, last = topic.first_timestamp or 0.0, topic.last_timestamp or 0.0
            start = (date_of(first) or f"{first:.3f}").replace("T", " ").rstrip("Z")
            merged = f"{topic.repeated:,}" if topic.repeated else ""
            rows.append((topic.topic, f"{topic.rows:,}", merged, start, duration(last - first), fields))
    click.echo()
    headings = ["&TOPIC", ">ROWS", ">MERGED", ">START", ">SPAN", "~FIELDS"]
    if not any(row[2] for row in rows):
        headings, rows = headings[:2] + headings[3:], [row[:2] + row[3:] for row in rows]
    print_table(headings, rows)
