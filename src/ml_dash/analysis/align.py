"""Tracks of different rates on one clock, as one Arrow table.

Each column is carried over by a rule (`rules.py`), each track says how old its values are, and the table's metadata
names the clock, the rules and why each was chosen (`rules_of(table)`): nothing is interpolated silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InvalidQuery
from ..names import offer
from . import rules
from .numbers import above_zero, finite, not_negative
from .places import Around, Mask, Places, check_ascending, take
from .quaternions import slerp
from .rules import Rule
from .tables import Floats, as_numbers, column, columns_of, from_numbers, timestamps

METADATA = b"ml_dash.align"
MAX_INSTANTS = 1_000_000_000


def align(
    tables: Mapping[str, pa.Table],
    *,
    rate_hz: float | None = None,
    at: Any = None,
    like: str | None = None,
    start: float | None = None,
    end: float | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    how: Mapping[str, str] | None = None,
    quaternions: str | None = None,
    offset_s: Mapping[str, float] | None = None,
    tolerance_s: float | None = None,
) -> pa.Table:
    """Put several tracks on one clock.

    Args:
        tables: a table for each topic, ascending by timestamp.
        rate_hz: a regular clock from `start` to `end`, by default the time that all tracks cover; or
        at: timestamps in seconds, ascending; or
        like: the topic whose timestamps are the clock.
        start, end: bounds in seconds, inclusive.
        columns: for a topic, the columns to take (`"pose.x"` and `"q[0]"` too); all of them by default. A topic with
            an empty list is there for its clock only.
        how: rules by `"topic.column"`, `"column"` or `"topic"`; see `rules.py` for their names and the defaults.
        quaternions: "wxyz" or "xyzw", the order of every column that looks like a quaternion and does not tell.
        offset_s: for a topic, its sensor's known delay: an entry stamped t was measured at t - offset_s.
        tolerance_s: no value where an entry it would be made from is further than this from the instant.

    Returns:
        `timestamp`, then for each topic its columns as `topic.column`, and `topic:age_s`, the time since the track's
        last entry. Null where there is no value: before the first entry and after the last one (but `hold` goes on,
        and `nearest` reaches beyond both ends), beyond the tolerance. An entry exactly at an instant is taken as it
        is.

    Raises:
        InvalidQuery: not exactly one clock, a rate that is not above 0, unsorted timestamps, no common time, a rule
            that does not fit its column.
    """
    how, offsets = _options(how, "how"), _options(offset_s, "offset_s")
    start = None if start is None else finite(start, "start")
    end = None if end is None else finite(end, "end")
    _check(tables, rate_hz, at, like, offsets, tolerance_s)
    if quaternions not in (None, *rules.ORDERS):
        raise InvalidQuery(f"quaternions must be one of {', '.join(rules.ORDERS)}, got {quaternions!r}")
    times = {topic: timestamps(table) - offsets.get(topic, 0.0) for topic, table in tables.items()}
    for topic, own in times.items():
        check_ascending(own, f"the timestamps of topic {topic!r}")
    clock = _clock(times, rate_hz, at, like, start, end)
    names = {topic: list((columns or {}).get(topic, columns_of(table))) for topic, table in tables.items()}
    shown = [topic for topic in tables if names[topic] or topic not in (columns or {})]
    leaves = {topic: list(_leaves(tables[topic], names[topic])) for topic in shown}
    rules.check_keys(how, {topic: [field.name for field, _ in of] for topic, of in leaves.items()})
    fields, arrays = [pa.field("timestamp", pa.float64(), nullable=False)], [pa.array(clock)]
    for topic, of_topic in leaves.items():
        for field, array in _aligned(topic, of_topic, times[topic], clock, how, quaternions, tolerance_s):
            fields.append(field)
            arrays.append(array)
    said = _metadata(fields, rate_hz, like, clock, offsets, tolerance_s)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, {METADATA: json.dumps(said).encode()}))


def rules_of(table: pa.Table) -> dict[str, Any]:
    """What `align` did: the clock, offsets and tolerance, and for each column its rule and the reason for it."""
    found = (table.schema.metadata or {}).get(METADATA)
    if found is None:
        raise InvalidQuery("this table does not come from align")
    return json.loads(found)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the clock


def _options(given: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise InvalidQuery(f"{name} must be a dict by topic or column, got {given!r}")
    return dict(given or {})


def _check(
    tables: Mapping[str, Any],
    rate_hz: float | None,
    at: Any,
    like: str | None,
    offsets: Mapping[str, float],
    tolerance_s: float | None,
) -> None:
    if not tables:
        raise InvalidQuery("align needs at least one topic")
    if sum(clock is not None for clock in (rate_hz, at, like)) != 1:
        raise InvalidQuery("align needs one clock: rate_hz=50, at=timestamps, or like='topic'")
    if rate_hz is not None:
        above_zero(rate_hz, "rate_hz")
    not_negative(tolerance_s, "tolerance_s")
    for name, what in [(like, "like"), *((topic, "offset_s") for topic in offsets)]:
        if name is not None and name not in tables:
            raise InvalidQuery(f"{what} names {name!r}, no topic that is aligned here; {offer(name, tables)}")
    for topic, offset in offsets.items():
        finite(offset, f"offset_s of {topic!r}")


def _clock(
    times: Mapping[str, Floats],
    rate_hz: float | None,
    at: Any,
    like: str | None,
    start: float | None,
    end: float | None,
) -> Floats:
    if start is not None and end is not None and start > end:
        raise InvalidQuery(f"start {start} lies after end {end}")
    if rate_hz is not None:
        return _regular(times, rate_hz, start, end)
    clock = times[like] if like is not None else _given(at)
    inside = np.full(len(clock), True)
    if start is not None:
        inside &= clock >= start
    if end is not None:
        inside &= clock <= end
    return clock if inside.all() else clock[inside]


def _given(at: Any) -> Floats:
    try:
        clock = np.asarray(at, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidQuery(f"at must be timestamps in seconds, got {type(at).__name__}") from None
    if clock.ndim != 1:
        raise InvalidQuery(f"at must be a list of timestamps, got shape {clock.shape}")
    wrong = np.flatnonzero(~np.isfinite(clock))
    if len(wrong):
        raise InvalidQuery(f"at must be finite timestamps, got {clock[wrong[0]]} at place {wrong[0]}")
    check_ascending(clock, "at")
    return clock


def _regular(times: Mapping[str, Floats], rate_hz: float, start: float | None, end: float | None) -> Floats:
    first, last = _bounds(times, start, end)
    count = np.floor((last - first) * rate_hz + 1e-6) + 1
    if count > MAX_INSTANTS:
        raise InvalidQuery(f"{count:.3g} instants from {first} to {last} at {rate_hz} Hz; narrow start and end")
    return np.minimum(first + np.arange(int(count)) / rate_hz, last)  # the last instant may be rounded beyond the end


def _bounds(times: Mapping[str, Floats], start: float | None, end: float | None) -> tuple[float, float]:
    """The given bounds, or the time that all tracks cover."""
    for topic, own in times.items():
        if not len(own):
            raise InvalidQuery(f"topic {topic!r} has no entries to align")
    first = max(float(own[0]) for own in times.values()) if start is None else float(start)
    last = min(float(own[-1]) for own in times.values()) if end is None else float(end)
    if not first <= last:
        spans = "; ".join(f"{topic!r} {own[0]} to {own[-1]}" for topic, own in times.items())
        raise InvalidQuery(f"the topics share no time between {first} and {last}: {spans}; give start and end")
    return first, last


# ---------------------------------------------------------------- one topic


def _leaves(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[pa.Field, pa.Array]]:
    """The columns to carry over; dicts part by part, except quaternions."""
    for name in names:
        yield from _parts(*column(table, name))


def _parts(field: pa.Field, array: pa.Array) -> Iterator[tuple[pa.Field, pa.Array]]:
    if not pa.types.is_struct(field.type) or rules.is_quaternion_struct(field.type):
        yield field, array
        return
    for number, part in enumerate(field.type):
        yield from _parts(part.with_name(f"{field.name}.{part.name}"), pc.struct_field(array, number))


def _aligned(
    topic: str,
    leaves: Sequence[tuple[pa.Field, pa.Array]],
    times: Floats,
    clock: Floats,
    how: dict[str, str],
    quaternions: str | None,
    tolerance_s: float | None,
) -> Iterator[tuple[pa.Field, pa.Array]]:
    whole = Around.find(times, clock)
    for field, array in leaves:
        rule = rules.chosen(how, topic, field.name)
        places = whole
        if array.null_count:
            array, places = _present(array, times, clock)
        rule = rule or rules.default(field.name, field.type, _largest(field, array), quaternions)
        carried = _carry(f"{topic}.{field.name}", rule, field, array, places, tolerance_s)
        metadata = {**(field.metadata or {}), b"ml_dash.rule": rule.name.encode(), b"ml_dash.why": rule.why.encode()}
        metadata.pop(b"ml_dash.null", None)
        yield pa.field(f"{topic}.{field.name}", carried.type, metadata=metadata), carried
    yield pa.field(f"{topic}:age_s", pa.float64()), from_numbers(whole.past, whole.past < 0)


def _present(array: pa.Array, times: Floats, clock: Floats) -> tuple[pa.Array, Around]:
    """The entries that have the column; a value is made from those alone."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return array.filter(pa.array(valid)), Around.find(times[valid], clock)


