"""Braille plots: what is drawn is what the values say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from ml_dash.cli.plot_text import ASCII, BRAILLE, Glyphs, glyphs_for, plot


def lit(lines: Sequence[str], glyphs: Glyphs) -> set[tuple[int, int]]:
    """The lit dots (column, level from the bottom) of a panel's lines, decoded from the characters alone."""
    high, wide = len(glyphs.dots), len(glyphs.dots[0])
    found = set()
    for i, line in enumerate(lines):
        drawn = line.split(glyphs.labelled if glyphs.labelled in line else glyphs.edge, 1)[1]
        for j, cell in enumerate(drawn):
            bits = glyphs.cells.index(cell)
            for y in range(high):
                for x in range(wide):
                    if bits & glyphs.dots[y][x]:
                        found.add((j * wide + x, (len(lines) - i) * high - 1 - y))
    return found


@pytest.mark.parametrize("glyphs", [BRAILLE, ASCII], ids=["braille", "ascii"])
def test_a_straight_line_is_drawn_straight(glyphs: Glyphs) -> None:
    """A rising line lights each dot column at the level its value has, from the lowest left to the highest right."""
    times = [i / 100 for i in range(101)]
    lines = plot(times, {"y": [2 * t for t in times]}, width=40, height=4, glyphs=glyphs).splitlines()
    dots = lit(lines[1:5], glyphs)
    columns, levels = max(x for x, _ in dots), 4 * len(glyphs.dots) - 1
    assert (0, 0) in dots
    assert (columns, levels) in dots
    assert {x for x, _ in dots} == set(range(columns + 1))
    assert all(abs(level - x / columns * levels) <= 1 for x, level in dots)


def test_a_spike_of_one_entry_is_never_lost() -> None:
    """One entry out of 100,000 that stands out reaches the top of the plot, at its time."""
    values = [0.0] * 100_000
    values[25_000] = 7.0
    lines = plot(range(100_000), {"force": values}, width=60, height=3).splitlines()
    top = [x for x, level in lit(lines[1:4], BRAILLE) if level == 11]
    assert lines[1].startswith("7.00 ┤")
    assert len(top) == 1
    assert top[0] == pytest.approx(0.25 * 2 * (60 - 6), abs=1)


@pytest.mark.parametrize("hole", ["time", "nan", "inf"])
def test_holes_break_the_line(hole: str) -> None:
    """Missing entries, NaN and infinity leave a blank where they are, and nowhere else."""
    inside = [40 <= i < 60 for i in range(101)]
    times = [float(i) for i in range(101) if hole != "time" or not inside[i]]
    values = [1.0 if hole == "time" or not inside[int(t)] else float(hole) for t in times]
    lines = plot(times, {"v": values}, width=60, height=2).splitlines()
    columns = {x for x, _ in lit(lines[1:3], BRAILLE)}
    last = max(columns)
    blank = {x for x in range(last + 1) if x not in columns}
    assert blank == {x for x in range(last + 1) if 39.5 < x / last * 100 < 59.5}


def test_a_column_absent_from_some_entries_is_joined() -> None:
    """None means the entry has no such column: the line goes on, as for tracks recorded at a lower rate."""
    values = [float(i) if i % 10 == 0 else None for i in range(101)]
    lines = plot(range(101), {"slow": values}, width=60, height=4).splitlines()
    columns = {x for x, _ in lit(lines[1:5], BRAILLE)}
    assert columns == set(range(max(columns) + 1))


def test_labels_marks_and_ticks_are_where_they_belong() -> None:
    """The frame is complete: title, bounds, marks above their time, ticks with round numbers below theirs."""
    times = [i / 10 for i in range(101)]
    drawn = plot(times, {"q (rad)": [t - 5 for t in times]}, width=60, height=5, marks={5.0: "grasp", 99.0: "never"})
    lines = drawn.splitlines()
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["5.0", "0.0", "-5.0"]
    assert "never" not in drawn
    middle = 6 + round(0.5 * (60 - 6 - 1))
    assert lines[0].index("▼ grasp") == pytest.approx(middle, abs=1)
    assert lines[1].strip() == "q (rad)"
    assert lines[-1].split() == ["0", "2", "4", "6", "8", "10", "s"]
    assert lines[-2].count("┬") == 6


