"""What can be wrong with one track, measured: its stamps, and each of its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import InvalidQuery
from ..formats.arrow import is_json
from .tables import Floats, as_numbers, column, columns_of, timestamps

PROBLEM, NOTE = "problem", "note"
LIVE_TURNS = 0.2
"""A signal that turns up or down with this share of its changes carries noise; white noise turns with two thirds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is reported.

    Args:
        entries: tracks with fewer entries have no rate, and their columns are not judged.
        rate_share: a declared rate is missed when the measured one differs by more than this share.
        drop_share: a stretch (a tenth of the track) whose rate lies this share below the usual one.
        jitter_share: the 95th percentile of |interval - usual interval| as a share of the usual one.
        irregular_share: a track whose typical deviation is above this share records events; it has no rate to miss.
        gap_intervals: an interval of this many usual ones is a gap.
        jump_s: a step of the clock of this much, forward or back, is a jump and no gap.
        repeat_share: stamps closer than this share of the usual interval count as repeated.
        nan_share: NaN and infinities above this share of a column's values.
        flat_s, flat_intervals: a noisy value that stays exactly the same for both of these; where that is the end of
            its range (and not 0), it is a note.
        stop_s, stop_intervals: a regular track that ends both of these before the recording does.
    """

    entries: int = 10
    rate_share: float = 0.05
    drop_share: float = 0.3
    jitter_share: float = 0.5
    irregular_share: float = 0.5
    gap_intervals: float = 5.0
    jump_s: float = 3600.0
    repeat_share: float = 0.001
    nan_share: float = 0.01
    flat_s: float = 1.0
    flat_intervals: int = 50
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
    regular = float(np.median(deviation)) <= limits.irregular_share * usual
    gaps = _gaps(steps, usual, limits) if regular else np.zeros(0, np.int64)
    recorded = np.delete(steps, gaps)
    recorded = recorded[(recorded > 0) & (recorded < limits.jump_s)]
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
    )
    found = [*_order(topic, times, steps, usual, limits), *_pace(topic, times, steps, gaps, measured, limits)]
    return measured, [*found, *_declared(topic, measured, declared_hz, limits)]


def _gaps(steps: Floats, usual: float, limits: Limits) -> NDArray[np.int64]:
    return np.flatnonzero((steps > limits.gap_intervals * usual) & (steps < limits.jump_s))


def _order(topic: str, times: Floats, steps: Floats, usual: float, limits: Limits) -> Iterator[Finding]:
    back = np.flatnonzero(steps < 0)
    if len(back):
        most, at = float(-steps.min()), float(times[back[0] + 1])
        yield Finding(
            topic, "backward", PROBLEM, f"{_times(len(back))} the stamps go back, by up to {most:.3g} s", at=at
        )
    close = np.flatnonzero((steps >= 0) & (steps < limits.repeat_share * usual))
    if len(close):
        at = float(times[close[0] + 1])
        share = len(close) / len(times)
        message = f"{len(close)} stamps ({share:.1%}) repeat the one before"
        yield Finding(topic, "repeated", PROBLEM, message, at=at, value=share)
    jumps = np.flatnonzero(np.abs(steps) >= limits.jump_s)
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
    if share > limits.jitter_share:
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


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# ---------------------------------------------------------------- columns


def columns(topic: str, table: pa.Table, measured: Stamps, limits: Limits) -> Iterator[Finding]:
    """What is wrong with the columns of a track."""
    times = timestamps(table)
    for name in columns_of(table):
        field, array = column(table, name)
        if pa.types.is_struct(field.type):
            parts = [(f"{name}.{part.name}", pc.struct_field(array, at)) for at, part in enumerate(field.type)]
        else:
            parts = [(name, array)]
        for part, values in parts:
            one = pa.field(part, values.type, metadata=field.metadata)
            yield from _column(topic, one, values, times, measured, limits)


def _column(
    topic: str, field: pa.Field, array: pa.Array, times: Floats, measured: Stamps, limits: Limits
) -> Iterator[Finding]:
    drift = _drift(field, array)
    if drift:
        yield Finding(topic, "drift", PROBLEM, f"{field.name} {drift}", field.name)
        return
    if not _is_float(field.type) or len(array) - array.null_count < limits.entries:
        return
    if array.null_count:
        valid = array.is_valid()
        times, array = times[valid.to_numpy(zero_copy_only=False)], array.filter(valid)
    values = as_numbers(field, array).reshape(len(array), -1)
    wrong = ~np.isfinite(values)
    share = float(wrong.mean())
    if share > limits.nan_share:
        at = float(times[int(wrong.any(axis=1).argmax())])
        message = f"{field.name}: {share:.1%} of the values are NaN or infinite"
        yield Finding(topic, "nan", PROBLEM, message, field.name, at, share)
    if measured.interval_s is not None:
        yield from _flat(topic, field.name, values, times, measured.interval_s, limits)


def _is_float(kind: Any) -> bool:
    while pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def _drift(field: pa.Field, array: pa.Array) -> str:
    """How a column's type or length changes, or nothing."""
    if pa.types.is_list(field.type):
        lengths = pc.min_max(pc.list_value_length(array)).as_py()
        low, high = lengths["min"], lengths["max"]
        return f"has lists of {low} to {high} items" if low != high else ""
    if not is_json(field):
        return ""
    heads = pc.value_counts(pc.utf8_slice_codeunits(array.drop_null(), 0, 1))
    shares: dict[str, int] = {}
    for one in heads.to_pylist():
        kind = _KINDS.get(one["values"], "number")
        shares[kind] = shares.get(kind, 0) + one["counts"]
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(shares.items(), key=lambda item: -item[1]))
    return f"changes its type: {listed}" if len(shares) > 1 else f"changes its keys or types inside: {listed}"


