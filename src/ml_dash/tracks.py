"""`experiment.tracks`: what the user appends to and reads from. What makes columns is imported where it is used."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from .address import check_topic
from .analysis.recording import counted
from .analysis.track import TrackAnalysis
from .columns import encode_columns
from .entry import MAX_ENTRY_BYTES, check_timestamp, encode_body, missing_timestamp, refusal, taken, too_large
from .errors import InvalidEntry, InvalidTopic, InvalidWindow, NotOpen
from .formats import check_format
from .formats.json import to_json
from .journal import Journal
from .journal_files import crc32, record_header
from .session import RunPart, Session, refuse_copy
from .store import MERGED, Entry, Track, TrackInfo, Window

if TYPE_CHECKING:
    import pyarrow as pa

APART_BYTES = 1 << 20
"""A body of `extend` this large is written as a journal segment of its own, beside the others' appends."""

Blocks = Iterable[list[Entry]]

_MISSING: Any = object()


class TracksManager(RunPart):
    """All tracks of one experiment: `experiment.tracks("robot/state")`.

    Calling it with a topic gives the `TrackBuilder` of that topic, the same one each time.
    """

    __slots__ = ("_builders", "_kept")

    def __init__(self) -> None:
        super().__init__()
        self._builders: dict[str, TrackBuilder] = {}
        self._kept: dict[str, TrackBuilder] = {}

    def __call__(self, topic: str) -> TrackBuilder:
        """The builder of a topic.

        Raises:
            InvalidTopic: empty, longer than 1 KiB, with control characters, or with an empty, "." or ".." part.
            NotOpen: outside an open run.
        """
        try:
            return self._builders[topic]
        except (KeyError, TypeError):
            return self._create(topic)

    def _create(self, topic: str) -> TrackBuilder:
        topic = check_topic(topic)
        builder = TrackBuilder(self.session(), topic)
        return self._builders.setdefault(topic, builder)

    def bind(self, session: Session | None) -> None:
        """A run started (or ended: None); builders that the user kept go on with it."""
        super().bind(session)
        if session is None:
            self._kept, self._builders = {**self._kept, **self._builders}, {}
            return
        for builder in self._kept.values():
            builder.attach(session)
        self._kept, self._builders = {}, self._kept

    def flush(self, timeout_s: float | None = 30.0) -> TracksManager:
        """Everything appended before the call is in storage, durable, on return; returns the manager.

        Args:
            timeout_s: with a server: how long to wait for it, None for ever. What has not arrived by then is safe here
                and said in a warning; until the server answers again, following flushes do not wait.

        Raises:
            OSError: the disk is full; nothing is lost, the journal keeps it.
        """
        self.session().flush(timeout_s)
        return self

    def list(self) -> list[TrackInfo]:
        """Every recorded track, sorted by topic: count, first and last timestamp, columns with types, bytes."""
        return self.session().tracks()

    def topics(self) -> builtins.list[str]:
        """The topics alone, sorted, without a look at the tracks; a builder that nothing was appended to may be one."""
        return self.session().topics()

    def blocks(self, topic: str, window: Window = Window()) -> Blocks:
        """The entries of any topic in ascending blocks; one that nobody recorded is empty, and is not created."""
        return self.session().read(Track(MERGED, topic), window)

    def table(self, topic: str, window: Window = Window()) -> pa.Table:
        """The fields of any topic's window as an Arrow table, from the columnar sidecar where there is one."""
        from .columnar import track_table

        return track_table(self.session(), Track(MERGED, topic), window)

    def __len__(self) -> int:
        """The number of recorded tracks."""
        return len(self.list())

    def __repr__(self) -> str:
        return f"<tracks of {'an open' if self._session is not None else 'a closed'} experiment>"


