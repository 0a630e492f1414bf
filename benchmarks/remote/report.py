"""From samples to the table, the targets and the page's figures. Nothing here is typed in."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.catalogue import OURS
from benchmarks.remote import arithmetic
from benchmarks.report import median, number, paired, rounds, spread

Result = dict[str, Any]
Row = tuple[str, str, str]
"""The figure's key, its title, its unit."""

PLAIN = {
    "insert_many": "insert_many",
    "upsert_id": "bulk upserts by _id",
    "upsert": "bulk upserts by (track, ts)",
}
STAGES = {
    "stage_encode_us": "program: encode an entry (append)",
    "stage_cut_us": "client: read the journal, cut batches",
    "stage_pack_us": "client: pack, zstd, checksum",
    "stage_unpack_us": "server: checksum, zstd, unpack",
    "stage_check_us": "server: check every entry",
}
MOST_SHARE = 0.5
MARKS = re.compile(r"(<!-- figures: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


# --- rows ------------------------------------------------------------------------------------------------------------


def groups(result: Result) -> dict[str, list[Row]]:
    """Every group of figures that this run took."""
    found = {
        "append": list(_append_rows()),
        "ingest": list(_ingest_rows(result)),
        "stages": list(_stage_rows(result)),
        "storage": list(_storage_rows()),
        "windows": list(_window_rows(result)),
        "places": list(_place_rows()),
        "memory": list(_memory_rows()),
        "outage": list(_outage_rows()),
    }
    return {name: [row for row in rows if median(result, OURS, row[0]) is not None] for name, rows in found.items()}


def _append_rows() -> Iterator[Row]:
    modes = {
        "local": "on disk",
        "both": "disk and server",
        "alone": "server only",
        "local_again": "on disk once more",
        "local_beside": "on disk, another process sends",
    }
    for loop, title in (("tight", "tight loop"), ("paced", "1 kHz")):
        for share in ("p50", "p99"):
            for mode, name in modes.items():
                yield f"append_{mode}_{loop}_{share}_us", f"append, {title}, {share}: {name}", "us"


def _ingest_rows(result: Result) -> Iterator[Row]:
    for name in result["databases"]:
        for way, title in {"append": "ours, append", "extend": "ours, arrays", **PLAIN}.items():
            yield f"ingest_{name}_{way}_per_s", f"{name}: {title}", "entries/s"
        for part in ("client", "server", "database"):
            yield f"ingest_{name}_append_{part}_us", f"{name}: ours, append: CPU of the {part}", "us/entry"


def _stage_rows(result: Result) -> Iterator[Row]:
    for key, title in STAGES.items():
        yield key, title, "us/entry"
    for name in result["databases"]:
        yield f"stage_store_{name}_us", f"server: entries to segments, BSON ({name})", "us/entry"
        yield f"stage_database_{name}_us", f"database: insert, until acknowledged ({name})", "us/entry"
    yield "wire_bytes", "on the wire, compressed", "B/entry"


def _storage_rows() -> Iterator[Row]:
    names = {
        "demo_100hz": "demo, batches of 100",
        "demo_1khz": "demo, batches of 1,000",
        "noisy_1khz": "full mantissas, batches of 1,000",
    }
    parts = ("bodies", "headers", "stubs", "others", "index")
    for name, title in names.items():
        yield f"storage_{name}_written", f"{title}: as written", "B/entry"
        yield f"storage_{name}", f"{title}: compacted, all of it", "B/entry"
        yield from ((f"storage_{name}_{part}", f"{title}: of it {part}", "B/entry") for part in parts)
        yield f"storage_{name}_compact_us", f"{title}: CPU of compaction", "us/entry"


def _window_rows(result: Result) -> Iterator[Row]:
    parts = {
        "ms": ("over HTTP", "ms"),
        "database_ms": ("of it the database", "ms"),
        "ours_ms": ("without the database", "ms"),
        "documents": ("documents fetched", ""),
        "bytes": ("their bytes", "B"),
        "requests": ("ranged requests to the bucket", ""),
        "object_bytes": ("their bytes", "B"),
    }
    for name in result["databases"]:
        for part, (title, unit) in parts.items():
            for size in result["options"]["sizes"]:
                yield f"window_{name}_{size}_{part}", f"{name}: 1,000 of {size:,}: {title}", unit


def _place_rows() -> Iterator[Row]:
    for state in ("live", "compacted", "archived"):
        yield f"place_{state}_window_ms", f"a window of 1,000: {state}", "ms"
    for state in ("live", "compacted", "archived"):
        yield f"place_{state}_full_s", f"everything: {state}", "s"


def _memory_rows() -> Iterator[Row]:
    for part in ("idle", "first", "middle", "last"):
        title = "before the load" if part == "idle" else f"most in the {part} third"
        yield f"memory_{part}_mb", f"server's resident memory: {title}", "MB"
    yield "memory_entries", "entries stored meanwhile", ""
    yield "memory_large", "entries of 100 kB among them", ""


def _outage_rows() -> Iterator[Row]:
    for share in ("p50_us", "p99_us", "max_us"):
        for phase in ("before", "during", "after"):
            yield f"outage_{phase}_{share}", f"append at 1 kHz {phase} the outage, {share[:-3]}", "us"
    yield "outage_ticks", "entries recorded", ""
    yield "outage_catch_up_s", "from the end of recording until all had arrived", "s"
    yield "outage_wrong", "missing, doubled or different entries", ""


# --- targets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, alone or divided by another one of the same round, against a limit.

    `noise` names two figures of which nothing but the machine tells the ratio. `database` begins the name of a window
    that is judged without the database's share, which can be told only while that is the smaller part.
    """

    title: str
    key: str
    limit: float
    over: str = ""
    at_least: bool = False
    noise: tuple[str, str] | None = None
    database: str = ""


def targets(result: Result) -> Iterator[Target]:
    """Every promise that this run can judge."""
    for mode, name in (("both", "disk and server"), ("alone", "server only")):
        for loop, title in (("tight", "tight loop"), ("paced", "1 kHz")):
            key, local = f"append_{mode}_{loop}_p50_us", f"append_local_{loop}_p50_us"
            noise = (f"append_local_again_{loop}_p50_us", local)
            # A robot does not run the server: at 1 kHz it is there beside either side.
            over = f"append_local_beside_{loop}_p50_us" if loop == "paced" else local
            yield Target(f"append p50, {title}, {name} / on disk", key, 1.1, over, noise=noise)
    for name in result["databases"]:
        for how, title in (("append", "append"), ("extend", "arrays")):
            for way, limit in (("insert_many", 5.0), ("upsert_id", 10.0), ("upsert", 10.0)):
                ours, other = f"ingest_{name}_{how}_per_s", f"ingest_{name}_{way}_per_s"
                yield Target(f"ingest, {title} / {PLAIN[way]}, {name}", ours, limit, other, at_least=True)
    yield Target("bytes stored an entry, demo, batches of 100", "storage_demo_100hz", 150)
    yield Target("bytes stored an entry, demo, batches of 1,000", "storage_demo_1khz", 150)
    yield Target("bytes stored an entry, full mantissas", "storage_noisy_1khz", 150)
    sizes = result["options"]["sizes"]
    for name in result["databases"]:
        large, small = f"window_{name}_{max(sizes)}", f"window_{name}_{100_000}"
        title = f"1,000 of {max(sizes):,} / of 100,000, {name}"
        yield Target(title, f"{large}_ms", 2.0, f"{small}_ms")
        yield Target(f"{title}, without the database", f"{large}_ours_ms", 2.0, f"{small}_ours_ms", database=large)
    yield Target("server's memory, last third / middle third", "memory_last_mb", 1.1, "memory_middle_mb")
    noise = ("outage_before_2_p99_us", "outage_before_1_p99_us")
    yield Target("append p99 in the outage / before", "outage_during_p99_us", 1.1, "outage_before_p99_us", noise=noise)
    yield Target("entries wrong after the outage", "outage_wrong", 0)


def judged(result: Result) -> list[tuple[str, str, str, str]]:
    """Each target with our figure, its limit and noise, and whether it is met by the median of the rounds."""
    lines = []
    for target in targets(result):
        found = _ratios(result, target)
        limit = ("at least " if target.at_least else "") + number(target.limit)
        if not found:
            lines.append((target.title, "-", limit, "not measured"))
            continue
        if target.database and (share := _database_share(result, target.database)) > MOST_SHARE:
            lines.append((target.title, f"the database takes {share:.0%}", limit, "cannot be told"))
            continue
        middle = statistics.median(found)
        met = middle >= target.limit if target.at_least else middle <= target.limit
        noise = paired(result, target.noise[0], OURS, (OURS, target.noise[1])) if target.noise else []
        limit += f"; the machine's noise {spread(noise)}" if noise else ""
        lines.append((target.title, spread(found), limit, "met" if met else "MISSED"))
    return lines


def _database_share(result: Result, window: str) -> float:
    """How much of a window's time the database takes."""
    whole, database = (median(result, OURS, f"{window}_{part}") or 1.0 for part in ("ms", "database_ms"))
    return database / whole


def _ratios(result: Result, target: Target) -> list[float]:
    if not target.over:
        return list(rounds(result, OURS, target.key).values())
    if not target.database:
        return paired(result, target.key, OURS, (OURS, target.over))
    # Differences of single rounds may even be negative; their medians are steadier.
    above, below = median(result, OURS, target.key), median(result, OURS, target.over)
    return [above / below] if above is not None and below else []


# --- text ------------------------------------------------------------------------------------------------------------


def text(result: Result) -> str:
    """For a terminal."""
    lines = []
    for name, rows in groups(result).items():
        lines += [f"-- {name}"] if rows else []
        for key, title, unit in rows:
            lines.append(f"{title:<62}{spread(rounds(result, OURS, key).values()):>36} {unit}")
    lines += ["", f"{'target':<62}{'ours':>28}  limit"]
    lines += [f"{title:<62}{shown:>28}  {limit}  {state}" for title, shown, limit, state in judged(result)]
    return "\n".join([*lines, "", *_remarks(result)])


def page(before: str, result: Result) -> str:
    """The page with the figures of this run between its marks."""
    made = {"conditions": _conditions(result), "targets": _markdown(("target", "ours", "limit", ""), judged(result))}
    made |= {name: _group(result, rows) for name, rows in groups(result).items()}
    made["arithmetic"] = arithmetic.section(result)
    made["remarks"] = "\n".join(f"* {line}" for line in _remarks(result)) or "None."
    return MARKS.sub(lambda found: found[1] + made.get(found[2], "Not measured in this run.") + found[3], before)


def _group(result: Result, rows: list[Row]) -> str:
    lines = [(title, f"{spread(rounds(result, OURS, key).values())} {unit}".strip()) for key, title, unit in rows]
    return _markdown(("", "median (lowest..highest)"), lines) if lines else "Not measured in this run."


def _markdown(head: tuple[str, ...], lines: list[Any]) -> str:
    rule = ("---", "---:", *["---"] * (len(head) - 2))
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def _remarks(result: Result) -> list[str]:
    absent = [f"without {name}: {reason}" for name, reason in result["absent"].items()]
    return absent + [f"{name}: {reason}" for name, reason in result["notes"].items()]


def _conditions(result: Result) -> str:
    machine, loads = result["machine"], [f"{load[0]:.2f}" for load in result["machine"]["load"]]
    databases = "; ".join(f"`{name}` is {title}" for name, title in result["databases"].items())
    return (
        f"Made by `{result['options']['command']} --docs`: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, {machine['date']}; {machine['seconds'] / 60:.0f} minutes; "
        f"load average {' and '.join(loads)} at start and end; commit {machine['commit'] or 'unknown'}. Client, "
        f"server, database and bucket share this machine. {databases}."
    )
