"""The entries every product records, and the loops that record them.

An entry is what a robot arm reports: 21 float64 in four lists, `q` and `qd` (7 joints, rad and rad/s), `ee_pos` (3, m)
and `ee_quat` (4), stamped at 1 kHz in seconds since 1970. The values are smooth motion plus sensor noise, so that every
mantissa is full: compression finds what it would find in a recording, and no more.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

TOPIC = "robot/state"
START_S = 1_700_000_000.0
PERIOD_S = 0.001
WIDTHS = {"q": 7, "qd": 7, "ee_pos": 3, "ee_quat": 4}

Arrays = dict[str, np.ndarray]
"""`timestamp` of shape (n,), each field of shape (n, width)."""

EntryTuple = tuple[float, list[float], list[float], list[float], list[float]]


def timestamps(first: int, count: int) -> np.ndarray:
    """Stamps of the entries `first` to `first + count`; equal to `START_S + index * PERIOD_S` bit for bit."""
    return START_S + np.arange(first, first + count) * PERIOD_S


def arrays(count: int, first: int = 0) -> Arrays:
    """`count` entries as columns, from entry number `first` on; an entry's values depend on its number only."""
    number = np.arange(first, first + count)[:, None]
    made: Arrays = {"timestamp": timestamps(first, count)}
    for place, (name, width) in enumerate(WIDTHS.items()):
        joint = np.arange(width)
        motion = np.sin(number * PERIOD_S * (0.3 + 0.2 * joint) + joint)
        scatter = np.sin(number * 12.9898 + joint * 78.233 + place * 37.719) * 43758.5453
        made[name] = motion + (scatter - np.floor(scatter) - 0.5) * 1e-3
    return made


def entries(count: int, first: int = 0) -> list[EntryTuple]:
    """The same entries as a control loop holds them: a float and four lists."""
    made = arrays(count, first)
    return list(zip(*(made[name].tolist() for name in ("timestamp", *WIDTHS)), strict=True))


# The line of a product is compiled into the loops as it stands, so that nobody pays for a wrapper and the
# line in the documentation is the line that was measured.
_LOOPS = """
def plain(entries, topic):
    for t, q, qd, ee_pos, ee_quat in entries:
{line1}


def timed(entries, topic, clock, laps):
    index = 0
    for t, q, qd, ee_pos, ee_quat in entries:
        began = clock()
{line1}
        laps[index] = clock() - began
        index += 1


def cycling(count, pool, topic, start_s, period_s, acknowledged):
    size = len(pool)
    for index in range(count):
        _, q, qd, ee_pos, ee_quat = pool[index % size]
        t = start_s + index * period_s
{line1}
        acknowledged[0] = index + 1


def ticking(ticks, pool, topics, clock, sleep, period_ns, laps, lateness):
    lap = 0
    due = clock()
    for tick in range(ticks):
        due += period_ns
        pause = due - clock()
        if pause > 0:
            sleep(pause * 1e-9)
        now = clock()
        lateness[tick] = now - due
        if now - due > period_ns:
            due = now
        t, q, qd, ee_pos, ee_quat = pool[tick]
        for topic in topics:
            began = clock()
{line2}
            laps[lap] = clock() - began
            lap += 1


def pacing(count, pool, topic, start_s, period_s, acknowledged, clock, sleep):
    size = len(pool)
    began = clock()
    for index in range(count):
        pause = began + index * period_s - clock()
        if pause > 0:
            sleep(pause)
        _, q, qd, ee_pos, ee_quat = pool[index % size]
        t = start_s + index * period_s
{line1}
        acknowledged[0] = index + 1
"""


def loops(line: str, names: Mapping[str, Any]) -> dict[str, Callable[..., None]]:
    """Compile the recording loops around one product's line.

    Args:
        line: the statements that record one entry, from `t`, `q`, `qd`, `ee_pos`, `ee_quat`, `topic` and `names`.
        names: what else the line uses, as globals of the loops.
    """
    flat = textwrap.dedent(line).strip()
    source = _LOOPS.format(line1=textwrap.indent(flat, " " * 8), line2=textwrap.indent(flat, " " * 12))
    scope = dict(names)
    exec(compile(source, "<recording loops>", "exec"), scope)
    return {name: scope[name] for name in ("plain", "timed", "cycling", "ticking", "pacing")}
