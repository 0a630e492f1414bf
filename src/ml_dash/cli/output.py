"""What commands print with: results on stdout, notes and progress on stderr, plain where the terminal is plain."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

UNLIMITED = 10_000
"""Columns of an output that no terminal shows: nothing is cut there."""

FOLD_AT = 40
"""A name up to this long is never folded."""

CUT_AT = 12
"""A column that is cut keeps so much."""

STATUS_STYLES = {"running": "green", "completed": "", "failed": "red", "crashed": "red", "cancelled": "yellow"}
STATUS_STYLES |= {"silent": "yellow"}
GOING_ON = ("running", "silent")
"""A run that may add something; one that its server does not hear of may be out of reach."""


def console(*, err: bool = False) -> Console:
    """A rich console: colours only on a terminal that has them, full width into files and pipes."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width_of(stream), stderr=err
    )


def width_of(stream: Any) -> int:
    """Characters in a line of the stream: the terminal's, `COLUMNS` where set, no limit elsewhere."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(int(os.environ["COLUMNS"]), 20)
    return shutil.get_terminal_size().columns if stream.isatty() else UNLIMITED


def has_unicode(stream: Any = None) -> bool:
    """Whether the output's encoding carries braille and box characters."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    try:
        "⣿█─│…".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def note(text: str) -> None:
    """A line for people, beside the result."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """A value as JSON; NaN and the infinities as the strings "NaN", "Infinity", "-Infinity"."""
    click.echo(json.dumps(spelled(value), indent=2, ensure_ascii=not has_unicode()))


def spelled(value: Any) -> Any:
    """The value with NaN and the infinities as the strings that JSON files of this package have for them."""
    if isinstance(value, dict):
        return {name: spelled(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelled(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, styles: Sequence[str] = ()) -> None:
    """Rows under headings.

    Args:
        columns: headings. One that begins with ">" aligns to the right, with "~" is cut where the line is too long,
            with "&" is folded there.
        styles: a rich style for each row.
    """
    from rich.table import Table

    rows = [*rows]
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, heading in enumerate(columns):
        longest = max((len(str(row[place])) for row in rows), default=0)
        table.add_column(
            heading.strip(">~&"),
            justify="right" if heading[0] == ">" else "left",
            no_wrap=heading[0] not in "~&",
            min_width=min(longest, FOLD_AT) if heading[0] == "&" else None,
        )
    for number, row in enumerate(rows):
        cells = [_cell(heading, cell) for heading, cell in zip(columns, row, strict=True)]
        table.add_row(*cells, style=styles[number] if number < len(styles) else None)
    screen = console()
    screen.width = max(screen.width, _least_width(columns, rows))  # the terminal folds: no figure loses its digits
    with screen.capture() as printed:
        screen.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """What a table needs so that only columns that may be cut or folded give way."""
    least = {"~": CUT_AT, "&": FOLD_AT}
    width = 0
    for place, heading in enumerate(columns):
        longest = max(len(heading.strip(">~&")), *(len(str(row[place])) for row in rows), 0)
        width += min(longest, least.get(heading[0], longest)) + 2
    return width


def _cell(heading: str, cell: Any) -> Any:
    from rich.text import Text

    if heading[0] != "~":
        return Text("" if cell is None else str(cell), overflow="fold")
    return Text("" if cell is None else str(cell), no_wrap=True, overflow="ellipsis" if has_unicode() else "crop")


def size(count: int | float) -> str:
    """A number of bytes: `812 B`, `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(value: float) -> str:
    """A number for people: six digits, no trailing noise."""
    return f"{value:.6g}"


def exact(value: float) -> str:
    """A number with the digits that make it the same float where it is copied to, and no more."""
    return repr(float(value))


def count(amount: int, what: str) -> str:
    """`1 entry`, `2 entries`."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{amount:,} {what if amount == 1 else plural}"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Progress bars on stderr; nothing where that is no terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    screen = console(err=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=quiet or not screen.is_terminal,
    )
    with bars:
        yield bars
