"""What the control loop notices of remote mode: append beside a server, and through an outage."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

import ml_dash
from benchmarks import workload
from benchmarks.remote.bench import Bench
from benchmarks.remote.jobs import POOL
from benchmarks.remote.served import Dash, timing, wait_for
from benchmarks.workload import PERIOD_S, START_S, TOPIC, WIDTHS

MODES = ("local", "both", "alone", "local_again", "local_beside")
"""`local_again` shows the machine's noise. `local_beside` records on disk while another process sends to the server at
1 kHz: the server's work then disturbs the caches alike, and what is left is the recorder's own doing."""
READ_ENTRIES = 50_000


def append(bench: Bench) -> None:
    """Every round: recorded here, here and on the server, on the server only; and here again, for the noise."""
    for name in list(bench.databases.running)[:1]:
        with Dash(bench.folder / f"append-{name}", mongo_uri=bench.databases.running[name].uri) as server:
            for round_ in range(bench.options.rounds):
                for place in range(len(MODES)):
                    _append_once(bench, server, round_, MODES[(round_ + place) % len(MODES)])


def _append_once(bench: Bench, server: Dash, round_: int, mode: str) -> None:
    with ExitStack() as stack:
        if mode == "local_beside":
            other = bench.begin("outage", mode="alone", url=server.url, prefix=f"bench/beside/run-{round_}")
            stack.callback(other.kill)
            wait_for(other.mark("recording").exists, 60, "the first entries of the other process")
        found = bench.run(
            "append", mode=mode.split("_")[0], url=server.url, prefix=f"bench/append/{mode}-{round_}",
            entries=bench.options.append_entries, seconds=bench.options.append_seconds,
        )  # fmt: skip
    bench.keep(round_, **{f"append_{mode}_{key}": value for key, value in found.items()})


# --- an outage -------------------------------------------------------------------------------------------------------


def outage(bench: Bench) -> None:
    """1 kHz with the server there, gone, and back; then what arrived is compared with what was recorded."""
    name = next(iter(bench.databases.running))
    server = Dash(bench.folder / "outage", mongo_uri=bench.databases.running[name].uri).start()
    job = bench.begin("outage", mode="alone", url=server.url, prefix="bench/outage/run")
    try:
        wait_for(lambda: job.mark("recording").exists() or job.process.poll() is not None, 60, "the first entries")
        phases = {"before": _pause(bench.options.steady_seconds)}
        server.stop()
        phases["during"] = _pause(bench.options.outage_seconds)
        server.start()
        phases["after"] = _pause(bench.options.steady_seconds)
        began = time.monotonic()
        job.mark("phases.part").write_text(json.dumps(_in_halves(phases)))
        job.mark("phases.part").rename(job.mark("phases"))
        with timing({"server": server.pid}) as used:
            found = job.result()
        bench.keep(0, outage_catch_up_s=time.monotonic() - began, outage_server_cpu_s=used["server"])
        bench.keep(0, **{f"outage_{key}": value for key, value in found.items()})
        bench.keep(0, outage_wrong=float(_wrong(server.url, int(found["ticks"]))))
    finally:
        job.kill()
        server.stop()


def _pause(seconds: float) -> tuple[int, int]:
    began = time.perf_counter_ns()
    time.sleep(seconds)
    return began, time.perf_counter_ns()


def _in_halves(phases: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The quiet phase also in two halves: how much it differs from itself is the machine's noise."""
    first, last = phases["before"]
    middle = (first + last) // 2
    return phases | {"before_1": (first, middle), "before_2": (middle, last)}


def _wrong(url: str, ticks: int) -> int:
    """How many entries are missing, doubled or not what was recorded, in the track and in the sequence."""
    pool, wrong, seen = workload.entries(POOL), 0, 0
    with ml_dash.open("bench/outage/run", dash_url=url) as stored:
        for first in range(0, ticks, READ_ENTRIES):
            start, end = _stamp(first), _stamp(min(first + READ_ENTRIES, ticks) - 1)
            entries = stored.tracks(TOPIC).read(start_timestamp=start, end_timestamp=end)["entries"]
            seen += len(entries)
            wrong += sum(entry != _expected(pool, entry.get("n", -1)) for entry in entries)
        numbers = [entry["n"] for entry in stored.metrics("ticks").read()["entries"]]
    counted = abs(ticks - seen) + abs(ticks - len(numbers))
    return wrong + counted + sum(found != number for number, found in enumerate(numbers))


def _stamp(number: int) -> float:
    return START_S + number * PERIOD_S


def _expected(pool: list[workload.EntryTuple], number: int) -> dict[str, Any]:
    fields = dict(zip(WIDTHS, pool[number % POOL][1:], strict=True))
    return {"timestamp": _stamp(number), **fields, "n": number}
