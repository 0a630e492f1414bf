"""The demo from start to end: simulate and record, read back, weigh the block, export, and show all of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

import ml_dash

from . import show
from .record import Contact, Tally, export_parquet, find_contact, read_back, read_window, record
from .simulate import PickAndPlace

EXPORTED = "robot/state"


def tour(console: Console, dash_root: str, prefix: str, cycles: int, seed: int) -> bool:
    """Record the demo under `prefix` and show what came of it.

    Returns: whether the block was placed each time and everything recorded was read back equal.
    """
    folder = Path(dash_root, *prefix.split("/"))
    arm = PickAndPlace(cycles=cycles, seed=seed)
    console.print("A simulated 7-joint arm picks up a block and places it.\n", style="bold")
    recorded = _record(console, arm, dash_root, prefix, seed)
    with ml_dash.open(prefix, dash_root=dash_root) as run:
        show.placements(console, arm.placements)
        equal = show.compared(console, recorded, read_back(run, recorded, arm.seconds))
        contact = _contact(console, run, recorded)
        parquet = folder / "files" / f"{EXPORTED.replace('/', '_')}.parquet"
        show.exported(console, EXPORTED, parquet, export_parquet(run, EXPORTED, parquet))
        show.topics(console, run)
        show.picture(console, run, contact)
    commands = show.commands(dash_root, sys.argv[0])
    show.next_steps(console, commands, show.snippet(prefix, dash_root, contact), folder)
    return equal and all(placement.succeeded for placement in arm.placements)


def _record(console: Console, arm: PickAndPlace, dash_root: str, prefix: str, seed: int) -> dict[str, Tally]:
    started = time.perf_counter()
    with (
        ml_dash.Experiment(prefix=prefix, dash_root=dash_root).run as exp,
        show.progress(console, arm.seconds) as on_time,
    ):
        recorded = record(exp, arm, seed, on_time)
    show.recorded(console, recorded, arm.seconds, time.perf_counter() - started)
    return recorded


def _contact(console: Console, run: ml_dash.Experiment, topics: Iterable[str]) -> Contact | None:
    """Find the grasp in the force track, and cut the moment out of every topic."""
    found = find_contact(run)
    show.contact(console, found)
    if found:
        started = time.perf_counter()
        entries = read_window(run, topics, found.around)
        show.window(console, entries, time.perf_counter() - started)
    return found
