"""`ml-dash demo`: record a simulated arm, read it back, show what came of it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click

from ..address import check_prefix
from ..errors import MissingExtra, MlDashError
from . import reading


@click.command()
@click.option(
    "--dash-root",
    default=".dash",
    show_default=True,
    envvar="ML_DASH_ROOT",
    type=click.Path(file_okay=False),
    help="Folder that holds the recordings.",
)
@click.option("--prefix", help="owner/project/name of the recording.  [default: demo/arm/<date-time>]")
@click.option(
    "--cycles", default=1, show_default=True, type=click.IntRange(1, 1000), help="Pick-and-place cycles of 10 s each."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the block's place and the noise."
)
def demo(dash_root: str, prefix: str | None, cycles: int, seed: int) -> None:
    """Record a simulated robot arm that picks up a block and places it.

    Runs the physics of a 7-joint arm as fast as it goes, records its state, gripper, IMU, force sensor and camera at
    their own rates, reads everything back, exports a Parquet file and says where it all is. Needs the extra `demo`.
    """
    reading.check_folder(dash_root)
    try:
        _require()
        root = Path(dash_root).expanduser()
        succeeded = _run(str(root), _free_prefix(root, prefix), cycles, seed)
    except (MlDashError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if not succeeded:
        sys.exit(1)


def _require() -> None:
    """Say how to install the simulator before anything is created."""
    try:
        import mujoco  # noqa: F401
        import numpy  # noqa: F401
        import pyarrow  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError as missing:
        name = {"mujoco": "MuJoCo", "numpy": "NumPy"}.get(missing.name or "", missing.name or "a module")
        raise MissingExtra(name, "demo") from missing


def _run(dash_root: str, prefix: str, cycles: int, seed: int) -> bool:
    from rich.console import Console

    from ..demo.tour import tour

    return tour(Console(highlight=False), dash_root, prefix, cycles, seed)


def _free_prefix(root: Path, wanted: str | None) -> str:
    """The prefix to record under; a second demo never mixes with the first one's recording."""
    name = wanted or f"demo/arm/{datetime.now():%Y%m%d-%H%M%S}"
    if not root.joinpath(*check_prefix(name)).exists():
        return name
    if wanted:
        raise click.BadParameter(
            f"{wanted!r} is already recorded in {str(root)!r}: take another name", param_hint="--prefix"
        )
    numbered = (f"{name}-{n}" for n in range(2, 1000))
    return next(free for free in numbered if not root.joinpath(*free.split("/")).exists())
