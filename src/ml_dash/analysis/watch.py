"""`Experiment(..., watch=True)`: warnings while recording, from the entries on their way to the store.

The watch looks at batches on the background thread, about once a second: how many entries of a topic came, the stamps
of the first and the last, and the types in those two. So an append costs what it costs without; and a single odd
entry in the middle of a second is for the doctor to find afterwards.

Warnings go to the logger `ml_dash.watch`, once for each trouble, and once more when it is over and comes back.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ..columns import expand
from ..entry import decode_body
from ..schema import type_name
from ..store import MERGED, Batch
from ..stores.grouping import grouped, is_column_body

log = logging.getLogger("ml_dash.watch")

INFINITY = float("inf")
WINDOW_S = 2.0
WINDOW_ENTRIES = 10
RATE_SHARE = 0.1
SILENT_S, SILENT_INTERVALS = 3.0, 20.0
SMALL_BYTES = 1 << 20
"""Types are looked at in bodies up to this size; a whole array has one type anyway."""


@dataclass(slots=True)
class _Topic:
    """What is known of one topic: the window that is being counted, and the type of each field."""

    first: float = 0.0
    last: float = -INFINITY
    entries: int = 0
    seen_at: float = 0.0
    types: dict[str, str] = field(default_factory=dict)
    troubles: set[str] = field(default_factory=set)


class Watch:
    """Looks at the batches of one recording.

    Args:
        declared: the declared rates in Hz by topic; asked now and then, because they may be set while recording.
        warn: what is done with a warning.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        declared: Callable[[], Mapping[str, float]],
        warn: Callable[[str], None] = log.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._declared, self._warn, self._clock = declared, warn, clock
        self._topics: dict[str, _Topic] = {}

    def observe(self, batch: Batch) -> None:
        """Look at a batch; whatever happens here, the batch goes on to the store."""
        try:
            self._look(batch)
        except Exception as error:
            log.debug("the watch could not look at a batch: %s", error)

    def _look(self, batch: Batch) -> None:
        rates = self._declared()
        now = self._clock()
        for track, bodies in grouped(batch).items():
            if track.kind == MERGED:
                known = self._topics.setdefault(track.topic, _Topic())
                known.seen_at = now
                self._check_topic(track.topic, known, bodies, rates.get(track.topic))
        for topic, known in self._topics.items():
            self._check_silence(topic, known, now, rates.get(topic))

    def _check_topic(self, topic: str, known: _Topic, bodies: list[bytes], rate: float | None) -> None:
        first, last = _glance(bodies[0]), _glance(bodies[-1])
        for look in (first, last):
            self._check_types(topic, known, look.fields)
        back = first.start < known.last
        self._tell(known, "back", back, f"{topic}: the stamps went back from {known.last:.13g} to {first.start:.13g} s")
        known.last = last.end
        if not known.entries or first.start < known.first:
            known.first, known.entries = first.start, 0
        known.entries += sum(_glance(body).entries if is_column_body(body) else 1 for body in bodies)
        span = last.end - known.first
        if rate is not None and span >= WINDOW_S and known.entries >= WINDOW_ENTRIES:
            self._check_rate(topic, known, (known.entries - 1) / span, rate)
            known.first, known.entries = last.end, 1

    def _check_rate(self, topic: str, known: _Topic, measured: float, declared: float) -> None:
        missed = measured < (1 - RATE_SHARE) * declared
        self._tell(known, "rate", missed, f"{topic}: declared {declared:g} Hz, measured {measured:.4g} Hz")

    def _check_types(self, topic: str, known: _Topic, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            found = _plain_type(value)
            before = known.types.setdefault(name, found) if found else ""
            if found and found != before:
                known.types[name] = found
                self._warn(f"{topic}: field {name!r} was {before} and is {found} now")

    def _check_silence(self, topic: str, known: _Topic, now: float, rate: float | None) -> None:
        if rate is None:
            return
        limit = max(SILENT_S, SILENT_INTERVALS / rate)
        silent = now - known.seen_at > limit
        self._tell(known, "silent", silent, f"{topic}: declared {rate:g} Hz, nothing for {limit:g} s")

    def _tell(self, known: _Topic, trouble: str, is_there: bool, message: str) -> None:
        if is_there and trouble not in known.troubles:
            known.troubles.add(trouble)
            self._warn(message)
        elif not is_there:
            known.troubles.discard(trouble)


class _Look(NamedTuple):
    """A body at a glance: stamps of its ends, fields of its first entry where they are cheap to have, entries."""

    start: float
    end: float
    fields: Mapping[str, Any]
    entries: int


_columns_head = msgspec.msgpack.Decoder(tuple[int, int, bytes, msgspec.Raw])
_last_float = struct.Struct("<d")


def _glance(body: bytes) -> _Look:
    if not is_column_body(body):
        _, timestamp, fields = decode_body(body)
        return _Look(timestamp, timestamp, fields, 1)
    _, count, stamps, _ = _columns_head.decode(body)
    start, end = (_last_float.unpack_from(stamps, 8 * place)[0] for place in (0, count - 1))
    fields = next(expand(decode_body(body)))[0][1] if len(body) < SMALL_BYTES else {}
    return _Look(start, end, fields, count)


def _plain_type(value: Any) -> str:
    """The type as the doctor judges it: whole numbers are numbers, null says nothing."""
    name = type_name(value)
    return "" if name == "null" else "float" if name == "int" else name.replace("list[int;", "list[float;")
