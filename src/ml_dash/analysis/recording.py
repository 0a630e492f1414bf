"""The tracks of one experiment as an analysis reads them: looked at without recording anything, loaded when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..address import check_topic
from ..errors import InvalidTopic, MissingExtra, TrackNotFound
from ..names import offer
from ..store import MERGED, Entry, Track, Window
from .track import TrackAnalysis

if TYPE_CHECKING:
    import pyarrow as pa

Blocks = Callable[[str, Window], Iterable[list[Entry]]]
TableOf = Callable[[str, Window], "pa.Table"]
Order = tuple[int | None, int | None]
"""How many entries of a track came late, and how many repeated one (`TrackInfo`); None where nobody counted."""


class Recording:
    """An experiment's tracks.

    Args:
        prefix: the experiment's.
        blocks: gives the entries of a topic's window in ascending blocks; nothing for an unknown topic.
        topics: lists the topics there may be, sorted; one without entries is passed over.
        table: gives a topic's window as a table, where there is a faster way than from its entries.
        parameter: gives a parameter of the run by name, None where it is not set.
        order: gives what was counted when a topic's entries came.
    """

    __slots__ = ("_topics", "blocks", "order", "parameter", "prefix", "table")

    def __init__(
        self,
        prefix: str,
        blocks: Blocks,
        topics: Callable[[], list[str]],
        table: TableOf | None = None,
        parameter: Callable[[str], Any] = lambda name: None,
        order: Callable[[str], Order] = lambda topic: (None, None),
    ) -> None:
        self.prefix, self.blocks, self._topics, self.table = prefix, blocks, topics, table
        self.parameter, self.order = parameter, order

    def topics(self) -> list[str]:
        """The topics of all recorded tracks, sorted."""
        return [topic for topic in self._topics() if self.has(topic)]

    def has(self, topic: str) -> bool:
        """Whether anybody recorded the topic; reads a block of it, not the list of all."""
        try:
            return next(iter(self.blocks(check_topic(topic), Window())), None) is not None
        except InvalidTopic:
            return False

    def track(self, topic: str) -> ReadTrack:
        """A recorded track, to read only.

        Raises:
            TrackNotFound: nobody recorded it; the message names the nearest topics.
        """
        if not self.has(topic):
            hint = offer(str(topic), self.topics())
            raise TrackNotFound(f"no topic {topic!r} in {self.prefix}; {hint}")
        return ReadTrack(self, topic)


class ReadTrack(TrackAnalysis):
    """A track that is only read; asking for it records nothing."""

    __slots__ = ("_recording", "topic")

    def __init__(self, recording: Recording, topic: str) -> None:
        self._recording, self.topic = recording, topic

    def blocks(self, window: Window = Window()) -> Iterable[list[Entry]]:
        """The entries of a window in ascending blocks."""
        return self._recording.blocks(self.topic, window)

    def table(self, window: Window = Window()) -> pa.Table:
        """The fields of a window as a table."""
        make = self._recording.table
        return super().table(window) if make is None else make(self.topic, window)

    def count(self, window: Window = Window()) -> int:
        """The number of entries in a window; from the columns where there are any at hand."""
        if self._recording.table is None:
            return super().count(window)
        return counted(self.table, super().count, window)

    def __repr__(self) -> str:
        return f"<track {self.topic!r}>"


class Tables(Mapping[str, "pa.Table"]):
    """The tables of a recording by topic, each loaded once, when it is first needed."""

    __slots__ = ("_loaded", "_recording")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._loaded: dict[str, pa.Table] = {}

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and (topic in self._loaded or self._recording.has(topic))

    def __getitem__(self, topic: str) -> pa.Table:
        if topic not in self._loaded:
            self._loaded[topic] = self._recording.track(topic).to_arrow()
        return self._loaded[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._recording.topics())

    def __len__(self) -> int:
        return len(self._recording.topics())


def order_of(store: Any, topic: str) -> Order:
    """What a store counted when a topic's entries came."""
    known = getattr(store, "order", None)
    if known is not None:
        order: Order = known(Track(MERGED, topic))
        return order
    found = {info.topic: (info.late, info.repeated) for info in store.tracks(MERGED)}
    return found.get(topic, (None, None))


def counted(table: Callable[[Window], pa.Table], count: Callable[[Window], int], window: Window) -> int:
    """The number of entries by their timestamps' column; entry by entry where there is no pyarrow."""
    try:
        return len(table(Window(window.start, window.end, ("timestamp",))))
    except MissingExtra:
        return count(window)
