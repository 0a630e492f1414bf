"""Row 17: a day of recording in minutes. Memory and open files stay where they were."""

from __future__ import annotations

from pathlib import Path

import pytest

import ml_dash

from . import figures
from .processes import Counters, finish, start
from .programs import soak
from .sizes import LONG, size
from .writers import PREFIX

DAY = 24 * 3600 * 100
"""Entries of one day at 100 Hz."""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc to measure memory")
@pytest.mark.timeout(1200)
def test_a_day(tmp_path: Path) -> None:
    """Recording goes on and on: the process' own memory does not grow from the first quarter to the end, nor do its
    open files, and what is left of the journal stays below a few segments.

    In CI the blocks of the index are small, so that more are made than in a day.
    """
    counters = Counters(tmp_path / "counters")
    entries = size(160_000, DAY)
    finish(start(soak, tmp_path, counters.path, entries, not LONG), patience_s=1000)
    quarter, end = ([counters[place] for place in range(first, first + 3)] for first in (8, 16))
    figures.count(f"kB of memory after a quarter of {entries:,} entries", quarter[0])
    figures.count(f"kB of memory after {entries:,} entries", end[0])
    figures.count(f"open files after {entries:,} entries", end[1])
    figures.count("kB of journal at its largest", counters[24])
    assert end[0] - quarter[0] < 6_000, f"memory grew from {quarter[0]} to {end[0]} kB"
    assert end[1] <= quarter[1] + 1, f"open files grew from {quarter[1]} to {end[1]}"
    assert counters[24] < 60_000, "the journal grew"
    with ml_dash.open(PREFIX, dash_root=tmp_path) as exp:
        assert sum(1 for block in exp.tracks("robot/state").blocks() for _ in block) == entries
        assert len(exp.metrics("second")) == entries // 100
