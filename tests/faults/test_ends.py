"""How programs end: whatever the way, every append that returned is there, and the run says how it ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import ml_dash

from .checks import FOLDER, check_clean, recover
from .processes import Counters, script
from .programs import child_leaves_the_block, ends, two_runs
from .writers import PREFIX

ENDS = {
    # how: (exit code, status that a reader sees)
    "exit without closing": (0, "completed"),
    "exit in a thread": (0, "completed"),
    "exception": (1, "failed"),
    "sys.exit": (3, "completed"),
    "_exit": (0, "crashed"),
    "abort": (-signal.SIGABRT, "crashed"),
    "SIGTERM": (-signal.SIGTERM, "crashed"),
    "SIGHUP": (-signal.SIGHUP, "crashed"),
    "SIGINT": (-signal.SIGINT, "cancelled"),
    "SIGQUIT": (-signal.SIGQUIT, "crashed"),
    "SIGKILL": (-signal.SIGKILL, "crashed"),
    "SIGSEGV": (-signal.SIGSEGV, "crashed"),
}


@pytest.mark.parametrize("how", ENDS)
def test_ends(tmp_path: Path, how: str) -> None:
    """A program that never closes its run: nothing is lost, and the status tells what happened."""
    counters = Counters(tmp_path / "counters")
    code, status = ENDS[how]
    done = script(ends, tmp_path, counters.path, how, journal="write" if how == "SIGTERM" else "")
    assert done.returncode == code, done.stderr
    more = 100 if how == "exit in a thread" else 0
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert [entry["n"] for entry in exp.tracks("t").list_entries()] == list(range(counters[0] + more))
        assert exp.status == status
    assert counters[0] == 5000
    left = [path.name for path in (tmp_path / FOLDER / ".journal").iterdir() if not path.name.startswith(".")]
    assert bool(left) == (status == "crashed"), "closed runs leave no journal"
    recover(tmp_path)
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert len(exp.tracks("t")) == counters[0] + more
        assert exp.status == "completed"
    check_clean(tmp_path / FOLDER)


def test_child_that_leaves_the_interpreter(tmp_path: Path) -> None:
    """A forked child that runs to the interpreter's end, exit functions included, does not end its parent's run."""
    done = script(child_leaves_the_block, tmp_path, tmp_path / "counters")
    assert done.returncode == 0, done.stderr
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert [entry["n"] for entry in exp.tracks("parent").list_entries()] == list(range(200))
        assert exp.status == "completed"


def test_two_runs_of_one_object(tmp_path: Path) -> None:
    """An exception ends the first run as failed; the second goes on behind it."""
    done = script(two_runs, tmp_path, tmp_path / "counters")
    assert done.returncode == 0, done.stderr
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert [entry["n"] for entry in exp.tracks("t").list_entries()] == [1, 2]
        assert exp.status == "completed"