class TrackBuilder(TrackAnalysis):
    """One track: append entries, read them back, and analyse them (tables, slices: `analysis/track.py`)."""

    __slots__ = ("_id", "_is_known", "_journal", "_session", "topic")

    def __init__(self, session: Session, topic: str) -> None:
        self.topic = topic
        self.attach(session)

    def attach(self, session: Session) -> None:
        """Write to and read from this session from now on."""
        self._session, self._id = session, 0
        self._is_known = session.journal is not None  # who records may read what is still to come
        self._journal = _NO_JOURNAL if session.journal is None else session.journal
        if session.journal is not None:
            self._id = session.journal.track_id(Track(MERGED, self.topic))

    # -------------------------------------------------------------- writing

    def append(self, /, *, _ts: float = _MISSING, **fields: Any) -> TrackBuilder:
        """Append one entry; when it returns, the entry survives the death of this process.

        Args:
            _ts: timestamp in seconds, required. Finite float64; integers below 2^53; NumPy scalars.
            **fields: numbers, text, lists, dicts, NumPy arrays and what offers `.tolist()`, of any shape, copied at
                once. Every name but `timestamp` is free. An entry without fields marks an instant. A `msgspec.Raw` is
                taken as it is: where it is no msgpack, the next flush sets the entry aside and says so.

        Returns:
            This builder, for chaining.

        Raises:
            InvalidEntry: (a ValueError) no or no valid timestamp, or a field that cannot be recorded; nothing changed.
            NotOpen: outside an open run.
            OSError: the disk is full; nothing of this entry is stored.

        Guarantees:
            About a microsecond and a half for twenty floats; never waits for the disk, a server or another process.
            Entries with the same timestamp are one entry when read; for each field the later append wins. Safe from
            threads, signal handlers and forked children.

        Source: API document, "append(**kwargs)".
        """
        if type(_ts) is not float or _ts - _ts != 0.0:
            if _ts is _MISSING:
                raise missing_timestamp(self.topic)
            _ts = check_timestamp(_ts, self.topic)
        if "timestamp" in fields:
            raise taken(self.topic, "timestamp")
        try:
            body = encode_body((self._id, _ts + 0.0, fields))
        except Exception as error:
            raise refusal(self.topic, fields, error) from error
        record = record_header(len(body), crc32(body)) + body
        size = len(record)
        journal = self._journal
        # No call between reading `position` and the copy (see `Journal`).
        start = journal.position
        end = start + size
        if end > journal.limit:
            if len(body) > MAX_ENTRY_BYTES:
                raise too_large(self.topic, fields, len(body))
            journal.write_slowly(record)
            return self
        journal.position = end
        journal.memory[start:end] = record
        return self

    def extend(self, /, *, _ts: Any = _MISSING, **fields: Any) -> TrackBuilder:
        """Append many entries from whole arrays in one call, all of them or none.

        Args:
            _ts: n timestamps in seconds, a 1-d array or sequence; any order.
            **fields: for each field an array or list whose first axis is time: (n,), (n, 7), (n, 4, 4), ...

        Returns:
            This builder, for chaining.

        Raises:
            InvalidEntry: (a ValueError) a timestamp or value that cannot be recorded, or an array whose length is not
                n; nothing changed.
            NotOpen, OSError: as for `append`.

        Guarantees:
            Atomic, also against kill -9; equal to n appends in every other way. At most 2 GiB a call.
        """
        journal = self._session.writing()
        if _ts is _MISSING:
            raise missing_timestamp(self.topic, "extend", "times")
        if "timestamp" in fields:
            raise taken(self.topic, "timestamp")
        n, body = encode_columns(self.topic, self._id, _ts, fields)
        if n and len(body) < APART_BYTES:
            journal.write(body)
        elif n:
            journal.write_apart(body)
        return self

    def flush(self, timeout_s: float | None = 30.0) -> TrackBuilder:
        """This topic's entries are in storage, durable, on return. Other topics' may be stored with them.

        Args:
            timeout_s: as for `tracks.flush`.

        Raises:
            OSError: the disk is full; nothing is lost, the journal keeps it.
        """
        self._session.flush(timeout_s)
        return self

    # -------------------------------------------------------------- reading

    def read(
        self,
        start_timestamp: float | None = None,
        end_timestamp: float | None = None,
        columns: Iterable[str] | None = None,
        format: str = "json",
    ) -> Any:
        """Read the track, or a window of it; every append that returned before is included.

        Args:
            start_timestamp, end_timestamp: inclusive bounds in seconds; a start above the end selects nothing.
            columns: fields to keep, or dotted parts of them (`"pose.x"`); entries with none of them are left out;
                `["timestamp"]` keeps every instant.
            format: "json", "jsonl", "parquet", "mocap" or "csv".

        Returns:
            json: `{"entries": [{"timestamp": 1.0, ...}], "count": n}`; jsonl, parquet and csv: bytes; mocap: a dict.
            Ascending, one entry per timestamp. While the experiment is being recorded, by this process or another,
            a topic without entries is empty: it may begin with the next append, and whoever waits for it reads again.

        Raises:
            TrackNotFound: (a LookupError) nobody recorded the topic, and nobody records the experiment any more; the
                message names the nearest topics. So do the other ways to read a track.
            InvalidWindow: (a ValueError) an unknown format, a bound that is no number, columns that are no list.
            MissingExtra: format "parquet" without pyarrow.
            NotOpen: outside an open run.

        Source: API document, "read()".
        """
        make = check_format(format)
        window = self.window(start_timestamp, end_timestamp, columns)
        if format == "parquet":
            from .columnar import parquet_table
            from .formats.parquet import write_parquet

            return write_parquet(self._checked(parquet_table(self._session, Track(MERGED, self.topic), window)))
        return make(self.topic, self._blocks(window))

    def list_entries(self) -> list[Entry]:
        """All entries as dictionaries, ascending by `timestamp`, one per timestamp."""
        entries: list[Entry] = to_json(self.topic, self._blocks())["entries"]
        return entries

    def blocks(self, window: Window = Window()) -> Iterable[list[Entry]]:
        """The entries in ascending blocks, for tracks larger than memory."""
        return self._blocks(window)

    def _blocks(self, window: Window = Window()) -> Iterator[list[Entry]]:
        """The entries in ascending blocks; where there are none, the topic must be one that somebody recorded."""
        blocks = self._session.read(Track(MERGED, self.topic), window)
        if self._is_known:
            return blocks
        first = next(blocks, None)
        self._check_known(first)
        return blocks if first is None else chain([first], blocks)

    def _checked(self, table: pa.Table) -> pa.Table:
        """The table; where it has no entry, the topic must be one that somebody recorded."""
        if not self._is_known:
            self._check_known(len(table))
        return table

    def _check_known(self, found: object) -> None:
        """Raise TrackNotFound where nothing was found under a name that nobody recorded (`Session.has`)."""
        self._is_known = bool(found) or self._session.has(Track(MERGED, self.topic))

    def table(self, window: Window = Window()) -> pa.Table:
        """The fields of a window as an Arrow table, from the columnar sidecar where there is one."""
        from .columnar import track_table

        return self._checked(track_table(self._session, Track(MERGED, self.topic), window))

    def count(self, window: Window = Window()) -> int:
        """The number of entries in a window: distinct timestamps."""
        return counted(self.table, super().count, window)

    def __len__(self) -> int:
        """The number of entries: distinct timestamps."""
        known = self._session.count(Track(MERGED, self.topic))
        if known is None:
            return sum(map(len, self._blocks()))
        if not self._is_known:
            self._check_known(known)
        return known

    __reduce__ = refuse_copy

    def __bool__(self) -> bool:
        """A builder is true also while its track is empty."""
        return True

    def __repr__(self) -> str:
        return f"<track {self.topic!r}>"

    @staticmethod
    def window(start: Any, end: Any, columns: Any) -> Window:
        """The checked window; raises InvalidWindow."""
        return Window(_bound("start_timestamp", start), _bound("end_timestamp", end), _columns(columns))


