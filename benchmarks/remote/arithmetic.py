"""1,000 robots at 1 kHz, worked out from what a run measured. Prices and machines are assumptions, and named as such."""

from __future__ import annotations

from typing import Any

from benchmarks.catalogue import OURS
from benchmarks.report import median

ROBOTS, RATE_HZ, DAY_S = 1_000, 1_000, 86_400
PART = 65_536
"""Entries of one part, as `compactor.Policy` has it."""
PUT_USD, GET_USD = 5.0 / 1e6, 0.4 / 1e6
STORAGE_USD = 0.023
"""S3 Standard in us-east-1 as listed by AWS: a PUT, a GET, a GB for a month. Look them up before you rely on them."""
SHARD_WRITE_MB = 50.0
SHARD_TB = 2.0
BUSY = 0.5
"""Half of a core's measured rate is planned with."""


def section(result: dict[str, Any]) -> str:
    """The table, and what follows from it."""
    found = figures(result)
    if not found:
        return "Not measured in this run."
    lines = ["| | |", "| --- | ---: |"]
    lines += [f"| {title} | {value} |" for title, value in _rows(found)]
    return "\n".join(lines)


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The quantities by name; empty where the run lacks a measure they follow from."""
    name = next(iter(result["databases"]))
    keys = {
        "server_us": f"ingest_{name}_append_server_us",
        "wire_bytes": "wire_bytes",
        "written": "storage_noisy_1khz_written",
        "stored": "storage_noisy_1khz",
        "bodies": "storage_noisy_1khz_bodies",
        "index": "storage_noisy_1khz_index",
    }
    known = {key: median(result, OURS, figure) for key, figure in keys.items()}
    return {} if None in known.values() else _worked_out({key: value or 0.0 for key, value in known.items()})


def _worked_out(known: dict[str, float]) -> dict[str, float]:
    per_s = float(ROBOTS * RATE_HZ)
    entries, batches, parts = per_s * DAY_S, float(ROBOTS * DAY_S), per_s * DAY_S / PART
    made = {
        "per_s": per_s,
        "entries": entries,
        "batches_s": float(ROBOTS),
        "batches": batches,
        "wire_mb_s": per_s * known["wire_bytes"] / 1e6,
        "day_tb": entries * known["stored"] / 1e12,
        "archive_tb": entries * known["bodies"] / 1e12,
        "written_mb_s": per_s * known["written"] / 1e6,
        "parts": parts,
        "stubs_index_gb": entries * known["index"] / 1e9,
        "puts_usd": parts * PUT_USD,
        "gets_usd": 1e6 * 3 * GET_USD,
        "year_tb": entries * 365 * known["bodies"] / 1e12,
        "cores": per_s * known["server_us"] / 1e6,
    }
    made["month_usd"] = made["archive_tb"] * 30 * 1e3 * STORAGE_USD
    made["processes"] = made["cores"] / BUSY
    # Every byte is written twice in the database: as it comes, and compacted.
    made["shards"] = max(
        (made["written_mb_s"] + per_s * known["stored"] / 1e6) / SHARD_WRITE_MB, made["day_tb"] / SHARD_TB
    )
    return known | made


def _rows(found: dict[str, float]) -> list[tuple[str, str]]:
    return [
        ("entries a second; a day", f"{found['per_s']:,.0f}; {found['entries']:.3g}"),
        ("requests a second, a batch a second from each robot", f"{found['batches_s']:,.0f}"),
        ("into the servers", f"{found['wire_mb_s']:,.0f} MB/s"),
        ("server CPU, measured", f"{found['server_us']:.2f} us an entry: {found['cores']:.1f} cores"),
        (f"server processes, planned {BUSY:.0%} busy", f"{found['processes']:.0f}"),
        ("into the database as written", f"{found['written_mb_s']:,.0f} MB/s"),
        ("stored a day, all of it", f"{found['day_tb']:.1f} TB at {found['stored']:.0f} B an entry"),
        ("segment documents inserted a day, as written", f"{found['batches']:.3g}"),
        ("of them left a day later: parts", f"{found['parts']:,.0f} a day"),
        ("index keys with a day's stubs", f"{found['stubs_index_gb']:.1f} GB"),
        (
            f"shards, at {SHARD_WRITE_MB:.0f} MB/s of writes and {SHARD_TB:.0f} TB each (assumed)",
            f"{found['shards']:.0f}",
        ),
        ("archived a day; a year", f"{found['archive_tb']:.1f} TB; {found['year_tb']:,.0f} TB"),
        (f"S3: PUTs of a day at {PUT_USD * 1e6:.2f} USD a million", f"{found['puts_usd']:.2f} USD"),
        (f"S3: a month's data kept for a month at {STORAGE_USD} USD a GB", f"{found['month_usd']:,.0f} USD"),
        (
            f"S3: a million windows, three ranged GETs each, at {GET_USD * 1e6:.2f} USD a million",
            f"{found['gets_usd']:.2f} USD",
        ),
    ]
