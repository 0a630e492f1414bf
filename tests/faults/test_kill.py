"""Row 1: SIGKILL at random times. Every append that returned is there, once, in every reading; no repair command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from . import figures
from .checks import FOLDER, check_clean, check_lanes, recover
from .processes import Counters, kill, start, wait_for
from .sizes import rng, seeds, size
from .writers import LANES, forking, mixed, slot, tight

ROUNDS = 4
"""Kills of one recording, one after another: each run goes on with what the killed one left."""


def _acknowledged(counters: Counters, writer: int) -> int:
    return sum(counters[slot(writer, lane)] for lane in LANES)


def _mode(number: int) -> tuple[str, str]:
    """Journals of both kinds, and every durability."""
    return (("map", "normal"), ("map", "normal"), ("write", "normal"), ("map", "off"), ("write", "strict"))[number % 5]


def _kill_again_and_again(
    folder: Path, seed: int, program: Callable[..., None], most: int, extra: Callable[[int], tuple[int, ...]]
) -> None:
    """Kill a writer after some appends, `most` at most, round after round: nothing that returned is missing.

    `extra` gives what the program is told beside the usual in each round.
    """
    random, counters = rng(program.__name__, seed), Counters(folder / "counters")
    journal, durability = _mode(seed)
    for number in range(ROUNDS):
        before, more = _acknowledged(counters, 0), random.randrange(1, most if durability != "strict" else 300)
        process = start(program, folder, counters.path, 0, durability, *extra(number), journal=journal)
        wait_for(lambda: _acknowledged(counters, 0) >= before + more, "appends", process)  # noqa: B023
        kill(process)
        figures.count("entries found after kills", check_lanes(folder, counters, 0))
        figures.count("kills of one writer")
    recover(folder)
    check_lanes(folder, counters, 0, exactly=True)
    check_clean(folder / FOLDER)


@pytest.mark.parametrize("seed", seeds(size(5, 50)))
def test_one_writer_at_full_speed(tmp_path: Path, seed: int) -> None:
    """A tight loop of appends, killed again and again: all that returned is read by a plain open."""
    _kill_again_and_again(tmp_path, seed, tight, 20_000, lambda number: ())


@pytest.mark.parametrize("seed", seeds(size(5, 70)))
def test_one_writer_with_flush_and_compaction(tmp_path: Path, seed: int) -> None:
    """Every kind of append, flush, compaction and reading at random, killed again and again: nothing is lost."""
    _kill_again_and_again(tmp_path, seed, mixed, 3_000, lambda number: (seed * 100 + number,))


@pytest.mark.parametrize("seed", seeds(size(3, 70)))
def test_three_writers_of_one_recording(tmp_path: Path, seed: int) -> None:
    """Three processes on one prefix, one killed while the others go on (and apply what it left), then all of them."""
    random, counters = rng("three", seed), Counters(tmp_path / "counters")
    journal, durability = _mode(seed)
    writers = (0, 1, 2)
    for number in range(2):
        before = [_acknowledged(counters, writer) for writer in writers]
        processes = [
            start(mixed, tmp_path, counters.path, one, durability, seed * 100 + number * 10 + one, journal=journal)
            for one in writers
        ]
        order = random.sample(writers, 3)
        for writer in order:
            more = random.randrange(1, 800 if durability != "strict" else 100)
            goal = before[writer] + more
            wait_for(lambda: _acknowledged(counters, writer) >= goal, "appends", processes[writer])  # noqa: B023
            kill(processes[writer])
            figures.count("kills with three writers")
        figures.count("entries found after kills", check_lanes(tmp_path, counters, *writers))
    recover(tmp_path)
    check_lanes(tmp_path, counters, *writers, exactly=True)
    check_clean(tmp_path / FOLDER)


@pytest.mark.parametrize("mode", ["idle", "appending", "late"])
@pytest.mark.parametrize("seed", seeds(size(1, 34)))
def test_parent_killed_while_its_child_lives_on(tmp_path: Path, seed: int, mode: str) -> None:
    """A forked child holds nothing of its dead parent: the next open takes the parent's journal, and does not wait."""
    random, counters = rng("forking", seed, mode), Counters(tmp_path / "counters")
    parent = start(forking, tmp_path, counters.path, seed, mode, journal=random.choice(["map", "write"]))
    wait_for(lambda: counters[slot(2, "shared")] == 1, "the child", parent)
    more = random.randrange(200, 2_000)
    wait_for(lambda: _acknowledged(counters, 0) >= more, "the parent's appends", parent)
    child = counters[slot(2, "own")]
    kill(parent)
    try:
        began = time.monotonic()
        recover(tmp_path)
        waited = time.monotonic() - began
        figures.most("ms, the longest opening beside a living child", round(waited * 1000))
        assert waited < size(10, 30), "recovery waited"  # a few passes of the child, each longer on a loaded machine
        left = [one.name for one in (tmp_path / FOLDER / ".journal").iterdir() if not one.name.startswith(".")]
        assert len(left) == (1 if mode == "appending" else 0) or mode == "late", "the parent's journal was not applied"
        if mode != "idle":
            wait_for(lambda: counters[slot(1, "metric")] > 4, "the child's appends")
    finally:
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: not _runs(child), "the child's end")
    figures.count("kills of a parent with a living child")
    check_lanes(tmp_path, counters, 0, 1)
    recover(tmp_path)
    check_lanes(tmp_path, counters, 0, 1, exactly=True)
    check_clean(tmp_path / FOLDER)


def _runs(process: int) -> bool:
    """Whether a process that is nobody's child of ours still runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()
