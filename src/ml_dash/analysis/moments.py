"""What a search found: windows of time that cut every track."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from ..errors import InvalidQuery, InvalidWindow, TrackNotFound
from .recording import Recording, Tables
from .slices import TrackSlice
from .tabular import Tabular, needs

if TYPE_CHECKING:
    import pyarrow as pa


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


class Moments(Tabular, Sequence[Moment]):
    """Windows in order of experiment and time.

    skipped: experiments that could not be searched, with the reason (a topic or column they do not have).
    """

    __slots__ = ("_moments", "skipped")

    def __init__(self, moments: Sequence[Moment], skipped: Mapping[str, str] | None = None) -> None:
        self._moments, self.skipped = tuple(moments), dict(skipped or {})

    @overload
    def __getitem__(self, index: int) -> Moment: ...
    @overload
    def __getitem__(self, index: slice) -> Moments: ...
    def __getitem__(self, index: int | slice) -> Moment | Moments:
        """One window, or some of them."""
        found = self._moments[index]
        return found if isinstance(found, Moment) else Moments(found, self.skipped)

    def __len__(self) -> int:
        """How many windows."""
        return len(self._moments)

    def __iter__(self) -> Iterator[Moment]:
        """The windows, in order."""
        return iter(self._moments)

    def __repr__(self) -> str:
        total = sum(moment.duration_s for moment in self)
        runs = len({moment.prefix for moment in self})
        left_out = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<{len(self)} moments, {total:g} s, in {runs} experiments{left_out}>"

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One entry for each window: prefix, start, end, duration_s, instants."""
        pa = needs("pyarrow")
        names = columns or ("prefix", "start", "end", "duration_s", "instants")
        types = {"prefix": pa.string(), "instants": pa.int64()}
        known = {name: pa.array([getattr(m, name) for m in self], types.get(name, pa.float64())) for name in names}
        return pa.table(known)

    def to_numpy(self, column: str) -> Any:
        """One column as NumPy."""
        return self.to_arrow([column])[column].to_numpy(zero_copy_only=False)

    def _repr_html_(self) -> str:
        """A notebook shows the table."""
        html: str = self.to_pandas()._repr_html_()
        return html


def search(
    recording: Recording,
    expression: str,
    *,
    topic: str | None = None,
    for_s: float = 0.0,
    max_gap_s: float | None = None,
    again: Callable[[], Recording] | None = None,
) -> Moments:
    """The windows of one recording; `again` gives it for cutting, where it may be closed by then."""
    if topic is not None:
        recording.track(topic)
    again = again or (lambda: recording)
    found = needs(".find").find(Tables(recording), expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)
    return Moments([Moment(one.start, one.end, one.instants, recording.prefix, again) for one in found])


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
    moments: list[Moment] = []
    skipped: dict[str, str] = {}
    count = 0
    for opened in recordings:
        recording = opened()
        count += 1
        try:
            moments += search(recording, expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s, again=opened)
        except (TrackNotFound, InvalidWindow) as error:
            skipped[recording.prefix] = str(error)
    if skipped and len(skipped) == count:
        prefix, why = next(iter(skipped.items()))
        raise InvalidQuery(f"none of {count} experiments could be searched; {prefix}: {why}")
    return Moments(moments, skipped)
