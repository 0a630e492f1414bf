"""What the demo says in the terminal: a progress bar, verdicts, a table, a plot, and what to try next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ml_dash import Experiment, TrackInfo

from ..cli.plot_text import ASCII, glyphs_for, plot
from .record import Contact, Tally
from .simulate import CYCLE_S, RATES_HZ, Placement


@contextmanager
def progress(console: Console, seconds: float) -> Iterator[Callable[[float], None]]:
    """A progress bar over the simulated time in seconds; without a terminal it is printed once, complete."""
    reached = TextColumn("{task.completed:.1f} of {task.total:.1f} s")
    with Progress(TextColumn("Simulating and recording"), BarColumn(), reached, console=console) as bar:
        task = bar.add_task("", total=seconds)
        yield lambda now: bar.update(task, completed=now)
        bar.update(task, completed=seconds)


def verdict(console: Console, good: bool, text: str) -> None:
    """One line with a tick or a cross before it."""
    marks = ("ok", "FAILED") if glyphs_for(console.encoding) is ASCII else ("✓", "✗")
    mark = (marks[0], "bold green") if good else (marks[1], "bold red")
    console.print(Text.assemble(mark, " ", text))


def recorded(console: Console, tallies: Mapping[str, Tally], simulated_s: float, elapsed_s: float) -> None:
    """How much was recorded, and how fast."""
    total = sum(tally.entries for tally in tallies.values())
    took = f"{simulated_s:.0f} s of robot time in {elapsed_s:.1f} s"
    verdict(console, True, f"recorded {total:,} entries in {len(tallies)} topics, {took}")


def placements(console: Console, cycles: list[Placement]) -> None:
    """Whether the block went where it should, on the strength of the simulated block itself."""
    lifted, miss = min(p.lifted_m for p in cycles) * 100, max(p.miss_m for p in cycles) * 1000
    placed = sum(p.succeeded for p in cycles)
    once = f"{miss:.1f} mm from its target, lifted {lifted:.0f} cm"
    often = f"{placed} of {len(cycles)} times, at most {miss:.1f} mm from its target"
    text = f"placed the block {once if len(cycles) == 1 else often}, held by friction alone"
    verdict(console, placed == len(cycles), text if placed == len(cycles) else f"did not place the block: {often}")


def compared(console: Console, written: Mapping[str, Tally], read: Mapping[str, Tally]) -> bool:
    """Whether reading gave what was recorded, value for value; names the topics that differ."""
    wrong = sorted(topic for topic in written.keys() | read.keys() if written.get(topic) != read.get(topic))
    total = sum(tally.entries for tally in read.values())
    same = f"read back {total:,} entries, every value equal to what was recorded"
    verdict(console, not wrong, f"read back {total:,} entries; different: {', '.join(wrong)}" if wrong else same)
    return not wrong


def contact(console: Console, found: Contact | None) -> None:
    """What the force track says about the grasp."""
    if found is None:
        verdict(console, False, "no contact found in sensors/force")
        return
    weighed = f"{found.load_n:.2f} N more, a block of {found.mass_kg * 1000:.0f} g"
    verdict(console, True, f"found the grasp in sensors/force at {found.start:.2f} s: {weighed}")


def window(console: Console, entries: Mapping[str, list[dict[str, Any]]], elapsed_s: float) -> None:
    """What lies in a window cut out of every topic."""
    total, grip = sum(map(len, entries.values())), max(e["force"] for e in entries["robot/gripper"])
    text = f"cut the second around it out of {len(entries)} topics: {total:,} entries in {elapsed_s * 1000:.0f} ms"
    verdict(console, total > 0, f"{text}, grip {grip:.0f} N")


def exported(console: Console, topic: str, path: Path, size_bytes: int) -> None:
    """Which file holds the export; its folder is shown with the files."""
    verdict(console, True, f"exported {topic} to Parquet, {decimal(size_bytes)}: files/{path.name}")


def topics(console: Console, run: Experiment) -> None:
    """The topics with what was measured of them, from the tracks' own list."""
    titles = ("Topic", "Rate", "Entries", "Size", "Bytes/entry", "First", "Last")
    shown = len(titles) if console.width >= 76 else 4
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles[:shown]:
        table.add_column(title, justify="left" if title == "Topic" else "right", no_wrap=True)
    for info in run.tracks.list():
        table.add_row(*_measured(info)[:shown])
    console.print()
    console.print(table)


def _measured(info: TrackInfo) -> tuple[str, ...]:
    first, last = info.first_timestamp or 0.0, info.last_timestamp or 0.0
    rate = f"{(info.count - 1) / (last - first):.1f} Hz" if info.topic in RATES_HZ else "on change"
    size = (decimal(info.size_bytes), f"{info.size_bytes / info.count:.0f}")
    return (info.topic, rate, f"{info.count:,}", *size, f"{first:.3f} s", f"{last:.3f} s")


def picture(console: Console, run: Experiment, found: Contact | None) -> None:
    """The block's height and the force at the wrist during the first cycle, on one time axis."""
    heights = {e["timestamp"]: e["pos"][2] * 100 for e in _first_cycle(run, "object/pose")}
    forces = {e["timestamp"]: e["fz"] for e in _first_cycle(run, "sensors/force")}
    columns = {
        "Force at the wrist (N): sensors/force, fz": list(forces.values()),
        "Height of the block (cm): object/pose, pos[2]": [heights.get(t) for t in forces],
    }
    marks = {found.start: "weight taken", found.end: "set down"} if found else {}
    glyphs = glyphs_for(console.encoding)
    drawn = plot(list(forces), columns, width=min(console.width, 100), height=5, glyphs=glyphs, marks=marks)
    console.print()
    console.print(Text(drawn, style="cyan"), soft_wrap=True)


def _first_cycle(run: Experiment, topic: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = run.tracks(topic).read(end_timestamp=CYCLE_S)["entries"]
    return entries


def next_steps(console: Console, commands: str, program: str, folder: Path) -> None:
    """Where the files are, and commands and a program that run as printed."""
    files = f"{folder}\n  tracks/robot_state/data.jsonl\n  files/robot_state.parquet"
    steps = (("Files", files), ("Try next, in the shell", commands), ("Try next, in Python", program))
    for title, body in steps:
        console.print(f"\n[bold]{title}[/bold]")
        for line in body.splitlines():
            console.print(Text(f"  {line}"), soft_wrap=True)


def commands(root: str, started_as: str) -> str:
    """Command lines that look at the recording; the program is named as it can be typed here."""
    below = os.path.relpath(started_as)
    name = below if os.path.isfile(started_as) and not below.startswith("..") else "ml-dash"
    place = "latest" if root == ".dash" else f"latest -r {shlex.quote(root)}"
    asked = (
        f"info {place} sensors/force",
        f"plot {place} robot/state 'q[1]' 'q[3]'",
        f"find {place} 'fz > 9' -t sensors/force --for 0.5",
    )
    return "\n".join(f"{shlex.quote(name)} {words}" for words in asked)


def snippet(prefix: str, root: str, found: Contact | None) -> str:
    """A program that reads the moment of the grasp."""
    start, end = found.around if found else (0.0, 1.0)
    return f"""\
import ml_dash
run = ml_dash.open({json.dumps(prefix)}, dash_root={json.dumps(root)})
force = run.tracks("sensors/force")
grasp = force.read(start_timestamp={start:.2f}, end_timestamp={end:.2f}, columns=["fz"])
print(max(entry["fz"] for entry in grasp["entries"]), "N at most")"""
