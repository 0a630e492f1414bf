"""Row 7: random operations against a model of dicts and lists, kills and several writers among them."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ml_dash.entry import select
from ml_dash.line import from_line, to_line
from ml_dash.schema import describe
from ml_dash.store import MERGED, Track

from . import figures
from .abandon import Recording
from .checks import check_clean
from .sizes import LONG, size

TOPICS = ("a", "a/b", "a_b")
WRITERS = (0, 1)

topics = st.sampled_from(TOPICS)
writers = st.sampled_from(WRITERS)
times = st.one_of(
    st.integers(-4, 12).map(float),
    st.sampled_from([-0.0, 5e-324, 1e-9, 0.1, 0.30000000000000004, 1.7e9, 1.7e9 + 2.0**-20, 1e308, -1e308, 3]),
)
names = st.sampled_from(["x", "y", "pose", "index", "x.y", "_ts2", "é"])
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=8),
        st.sampled_from(["NaN", "Infinity", "-Infinity", "null", '"', "\\", "\n", "\u2028"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
fields = st.dictionaries(names, values, max_size=4)


def plain(value: Any) -> str:
    """A value as text in which NaN equals NaN, -0.0 differs from 0.0 and 1 from 1.0."""
    return repr(value)


class Recorder(RuleBasedStateMachine):
    """Two writers on one recording. The model: what is committed, in order, and what each writer has not yet stored.

    What a dead writer left is committed before anything newer; between living ones the order of their flushes counts.
    """

    def __init__(self) -> None:
        super().__init__()
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="ml_dash-model-", dir=place)) / "run"
        self.open: dict[int, Recording] = {}
        self.tracks: dict[str, dict[float, dict[str, Any]]] = {topic: {} for topic in TOPICS}
        self.sequence: list[int] = []
        self.pending: dict[int, list[tuple[str, Any, Any]]] = {}
        self.dead: list[tuple[str, list[tuple[str, Any, Any]]]] = []
        """What those who are gone left, with the names of their journals, in whose order it is committed."""
        self.numbers = itertools.count()

    # ---------------------------------------------------------- the model

    def _commit(self, changes: list[tuple[str, Any, Any]]) -> None:
        for topic, at, what in changes:
            if topic == "metric":
                self.sequence.append(what)
            else:
                self.tracks[topic].setdefault(at + 0.0, {}).update(what)
        changes.clear()

    def _commit_dead(self) -> None:
        for changes in self._left():
            self._commit(changes)
        self.dead.clear()

    def _left(self) -> list[list[tuple[str, Any, Any]]]:
        return [changes for _, changes in sorted(self.dead, key=lambda one: one[0])]

    def _name(self, writer: int) -> str:
        journal = self.open[writer].session.journal
        assert journal is not None
        return journal.writer

    def _now(self, topic: str) -> dict[float, dict[str, Any]]:
        """A track with everything that is not committed."""
        seen = {at: dict(what) for at, what in self.tracks[topic].items()}
        for changes in [*self._left(), *(self.pending[writer] for writer in self._by_age())]:
            for where, at, what in changes:
                if where == topic:
                    seen.setdefault(at + 0.0, {}).update(what)
        return seen

    def _by_age(self) -> list[int]:
        return sorted(self.open, key=self._name)

    # ---------------------------------------------------------- opening and ending

    @initialize()
    def begin(self) -> None:
        """One writer is there from the start."""
        self._start(0)

    def _start(self, writer: int) -> None:
        self.open[writer] = Recording(self.folder, segment_bytes=1 << 14)
        self.pending[writer] = []
        self._commit_dead()

    @rule(writer=writers, how=st.sampled_from(["close", "kill"]))
    def end_and_start(self, writer: int, how: str) -> None:
        """A writer that is there closes or is killed; one that is not there starts."""
        if writer not in self.open:
            return self._start(writer)
        name = self._name(writer)
        recording = self.open.pop(writer)
        if how == "kill":
            self.dead.append((name, self.pending.pop(writer)))
            recording.die()
        else:
            recording.close()
            self._commit_dead()
            self._commit(self.pending.pop(writer))
        if not self.open:
            self._start(writer)
        return None

    # ---------------------------------------------------------- writing

    def _one(self, writer: int) -> int:
        return writer if writer in self.open else next(iter(self.open))

    @rule(writer=writers, topic=topics, at=times, what=fields)
    def append(self, writer: int, topic: str, at: float, what: dict[str, Any]) -> None:
        """One entry: new, late, or at a time that is there."""
        writer = self._one(writer)
        self.open[writer].tracks(topic).append(_ts=at, **what)
        self.pending[writer].append((topic, float(at), what))

    @rule(
        writer=writers, topic=topics, first=times, count=st.integers(1, 40), step=st.sampled_from([1.0, 0.5, -1.0, 0.0])
    )
    def append_many(self, writer: int, topic: str, first: float, count: int, step: float) -> None:
        """A burst, which fills segments of the journal and blocks of the file."""
        writer = self._one(writer)
        for n in range(count):
            self.open[writer].tracks(topic).append(_ts=first + n * step, n=n, text="t" * 200)
            self.pending[writer].append((topic, first + n * step, {"n": n, "text": "t" * 200}))

    @rule(writer=writers, topic=topics, stamps=st.lists(times, max_size=12))
    def extend(self, writer: int, topic: str, stamps: list[float]) -> None:
        """Many entries in one call, of any order, with equal times."""
        writer = self._one(writer)
        numbers = [next(self.numbers) for _ in stamps]
        self.open[writer].tracks(topic).extend(_ts=stamps, n=numbers, flag=[None] * len(stamps))
        for at, n in zip(stamps, numbers, strict=True):
            self.pending[writer].append((topic, float(at), {"n": n, "flag": None}))

    @rule(writer=writers, count=st.integers(1, 5))
    def log(self, writer: int, count: int) -> None:
        """Metrics and log lines: sequences that keep every entry."""
        writer = self._one(writer)
        for _ in range(count):
            n = next(self.numbers)
            self.open[writer].metrics("m").log(n=n)
            self.open[writer].log("text", n=n)
            self.pending[writer].append(("metric", None, n))

    @rule(writer=writers)
    def flush(self, writer: int) -> None:
        """What dead writers left, then this one's."""
        writer = self._one(writer)
        self.open[writer].session.flush()
        self._commit_dead()
        self._commit(self.pending[writer])

    @rule(topic=topics)
    def compact(self, topic: str) -> None:
        """Rewriting a file changes no answer."""
        next(iter(self.open.values())).store.compact(Track(MERGED, topic))

    @precondition(lambda self: self.folder.exists())
    @rule(what=st.sampled_from(["state", "index"]))
    def lose(self, what: str) -> None:
        """Derived files vanish. The state only while nobody has anything to commit: else old and new would be told
        apart by it."""
        if what == "index":
            for path in self.folder.glob("tracks/*/.index"):
                path.unlink()
        elif not self.dead and len(self.open) == 1 and not any(self.pending.values()):
            writer, recording = self.open.popitem()
            recording.close()
            (self.folder / ".state").unlink(missing_ok=True)
            self._start(writer)

    # ---------------------------------------------------------- reading

    @rule(
        writer=writers,
        topic=topics,
        low=st.none() | times,
        high=st.none() | times,
        columns=st.none() | st.lists(st.sampled_from(["x", "pose.x", "n", "timestamp", "nothing", "x.y"]), max_size=3),
    )
    def read(self, writer: int, topic: str, low: float | None, high: float | None, columns: list[str] | None) -> None:
        """A window, with columns, equals the model's."""
        found = self.open[self._one(writer)].tracks(topic).read(low, high, columns)
        bottom, top = (float("-inf") if low is None else low), (float("inf") if high is None else high)
        now = self._now(topic)
        wanted = [{"timestamp": at, **now[at]} for at in sorted(now) if bottom <= at <= top]
        assert plain(_sorted_fields(found["entries"])) == plain(_sorted_fields(select(wanted, columns)))
        assert found["count"] == len(found["entries"])

    @rule(writer=writers, first=st.integers(0, 20), limit=st.none() | st.integers(0, 10))
    def read_sequences(self, writer: int, first: int, limit: int | None) -> None:
        """Every entry once, in the order of commits, with its index."""
        pending = [*self._left(), *(self.pending[one] for one in self._by_age())]
        wanted = self.sequence + [what for changes in pending for topic, _, what in changes if topic == "metric"]
        recording = self.open[self._one(writer)]
        last = None if limit is None else first + limit
        entries = recording.metrics("m").read(first, limit)["entries"]
        assert [(entry["index"], entry["n"]) for entry in entries] == list(enumerate(wanted))[first:last]
        assert [entry["n"] for entry in recording.log.read(first, limit)] == wanted[first:last]

    @rule(writer=writers)
    def list_tracks(self, writer: int) -> None:
        """Counts, first and last timestamps, the types of columns."""
        recording = self.open[self._one(writer)]
        found = {info.topic: info for info in recording.tracks.list()}
        for topic in TOPICS:
            now = self._now(topic)
            assert (topic in found) == bool(now)
            if now:
                info = found[topic]
                assert (info.count, info.first_timestamp, info.last_timestamp) == (len(now), min(now), max(now))
                assert len(recording.tracks(topic)) == len(now)
                assert info.columns == describe(from_line(to_line(at, now[at])) for at in now)

    def teardown(self) -> None:
        """Everybody ends, some badly; a last open stores what is left; the files are what the document promises."""
        try:
            for writer, recording in list(self.open.items()):
                if writer:
                    self.dead.append((self._name(writer), self.pending[writer]))
                    recording.die()
                else:
                    recording.close()
                    self._commit_dead()
                    self._commit(self.pending[writer])
            Recording(self.folder).close()
            self._commit_dead()
            check_clean(self.folder)
            self._check_files()
            figures.count("runs against the model")
        finally:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _check_files(self) -> None:
        for topic in TOPICS:
            if self.tracks[topic]:
                folders = self.folder.glob("tracks/*/.topic")
                (path,) = (one for one in folders if json.loads(one.read_bytes())["topic"] == topic)
                lines = (path.parent / "data.jsonl").read_bytes().splitlines()
                assert [json.loads(line)["timestamp"] for line in lines] == sorted(self.tracks[topic])
        if self.sequence:
            lines = (self.folder / "metrics" / "m" / "data.jsonl").read_bytes().splitlines()
            assert [json.loads(line)["n"] for line in lines] == self.sequence


def _sorted_fields(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(sorted(entry.items())) for entry in entries]


TestRecorder = Recorder.TestCase
TestRecorder.settings = settings(
    max_examples=size(200, 2_000),
    stateful_step_count=50,
    deadline=None,
    derandomize=not LONG,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
