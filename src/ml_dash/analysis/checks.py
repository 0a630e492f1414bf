"""What can be wrong with the stamps of a track, measured; `values.py` looks at its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InvalidQuery
from .tables import Floats, timestamps

PROBLEM, NOTE = "problem", "note"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is reported.

    Args:
        entries: tracks with fewer entries have no rate, and their columns are not judged.
        rate_share: a declared rate is missed when the measured one differs by more than this share.
        drop_share: a stretch (a tenth of the track) whose rate lies this share below the usual one.
        jitter_share: the 95th percentile of |interval - usual interval| as a share of the usual one; judged from ten
            times `entries` on.
        irregular_share: a track of which a quarter of the intervals are further off than this share of the usual one
            records events; it has no rate to miss.
        gap_intervals: an interval of this many usual ones is a gap.
        jump_s, jump_intervals: a step of the clock of both of these, forward or back, is a jump and no gap.
        repeat_share: stamps closer than this share of the usual interval count as repeated.
        nan_share: NaN and infinities above this share of a column's values.
        late_share: entries that came with an earlier stamp than the last above this share of all; fewer are a note: one
            that was held up on its way is sorted when it is stored.
        flat_s, flat_intervals: a noisy value that stays exactly the same for both of these; where that is the end of
            its range (and not 0), it is a note.
        freeze_s, freeze_share: a value that changes with nearly every entry, and then stays exactly the same for both
            of these (the second of the track's length) and for `flat_intervals`; a rest at 0 is a note. `inf`: none.
        stop_s, stop_intervals: a regular track that ends both of these before the recording does.
    """

    entries: int = 10
    rate_share: float = 0.05
    drop_share: float = 0.3
    jitter_share: float = 0.5
    irregular_share: float = 0.5
    gap_intervals: float = 5.0
    jump_s: float = 3600.0
    jump_intervals: float = 1000.0
    repeat_share: float = 0.001
    late_share: float = 0.001
    nan_share: float = 0.01
    flat_s: float = 1.0
    flat_intervals: int = 50
    freeze_s: float = 2.0
    freeze_share: float = 0.1
    stop_s: float = 1.0
    stop_intervals: float = 20.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise InvalidQuery(f"limit {name} must be 0 or more, got {value}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    check: its kind (`rate`, `gap`, `flat`, ...). severity: "problem" or "note". at: where it is, in seconds, or None.
    """

    topic: str
    check: str
    severity: str
    message: str
    column: str | None = None
    at: float | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Stamps:
    """The measured stamps of a track; rates and intervals are None where there are too few entries to tell.

    rate_hz: of the usual interval. mean_rate_hz: entries by time, gaps left out. jitter_s: the 95th percentile of how
    far an interval is from the usual one.
    """

    entries: int
    start: float | None
    end: float | None
    rate_hz: float | None = None
    mean_rate_hz: float | None = None
    jitter_s: float | None = None
    regular: bool = False
    gaps: int = 0
    longest_gap_s: float | None = None
    jumps: int = 0

    @property
    def interval_s(self) -> float | None:
        """The usual interval between entries."""
        return None if self.rate_hz is None else 1 / self.rate_hz


def stamps(topic: str, table: pa.Table, limits: Limits, declared_hz: float | None) -> tuple[Stamps, list[Finding]]:
    """The stamps in the order of the table, which is the order of arrival where a table was not sorted."""
    times = timestamps(table)
    if len(times) < max(limits.entries, 3):
        bounds = (float(times.min()), float(times.max())) if len(times) else (None, None)
        return Stamps(len(times), *bounds), []
    steps = np.diff(times)
    forward = steps[steps > 0]
    if not len(forward):
        lost = Finding(topic, "repeated", PROBLEM, "every stamp is the same or earlier", at=float(times[0]))
        return Stamps(len(times), float(times.min()), float(times.max())), [lost]
    usual = float(np.median(forward))
    deviation = np.abs(forward - usual)
    regular = float(np.percentile(deviation, 75)) <= limits.irregular_share * usual
    jump_s = max(limits.jump_s, limits.jump_intervals * (usual if regular else float(np.percentile(forward, 95))))
    gaps = np.flatnonzero((steps > limits.gap_intervals * usual) & (steps < jump_s) & regular)
    jumps = np.flatnonzero(np.abs(steps) >= jump_s)
    recorded = np.delete(steps, gaps)
    recorded = recorded[(recorded > 0) & (recorded < jump_s)]
    measured = Stamps(
        entries=len(times),
        start=float(times.min()),
        end=float(times.max()),
        rate_hz=1 / usual,
        mean_rate_hz=len(recorded) / float(recorded.sum()) if len(recorded) else None,
        jitter_s=float(np.percentile(deviation, 95)),
        regular=regular,
        gaps=len(gaps),
        longest_gap_s=float(steps[gaps].max()) if len(gaps) else None,
        jumps=len(jumps),
    )
    found = [
        *_unit(topic, times),
        *_order(topic, times, steps, usual, limits),
        *_jumps(topic, times, steps, jumps),
        *_pace(topic, times, steps, gaps, measured, limits),
    ]
    return measured, [*found, *_declared(topic, measured, declared_hz, limits)]


_UNITS = (("nanoseconds", 1e17), ("microseconds", 1e14), ("milliseconds", 1e11))
"""Counts since 1970 are this large from 1973 on; as seconds they are thousands of years ahead."""


def _unit(topic: str, times: Floats) -> Iterator[Finding]:
    middle = float(np.median(np.abs(times)))
    unit = next((name for name, least in _UNITS if middle >= least), None)
    if unit is not None:
        message = f"the stamps look like {unit} since 1970, they are taken for seconds: every rate and gap is off"
        yield Finding(topic, "unit", PROBLEM, message, at=float(times[0]))


def _order(topic: str, times: Floats, steps: Floats, usual: float, limits: Limits) -> Iterator[Finding]:
    back = np.flatnonzero(steps < 0)
    if len(back):
        most, at = float(-steps.min()), float(times[back[0] + 1])
        message = f"{_times(len(back))} the stamps go back, by up to {most:.3g} s"
        late = int((times < np.maximum.accumulate(times)).sum())
        yield Finding(topic, "backward", _lateness(late, len(times), limits), message, at=at)
    close = np.flatnonzero((steps >= 0) & (steps < limits.repeat_share * usual))
    if len(close):
        at = float(times[close[0] + 1])
        share = len(close) / len(times)
        message = f"{len(close)} stamps ({share:.1%}) repeat the one before"
        yield Finding(topic, "repeated", PROBLEM, message, at=at, value=share)


def _jumps(topic: str, times: Floats, steps: Floats, jumps: NDArray[np.int64]) -> Iterator[Finding]:
    if len(jumps):
        first = int(jumps[0])
        message = f"the clock jumps {_times(len(jumps))}, first by {steps[first]:+.6g} s"
        yield Finding(topic, "jump", PROBLEM, message, at=float(times[first]), value=float(steps[first]))


def _pace(
    topic: str, times: Floats, steps: Floats, gaps: NDArray[np.int64], measured: Stamps, limits: Limits
) -> Iterator[Finding]:
    if not measured.regular:
        yield Finding(topic, "irregular", NOTE, "no steady rate: recorded by events")
        return
    if len(gaps):
        longest = int(gaps[steps[gaps].argmax()])
        many = f"{len(gaps)} gaps, the longest" if len(gaps) > 1 else "a gap of"
        message = f"{many} {steps[longest]:.3g} s"
        yield Finding(topic, "gap", PROBLEM, message, at=float(times[longest]), value=float(steps[longest]))
    usual = measured.interval_s or 0.0
    share = (measured.jitter_s or 0.0) / usual
    if share > limits.jitter_share and len(steps) >= 10 * limits.entries:
        message = f"jitter: 5 % of the intervals are off by {measured.jitter_s:.3g} s or more ({share:.0%})"
        yield Finding(topic, "jitter", PROBLEM, message, value=share)
    yield from _drops(topic, times, steps, usual, limits)


def _drops(topic: str, times: Floats, steps: Floats, usual: float, limits: Limits) -> Iterator[Finding]:
    """Tenths of the track whose usual interval is longer: a sensor that falls to half its rate for a while."""
    if len(steps) < 10 * limits.entries:
        return
    bounds = np.linspace(0, len(steps), 11).astype(int)
    paces = [float(np.median(steps[a:b])) for a, b in pairwise(bounds.tolist())]
    slow = int(np.argmax(paces))
    if paces[slow] * (1 - limits.drop_share) > usual:
        start, end = times[bounds[slow]], times[bounds[slow + 1]]
        when = f"between {seconds(start)} and {seconds(end)} s"
        message = f"the rate falls from {1 / usual:.4g} to {1 / paces[slow]:.4g} Hz {when}"
        yield Finding(topic, "rate", PROBLEM, message, at=float(start), value=1 / paces[slow])


def _declared(topic: str, measured: Stamps, declared_hz: float | None, limits: Limits) -> Iterator[Finding]:
    rate = measured.mean_rate_hz
    if declared_hz is None or rate is None:
        return
    if abs(rate - declared_hz) > limits.rate_share * declared_hz:
        message = f"declared {declared_hz:g} Hz, measured {rate:.4g} Hz"
        yield Finding(topic, "rate", PROBLEM, message, value=rate)


def seconds(time: float) -> str:
    """A time in milliseconds' resolution, also one since 1970."""
    return f"{round(time, 3):.13g}"


def _lateness(late: int, entries: int, limits: Limits) -> str:
    return PROBLEM if late > limits.late_share * entries else NOTE


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def arrival(topic: str, entries: int, late: int | None, repeated: int | None, limits: Limits) -> Iterator[Finding]:
    """What the recorder counted when the entries came: a stored track ascends and shows none of it.

    Args:
        entries: of the track as stored.
        late, repeated: as in `TrackInfo`; None where nobody counted.
    """
    appended = entries + (repeated or 0)
    if late:
        message = f"{late:,} of {appended:,} entries came with an earlier stamp than one before; sorted when stored"
        yield Finding(topic, "backward", _lateness(late, appended, limits), message, value=late / appended)
    if repeated and repeated > limits.repeat_share * appended:
        message = f"{repeated:,} of {appended:,} entries came with the stamp and fields of the one before, now lost"
        yield Finding(topic, "repeated", PROBLEM, message, value=repeated / appended)