def _largest(field: pa.Field, array: pa.Array) -> float:
    """The largest magnitude of a column that may be an angle; others need not be looked at."""
    if not rules.may_be_angle(field.name, field.type) or not len(array):
        return 0.0
    return float(np.nanmax(np.abs(as_numbers(field, array)), initial=0.0))


def _carry(
    name: str, rule: Rule, field: pa.Field, array: pa.Array, places: Around, tolerance_s: float | None
) -> pa.Array:
    if not rule.interpolates:
        found, missing = places.held(tolerance_s) if rule.name == "hold" else places.nearest(tolerance_s)
        return take(array, found, missing)
    low, high, fraction, missing = places.between(tolerance_s)
    if not len(array):
        return pa.nulls(len(low), field.type)
    if rule.name.startswith("slerp"):
        return _slerped(name, rule, field, array, low, high, fraction, missing)
    values = as_numbers(field, array)
    part = fraction.reshape((-1,) + (1,) * (values.ndim - 1))
    with np.errstate(invalid="ignore", over="ignore"):
        between = _turned if rule.name.startswith("angle") else _straight
        result = between(values, low, high, part, rule.period)
    return from_numbers(result, missing)


def _straight(values: Floats, low: Places, high: Places, part: Floats, _period: float) -> Floats:
    before = values[low]
    between: Floats = values[high]
    between -= before
    between *= part
    between += before
    exact = np.flatnonzero(part == 0)  # where the other side, be it NaN or infinite, has no say
    between[exact] = before[exact]
    return between