_KINDS = {'"': "text", "[": "list", "{": "dict", "t": "bool", "f": "bool", "n": "null"}


def _flat(topic: str, name: str, values: Floats, times: Floats, interval_s: float, limits: Limits) -> Iterator[Finding]:
    same = values[1:] == values[:-1]
    for item in range(values.shape[1]):
        part = name if values.shape[1] == 1 else f"{name}[{item}]"
        changes = np.flatnonzero(~same[:, item])
        if not len(changes):
            yield Finding(topic, "constant", NOTE, f"{part} never changes from {values[0, item]:g}", part)
            continue
        bounds = np.concatenate([[-1], changes, [len(same)]])
        longest = int(np.diff(bounds).argmax())
        first, last = int(bounds[longest]) + 1, int(bounds[longest + 1])
        length = float(times[last] - times[first])
        long_enough = length >= limits.flat_s and length >= limits.flat_intervals * interval_s
        if long_enough and _is_live(np.concatenate([values[:first, item], values[last + 1 :, item]])):
            yield _stuck(topic, part, values[:, item], times, first, last)


def _stuck(topic: str, part: str, values: Floats, times: Floats, first: int, last: int) -> Finding:
    """A frozen sensor; or one at the end of its range, which may be just what happened: a note."""
    value, length = float(values[first]), float(times[last] - times[first])
    if value and abs(value) >= float(np.nanmax(np.abs(values))):
        message = f"{part} stays at its limit {value:g} for {length:.3g} s"
        return Finding(topic, "clipped", NOTE, message, part, float(times[first]), length)
    message = f"{part} stays at {value:g} for {length:.3g} s, though it carries noise elsewhere"
    return Finding(topic, "flat", PROBLEM, message, part, float(times[first]), length)


def _is_live(values: Floats) -> bool:
    """Whether a signal carries noise: it changes with most entries, now up, now down. A smooth one may simply rest."""
    change = np.diff(values)
    change = change[change != 0]
    if len(change) < max(0.5 * len(values), 2):
        return False
    turns = np.count_nonzero((change[1:] > 0) != (change[:-1] > 0))
    return bool(turns >= LIVE_TURNS * len(change))
