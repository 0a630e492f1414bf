"""Recording the demo and reading it back, through the public API alone: what a user's own program would do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf, nextafter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from ml_dash import Experiment

from .simulate import CYCLE_S, RATES_HZ, PickAndPlace, Placement, Sample

GRAVITY = 9.81
TOUCH_N, TOUCH_S = 1.5, 0.05
"""The wrist carries something when it feels this much more than the hand's weight, on average over this time."""


class Tally(NamedTuple):
    """How many entries a topic has, and a SHA-256 over all of them, values included."""

    entries: int
    digest: str


@dataclass
class Tallies:
    """Counts and digests of entries, topic by topic, as they come."""

    _counts: dict[str, int] = field(default_factory=dict)
    _digests: dict[str, Any] = field(default_factory=dict)

    def add(self, topic: str, entry: dict[str, Any]) -> None:
        self._counts[topic] = self._counts.get(topic, 0) + 1
        self._digests.setdefault(topic, hashlib.sha256()).update(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS))

    def result(self) -> dict[str, Tally]:
        """The tally of each topic, sorted by topic."""
        return {topic: Tally(n, self._digests[topic].hexdigest()) for topic, n in sorted(self._counts.items())}


class Contact(NamedTuple):
    """When the wrist felt the block's weight, and how much it was."""

    start: float
    end: float
    load_n: float

    @property
    def around(self) -> tuple[float, float]:
        """The second around the moment in which the weight was taken."""
        return round(self.start - 0.5, 2), round(self.start + 0.5, 2)

    @property
    def mass_kg(self) -> float:
        return self.load_n / GRAVITY


def record(exp: Experiment, arm: PickAndPlace, seed: int, on_time: Callable[[float], None]) -> dict[str, Tally]:
    """Record the whole simulation into an open run; every entry's values and time are tallied on the way in.

    Args:
        exp: an open experiment.
        arm: the simulation; it is run to its end.
        seed: what it was made with, for the params.
        on_time: called with the simulated time in seconds, about every tenth of a second.
    """
    exp.params.set(
        robot={"name": "seven-joint arm", "joints": 7, "gripper": "two fingers"},
        task="pick and place",
        controller="computed torque at 1 kHz",
        quaternions="wxyz",
        rates_hz=RATES_HZ,
        cycles=arm.cycles,
        seed=seed,
    )
    tallies = Tallies()
    for sample in _reported(arm.samples(), on_time):
        exp.tracks(sample.topic).append(**sample.fields, _ts=sample.timestamp)
        tallies.add(sample.topic, {"timestamp": sample.timestamp, **sample.fields})
        if sample.topic == "task/phase":
            exp.log(sample.fields["phase"], level="info", t=sample.timestamp, cycle=sample.fields["cycle"])
    for cycle, placement in enumerate(arm.placements):
        _log_placement(exp, cycle, placement)
    exp.tracks.flush()
    return tallies.result()


def _reported(samples: Iterable[Sample], on_time: Callable[[float], None]) -> Iterator[Sample]:
    reported = 0.0
    for sample in samples:
        if sample.timestamp >= reported + 0.1:
            reported = sample.timestamp
            on_time(reported)
        yield sample


def _log_placement(exp: Experiment, cycle: int, placement: Placement) -> None:
    lifted, miss = placement.lifted_m, placement.miss_m
    exp.metrics("placement").log(cycle=cycle, lifted_m=lifted, miss_m=miss, tilt_rad=placement.tilt_rad)
    level, verdict = ("info", "placed") if placement.succeeded else ("error", "not placed")
    exp.log(f"{verdict}: lifted {lifted * 100:.1f} cm, {miss * 1000:.1f} mm from the target", level=level, cycle=cycle)


def read_back(exp: Experiment, topics: Iterable[str], seconds: float) -> dict[str, Tally]:
    """Read every topic again, in windows of one cycle, and tally what comes back as `record` did."""
    tallies = Tallies()
    for topic in topics:
        for start in np.arange(0.0, seconds, CYCLE_S).tolist():
            window = exp.tracks(topic).read(start_timestamp=start, end_timestamp=nextafter(start + CYCLE_S, -inf))
            for entry in window["entries"]:
                tallies.add(topic, entry)
    return tallies.result()


def find_contact(exp: Experiment) -> Contact | None:
    """The longest time in the first cycle during which the wrist carried more than the hand itself."""
    entries = exp.tracks("sensors/force").read(end_timestamp=CYCLE_S, columns=["fz"])["entries"]
    times = np.array([entry["timestamp"] for entry in entries])
    force = np.array([entry["fz"] for entry in entries])
    window = round(TOUCH_S * RATES_HZ["sensors/force"])
    smooth = np.convolve(force, np.full(window, 1 / window), mode="same")
    touching = smooth - np.median(force[times < 1.0]) > TOUCH_N
    edges = np.flatnonzero(np.diff(np.concatenate([[False], touching, [False]]).astype(int))).reshape(-1, 2)
    if not edges.size:
        return None
    first, after = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    quarter = (after - first) // 4
    hand_alone = np.median(force[max(first - 6 * window, 0) : max(first - window, 1)])
    load = force[first + quarter : after - quarter].mean() - hand_alone
    return Contact(float(times[first]), float(times[after - 1]), float(load))


def read_window(exp: Experiment, topics: Iterable[str], window: tuple[float, float]) -> dict[str, list[dict[str, Any]]]:
    """The entries of each topic from the window's start to its end, both included."""
    start, end = window
    return {t: exp.tracks(t).read(start_timestamp=start, end_timestamp=end)["entries"] for t in topics}


def export_parquet(exp: Experiment, topic: str, path: Path) -> int:
    """Write one topic to a Parquet file; returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(exp.tracks(topic).read(format="parquet"))
