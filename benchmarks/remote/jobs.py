"""What runs in a process of its own: `python -m benchmarks.remote.jobs FOLDER`, which holds job.json.

The clients record as a user's program does; the plain ones store one document an entry with PyMongo, straight into the
database, without a server in between.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.gauges import settle
from benchmarks.percentiles import percentile
from benchmarks.systems.ours import SYSTEM
from benchmarks.workload import PERIOD_S, START_S, TOPIC, WIDTHS, EntryTuple
from ml_dash import Experiment
from ml_dash.errors import NotDelivered

clock = time.perf_counter_ns
BULK = 1_000
POOL = 1_000


def experiment(job: dict[str, Any]) -> Experiment:
    """Recorded here (`local`), here and on the server (`both`), or on the server only (`alone`)."""
    root = None if job["mode"] == "alone" else Path(job["folder"]) / "root"
    url = None if job["mode"] == "local" else job["url"]
    return Experiment(job["prefix"], dash_root=root, dash_url=url)


# --- appending -------------------------------------------------------------------------------------------------------


def append(job: dict[str, Any]) -> dict[str, float]:
    """Times of single calls, in a tight loop and at 1 kHz."""
    entries = workload.entries(job["entries"])
    ticks = int(job["seconds"] / PERIOD_S)
    laps, paced = array("q", bytes(8 * len(entries))), array("q", bytes(8 * ticks))
    late = array("q", bytes(8 * ticks))
    with experiment(job).run as opened:
        loops = workload.loops(SYSTEM.line, {"exp": opened})
        loops["timed"](entries[:1000], "warm", clock, array("q", bytes(8000)))
        settle()
        loops["timed"](entries, TOPIC, clock, laps)
        opened.tracks.flush()
        pool = workload.entries(ticks, len(entries))
        settle()
        period_ns = round(PERIOD_S * 1e9)
        loops["ticking"](ticks, pool, [TOPIC], clock, time.sleep, period_ns, paced, late)
    return percentiles("tight", laps) | percentiles("paced", paced)


def percentiles(name: str, laps: array[int]) -> dict[str, float]:
    """In microseconds."""
    return {f"{name}_{label}_us": percentile(laps, share) / 1e3 for label, share in (("p50", 0.5), ("p99", 0.99))}


# --- until it is stored ----------------------------------------------------------------------------------------------


def ingest(job: dict[str, Any]) -> dict[str, float]:
    """From the first append until everything is on the server."""
    count = job["entries"]
    columns, entries = workload.arrays(count), workload.entries(count)
    with experiment(job).run as opened:
        plain = workload.loops(SYSTEM.line, {"exp": opened})["plain"]
        opened.tracks("warm").append(q=[0.0], _ts=0.0).flush()
        settle()

        def run() -> None:
            if job["how"] == "extend":
                opened.tracks(TOPIC).extend(_ts=columns["timestamp"], **{name: columns[name] for name in WIDTHS})
            else:
                plain(entries, TOPIC)
            opened.tracks.flush(timeout_s=600)

        return rates(count, run)


def rates(count: int, run: Callable[[], Any]) -> dict[str, float]:
    """Entries a second, and this process's CPU for one."""
    began, used = time.perf_counter(), time.process_time()
    run()
    return {
        "per_s": count / (time.perf_counter() - began),
        "client_us": (time.process_time() - used) / count * 1e6,
    }


def plain(job: dict[str, Any]) -> dict[str, float]:
    """One document an entry, a thousand in a request, acknowledged as our server's inserts are."""
    import pymongo

    entries = workload.entries(job["entries"])
    client: Any = pymongo.MongoClient(job["uri"])
    collection = client[job["database"]].get_collection(
        f"plain_{time.time_ns()}", write_concern=pymongo.WriteConcern("majority", j=True)
    )
    if job["how"] != "upsert_id":
        collection.create_index([("track", 1), ("ts", 1)], unique=True)
    store = {"insert_many": _insert, "upsert": _upsert, "upsert_id": _upsert_id}[job["how"]]
    settle()

    def run() -> None:
        for first in range(0, len(entries), BULK):
            store(collection, entries[first : first + BULK])

    found = rates(len(entries), run)
    if collection.count_documents({}) != len(entries):
        raise AssertionError("not every entry became a document")
    collection.drop()
    return found


