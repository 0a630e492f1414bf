"""Looking at a file, and importing it: first everything is read and checked, then everything is stored."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..address import check_topic
from ..columns import encode_columns
from ..errors import InvalidEntry, InvalidFile, InvalidTopic
from ..schema import summary, types_in
from .arrays import Npz, Parquet
from .entries import JsonLines
from .model import UNITS, Advance, Chunk, Frame, Options, Report, Source, TopicReport
from .text import TextTable
from .times import base_name, find_column, guess_unit, to_seconds
from .vectors import Field, chunks_of, plan

if TYPE_CHECKING:
    from ..experiment import Experiment

READERS: dict[str, Any] = {
    "csv": TextTable,
    "tum": TextTable,
    "euroc": TextTable,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "npz": Npz,
}
FORMATS = tuple(READERS)
DEFAULTS = Options()
_SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def _silent(size: int) -> None:
    pass


def inspect_file(path: str | Path, options: Options = DEFAULTS, advance: Advance = _silent) -> Report:
    """What an import of a file would do: every row is read and checked, nothing is stored.

    Args:
        path: TUM, EuRoC, CSV (plain or wide), JSON lines, Parquet or NumPy `.npz`.
        options: what the file does not say by itself.
        advance: told the bytes that were read since the last call.

    Raises:
        InvalidFile: (a ValueError) what cannot be read, named by its line and column.
        OSError: the file cannot be opened. MissingExtra: Parquet without pyarrow, `.npz` without NumPy.
    """
    return Prepared(Path(path), options, advance).report


def import_file(
    experiment: Experiment, path: str | Path, options: Options = DEFAULTS, advance: Advance = _silent
) -> Report:
    """Store a file's rows in an experiment that is open for recording.

    Args:
        experiment: inside `with experiment.run`. Rows merge with entries of the same timestamp, as appends do.
        path, options, advance: as for `inspect_file`; the file is read several times.

    Returns:
        What was stored.

    Raises:
        InvalidFile, OSError, MissingExtra: as for `inspect_file`; nothing was stored.
    """
    prepared = Prepared(Path(path), options, advance)
    prepared.store(experiment, advance)
    return prepared.report


class Prepared:
    """A file that was read and found sound; `report` says what is in it. Arguments and errors as for `inspect_file`."""

    def __init__(self, path: Path, options: Options, advance: Advance = _silent) -> None:
        self.path, self.options = path, options
        self.source = open_source(path, options)
        topic = check_topic(options.topic or _topic_of(path))
        try:
            self.time = find_column(self.source.names, options.time)
            self.fields = plan(self.source.names, self.time, self.source.format, topic, options)
        except InvalidFile as error:
            raise InvalidFile(f"{path}: {error}") from None
        self._instants = self._keeps_instants(topic)
        self._before = path.stat()
        self._check_names()
        self.unit = self._unit(advance)
        self.report = self._inspect(advance)

    def store(self, experiment: Experiment, advance: Advance = _silent) -> None:
        """Store the rows; raises InvalidFile where the file changed since it was read."""
        for chunk in self._chunks(advance):
            experiment.tracks(chunk.topic).extend(_ts=chunk.times, **chunk.fields)

    def _keeps_instants(self, topic: str) -> str | None:
        """The topic in which a row without fields marks an instant, as in files of entries."""
        topics = {field.topic for field in self.fields} | {topic}
        whole = self.source.format in ("jsonl", "parquet") and self.options.columns is None and len(topics) == 1
        return topic if whole else None

    def _check_names(self) -> None:
        for field in self.fields:
            check_topic(field.topic)
            if field.path[0] in ("_ts", "timestamp"):
                raise InvalidFile(f"{self.path}: a field cannot be called {field.path[0]!r}; choose columns without it")

    def _unit(self, advance: Advance) -> str:
        unit = self.options.unit or self.source.units.get(self.time)
        if unit is not None:
            if unit not in (*UNITS, "iso"):
                raise InvalidFile(f"unknown unit {unit!r} of time; known are {', '.join((*UNITS, 'iso'))}")
            return unit
        first = next(self.source.frames(advance), None)
        return guess_unit(self.time, first.columns.get(self.time, ()) if first is not None else ())

    def _chunks(self, advance: Advance) -> Iterator[Chunk]:
        """The file's rows by topic."""
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise InvalidFile(f"{self.path} changed while it was read")
        for frame in self.source.frames(advance):
            if self.time not in frame.columns:
                raise InvalidFile(f"{self.path}: {frame.row(0)} has no {self.time!r}")
            yield from chunks_of(frame, self._seconds(frame), self.fields, self._instants)

    def _seconds(self, frame: Frame) -> Sequence[float]:
        try:
            return to_seconds(self.time, self.unit, frame)
        except InvalidFile as error:
            raise InvalidFile(f"{self.path}: {error}") from None

    def _inspect(self, advance: Advance) -> Report:
        """Read and check everything."""
        survey = _Survey()
        for chunk in self._chunks(advance):
            self._check(chunk)
            survey.add(chunk)
        report = Report(str(self.path), self.source.format, self.time, self.unit, survey.topics())
        report.notes += [f"left out {name}: not as long as the timestamps" for name in self.source.left_out]
        report.notes += list(self._reordered())
        if not report.topics:
            raise InvalidFile(f"{self.path} has no rows with values beside the timestamp")
        said = self.options.unit or self.source.units.get(self.time) or base_name(self.time)[1]
        if said is None and self.unit not in ("s", "iso"):
            report.notes.append(f"{self.time!r} looks like {self.unit} since 1970 and is stored in seconds")
        return report

    def _check(self, chunk: Chunk) -> None:
        """Encode a chunk as `extend` will, so that nothing is refused once storing began."""
        try:
            encode_columns(chunk.topic, 0, chunk.times, chunk.fields)
        except InvalidEntry as error:
            raise InvalidFile(f"{self.path}: {_culprit(chunk) or error}") from None

    def _reordered(self) -> Iterator[str]:
        for field in self.fields:
            places = [self.source.names.index(name) for name in field.columns]
            if places != sorted(places):
                yield f"{'.'.join(field.path)} is stored in the order {', '.join(field.columns)}"


