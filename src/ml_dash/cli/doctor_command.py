"""`ml-dash doctor`: is a recording sound?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from . import options
from .output import count, print_json, print_table

if TYPE_CHECKING:
    from ..analysis.doctor import Limits, Report

LIMIT_HELP = (
    "A threshold, NAME=VALUE; may be given several times. Names: entries, rate_share, drop_share, jitter_share, "
    "irregular_share, gap_intervals, jump_s, jump_intervals, repeat_share, late_share, nan_share, flat_s, "
    "flat_intervals, freeze_s, freeze_share, stop_s, stop_intervals."
)


@click.command()
@options.prefix_argument
@options.topics_argument
@click.option("--rate", "rates", multiple=True, metavar="TOPIC=HZ", help="A declared rate; missing it is a problem.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help=LIMIT_HELP)
@options.root_option
@options.json_option
def doctor(
    prefix: str, topics: tuple[str, ...], rates: tuple[str, ...], limits: tuple[str, ...], dash_root: str, as_json: bool
) -> None:
    """Check a recording: rates, jitter, gaps, stamps, NaN, flat sensors, topics that stop early.

    Columns whose type or length changes are found too. The exit code is 1 when there is a problem, 0 when there is
    none; notes do not count. Needs the extra `analysis`.
    """
    declared = {topic: _number(value, "--rate") for topic, value in _pairs(rates, "--rate")}
    thresholds = _limits(limits)
    with options.open_run(dash_root, prefix) as run:
        known = run.recording().topics()
        report = run.doctor(*options.matching(known, topics, run.prefix), limits=thresholds, rates_hz=declared)
        if as_json:
            print_json({"prefix": run.prefix, **report.to_dict()})
        else:
            _print(report)
    if not report.ok:
        sys.exit(1)


def _print(report: Report) -> None:
    from ..analysis.doctor import HEADINGS

    headings = [HEADINGS[0], *(f">{heading}" for heading in HEADINGS[1:])]
    lines = report.lines()
    print_table(
        [name.upper() for name in headings], lines, styles=["" if line[-1] == "ok" else "red" for line in lines]
    )
    if report.findings:
        click.echo()
    for text in report.texts():
        click.echo(text)
    if report.problems:
        click.echo(f"\n{count(len(report.problems), 'problem')}")


def _limits(given: tuple[str, ...]) -> Limits:
    from dataclasses import fields

    from ..analysis.checks import Limits

    known = {field.name: field.type for field in fields(Limits)}
    values: dict[str, float] = {}
    for name, value in _pairs(given, "--limit"):
        if name not in known:
            raise click.UsageError(f"--limit {name}: no such threshold; names: {', '.join(known)}")
        number = _number(value, f"--limit {name}")
        values[name] = int(number) if known[name] == "int" else number
    return Limits(**values)  # type: ignore[arg-type]


def _pairs(given: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    pairs = [tuple(one.rsplit("=", 1)) for one in given]
    for one, pair in zip(given, pairs, strict=True):
        if len(pair) != 2 or not pair[0]:
            raise click.UsageError(f"{option} {one!r}: write NAME=VALUE")
    return [(name, value) for name, value in pairs]


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text!r} is no number") from None
