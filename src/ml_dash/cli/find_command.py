"""`ml-dash find` and `ml-dash sql`: when did it happen, in every run; and any other question."""

from __future__ import annotations

import sys
from typing import Any

import click

from . import options
from .output import count, exact, note, number, print_json, print_table


@click.command()
@click.argument("pattern", metavar="PREFIX", shell_complete=options.complete_prefix)
@click.argument("expression")
@click.option("-t", "--topic", help="The topic whose columns may stand alone in EXPRESSION.")
@click.option("--for", "for_s", type=float, default=0.0, metavar="SECONDS", help="Only windows at least this long.")
@click.option(
    "--max-gap", "max_gap_s", type=float, metavar="SECONDS", help="Windows end where no entry comes for this."
)
@options.root_option
@options.json_option
def find(
    pattern: str,
    expression: str,
    topic: str | None,
    for_s: float,
    max_gap_s: float | None,
    dash_root: str,
    as_json: bool,
) -> None:
    """Print the windows of time in which EXPRESSION is true.

    PREFIX may be a pattern ('alice/pick/*'). EXPRESSION compares columns: "norm(`sensors/force`.f) > 20 and not
    gripper.open"; topics with a slash stand in backticks. The exit code is 1 when nothing is found.
    """
    from ..search import find as find_moments

    catalog = options.catalog_of(dash_root)
    wanted = (
        pattern if pattern != options.LATEST and catalog.prefixes(pattern) else options.one_prefix(catalog, pattern)
    )
    found = find_moments(catalog, wanted, expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)
    moments = [_moment(one) for one in found]
    if as_json:
        print_json({"moments": moments, "skipped": found.skipped})
    else:
        rows = [
            (m["prefix"], exact(m["start"]), exact(m["end"]), number(m["duration_s"]), m["instants"]) for m in moments
        ]
        if rows:
            print_table(["&PREFIX", ">START", ">END", ">SECONDS", ">INSTANTS"], rows)
        note(f"{count(len(moments), 'window')}")
        for prefix, why in found.skipped.items():
            note(f"skipped {prefix}: {why}")
    if not moments:
        sys.exit(1)


def _moment(moment: Any) -> dict[str, Any]:
    names = ("prefix", "start", "end", "duration_s", "instants")
    return {name: getattr(moment, name) for name in names}


@click.command()
@options.prefix_argument
@click.argument("query")
@options.root_option
@options.json_option
def sql(prefix: str, query: str, dash_root: str, as_json: bool) -> None:
    """Answer a SQL query in which each topic is a table.

    Topics with a slash stand in double quotes: 'select max(f[3]) from "sensors/force"'. Needs the extra `sql`.
    """
    with options.open_run(dash_root, prefix) as run:
        table = run.sql(query)
    if as_json:
        print_json(table.to_pylist())
        return
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    print_table([f"&{name}" for name in table.schema.names], [[_shown(value) for value in row] for row in rows])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return exact(value)
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return "" if value is None else str(value)
