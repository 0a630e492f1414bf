"""Plots for the terminal: columns over time in braille dots, or in plain characters where those cannot be shown.

Nothing is decimated: each dot column draws the least and the greatest value that fall into it, so a spike of one entry
stays visible however long the recording. Holes in the recording and values that are no finite number break the line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Curve = list[list[tuple[float, float]]]
"""Unbroken stretches of (time, value)."""


_LARGEST = 1e300
"""Values from here on are drawn like infinities, so that the difference of two others stays finite."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a plot is drawn with.

    `dots[y][x]` is the bit of each dot of a character cell, from the top left; `cells` the character of each
    combination of bits; the rest draws the frame.
    """

    dots: tuple[tuple[int, ...], ...]
    cells: str
    labelled: str
    edge: str
    corner: str
    axis: str
    tick: str
    mark: str


BRAILLE = Glyphs(
    dots=((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)),
    cells=" " + "".join(chr(0x2800 + bits) for bits in range(1, 256)),
    labelled="┤",
    edge="│",
    corner="└",
    axis="─",
    tick="┬",
    mark="▼",
)
ASCII = Glyphs(dots=((1,), (2,)), cells=" '.:", labelled="+", edge="|", corner="+", axis="-", tick="+", mark="v")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Braille where the output's encoding can carry it, plain characters elsewhere (`sys.stdout.encoding` tells)."""
    try:
        f"{BRAILLE.cells}{BRAILLE.labelled}{BRAILLE.mark}".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BRAILLE


def plot(
    times: Sequence[float],
    columns: Mapping[str, Sequence[float | None]],
    *,
    width: int = 80,
    height: int = 6,
    glyphs: Glyphs = BRAILLE,
    marks: Mapping[float, str] | None = None,
    unit: str = "s",
) -> str:
    """Columns over time, one panel below the other on one time axis.

    Args:
        times: n timestamps in seconds, ascending. NumPy arrays are welcome, here and below.
        columns: for each panel its title and n values; None is an entry without this column and is passed over,
            NaN and infinities interrupt the line.
        width: characters in a line, labels included; at least 30.
        height: lines of each panel, title not counted; at least 2.
        marks: instants to mark above the first panel, with a word each.
        unit: of `times`; "" where they are indexes.
    Returns: lines without colour, none longer than `width`, joined by newlines.
    Raises: ValueError when a column has not as many values as there are timestamps.
    """
    stamps, height = _plain(times), max(height, 2)
    curves = {title: _curve(stamps, title, _plain(values)) for title, values in columns.items()}
    if not any(curves.values()):
        return "nothing to plot: no finite numbers"
    scales = {title: _Scale.of(curve, height, glyphs) for title, curve in curves.items()}
    gutter = max(len(label) for scale in scales.values() for label in scale.labels.values())
    axis = _TimeAxis.over(stamps[0], stamps[-1], max(width, 30) - gutter - 2)
    lines = [("", f"  {line}") for line in axis.mark_lines(marks or {}, glyphs)]
    for title, curve in curves.items():
        lines += _panel(title, curve, axis, scales[title], glyphs)
    lines += [("", f" {line}") for line in axis.lines(glyphs, unit)]
    return "\n".join(f"{label:>{gutter}}{drawn}".rstrip() for label, drawn in lines)


