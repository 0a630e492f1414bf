"""Is a recording sound? Every track's stamps and columns checked, and the tracks against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import pyarrow as pa

from ..errors import InvalidQuery
from ..names import offer
from . import checks, values
from .checks import NOTE, PROBLEM, Finding, Limits, Stamps

__all__ = ["Finding", "Limits", "Report", "Stamps", "examine"]


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found; `print(report)` shows it.

    stamps: the measured stamps of each topic. findings: problems first, then notes.
    """

    stamps: Mapping[str, Stamps]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem; notes do not count."""
        return not self.problems

    @property
    def problems(self) -> list[Finding]:
        """The findings that are problems."""
        return [finding for finding in self.findings if finding.severity == PROBLEM]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ok": self.ok,
            "topics": {topic: asdict(measured) for topic, measured in self.stamps.items()},
            "findings": [asdict(finding) for finding in self.findings],
        }

    def lines(self) -> list[tuple[str, ...]]:
        """One line for each topic: name, entries, extent, rate, jitter, gaps, problems."""
        return [self._line(topic, measured) for topic, measured in self.stamps.items()]

    def _line(self, topic: str, measured: Stamps) -> tuple[str, ...]:
        count = sum(finding.topic == topic for finding in self.problems)
        extent = _extent(measured)
        rate = _rate(measured)
        jitter = (
            f"{round(measured.jitter_s * 1e3, 6):.3g} ms" if measured.regular and measured.jitter_s is not None else ""
        )
        gaps = f"{measured.gaps}" if measured.regular else ""
        return topic, f"{measured.entries:,}", extent, rate, jitter, gaps, str(count) if count else "ok"

    def __str__(self) -> str:
        lines = [HEADINGS, *self.lines()]
        widths = [max(len(line[at]) for line in lines) for at in range(len(HEADINGS))]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*shown, "", *self.texts()]).rstrip()

    def texts(self) -> list[str]:
        """The findings as lines of text; the columns of a topic that never change share one."""
        constant: dict[str, list[Finding]] = {}
        for finding in self.findings:
            if finding.check == "constant":
                constant.setdefault(finding.topic, []).append(finding)
        lines: dict[str, None] = {}
        for finding in self.findings:
            group = constant[finding.topic] if finding.check == "constant" else []
            lines[_together(group) if len(group) > 1 else describe(finding)] = None
        return list(lines)

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        table = line(HEADINGS, "th") + "".join(line(cells, "td") for cells in self.lines())
        items = "".join(f"<li>{escape(text)}</li>" for text in self.texts())
        return f"<table>{table}</table><ul>{items}</ul>"


def _rate(measured: Stamps) -> str:
    if not measured.regular:
        return "events" if measured.rate_hz else ""
    hertz = measured.rate_hz if measured.mean_rate_hz is None else measured.mean_rate_hz
    return f"{hertz:.4g} Hz"


def _extent(measured: Stamps) -> str:
    if measured.start is None or measured.end is None:
        return ""
    return f"{checks.seconds(measured.start)} to {checks.seconds(measured.end)} s"


HEADINGS = ("topic", "entries", "extent", "rate", "jitter", "gaps", "problems")


def describe(finding: Finding) -> str:
    """A finding as one line of text."""
    where = "" if finding.at is None else f" (at {checks.seconds(finding.at)} s)"
    return f"{finding.severity}: {finding.topic}: {finding.message}{where}"


NAMED = 8
"""So many columns that never change are named in a line."""


def _together(group: list[Finding]) -> str:
    """Columns of one topic that never change, in one line."""
    named = ", ".join(f"{one.column} {one.value:.6g}" for one in group[:NAMED])
    more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
    return f"{NOTE}: {group[0].topic}: {len(group)} columns never change: {named}{more}"


def examine(
    tables: Mapping[str, pa.Table],
    *,
    limits: Limits | None = None,
    rates_hz: Mapping[str, float] | None = None,
    arrived: Mapping[str, tuple[int | None, int | None]] | None = None,
) -> Report:
    """Check tables by topic.

    Args:
        tables: `timestamp` and fields. A stored track ascends; a table in order of arrival also shows stamps that go
            back.
        limits: thresholds.
        rates_hz: declared rates by topic.
        arrived: of stored tracks, how many entries came late and how many repeated one (`TrackInfo`).

    Raises:
        InvalidQuery: a declared rate that is not above 0, or of a topic that is not there.
    """
    limits, declared = limits or Limits(), dict(rates_hz or {})
    for topic, rate in declared.items():
        if topic not in tables:
            raise InvalidQuery(f"rates_hz names {topic!r}, which is not there; {offer(topic, tables)}")
        if not rate > 0:
            raise InvalidQuery(f"the declared rate of {topic!r} must be above 0 Hz, got {rate}")
    measured: dict[str, Stamps] = {}
    findings: list[Finding] = []
    for topic, table in tables.items():
        measured[topic], found = checks.stamps(topic, table, limits, declared.get(topic))
        findings += found
        late, repeated = (arrived or {}).get(topic, (None, None))
        findings += checks.arrival(topic, measured[topic].entries, late, repeated, limits)
        findings += values.columns(topic, table, measured[topic], limits)
        if not measured[topic].entries:
            findings.append(Finding(topic, "empty", NOTE, "no entries"))
    findings += _unfinished(measured, limits)
    return Report(measured, tuple(sorted(findings, key=lambda finding: finding.severity != PROBLEM)))


def _unfinished(measured: Mapping[str, Stamps], limits: Limits) -> list[Finding]:
    """Regular tracks that begin after the others, or end before them; one whose clock jumped tells no time."""
    regular = {topic: one for topic, one in measured.items() if one.regular and not one.jumps}
    starts = [one.start for one in regular.values() if one.start is not None]
    ends = [one.end for one in regular.values() if one.end is not None]
    found = []
    for topic, one in regular.items():
        slack = max(limits.stop_s, limits.stop_intervals * (one.interval_s or 0.0))
        early, late = max(ends) - (one.end or 0.0), (one.start or 0.0) - min(starts)
        if early > slack:
            message = f"stops {early:.3g} s before the recording ends"
            found.append(Finding(topic, "stops", PROBLEM, message, at=one.end, value=early))
        if late > slack:
            found.append(Finding(topic, "late", NOTE, f"starts {late:.3g} s late", at=one.start, value=late))
    return found