def _fields(entry: EntryTuple) -> dict[str, Any]:
    return dict(zip(WIDTHS, entry[1:], strict=True))


def _insert(collection: Any, entries: list[EntryTuple]) -> None:
    collection.insert_many([{"track": TOPIC, "ts": entry[0], **_fields(entry)} for entry in entries], ordered=False)


def _upsert(collection: Any, entries: list[EntryTuple]) -> None:
    from pymongo import UpdateOne

    changes = [UpdateOne({"track": TOPIC, "ts": e[0]}, {"$set": _fields(e)}, upsert=True) for e in entries]
    collection.bulk_write(changes, ordered=False)


def _upsert_id(collection: Any, entries: list[EntryTuple]) -> None:
    from pymongo import UpdateOne

    changes = [UpdateOne({"_id": f"{TOPIC}/{e[0]!r}"}, {"$set": _fields(e)}, upsert=True) for e in entries]
    collection.bulk_write(changes, ordered=False)


# --- load ------------------------------------------------------------------------------------------------------------


def load(job: dict[str, Any]) -> dict[str, float]:
    """As much as the server takes for some seconds: entries of 176 bytes, and at times some of 100 kB."""
    pool, count, large = workload.entries(POOL), 0, 0
    end = time.monotonic() + job["seconds"]
    blob = [float(number) for number in range(11_000)]
    with experiment(job).run as opened:
        track, pictures = opened.tracks(TOPIC), opened.tracks("camera/depth")
        while time.monotonic() < end:
            for _ in range(10_000):
                _, q, qd, ee_pos, ee_quat = pool[count % POOL]
                track.append(q=q, qd=qd, ee_pos=ee_pos, ee_quat=ee_quat, _ts=START_S + count * PERIOD_S)
                count += 1
            for _ in range(10):
                pictures.append(depth=blob, _ts=START_S + large * PERIOD_S)
                large += 1
            opened.tracks.flush(timeout_s=600)
    return {"entries": float(count), "large": float(large)}


# --- an outage -------------------------------------------------------------------------------------------------------


def outage(job: dict[str, Any]) -> dict[str, float]:
    """1 kHz until the bench says that it is enough; `phases` then holds when the server was away."""
    folder, laps, times = Path(job["folder"]), array("q"), array("q")
    run = experiment(job).run
    with run as opened:
        track, metric = opened.tracks(TOPIC), opened.metrics("ticks")
        settle()
        due = clock()
        for tick, (q, qd, ee_pos, ee_quat) in enumerate(_cycling()):
            due += round(PERIOD_S * 1e9)
            pause = due - clock()
            if pause > 0:
                time.sleep(pause * 1e-9)
            began = clock()
            track.append(q=q, qd=qd, ee_pos=ee_pos, ee_quat=ee_quat, n=tick, _ts=START_S + tick * PERIOD_S)
            laps.append(clock() - began)
            times.append(began)
            metric.log(n=tick)
            if tick == POOL:
                (folder / "recording").touch()
            if tick % 500 == 0 and (folder / "phases").exists():
                break
        opened.tracks.flush(timeout_s=900)
    return _by_phase(laps, times, json.loads((folder / "phases").read_text()))


def _cycling() -> Iterator[tuple[list[float], ...]]:
    pool = [entry[1:] for entry in workload.entries(POOL)]
    while True:
        yield from pool


def _by_phase(laps: array[int], times: array[int], phases: dict[str, list[int]]) -> dict[str, float]:
    found = {"ticks": float(len(laps))}
    for name, (first, last) in phases.items():
        inside = [lap for lap, at in zip(laps, times, strict=True) if first <= at <= last]
        found |= percentiles(name, array("q", inside)) | {f"{name}_max_us": max(inside) / 1e3}
    return found


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
    "append": append,
    "ingest": ingest,
    "plain": plain,
    "load": load,
    "outage": outage,
}


def main(folder: str) -> int:
    """Run the job of a folder and write its figures there."""
    job = json.loads((Path(folder) / "job.json").read_text())
    with warnings.catch_warnings():
        # What an outage leaves undelivered at first is what the measure is about; at the end the bench counts.
        warnings.simplefilter("ignore" if job["measure"] == "outage" else "error", NotDelivered)
        found = JOBS[job["measure"]](job)
    (Path(folder) / "result.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
