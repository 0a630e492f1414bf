"""1,000 robots at 1 kHz, worked out from what a run measured. Prices and machines are assumptions, named as such."""

from __future__ import annotations

from typing import Any

from benchmarks.catalogue import OURS
from benchmarks.report import median

ROBOTS, RATE_HZ, DAY_S = 1_000, 1_000, 86_400
PART = 65_536
"""Entries of one part, as `compactor.Policy` has it."""
PUT_USD, GET_USD, STORAGE_USD = 5.0 / 1e6, 0.4 / 1e6, 0.023
"""A PUT, a GET, a GB for a month."""
WINDOW_GETS = 3
SHARD_WRITE_MB, SHARD_TB = 50.0, 2.0
BUSY = 0.5
"""Half of a core's measured rate is planned with."""
KEPT_DAYS = 1.0
"""How long the database keeps what the archive has too."""


def section(result: dict[str, Any]) -> str:
    """The table, and what breaks first."""
    found = figures(result)
    if not found:
        return "Not measured in this run."
    lines = ["| | |", "| --- | ---: |"]
    lines += [f"| {title} | {value} |" for title, value in _rows(found)]
    return "\n".join([*lines, "", _first(found)])


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The quantities by name; empty where the run lacks a measure they follow from."""
    name = next(iter(result["databases"]))
    keys = {
        "server_us": f"ingest_{name}_append_server_us",
        "wire_bytes": "wire_bytes",
        "written": "storage_noisy_1khz_written",
        "stored": "storage_noisy_1khz",
        "bodies": "storage_noisy_1khz_bodies",
        "stubs": "storage_noisy_1khz_stubs",
        "index": "storage_noisy_1khz_index",
        "compact_us": "storage_noisy_1khz_compact_us",
    }
    known = {key: median(result, OURS, figure) for key, figure in keys.items()}
    return {} if None in known.values() else _worked_out({key: value or 0.0 for key, value in known.items()})


def _worked_out(known: dict[str, float]) -> dict[str, float]:
    per_s = float(ROBOTS * RATE_HZ)
    entries = per_s * DAY_S
    made = {
        "per_s": per_s,
        "entries": entries,
        "batches": float(ROBOTS * DAY_S),
        "parts": entries / PART,
        "wire_mb_s": per_s * known["wire_bytes"] / 1e6,
        # Every entry is written twice in the database: as it comes, and compacted.
        "write_mb_s": per_s * (known["written"] + known["stored"]) / 1e6,
        "day_tb": entries * known["stored"] / 1e12,
        "stubs_gb": entries * known["stubs"] / 1e9,
        "index_gb": entries * known["index"] / 1e9,
        "archive_tb": entries * known["bodies"] / 1e12,
        "serving": per_s * known["server_us"] / 1e6 / BUSY,
        "compacting": per_s * known["compact_us"] / 1e6 / BUSY,
    }
    made["shards"] = max(made["write_mb_s"] / SHARD_WRITE_MB, made["day_tb"] * KEPT_DAYS / SHARD_TB)
    return known | made


def _rows(found: dict[str, float]) -> list[tuple[str, str]]:
    month_usd = found["archive_tb"] * 30 * 1e3 * STORAGE_USD
    return [
        ("entries a second; a day", f"{found['per_s']:,.0f}; {found['entries']:.3g}"),
        ("requests a second, a batch a second from each robot", f"{ROBOTS:,}"),
        ("into the servers, compressed", f"{found['wire_mb_s']:,.0f} MB/s"),
        (f"server processes at {found['server_us']:.2f} us an entry, half busy", f"{found['serving']:.1f}"),
        (
            f"compaction at {found['compact_us']:.2f} us an entry: upkeep threads, half busy",
            f"{found['compacting']:.1f}",
        ),
        ("into the database, as written and compacted", f"{found['write_mb_s']:,.0f} MB/s"),
        ("segment documents inserted a day; parts of them", f"{found['batches']:.3g}; {found['parts']:.3g}"),
        (f"stored a day, all of it, at {found['stored']:.0f} B an entry", f"{found['day_tb']:.1f} TB"),
        ("of it a day's stubs; keys of all indexes", f"{found['stubs_gb']:.0f} GB; {found['index_gb']:.0f} GB"),
        (
            f"shards, of {SHARD_WRITE_MB:.0f} MB/s and {SHARD_TB:.0f} TB each, the archive taking over after a day",
            f"{found['shards']:.1f}",
        ),
        ("archived a day; a year", f"{found['archive_tb']:.1f} TB; {found['archive_tb'] * 365:,.0f} TB"),
        (f"S3, PUTs of a day at {PUT_USD * 1e6:.2f} USD a million", f"{found['parts'] * PUT_USD:.2f} USD"),
        (f"S3, a month's recordings kept for a month at {STORAGE_USD} USD a GB", f"{month_usd:,.0f} USD"),
        (
            f"S3, a million windows at {GET_USD * 1e6:.2f} USD a million GETs, {WINDOW_GETS} each",
            f"{WINDOW_GETS * 1e6 * GET_USD:.2f} USD",
        ),
    ]


def _first(found: dict[str, float]) -> str:
    """What has to be multiplied the most gives way the earliest."""
    needed = {
        "one server's upkeep thread (compaction)": found["compacting"],
        "one server process": found["serving"],
        "one shard": found["shards"],
    }
    order = sorted(needed, key=lambda name: needed[name], reverse=True)
    parts = [f"{name} carries {ROBOTS / needed[name]:,.0f} robots" for name in order]
    return f"What gives way first is {order[0]}: of the {ROBOTS:,} robots {'; '.join(parts)}."
