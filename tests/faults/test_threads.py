"""Threads and processes at once on own and shared topics."""

from __future__ import annotations

from pathlib import Path

import ml_dash

from . import figures
from .checks import FOLDER, check_clean, check_lanes
from .processes import Counters, finish, kill, start, wait_for
from .programs import one_of_many, reader, threads
from .sizes import size
from .writers import PREFIX, mixed, slot

WRITERS = 8


def test_threads(tmp_path: Path, journal_mode: str) -> None:
    """Eight threads append to own and shared tracks and log metrics while others flush, compact and read: a read finds
    every append that had returned before it, and at the end everything is there once."""
    each = size(3_000, 40_000)
    finish(start(threads, tmp_path, tmp_path / "counters", WRITERS, each, journal=journal_mode), patience_s=200)
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        for number in range(WRITERS):
            assert [entry["n"] for entry in exp.tracks(f"own/{number}").list_entries()] == list(range(each))
            logged = [entry["n"] for entry in exp.metrics(f"m/{number}").read()["entries"]]
            assert logged == list(range(0, each, 10))
        assert [entry["n"] for entry in exp.tracks("shared").list_entries()] == list(range(each * WRITERS))
        for number in range(2):
            found = [(one["timestamp"], one["n"]) for one in exp.tracks(f"large/{number}").list_entries()]
            assert found == [(n / 2, n // 2) for n in range(12)]
    check_clean(tmp_path / FOLDER)


def test_reader_in_another_process(tmp_path: Path, journal_mode: str) -> None:
    """One process records with flush and compaction, others read all the time, then the writer is killed: every read
    finds what was acknowledged before it began, once and in order."""
    counters = Counters(tmp_path / "counters")
    writer = start(mixed, tmp_path, counters.path, 0, "normal", 77, journal=journal_mode)
    wait_for(lambda: counters[slot(0, "own")] > 0, "appends", writer)
    rounds = size(40, 100)  # each reads all there is, and there is ever more
    readers = [start(reader, tmp_path, counters.path, rounds) for _ in range(2)]
    wait_for(lambda: counters[slot(5, "own")] > rounds // 2, "reads", writer, patience_s=300)
    kill(writer)
    for process in readers:
        finish(process, patience_s=300)
    figures.count("reads of another process' recording", rounds * 2)
    check_lanes(tmp_path, counters, 0)


def test_processes(tmp_path: Path, journal_mode: str) -> None:
    """Six processes start at the same moment and record the same topics: nobody takes the other's journal for a dead
    one's, and everything is there once."""
    processes, each = 6, size(400, 5_000)
    counters = Counters(tmp_path / "counters")
    started = [
        start(one_of_many, tmp_path, counters.path, number, processes, each, journal=journal_mode)
        for number in range(processes)
    ]
    for process in started:
        finish(process, patience_s=200)
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert exp.status == "completed"
        assert [entry["n"] for entry in exp.tracks("shared").list_entries()] == list(range(each * processes))
        for n, entry in enumerate(exp.tracks("merged").list_entries()):
            assert entry == {"timestamp": float(n), **{f"p{number}": n for number in range(processes)}}
        metrics = exp.metrics("m").read()["entries"]
        for number in range(processes):
            assert [entry["n"] for entry in metrics if entry["p"] == number] == list(range(0, each, 7))
    check_clean(tmp_path / FOLDER)
