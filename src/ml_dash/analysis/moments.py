"""What a search found: windows of time that cut every track."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ..errors import InvalidQuery, InvalidWindow, TrackNotFound
from ..names import offer
from .recording import Recording, Tables
from .slices import TrackSlice
from .tabular import Tabular, needs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moment:
    """A window in which the expression was true, from its first to its last instant.

    start, end: seconds, both inclusive. instants: how many timestamps it holds. prefix: of the experiment.
    """

    start: float
    end: float
    instants: int
    prefix: str
    _recording: Callable[[], Recording] = field(repr=False, compare=False)

    @property
    def duration_s(self) -> float:
        """From the first to the last instant; 0 for a single one."""
        return self.end - self.start

    def slice(self, topic: str, *, before_s: float = 0.0, after_s: float = 0.0) -> TrackSlice:
        """This window of one track, wider by so many seconds.

        Raises:
            TrackNotFound: nobody recorded the topic.
        """
        return self._recording().track(topic).slice(self.start - before_s, self.end + after_s)

    def cut(self, *topics: str, before_s: float = 0.0, after_s: float = 0.0) -> dict[str, TrackSlice]:
        """This window of several tracks, by default of every track of the experiment."""
        chosen = topics or self._recording().topics()
        return {topic: self.slice(topic, before_s=before_s, after_s=after_s) for topic in chosen}


class Hits(NamedTuple):
    """The windows of one experiment, as arrays."""

    prefix: str
    recording: Callable[[], Recording]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    instants: NDArray[np.int64]


SHOWN = 20
"""Windows that a notebook shows."""


class Moments(Tabular, Sequence[Moment]):
    """Windows in order of experiment and time.

    skipped: experiments that could not be searched, with the reason (a topic or column they do not have).
    """

    __slots__ = ("_bounds", "_hits", "skipped")

    def __init__(self, hits: Iterable[Hits], skipped: Mapping[str, str] | None = None) -> None:
        self._hits = [one for one in hits if len(one.start)]
        self._bounds = list(accumulate((len(one.start) for one in self._hits), initial=0))
        self.skipped = dict(skipped or {})

    @overload
    def __getitem__(self, index: int) -> Moment: ...
    @overload
    def __getitem__(self, index: slice) -> Moments: ...
    def __getitem__(self, index: int | slice) -> Moment | Moments:
        """One window, or some of them."""
        if isinstance(index, slice):
            return Moments(map(_alone, (self[place] for place in range(*index.indices(len(self))))), self.skipped)
        place = range(len(self))[index]
        number = bisect_right(self._bounds, place) - 1
        return _moment(self._hits[number], place - self._bounds[number])

    def __len__(self) -> int:
        """How many windows."""
        return self._bounds[-1]

    def __iter__(self) -> Iterator[Moment]:
        """The windows, in order."""
        for hits in self._hits:
            for place in range(len(hits.start)):
                yield _moment(hits, place)

    def __repr__(self) -> str:
        total = sum(float((one.end - one.start).sum()) for one in self._hits)
        runs = len({one.prefix for one in self._hits})
        left_out = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<{len(self)} moments, {total:g} s, in {runs} experiments{left_out}>"

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One entry for each window: prefix, start, end, duration_s, instants."""
        pa = needs("pyarrow")
        double, whole = pa.float64(), pa.int64()
        types = {"prefix": pa.string(), "start": double, "end": double, "duration_s": double, "instants": whole}
        schema = pa.schema(list(types.items()))
        parts = [
            [[one.prefix] * len(one.start), one.start, one.end, one.end - one.start, one.instants] for one in self._hits
        ]
        table = pa.concat_tables([schema.empty_table(), *(pa.table(part, schema=schema) for part in parts)])
        for name in columns or ():
            if name not in types:
                raise InvalidWindow(f"no column {name!r}; {offer(name, types)}")
        return table if columns is None else table.select(list(columns))

    def to_numpy(self, column: str) -> Any:
        """One column as NumPy."""
        return self.to_arrow([column])[column].to_numpy(zero_copy_only=False)

    def _repr_html_(self) -> str:
        """A notebook shows the first of them as a table."""
        from html import escape  # its table of entities is a millisecond of every import

        names = ("prefix", "start", "end", "duration_s", "instants")
        lines = ["".join(f"<th>{name}</th>" for name in names)]
        for one in islice(self, SHOWN):
            lines.append("".join(f"<td>{escape(_shown(getattr(one, name)))}</td>" for name in names))
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<p>{escape(repr(self))}</p><table>{table}</table>"


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _moment(hits: Hits, place: int) -> Moment:
    start, end, instants = float(hits.start[place]), float(hits.end[place]), int(hits.instants[place])
    return Moment(start, end, instants, hits.prefix, hits.recording)


def _alone(moment: Moment) -> Hits:
    array = needs("numpy").array
    start, end, instants = array([moment.start]), array([moment.end]), array([moment.instants])
    return Hits(moment.prefix, moment._recording, start, end, instants)


def search(
    recording: Recording,
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
    again: Callable[[], Recording] | None = None,
) -> Hits:
    """The windows of one recording; `again` gives it for cutting, where it may be closed by then."""
    if topic is not None:
        recording.track(topic)
    found = needs(".find").windows(Tables(recording), expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)
    return Hits(recording.prefix, again or (lambda: recording), *found)


def search_all(
    recordings: Iterable[Callable[[], Recording]],
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
) -> Moments:
    """The windows of many recordings, each opened when its turn comes.

    Raises:
        InvalidQuery: the expression cannot be read, or no recording has what it names.
    """
    found: list[Hits] = []
    skipped: dict[str, str] = {}
    closest: str | None = None
    count = 0
    for opened in recordings:
        recording = opened()
        count += 1
        try:
            hits = search(recording, expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s, again=opened)
            found.append(hits)
        except (TrackNotFound, InvalidWindow) as error:
            skipped[recording.prefix] = str(error)
            if closest is None and isinstance(error, InvalidWindow):
                closest = recording.prefix
    if skipped and len(skipped) == count:
        raise InvalidQuery(_none_of(skipped, closest))
    return Moments(found, skipped)


def _none_of(skipped: Mapping[str, str], closest: str | None) -> str:
    """Why none of some experiments could be searched: as one says that has the topic at least, where any has."""
    prefix = closest or next(iter(skipped))
    if len(skipped) == 1:
        return f"{prefix}: {skipped[prefix]}"
    return f"none of {len(skipped)} experiments could be searched; {prefix}: {skipped[prefix]}"
