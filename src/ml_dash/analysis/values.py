"""What can be wrong with the values of a track, column by column: NaN, types that drift, sensors that froze."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..formats.arrow import is_json
from .checks import NOTE, PROBLEM, Finding, Limits, Stamps
from .tables import Floats, as_numbers, column, columns_of, in_rows, plain_numbers, timestamps

LIVE_TURNS = 0.2
"""A signal that turns up or down with this share of its changes carries noise; white noise turns with two thirds."""
MOVING_SHARE = 0.9
"""A signal that changes with this share of its entries moves all the time, noise or not."""

Values = NDArray[Any]


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
    if not _is_numeric(field.type) or len(array) - array.null_count < limits.entries:
        return
    if array.null_count:
        valid = array.is_valid()
        times, array = times[valid.to_numpy(zero_copy_only=False)], array.filter(valid)
    plain = plain_numbers(array)  # integers as they are: rounded ones could look the same
    values: Values = in_rows(as_numbers(field, array) if plain is None else plain)
    wrong = ~np.isfinite(values)
    share = float(wrong.mean()) if values.size else 0.0
    if share > limits.nan_share:
        at = float(times[int(wrong.any(axis=1).argmax())])
        message = f"{field.name}: {share:.1%} of the values are NaN or infinite"
        yield Finding(topic, "nan", PROBLEM, message, field.name, at, share)
    if measured.interval_s is not None:
        yield from _flat(topic, field.name, values, times, measured.interval_s, limits)


def _is_numeric(kind: Any) -> bool:
    while pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


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


def _flat(topic: str, name: str, values: Values, times: Floats, interval_s: float, limits: Limits) -> Iterator[Finding]:
    same = values[1:] == values[:-1]
    for item in range(values.shape[1]):
        part = name if values.shape[1] == 1 else f"{name}[{item}]"
        changes = np.flatnonzero(~same[:, item])
        if not len(changes):
            message = f"{part} never changes from {_shown(values[0, item])}"
            yield Finding(topic, "constant", NOTE, message, part, value=float(values[0, item]))
            continue
        bounds = np.concatenate([[-1], changes, [len(same)]])
        longest = int(np.diff(bounds).argmax())
        first, last = int(bounds[longest]) + 1, int(bounds[longest + 1])
        length = float(times[last] - times[first])
        if length < limits.flat_intervals * interval_s:
            continue
        others = np.concatenate([values[:first, item], values[last + 1 :, item]])
        if length >= limits.flat_s and _is_live(others):
            yield _stuck(topic, part, values[:, item], times, (first, last), "it carries noise elsewhere")
        elif length >= max(limits.freeze_s, limits.freeze_share * float(times[-1] - times[0])) and _moves(others):
            found = _stuck(topic, part, values[:, item], times, (first, last), "it changes all the time elsewhere")
            yield found if values[first, item] else replace(found, severity=NOTE)  # 0: at rest


def _stuck(topic: str, part: str, values: Values, times: Floats, where: tuple[int, int], else_: str) -> Finding:
    """A frozen sensor; or one at the end of its range, which may be just what happened: a note."""
    first, last = where
    value, length = values[first], float(times[last] - times[first])
    if value and abs(float(value)) >= float(np.nanmax(np.abs(values.astype(np.float64)))):
        message = f"{part} stays at its limit {_shown(value)} for {length:.3g} s"
        return Finding(topic, "clipped", NOTE, message, part, float(times[first]), length)
    message = f"{part} stays at {_shown(value)} for {length:.3g} s, though {else_}"
    return Finding(topic, "flat", PROBLEM, message, part, float(times[first]), length)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def _is_live(values: Values) -> bool:
    """Whether a signal carries noise: it changes with most entries, now up, now down. A smooth one may simply rest."""
    rising = values[1:] > values[:-1]
    changed = values[1:] != values[:-1]
    rising = rising[changed]
    if len(rising) < max(0.5 * len(values), 2):
        return False
    turns = np.count_nonzero(rising[1:] != rising[:-1])
    return bool(turns >= LIVE_TURNS * len(rising))


def _moves(values: Values) -> bool:
    """Whether a signal changes with nearly every entry."""
    return len(values) > 2 and bool(np.count_nonzero(values[1:] != values[:-1]) >= MOVING_SHARE * (len(values) - 1))
