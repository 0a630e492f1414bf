"""What `ml-dash plot --output FILE` does: a picture of tracks over time, or of a path in space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..experiment import Experiment
    from ..store import Window


def write_picture(run: Experiment, topics: Sequence[str], window: Window, output: str) -> None:
    """Save a picture of the topics over time, a panel for each column.

    Args:
        window: its bounds, and its columns: of every topic that has them.
        output: a file whose ending says the format (`.png`, `.svg`, `.pdf`).

    Raises:
        ClickException: no topic has any of the columns.
        InvalidQuery, MissingExtra: nothing to draw, an ending nobody knows, no matplotlib.
    """
    run.plot(*_references(run, topics, window.columns), start=window.start, end=window.end, path=output)


def _references(run: Experiment, topics: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """`topic.column` for each topic that has the column; the topics themselves where none was chosen."""
    if columns is None:
        return list(topics)
    from ..columnar import field_of

    found = []
    for topic in topics:
        schema = run.tracks.table(topic).schema
        found += [f"{topic}.{column}" for column in columns if field_of(schema, column) is not None]
    if not found:
        raise click.ClickException(f"no column {', '.join(columns)} in {', '.join(topics)}")
    return found


def write_path(run: Experiment, topic: str, path: str, window: Window, order: str | None, output: str) -> None:
    """Save a picture of a path in 3D.

    Args:
        path: the columns of position and, after a comma, of orientation: `p` or `p,quat_wxyz`.
        order: of the quaternions, where the column's name does not say it.
    """
    position, _, orientation = path.partition(",")
    run.recording().track(topic).plot_path(
        position, orientation or None, window.start, window.end, order=order, path=output
    )
