"""`experiment.metrics("train")`: index-based series, the sibling of tracks."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from .address import check_topic
from .errors import InvalidEntry, InvalidWindow
from .session import RunPart
from .store import Track, TrackInfo, Window

KIND = "metrics"


class MetricsManager(RunPart):
    """All metrics of one experiment: `experiment.metrics("train").log(loss=0.1)`."""

    def __call__(self, name: str) -> MetricBuilder:
        """The metric series of a name (the rules of topics apply)."""
        name = check_topic(name)
        self.session()
        return MetricBuilder(self, name)

    def list(self) -> list[TrackInfo]:
        """Every metric series, sorted by name."""
        return self.session().tracks(KIND)

    def flush(self, timeout_s: float | None = 30.0) -> MetricsManager:
        """Everything logged before the call is in storage, durable, on return; `timeout_s` as for `tracks.flush`."""
        self.session().flush(timeout_s)
        return self


class MetricBuilder:
    """One metric series: entries with an index, 0, 1, 2, ..., in the order of logging."""

    def __init__(self, manager: MetricsManager, name: str) -> None:
        self._manager, self.name = manager, name

    def log(self, values: Mapping[str, Any] | None = None, /, **fields: Any) -> MetricBuilder:
        """Log one entry; it survives the death of the process on return.

        Args:
            values: fields whose names are no Python names (`{"train/loss": 0.1}`); `**fields` win over it.
            **fields: as for `TrackBuilder.append`, but `timestamp` and `index`; the wall clock is kept beside them.

        Raises:
            InvalidEntry: (a ValueError) a field that cannot be recorded; nothing changed.
            NotOpen: outside an open run.
        """
        if values is not None:
            if not isinstance(values, Mapping):
                raise InvalidEntry(f"metric {self.name!r}: log takes fields or a mapping, got {type(values).__name__}")
            fields = {**values, **fields}
        self._manager.session().put(Track(KIND, self.name), fields)
        return self

    def flush(self, timeout_s: float | None = 30.0) -> MetricBuilder:
        """This series is in storage, durable, on return; `timeout_s` as for `tracks.flush`."""
        self._manager.session().flush(timeout_s)
        return self

    def read(self, start_index: int = 0, limit: int | None = None) -> dict[str, Any]:
        """Entries from an index on.

        Args:
            start_index: index of the first entry, at least 0.
            limit: how many at most; None for all.

        Returns:
            `{"entries": [{"index": 0, "timestamp": wall seconds, ...}], "count": n}`, ascending by index.

        Raises:
            TrackNotFound: (a LookupError) nobody logged under this name, and nobody records the experiment any more.
            InvalidWindow: (a ValueError) a start or limit that is no integer of at least 0.
        """
        window = part(start_index, limit)
        track, session = Track(KIND, self.name), self._manager.session()
        entries = [entry for block in session.read(track, window) for entry in block]
        if not entries:
            session.has(track)
        return {"entries": entries, "count": len(entries)}

    def __len__(self) -> int:
        """The number of entries."""
        track, session = Track(KIND, self.name), self._manager.session()
        known = session.count(track)
        count = sum(map(len, session.read(track))) if known is None else known
        if not count:
            session.has(track)
        return count

    def __bool__(self) -> bool:
        """A series is true also while it is empty."""
        return True


def part(start_index: Any, limit: Any) -> Window:
    """The checked window of a sequence; raises InvalidWindow."""
    return Window(first=_count("start_index", start_index), limit=None if limit is None else _count("limit", limit))


def _count(name: str, value: Any) -> int:
    """The count as an int; NumPy's integers are as good."""
    count = operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else -1
    if count < 0:
        raise InvalidWindow(f"{name} must be an integer of at least 0, got {value!r}")
    return count
