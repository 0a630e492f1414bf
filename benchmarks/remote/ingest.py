"""From a program to the database: entries a second, beside one document an entry, and where the time goes."""

from __future__ import annotations

import time

from benchmarks.remote.bench import Bench
from benchmarks.remote.served import Dash, resident_mb, timing

OURS = ("append", "extend")
PLAIN = ("insert_many", "upsert_id", "upsert")
SCANS = "upserts by (track, ts) look at the whole collection here: measured on a few hundred entries"


def ingest(bench: Bench) -> None:
    """Every database in turn; in a round ours and the plain ways alternate. The warming rounds are not counted."""
    for name, database in bench.databases.running.items():
        with Dash(bench.folder / f"ingest-{name}", mongo_uri=database.uri) as server:
            for round_ in range(-bench.options.warm_rounds, bench.options.rounds):
                ways = [*OURS, *PLAIN]
                for place in range(len(ways)):
                    _once(bench, name, server, round_, ways[(round_ + place) % len(ways)])


def _once(bench: Bench, name: str, server: Dash, round_: int, way: str) -> None:
    if way in OURS:
        count = bench.options.ingest_entries
        pids = {"server": server.pid, "database": bench.databases.pid(name)}
        with timing(pids) as used:
            found = bench.run(
                "ingest", mode="alone", how=way, url=server.url, prefix=f"bench/{way}/{round_ + 1}", entries=count
            )
        found |= {f"{part}_us": seconds / count * 1e6 for part, seconds in used.items()}
    else:
        found = bench.run(
            "plain", how=way, uri=server.mongo_uri, database=server.database, entries=_plain_entries(bench, name, way)
        )
    if round_ >= 0:
        bench.keep(round_, **{f"ingest_{name}_{way}_{key}": value for key, value in found.items()})


def _plain_entries(bench: Bench, name: str, way: str) -> int:
    """FerretDB scans for every upsert, and even by id takes milliseconds for one: few entries, and small collections,
    are kind to it."""
    if name == "ferretdb" and way != "insert_many":
        bench.note(f"ingest_{name}_upsert", SCANS)
        return bench.options.slow_entries
    return bench.options.plain_entries


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(bench: Bench) -> None:
    """The server's resident memory while it takes all that a client can send, every fifth of a second.

    Upkeep compacts every half minute: with 100 seconds each third has a compaction in it.
    """
    name = next(iter(bench.databases.running))
    with Dash(bench.folder / "memory", mongo_uri=bench.databases.running[name].uri) as server:
        seconds = bench.options.memory_seconds
        job = bench.begin("load", mode="alone", url=server.url, prefix="bench/load/run", seconds=seconds)
        samples = [resident_mb(server.pid)]
        while job.process.poll() is None:
            time.sleep(0.2)
            samples.append(resident_mb(server.pid))
        found = job.result()
    third = len(samples) // 3
    bench.keep(
        0,
        memory_idle_mb=samples[0],
        memory_first_mb=max(samples[: max(1, third)]),
        memory_middle_mb=max(samples[third : 2 * third] or samples),
        memory_last_mb=max(samples[2 * third :]),
        memory_entries=found["entries"],
        memory_large=found["large"],
    )
