"""What must hold after every fault: what was acknowledged is there, once, and the files are clean."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dash
from ml_dash import Experiment
from ml_dash.files import FILES
from ml_dash.journal_reader import streams

from .processes import Counters
from .writers import LANES, PREFIX, expected, read_back, slot

FOLDER = Path(*PREFIX.split("/"))


def check_lanes(root: Path, counters: Counters, *writers: int, exactly: bool = False) -> int:
    """Every lane holds what was acknowledged and at most the one append that was under way.

    Args:
        exactly: nobody was appending, so it holds nothing else.

    Returns:
        The number of entries found. The counters are set to what was found, for the next round.
    """
    total = 0
    for writer in writers:
        for lane in LANES:
            if lane != "shared":
                total += _check_lane(root, counters, writer, lane, exactly)
    return total + _check_shared(root, counters, writers, exactly)


def _check_lane(root: Path, counters: Counters, writer: int, lane: str, exactly: bool) -> int:
    acknowledged = counters[slot(writer, lane)]
    found = read_back(root, writer, lane)
    for count in (acknowledged,) if exactly else (acknowledged, acknowledged + 1):
        if same(found, expected(writer, lane, count)):
            counters[slot(writer, lane)] = count
            return len(found)
    what = difference(found, expected(writer, lane, acknowledged))
    raise AssertionError(f"writer {writer}, {lane}: {acknowledged} acknowledged, {what}")


def _check_shared(root: Path, counters: Counters, writers: tuple[int, ...], exactly: bool) -> int:
    with ml_dash.open(PREFIX, dash_root=root) as exp:
        recorded = "shared" in exp.tracks.topics()
        found = {entry["timestamp"]: entry for entry in exp.tracks("shared").list_entries()} if recorded else {}
    total = 0
    for writer in writers:
        name, acknowledged = f"w{writer}", counters[slot(writer, "shared")]
        numbers = [entry[name] for entry in found.values() if name in entry]
        assert all(found[number / 1000][name] == number for number in numbers), f"{name} at a wrong time"
        assert len(numbers) - acknowledged in ((0,) if exactly else (0, 1)), (name, acknowledged, len(numbers))
        assert sorted(numbers) == list(range(len(numbers))), f"{name}: not the first ones"
        counters[slot(writer, "shared")] = len(numbers)
        total += len(numbers)
    return total


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether two lists of entries are equal."""
    return len(found) == len(wanted) and found == wanted


def difference(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> str:
    """Where two lists of entries differ first."""
    for place, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"{len(found)} found for {len(wanted)}; number {place} is {one}, not {other}"
    return f"{len(found)} found for {len(wanted)}, equal as far as they go"


def recover(root: Path) -> None:
    """Open for recording and close again: journals are applied, files compacted."""
    with Experiment(PREFIX, dash_root=root).run:
        pass


def check_clean(folder: Path) -> None:
    """No journal is left, and every file of a track has one line per timestamp, ascending, strict JSON."""
    assert streams(folder / ".journal", FILES) == [], "a journal is left"
    for path in folder.glob("tracks/*/data.jsonl"):
        raw = path.read_bytes()
        assert raw == b"" or raw.endswith(b"\n"), f"{path} ends in the middle of a line"
        times = [json.loads(line, parse_constant=_refuse)["timestamp"] for line in raw.splitlines()]
        assert all(a < b for a, b in pairwise(times)), f"{path} does not ascend"


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} is not strict JSON")