def test_times_far_from_zero_count_from_the_start() -> None:
    """Unix times stay readable: the ticks are seconds after the first entry, which is named below."""
    times = [1.7e9 + i / 10 for i in range(101)]
    lines = plot(times, {"v": [1.0] * 101}, width=60).splitlines()
    assert lines[-1].strip() == "seconds after 1700000000.0"
    assert lines[-2].split() == ["0", "2", "4", "6", "8", "10", "s"]


@pytest.mark.parametrize("width", [30, 47, 80, 200])
@pytest.mark.parametrize("glyphs", [BRAILLE, ASCII], ids=["braille", "ascii"])
def test_no_line_is_wider_than_asked(width: int, glyphs: Glyphs) -> None:
    """Labels, titles and marks are part of the width; the plain characters are all ASCII."""
    times = [i / 7 for i in range(200)]
    columns = {"a title that is longer than narrow terminals are wide": times, "big": [1e6 * t for t in times]}
    drawn = plot(times, columns, width=width, glyphs=glyphs, marks={28.0: "at the very end of it"})
    assert max(len(line) for line in drawn.splitlines()) <= width
    assert glyphs is BRAILLE or drawn.isascii()


@pytest.mark.parametrize(
    "values",
    [
        [5.0] * 4,
        [0.0] * 4,
        [True, False, True, False],
        [1e308, -1e308, 0.0, 1.0],
        [5e-324, 0.0, 0.0, 0.0],
        [1e20, 2e20, 0, 1],
    ],
    ids=["constant", "zero", "bool", "huge", "tiny", "wide"],
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    """Extreme ranges draw something, and never fail."""
    assert len(plot([0.0, 1.0, 2.0, 3.0], {"v": values}, height=4).splitlines()) == 7


@pytest.mark.parametrize(
    ("times", "values"), [([], []), ([1.0], [math.nan]), ([1.0, 2.0], [None, None])], ids=["empty", "nan", "absent"]
)
def test_nothing_to_plot_says_so(times: list[float], values: list[float | None]) -> None:
    """No finite number gives a sentence instead of an empty frame."""
    assert plot(times, {"v": values}) == "nothing to plot: no finite numbers"


def test_an_empty_column_beside_a_full_one_says_so() -> None:
    """Panels without numbers keep their title and say why they are missing."""
    assert "b: no finite numbers" in plot([0.0, 1.0], {"a": [1.0, 2.0], "b": [None, None]})


def test_one_entry_is_drawn() -> None:
    """A single instant has no span of its own; it stands in the middle of a second."""
    lines = plot([4.0], {"v": [2.5]}, width=40, height=3).splitlines()
    assert len(lit(lines[1:4], BRAILLE)) == 1
    assert lines[-1].split()[0] == "3.5"


def test_columns_of_another_length_are_refused() -> None:
    """The error names the column and both lengths."""
    with pytest.raises(ValueError, match="column 'v' has 1 values for 2 timestamps"):
        plot([0.0, 1.0], {"v": [1.0]})


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [
        ("utf-8", BRAILLE),
        ("UTF-16", BRAILLE),
        ("ascii", ASCII),
        ("latin-1", ASCII),
        ("cp437", ASCII),
        (None, ASCII),
        ("?", ASCII),
    ],
)
def test_the_encoding_decides_between_braille_and_plain(encoding: str | None, glyphs: Glyphs) -> None:
    """Braille only where every character of it can be written; unknown encodings get plain characters."""
    assert glyphs_for(encoding) is glyphs
