"""Many times at once: which entries of a table were last, or nearest, as one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InvalidQuery
from ..formats.arrow_types import one_chunk
from .places import Around, last_at, take
from .tables import Floats, timestamps


def lookup(table: pa.Table, times: Any, how: str, tolerance_s: float | None = None) -> pa.Table:
    """For each time an entry of an ascending table.

    Args:
        times: seconds, shape (n,), any order, finite.
        how: "held", the last entry at or before the time, or "nearest".
        tolerance_s: none where the entry is further away than this.

    Returns:
        n entries: `at`, the times asked for; `timestamp` and the fields of the entries found, null where there is none.

    Raises:
        InvalidQuery: the times are no finite numbers.
    """
    clock = _clock(times)
    own = timestamps(table)
    if how == "held" and tolerance_s is None:
        places = last_at(own, clock) if len(own) else np.full(len(clock), -1)
        missing = places < 0
    else:
        around = Around.find(own, clock)
        places, missing = around.nearest(tolerance_s) if how == "nearest" else around.held(tolerance_s)
    gaps = missing if missing.any() else None
    fields, arrays = [pa.field(_asked_name(table), pa.float64())], [pa.array(clock)]
    for field in table.schema:
        fields.append(field.with_nullable(True))
        arrays.append(take(one_chunk(table.column(field.name)), places, gaps))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, table.schema.metadata))


def _clock(times: Any) -> Floats:
    try:
        clock = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidQuery(f"times must be seconds, got {type(times).__name__} {str(times)[:60]}") from None
    if clock.ndim != 1:
        raise InvalidQuery(f"times must be one number or a flat list of them, got shape {clock.shape}")
    if not np.isfinite(clock).all():
        raise InvalidQuery(f"times must be finite, got {clock[~np.isfinite(clock)][0]}")
    return clock


def _asked_name(table: pa.Table) -> str:
    """`at`, or `at:` where the track has a field of that name."""
    name = "at"
    while name in table.schema.names:
        name += ":"
    return name
