"""Signal handlers: one that records in the middle of recording, and one that raises in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import ml_dash

from . import figures
from .checks import FOLDER, check_clean
from .processes import Counters, finish, start
from .programs import interrupting_signals, signals
from .sizes import size
from .writers import PREFIX


@pytest.mark.parametrize("what", ["append", "flush", "read", "log", "new tracks", "large"])
def test_handler_that_records(tmp_path: Path, journal_mode: str, what: str) -> None:
    """A SIGALRM handler appends, flushes, reads, logs or opens tracks during a tight loop of appends: no deadlock, and
    both the loop's and the handler's entries are all there, once, in order."""
    count = size(40 if what in ("large", "read") else 120, 2_000)
    counters = Counters(tmp_path / "counters")
    finish(start(signals, tmp_path, counters.path, what, count, journal=journal_mode))
    figures.count("signals handled while recording", counters[1])
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert [entry["n"] for entry in exp.tracks("main").list_entries()] == list(range(counters[0]))
        assert [entry["n"] for entry in exp.tracks("handler").list_entries()] == list(range(counters[1]))
        if what == "log":
            assert [entry["n"] for entry in exp.metrics("m").read()["entries"]] == list(range(counters[1]))
            assert [entry["n"] for entry in exp.log.read()] == list(range(counters[1]))
        if what == "new tracks":
            assert {info.topic for info in exp.tracks.list()} >= {f"new/{n}" for n in range(counters[1])}
    check_clean(tmp_path / FOLDER)


def test_handler_that_raises(tmp_path: Path, journal_mode: str) -> None:
    """Ctrl-C or a timeout anywhere in append, extend or flush: what had returned is there, and recording goes on."""
    counters = Counters(tmp_path / "counters")
    finish(start(interrupting_signals, tmp_path, counters.path, size(400, 10_000), journal=journal_mode))
    figures.count("exceptions raised by signals while recording", size(400, 10_000))
    assert counters[0] > 1000
    assert counters[0] <= counters[1]
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert len(exp.tracks("main")) == counters[1] + 1
        arrays = exp.tracks("arrays").list_entries() if "arrays" in exp.tracks.topics() else []
        for entry in arrays:
            assert len(entry["n"]) == 200_000
    check_clean(tmp_path / FOLDER)