def _plain(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _curve(stamps: list[float], title: str, values: list[float | None]) -> Curve:
    """The values cut into stretches at holes in time and at values that are no finite number."""
    if len(values) != len(stamps):
        raise ValueError(f"column {title!r} has {len(values)} values for {len(stamps)} timestamps")
    present = [(t, v) for t, v in zip(stamps, values, strict=True) if v is not None]
    longest = _longest_step([t for t, _ in present])
    curve: Curve = [[]]
    for t, v in present:
        drawable = abs(v) < _LARGEST
        if not drawable or (curve[-1] and t - curve[-1][-1][0] > longest):
            curve.append([])
        if drawable:
            curve[-1].append((t, v))
    return [stretch for stretch in curve if stretch]


def _longest_step(stamps: list[float]) -> float:
    """What still counts as unbroken: five usual steps, and never less than a hundredth of the whole."""
    steps = sorted(b - a for a, b in itertools.pairwise(stamps))
    return max(5 * steps[len(steps) // 2], (stamps[-1] - stamps[0]) / 100) if steps else 0.0


@dataclass(frozen=True, slots=True)
class _Scale:
    """The values of one panel: its bounds, its lines, and the label of some of them."""

    low: float
    high: float
    levels: int
    lines: int
    labels: Mapping[int, str]

    @classmethod
    def of(cls, curve: Curve, lines: int, glyphs: Glyphs) -> _Scale:
        values = [v for stretch in curve for _, v in stretch]
        low, high = min(values, default=0.0), max(values, default=0.0)
        middle, levels = lines // 2, lines * len(glyphs.dots)
        if low == high:
            pad = abs(low) / 2 or 0.5
            return cls(low - pad, high + pad, levels, lines, {middle: _number(low, 0.0)})
        labels = {0: _number(high, high - low), lines - 1: _number(low, high - low)}
        if lines >= 5:
            centre = (lines - middle - 0.5) * len(glyphs.dots) - 0.5
            labels[middle] = _number(low + centre / (levels - 1) * (high - low), high - low)
        return cls(low, high, levels, lines, labels)

    def level(self, value: float) -> int:
        """The dot level of a value, 0 at the bottom."""
        return round((value - self.low) / (self.high - self.low) * (self.levels - 1))


def _number(value: float, span: float) -> str:
    """A label that tells values apart that lie a hundredth of the span from each other."""
    if span == 0:
        return f"{value:.6g}"
    if span >= 1e7 or max(abs(value), span) < 1e-4:
        return f"{value:.4g}"
    decimals = min(max(2 - math.floor(math.log10(span)), 0), 9)
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


@dataclass(frozen=True, slots=True)
class _TimeAxis:
    """The time under the panels, `width` characters of it."""

    start: float
    span: float
    width: int

    @classmethod
    def over(cls, start: float, end: float, width: int) -> _TimeAxis:
        return cls(start, end - start, width) if end > start else cls(start - 0.5, 1.0, width)

    def at(self, t: float, columns: int) -> int:
        """Which of so many columns an instant falls into."""
        return min(max(round((t - self.start) / self.span * (columns - 1)), 0), columns - 1)

    def lines(self, glyphs: Glyphs, unit: str) -> list[str]:
        """The axis with its ticks, and their labels below; far from zero they count from the start."""
        base = self.start if abs(self.start) > 1000 * self.span else 0.0
        ruler, labels = [glyphs.axis] * self.width, _Words(self.width)
        for text, t in self._ticks(base, unit):
            ruler[self.at(t, self.width)] = glyphs.tick
            labels.put(self.at(t, self.width) - len(text) // 2, text)
        caption = [f"{'seconds' if unit else 'indexes'} after {base!r}".rjust(self.width + 1)] if base else []
        return [glyphs.corner + "".join(ruler), f" {labels}", *caption]

    def mark_lines(self, marks: Mapping[float, str], glyphs: Glyphs) -> list[str]:
        words = _Words(self.width)
        for t, word in sorted(marks.items()):
            if self.start <= t <= self.start + self.span:
                words.put(self.at(t, self.width), f"{glyphs.mark} {word}")
        return [str(words)] if marks else []

    def _ticks(self, base: float, unit: str) -> Iterator[tuple[str, float]]:
        step = _round_step(self.span * 10 / self.width)
        decimals = max(0, -math.floor(math.log10(step)))
        first = math.ceil((self.start - base) / step - 1e-9)
        last = math.floor((self.start + self.span - base) / step + 1e-9)
        for i in range(first, last + 1):
            yield f"{i * step:.{decimals}f}" + f" {unit}" * (i == last and bool(unit)), base + i * step


def _round_step(least: float) -> float:
    """The next of ..., 0.1, 0.2, 0.5, 1, 2, 5, 10, ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


class _Words:
    """A line of text with words put where there is still room."""

    def __init__(self, width: int) -> None:
        self._line = [" "] * width

    def put(self, at: int, word: str) -> None:
        """The word from this column on, moved to stay inside; left out where it would touch another."""
        at = min(max(at, 0), len(self._line) - len(word))
        if at >= 0 and not "".join(self._line[max(at - 1, 0) : at + len(word) + 1]).strip():
            self._line[at : at + len(word)] = word

    def __str__(self) -> str:
        return "".join(self._line)


def _panel(title: str, curve: Curve, axis: _TimeAxis, scale: _Scale, glyphs: Glyphs) -> Iterator[tuple[str, str]]:
    """The label and the drawing of each line of one panel, its title first."""
    yield "", f"  {title if curve else title + ': no finite numbers'}"[: axis.width + 2]
    for i, line in enumerate(_drawn(curve, axis, scale, glyphs) if curve else []):
        label = scale.labels.get(i, "")
        yield label, f" {glyphs.labelled if label else glyphs.edge}{line}"


def _drawn(curve: Curve, axis: _TimeAxis, scale: _Scale, glyphs: Glyphs) -> list[str]:
    """The lines of one panel, from the top."""
    high, wide = len(glyphs.dots), len(glyphs.dots[0])
    cells = [[0] * axis.width for _ in range(scale.lines)]
    for stretch in curve:
        for x, low, top in _strokes(stretch, axis, scale, axis.width * wide):
            for level in range(low, top + 1):
                y = scale.levels - 1 - level
                cells[y // high][x // wide] |= glyphs.dots[y % high][x % wide]
    return ["".join(glyphs.cells[bits] for bits in line) for line in cells]


def _strokes(
    stretch: list[tuple[float, float]], axis: _TimeAxis, scale: _Scale, columns: int
) -> Iterator[tuple[int, int, int]]:
    """Upright strokes (dot column, lowest and highest level) that draw one unbroken stretch."""
    before: tuple[int, int] | None = None
    for x, pairs in itertools.groupby(stretch, lambda pair: axis.at(pair[0], columns)):
        levels = [scale.level(value) for _, value in pairs]
        yield x, min(levels), max(levels)
        if before is not None:
            yield from _joined(before, (x, levels[0]))
        before = x, levels[-1]


def _joined(a: tuple[int, int], b: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Strokes that lead from one dot to another one further right."""
    (x0, from_level), (x1, to_level) = a, b
    here = from_level
    for x in range(x0 + 1, x1 + 1):
        there = from_level + round((to_level - from_level) * (x - x0) / (x1 - x0))
        middle = (here + there) // 2
        yield x - 1, min(here, middle), max(here, middle)
        yield x, min(middle, there), max(middle, there)
        here = there
