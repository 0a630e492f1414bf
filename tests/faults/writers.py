"""What the killed processes do, and what must be found of it afterwards.

A *lane* is one numbered sequence of appends of one writer. After the append of number n has returned, the lane's
counter is set to n + 1; so whatever happens, the numbers below the counter must be found, and at most one more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dash
from ml_dash import Experiment, background

from .processes import Counters, wait_for
from .sizes import rng

PREFIX = "alice/robotics/kill"
LANES = ("own", "shared", "late", "over", "batch", "metric", "log", "large")
BATCH = 64
LARGE_BATCH, LARGE_TEXT = 4, "x" * 300_000
"""More than a mebibyte in one call: a segment of the journal by itself."""
ROUND = 50
"""How many timestamps the lane `over` goes round."""


def slot(writer: int, lane: str) -> int:
    """Where a lane's counter is."""
    return writer * len(LANES) + LANES.index(lane)


# ---------------------------------------------------------------- what each lane appends, and what must be found


def fields(n: int) -> dict[str, Any]:
    """The fields of the entry with number n."""
    return {"n": n, "q": [n * 0.5, n * 0.25, -1.0 * n], "text": "x" * (n % 50)}


def late_time(n: int) -> float:
    """Mostly ascending; every seventh entry belongs before some others."""
    return float(n) if n % 7 else n - 10.5


def expected(writer: int, lane: str, count: int) -> list[dict[str, Any]]:
    """What a lane's track holds after `count` appends, by timestamp (by index for sequences, without their times)."""
    if lane == "own":
        return [{"timestamp": n / 1000, **fields(n)} for n in range(count)]
    if lane == "late":
        return sorted(({"timestamp": late_time(n), "n": n} for n in range(count)), key=lambda one: one["timestamp"])
    if lane == "over":
        newest = {n % ROUND: n for n in range(count)}
        return [{"timestamp": float(at), "n": newest[at]} for at in sorted(newest)]
    if lane in ("batch", "large"):
        step = BATCH if lane == "batch" else LARGE_BATCH
        return [
            {"timestamp": n / 100, "n": n, "size": len(LARGE_TEXT) * (lane == "large")} for n in range(count * step)
        ]
    if lane == "metric":
        return [{"index": n, "n": n} for n in range(count)]
    return [{"index": n, "level": "info", "message": f"{writer}", "n": n} for n in range(count)]


def topic(writer: int, lane: str) -> str:
    """The track of a lane."""
    return f"{lane}/{writer}"


class Appender:
    """One writer's lanes in an open experiment."""

    def __init__(self, experiment: Experiment, counters: Counters, writer: int) -> None:
        self.experiment, self.counters, self.writer = experiment, counters, writer

    def append(self, lane: str, times: int = 1) -> None:
        """The next appends of a lane, each counted when it has returned."""
        place, one = slot(self.writer, lane), self._one(lane)
        slots = self.counters.slots
        for n in range(slots[place], slots[place] + times):
            one(n)
            slots[place] = n + 1

    def _one(self, lane: str) -> Callable[[int], object]:
        exp, writer = self.experiment, self.writer
        if lane == "metric":
            metric = exp.metrics(topic(writer, lane))
            return lambda n: metric.log(n=n)
        if lane == "log":
            return lambda n: exp.log(f"{writer}", n=n)
        track = exp.tracks("shared" if lane == "shared" else topic(writer, lane))
        if lane == "own":
            return lambda n: track.append(_ts=n / 1000, **fields(n))
        if lane == "shared":
            return lambda n: track.append(_ts=n / 1000, **{f"w{writer}": n})
        if lane == "late":
            return lambda n: track.append(_ts=late_time(n), n=n)
        if lane == "over":
            return lambda n: track.append(_ts=float(n % ROUND), n=n)
        if lane == "batch":
            return lambda n: self._extend(track, n, BATCH, "")
        return lambda n: self._extend(track, n, LARGE_BATCH, LARGE_TEXT)

    @staticmethod
    def _extend(track: Any, n: int, step: int, text: str) -> None:
        import numpy as np

        numbers = np.arange(n * step, (n + 1) * step)
        track.extend(_ts=numbers / 100, n=numbers, text=[text] * step)