def _bound(name: str, value: Any) -> float | None:
    """A window's bound; infinities are open sides."""
    if value is None:
        return None
    try:
        if getattr(value, "shape", ()) == () and value in (float("inf"), float("-inf")):
            return float(value)
        return check_timestamp(value)
    except InvalidEntry as error:
        raise InvalidWindow(f"{name}: {str(error).removeprefix('_ts ')}") from None


def _columns(columns: Any) -> tuple[str, ...] | None:
    if columns is None:
        return None
    if isinstance(columns, (str, bytes)):
        raise InvalidWindow(f"columns must be a list of names, got the text {columns!r}; write columns=[{columns!r}]")
    try:
        names = tuple(columns)
    except TypeError:
        raise InvalidWindow(f"columns must be a list of names, got {type(columns).__name__}") from None
    for name in names:
        if not isinstance(name, str):
            raise InvalidWindow(f"columns must be a list of names, got {type(name).__name__} {name!r} in it")
    return names


class _NoJournal:
    """Stands where the journal is while an experiment is open for reading only."""

    position, limit = 0, -1
    memory: Any = None

    def write_slowly(self, record: bytes) -> None:
        """Refuse."""
        raise NotOpen("this experiment is open for reading only")


_NO_JOURNAL: Journal = _NoJournal()  # type: ignore[assignment]

__all__ = ["InvalidTopic", "TrackBuilder", "TracksManager"]
