"""Compaction: how often entries move, what it holds in memory, and that its quick ways store what the slow one does."""

from __future__ import annotations

from typing import Any

import pytest

from ml_dash.stores.compactor import Policy, with_small_ones

POLICY = Policy()


def headers_of(counts: list[int], level: int) -> list[dict[str, Any]]:
    """Segments as far as the choice of what to merge looks at them."""
    return [{"n": n, "size": 140 * n, "lv": level, "s1": 1, "lo": 0.0, "hi": 1.0} for n in counts]


@pytest.mark.parametrize("rate_hz", [1, 10, 100, 1000, 5000])
def test_entries_move_few_times_however_long_a_track_grows(rate_hz: int) -> None:
    """Over a day of passes each entry is written a few times, and the segments stay few."""
    every_s, headers, moved, came = 30, list[dict[str, Any]](), 0, 0
    for _ in range(86_400 // every_s):
        loose = headers_of([rate_hz] * every_s, 0)
        came += rate_hz * every_s
        headers += loose
        first = with_small_ones(headers, len(headers) - len(loose), [], POLICY)
        total = sum(header["n"] for header in headers[first:])
        parts = [min(POLICY.part_entries, total - n) for n in range(0, total, POLICY.part_entries)]
        headers[first:] = headers_of(parts, 1)
        moved += total
    assert moved < 8 * came
    assert len(headers) < 20 + 4 * came / POLICY.part_entries
