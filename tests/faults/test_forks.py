"""Forks: a child writes a journal of its own, holds nothing of its parent's, and loses nothing, however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checks import FOLDER, check_clean
from .processes import Counters, finish, start
from .programs import (
    busy_parent,
    child_after_failed_start,
    child_in_background,
    child_leaves_the_block,
    fork_in_every_state,
    nested_forks,
    worker_pool,
)
from .writers import PREFIX


def _run(root: Path, program: object, *args: object, journal: str = "") -> dict[str, list[float]]:
    """Run a program to its good end, and read the numbers of every track."""
    import ml_dash

    counters = Counters(root / "counters")
    finish(start(program, root, counters.path, *args, journal=journal))  # type: ignore[arg-type]
    with ml_dash.open(PREFIX, dash_root=root) as exp:
        assert exp.status == "completed"
        found = {
            info.topic: [entry["n"] for entry in exp.tracks(info.topic).list_entries()] for info in exp.tracks.list()
        }
        found["metric"] = [
            entry["n"] for info in exp.metrics.list() for entry in exp.metrics(info.topic).read()["entries"]
        ]
    check_clean(root / FOLDER)
    return found


@pytest.mark.parametrize("ending", ["_exit", "exit", "close", "exception"])
def test_worker_pool(tmp_path: Path, journal_mode: str, ending: str) -> None:
    """Workers as a DataLoader makes them: each appends to its own and to a shared track; all of it is there at the end,
    whether the workers close, exit or end without a word."""
    found = _run(tmp_path, worker_pool, ending, journal=journal_mode)
    assert found["parent"] == list(range(3000))
    for worker in range(3):
        assert found[f"worker/{worker}"] == list(range(800))
    assert found["shared"] == list(range(3 * 800))
    assert sorted(found["metric"]) == sorted(list(range(50)) * 4)


def test_nested_forks(tmp_path: Path, journal_mode: str) -> None:
    """A child's child, whose parent has gone: each generation's entries are there."""
    found = _run(tmp_path, nested_forks, journal=journal_mode)
    assert found == {f"generation/{n}": list(range(200)) for n in range(4)} | {"metric": []}


def test_fork_while_threads_are_at_work(tmp_path: Path, journal_mode: str) -> None:
    """Threads append, flush, read and compact while the main thread forks again and again: no child hangs, none keeps
    a lock, nothing is lost."""
    found = _run(tmp_path, busy_parent, 25, journal=journal_mode)
    for child in range(25):
        assert found[f"child/{child}"] == list(range(20))
    for thread in range(3):
        assert found[f"thread/{thread}"] == list(range(len(found[f"thread/{thread}"])))
        assert len(found[f"thread/{thread}"]) > 100


def test_fork_in_every_state(tmp_path: Path) -> None:
    """Forked before the first append, after it, after a flush, inside a pass of the drain, after a full segment: the
    child's and the parent's entries are all there."""
    found = _run(tmp_path, fork_in_every_state)
    for state in ("fresh", "appended", "flushed", "draining", "rotated"):
        assert found[f"parent/{state}"] == list(range(100)), state
        assert found[f"child/{state}"] == list(range(100)), state


def test_child_drains_in_the_background(tmp_path: Path, journal_mode: str) -> None:
    """A child has threads of its own: what it appends reaches the file without a flush."""
    found = _run(tmp_path, child_in_background, journal=journal_mode)
    assert found["child"] == list(range(len(found["child"])))


def test_child_that_leaves_the_block(tmp_path: Path) -> None:
    """A child that appended nothing and leaves the run's block ends nothing of the parent's: not its status, not its
    journal."""
    found = _run(tmp_path, child_leaves_the_block)
    assert found["parent"] == list(range(200))


def test_child_whose_first_append_fails(tmp_path: Path) -> None:
    """A child that cannot start its journal (full disk) gets OSError, and can try again."""
    found = _run(tmp_path, child_after_failed_start)
    assert found["child"] == [1]