class _Survey:
    """What the chunks of a file hold, gathered as they pass."""

    def __init__(self) -> None:
        self._times: dict[str, array[float]] = {}
        self._types: dict[str, dict[str, set[str]]] = {}

    def add(self, chunk: Chunk) -> None:
        """Note a chunk; raises InvalidFile for what cannot be recorded."""
        times = self._times.setdefault(chunk.topic, array("d"))
        if hasattr(chunk.times, "tobytes"):
            times.frombytes(chunk.times.tobytes())
        else:
            times.extend(chunk.times)
        seen = self._types.setdefault(chunk.topic, {})
        for name, values in chunk.fields.items():
            found = {_array_type(values)} if hasattr(values, "dtype") else types_in(values)
            seen.setdefault(name, set()).update(found)

    def topics(self) -> list[TopicReport]:
        """A report for each topic."""
        return [self._report(topic) for topic in self._times]

    def _report(self, topic: str) -> TopicReport:
        times = self._times[topic]
        report = TopicReport(topic, len(times), len(times) - len(set(times)), min(times), max(times))
        report.fields = summary(self._types[topic])
        return report


def _culprit(chunk: Chunk) -> str | None:
    """The first row that cannot be recorded, and why."""
    for number, stamp in enumerate(chunk.times):
        try:
            one = {name: values[number : number + 1] for name, values in chunk.fields.items()}
            encode_columns(chunk.topic, 0, [stamp], one)
        except InvalidEntry as error:
            return f"the row at timestamp {stamp}: {error}"
    return None


def _array_type(array: Any) -> str:
    name = {"f": "float", "i": "int", "u": "int", "b": "bool"}.get(array.dtype.kind, "str")
    for size in reversed(array.shape[1:]):
        name = f"list[{name}; {size}]"
    return name


# ---------------------------------------------------------------- formats and names


def open_source(path: Path, options: Options) -> Source:
    """The reader of a file, by its ending or its first bytes.

    Raises:
        InvalidFile: nothing here can read it.
    """
    if options.format is not None and options.format not in READERS:
        raise InvalidFile(f"unknown format {options.format!r}; known are {', '.join(FORMATS)}")
    form = options.format or _SUFFIXES.get(path.suffix.lower()) or _sniffed(path)
    source: Source = READERS[form](path, replace(options, format=options.format))
    return source


def _sniffed(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK"):
        return "npz"
    if path.suffix.lower() in (".mcap", ".bag", ".db3"):
        hint = "read its messages with the mcap or rosbags package and append them, as docs/guide/import.md shows"
        raise InvalidFile(f"{path}: {path.suffix} cannot be imported; {hint}")
    if b"\0" in head or path.suffix.lower() in (".bvh", ".h5", ".hdf5"):
        raise InvalidFile(f"{path} is in no format that can be imported; known are {', '.join(FORMATS)}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise InvalidFile(f"{path} is one JSON array; write each of its objects on a line (jq -c '.[]')")
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def _topic_of(path: Path) -> str:
    """The file's name without its ending, as a topic."""
    name = re.sub(r"[\x00-\x1f/\\]", "_", path.name.split(".")[0] or path.name).strip()
    try:
        return check_topic(name)
    except InvalidTopic:
        return "imported"


def stored_topics(reports: Sequence[Report]) -> list[str]:
    """The topics of several files, each once."""
    return list(dict.fromkeys(topic.topic for report in reports for topic in report.topics))


__all__ = ["FORMATS", "Field", "import_file", "inspect_file", "open_source", "stored_topics"]