# ---------------------------------------------------------------- programs


def hurry() -> None:
    """Have the background threads at work many times in the life of a process that lives a tenth of a second."""
    background.SYNC_EVERY_S = 0.01
    background.DRAIN_EVERY_S = 0.02


def tight(root: Path, counters: Path, writer: int, durability: str) -> None:
    """Append to one track as fast as possible, for ever."""
    hurry()
    with Experiment(PREFIX, dash_root=root, durability=durability).run as exp:
        track, slots, place = exp.tracks(topic(writer, "own")), Counters(counters).slots, slot(writer, "own")
        n = slots[place]
        while True:
            track.append(_ts=n / 1000, n=n, q=[n * 0.5, n * 0.25, -1.0 * n], text="x" * (n % 50))
            n += 1
            slots[place] = n


def mixed(root: Path, counters: Path, writer: int, durability: str, seed: int) -> None:
    """Append to every lane, with flush, compaction and reading mixed in, for ever."""
    hurry()
    with Experiment(PREFIX, dash_root=root, durability=durability).run as exp:
        mix(exp, Appender(exp, Counters(counters), writer), seed)


def mix(exp: Experiment, appender: Appender, seed: int) -> None:
    """The endless loop of `mixed`."""
    random = rng("mixed", seed)
    session = exp._session
    assert session is not None
    while True:
        what = random.random()
        if what < 0.02:
            exp.tracks.flush()
        elif what < 0.03:
            session.store.compact_all()  # type: ignore[attr-defined]
        elif what < 0.04:
            exp.tracks(topic(appender.writer, "late")).read(start_timestamp=3.0, end_timestamp=8.0)
        elif what < 0.045:
            appender.append("large")
        else:
            appender.append(random.choice(LANES[:-1]), random.randrange(1, 40))


def forking(root: Path, counters: Path, seed: int, mode: str) -> None:
    """Writer 0 forks writer 1, which lives on after its parent was killed.

    `mode`: "idle" (the child appends nothing), "appending" (from the start), "late" (once its parent is gone).
    """
    hurry()
    shared = Counters(counters)
    exp = Experiment(PREFIX, dash_root=root).run.start()
    parent = Appender(exp, shared, 0)
    parent.append("own", 100)
    mother = os.getpid()
    child = os.fork()
    if child:
        shared[slot(2, "own")] = child
        mix(exp, parent, seed)
    shared[slot(2, "shared")] = 1
    if mode != "appending":
        wait_for(lambda: os.getppid() != mother, "the parent's death")
    appender = Appender(exp, shared, 1)
    while True:
        if mode == "idle":
            signal.pause()
        appender.append("own", 10)
        appender.append("metric", 2)


def _sized(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the length of its text in the text's place."""
    return {"timestamp": entry["timestamp"], "n": entry["n"], "size": len(entry["text"])}


def read_back(root: Path, writer: int, lane: str) -> list[dict[str, Any]]:
    """A lane as a reader sees it, without changing anything; nothing where it was not recorded. The times of sequences
    are left out."""
    with ml_dash.open(PREFIX, dash_root=root) as exp, suppress(ml_dash.TrackNotFound):
        if lane == "metric":
            found = exp.metrics(topic(writer, lane)).read()["entries"]
        elif lane == "log":
            found = [entry for entry in exp.log.read() if entry["message"] == f"{writer}"]
            found = [{**entry, "index": place} for place, entry in enumerate(found)]
        elif lane in ("batch", "large"):
            return [_sized(entry) for entry in exp.tracks(topic(writer, lane)).list_entries()]
        else:
            return list(exp.tracks(topic(writer, lane)).list_entries())
        return [{name: value for name, value in entry.items() if name != "timestamp"} for entry in found]
    return []
