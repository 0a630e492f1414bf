"""Times on the command line: seconds, relative to the recording's ends, or dates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

EARLIEST_DATE_S = 86_400.0 * 365 * 10
"""Timestamps from ten years after 1970 on are shown as dates too."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as it was written: `seconds` after zero, after the recording's start, or before its end."""

    seconds: float
    relative_to: str = ""

    def at(self, first: float | None, last: float | None) -> float:
        """The timestamp it means for a recording from `first` to `last`."""
        base = {"start": first, "end": last}.get(self.relative_to, 0.0)
        return (base or 0.0) + self.seconds


class MomentType(click.ParamType[Moment]):
    """A click parameter that is a `Moment`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """The moment; fails naming the ways to write one."""
        if isinstance(value, Moment):
            return value
        try:
            return parse_moment(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no time: write seconds (12.5), +5 (after the start), -2 (before the end) "
                "or a date (2026-11-23T13:00)",
                param,
                ctx,
            )

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What the help shows."""
        return "TIME"


def parse_moment(text: str) -> Moment:
    """The moment a text means; raises ValueError. A leading `=` makes a negative number absolute: `=-2`."""
    text = text.strip()
    if text[:1] in ("+", "-"):
        return Moment(_seconds(text), "start" if text[0] == "+" else "end")
    try:
        return Moment(_seconds(text.removeprefix("=")))
    except ValueError:
        return Moment(datetime.fromisoformat(text).timestamp())


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def date_of(timestamp: float | None) -> str | None:
    """The timestamp as a date in UTC, where it looks like seconds since 1970."""
    if timestamp is None or not EARLIEST_DATE_S < timestamp < 4e9:
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str | None) -> datetime | None:
    """The date of a document, or None where it has none that can be read."""
    try:
        return datetime.fromisoformat(text) if text else None
    except (ValueError, TypeError):
        return None


def ago(text: str | None, now: datetime | None = None) -> str:
    """How long ago a date is, in words of one unit."""
    when = from_iso(text)
    if when is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - when).total_seconds()
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {name} ago"
    return "now" if seconds < 5 else f"{seconds:.0f} s ago"


def duration(seconds: float | None) -> str:
    """A length of time: `80 ms`, `1.25 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds is None:
        return ""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.0009995 else f"{seconds * 1e6:.3g} us"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} d"