def _turned(values: Floats, low: Places, high: Places, part: Floats, period: float) -> Floats:
    """Along the shorter way round, back in the range that the recording uses: -half to half, 0 to one, or any."""
    before = values[low]
    way = np.mod(values[high] - before + period / 2, period) - period / 2
    between = before + way * part
    largest, smallest = np.nanmax(values, initial=0.0), np.nanmin(values, initial=0.0)
    if -period / 2 <= smallest and largest <= period / 2:
        wrapped = np.mod(between + period / 2, period) - period / 2
    elif smallest >= 0 and largest <= period:
        wrapped = np.mod(between, period)
    else:
        wrapped = between
    turned: Floats = np.where(part > 0, wrapped, before)
    return turned


# ---------------------------------------------------------------- quaternions


def _slerped(
    name: str,
    rule: Rule,
    field: pa.Field,
    array: pa.Array,
    low: Places,
    high: Places,
    fraction: Floats,
    missing: Mask,
) -> pa.Array:
    parts = pa.types.is_struct(array.type)
    if parts:
        values = np.stack([as_numbers(field, pc.struct_field(array, number)) for number in range(4)], axis=1)
    else:
        values = as_numbers(field, array)
    if values.ndim != 2 or values.shape[1] != 4:
        raise InvalidQuery(f"{rule.name} needs quaternions of 4 numbers, {name!r} has shape {values.shape[1:] or 1}")
    result = slerp(values[low], values[high], fraction)
    if not parts:
        return from_numbers(result, missing)
    columns = [pa.array(result[:, number]) for number in range(4)]
    return pa.StructArray.from_arrays(columns, fields=list(array.type), mask=pa.array(missing))


# ---------------------------------------------------------------- what was done


def _metadata(
    fields: Sequence[pa.Field],
    rate_hz: float | None,
    like: str | None,
    clock: Floats,
    offsets: Mapping[str, float],
    tolerance_s: float | None,
) -> dict[str, Any]:
    ruled = {field.name: field.metadata for field in fields if b"ml_dash.rule" in (field.metadata or {})}
    return {
        "clock": f"rate_hz={rate_hz}" if rate_hz is not None else f"like={like!r}" if like else "at",
        "instants": len(clock),
        "tolerance_s": tolerance_s,
        "offset_s": dict(offsets),
        "rules": {
            name: {"rule": said[b"ml_dash.rule"].decode(), "why": said[b"ml_dash.why"].decode()}
            for name, said in ruled.items()
        },
    }
