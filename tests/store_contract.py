"""What every store must keep: one class, which the tests of each store inherit.

    class TestLocalStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            store = LocalStore(tmp_path / "experiment")
            yield store
            store.close()

A store whose data outlives the object also gives `again`: a function that opens the same data a second time.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_dash.columns import encode_columns
from ml_dash.entry import encode_body
from ml_dash.errors import CopiedWriter, InvalidWindow, NotOpen
from ml_dash.store import Batch, Entry, Store, Track, Window

STATE = Track("tracks", "robot/state")
FORCE = Track("tracks", "sensors/force")
LOSS = Track("metrics", "train")
LOGS = Track("logs", "logs")

INF, NAN = math.inf, math.nan
_numbers = itertools.count(1)

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "zero": 0,
    "smallest": -(2**63),
    "largest": 2**64 - 1,
    "float": 0.1,
    "whole float": 3.0,
    "minus zero": -0.0,
    "denormal": 5e-324,
    "huge": 1.7976931348623157e308,
    "nan": NAN,
    "inf": INF,
    "-inf": -INF,
    "scan": [1.0, INF, NAN, -INF, None],
    "text": 'grüße \U0001f916 \u2028 \x00 "quoted" back\\slash\nline',
    "NaN as text": "NaN",
    "Infinity as text": ["Infinity", "-Infinity", "xNaN", 'a:"NaN"', '"NaN"', "[NaN]"],
    "null as text": "null",
    "empty": {"list": [], "dict": {}, "text": ""},
    "matrix": [[1, 2.5], [3, 4.5]],
    "nested": {"pose": {"p": [0.1, 0.2], "q": {"w": 1.0}}, "NaN": NAN},
    "names": {"": 1, "a.b": 2, "NaN": "NaN", '"': 3, "timestamp": 4},
}


def body(timestamp: float, track_id: int = 1, /, **fields: Any) -> bytes:
    """What `append` writes into the journal."""
    return encode_body((track_id, timestamp, fields))


def columns(times: Sequence[float], track_id: int = 1, /, **fields: Any) -> bytes:
    """What `extend` writes into the journal."""
    return encode_columns("robot/state", track_id, times, fields)[1]


def entries(store: Store, track: Track = STATE, window: Window = Window()) -> list[Entry]:
    """Everything a window selects."""
    return [entry for block in store.read(track, window) for entry in block]


def same(left: Any, right: Any) -> bool:
    """Equal to the last bit, with the types: 1 is not 1.0, -0.0 is not 0.0, NaN is NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (
            math.isnan(right)
            if math.isnan(left)
            else (left, math.copysign(1, left)) == (right, math.copysign(1, right))
        )
    return bool(left == right)


class Writer:
    """Sends numbered batches to a store, as one process's drain does."""

    def __init__(self, store: Store, tracks: Iterable[Track] = (STATE,), name: str = "") -> None:
        self.store = store
        self.name = name or f"{next(_numbers):028x}"
        self.tracks = dict(enumerate(tracks, start=1))
        self.number = 0

    def send(self, *bodies: bytes) -> Batch:
        """Append the next batch."""
        self.number += 1
        batch = Batch(self.name, self.number, self.tracks, bodies)
        self.store.append(batch)
        return batch


class StoreContract:
    """Inherit, and give a `store` fixture: an empty store."""

    @pytest.fixture
    def again(self, store: Store) -> Callable[[], Store]:
        """Opens the same data once more; the same object where the data ends with it."""
        return lambda: store

    # -------------------------------------------------------------- entries and their order

    def test_entries_come_back_with_their_values(self, store: Store) -> None:
        """What was appended is read back, the timestamp beside the fields."""
        Writer(store).send(body(1.0, q=[0.1, 0.2], n=3), body(2.0, q=[0.3, 0.4]))
        assert entries(store) == [{"timestamp": 1.0, "q": [0.1, 0.2], "n": 3}, {"timestamp": 2.0, "q": [0.3, 0.4]}]

    @pytest.mark.parametrize("name", VALUES)
    def test_every_value_comes_back_exactly(self, store: Store, again: Callable[[], Store], name: str) -> None:
        """Each value is read back equal to the last bit and of the same type, also by a second opening."""
        Writer(store).send(body(1.0, value=VALUES[name], other=1), body(2.0, value=[VALUES[name]]))
        for opened in (store, again()):
            first, second = entries(opened)
            assert same(first, {"timestamp": 1.0, "value": VALUES[name], "other": 1})
            assert same(second, {"timestamp": 2.0, "value": [VALUES[name]]})

    @pytest.mark.parametrize(
        "timestamp", [0.0, -1.5, 5e-324, -1e308, 1e308, 1403715524.907143168, 2.0**53, 0.1 + 0.2, 1e22]
    )
    def test_timestamps_are_exact(self, store: Store, again: Callable[[], Store], timestamp: float) -> None:
        """A finite float64 comes back as it was, and a window from it to it finds it."""
        Writer(store).send(body(timestamp, x=1))
        for opened in (store, again()):
            assert same(entries(opened), [{"timestamp": timestamp, "x": 1}])
            assert len(entries(opened, window=Window(timestamp, timestamp))) == 1

    def test_an_unknown_series_is_empty(self, store: Store) -> None:
        """Reading what nobody recorded gives nothing and creates nothing."""
        assert entries(store) == []
        assert entries(store, LOSS) == []
        assert entries(store, LOGS) == []
        assert [store.tracks(kind) for kind in ("tracks", "metrics", "logs")] == [[], [], []]

    def test_an_instant_without_fields_is_an_entry(self, store: Store) -> None:
        """A timestamp alone is kept."""
        Writer(store).send(body(1.0))
        assert entries(store) == [{"timestamp": 1.0}]

    def test_reads_ascend_whatever_the_order_of_appending(self, store: Store) -> None:
        """Late data, inside a batch and across batches, takes its place in time."""
        writer = Writer(store)
        writer.send(body(5.0, n=0), body(3.0, n=1), body(9.0, n=2))
        writer.send(body(4.0, n=3), body(-1.0, n=4), body(9.5, n=5))
        assert [(e["timestamp"], e["n"]) for e in entries(store)] == [
            (-1.0, 4), (3.0, 1), (4.0, 3), (5.0, 0), (9.0, 2), (9.5, 5),
        ]  # fmt: skip

    def test_tracks_do_not_mix(self, store: Store) -> None:
        """One batch may hold several series; each entry stays in its own."""
        Writer(store, [STATE, FORCE, LOSS]).send(body(1.0, 1, q=1), body(1.0, 2, f=2), body(1.0, 3, loss=3))
        assert entries(store, STATE) == [{"timestamp": 1.0, "q": 1}]
        assert entries(store, FORCE) == [{"timestamp": 1.0, "f": 2}]
        assert entries(store, LOSS) == [{"index": 0, "timestamp": 1.0, "loss": 3}]

    def test_one_topic_in_two_kinds_is_two_series(self, store: Store) -> None:
        """A track and a metric series may share a name."""
        Writer(store, [Track("tracks", "train"), LOSS]).send(body(1.0, 1, a=1), body(2.0, 2, b=2))
        assert entries(store, Track("tracks", "train")) == [{"timestamp": 1.0, "a": 1}]
        assert entries(store, LOSS) == [{"index": 0, "timestamp": 2.0, "b": 2}]

    def test_similar_topics_do_not_mix(self, store: Store, again: Callable[[], Store]) -> None:
        """Topics that a file system or a careless layout takes for one stay apart, and keep their names."""
        topics = ["a/b", "a_b", "A/b", "A_B", "a.b", "con", "é", "e\u0301", "a\\b", "a b", "a~b", ".a", "x" * 300]
        writer = Writer(store, [Track("tracks", topic) for topic in topics])
        writer.send(*(body(1.0, number, n=number) for number in writer.tracks))
        for opened in (store, again()):
            assert [info.topic for info in opened.tracks()] == sorted(topics)
            for number, track in writer.tracks.items():
                assert entries(opened, track) == [{"timestamp": 1.0, "n": number}], track

    # -------------------------------------------------------------- merging

    def test_one_instant_is_one_entry(self, store: Store) -> None:
        """Fields of one timestamp unite, within a batch, across batches and across writers."""
        first, second = Writer(store), Writer(store)
        first.send(body(1.0, q=1), body(1.0, v=2))
        first.send(body(1.0, e=3))
        second.send(body(1.0, f=4))
        assert entries(store) == [{"timestamp": 1.0, "q": 1, "v": 2, "e": 3, "f": 4}]

    def test_the_later_append_wins_field_by_field(self, store: Store) -> None:
        """Within a batch its order counts, between batches the order of commit."""
        first, second = Writer(store), Writer(store)
        first.send(body(1.0, a="old", b="old"), body(1.0, a="new"))
        assert entries(store) == [{"timestamp": 1.0, "a": "new", "b": "old"}]
        second.send(body(1.0, a="newest"))
        first.send(body(1.0, b="newest"))
        assert entries(store) == [{"timestamp": 1.0, "a": "newest", "b": "newest"}]

    def test_a_dict_replaces_a_dict_whole(self, store: Store) -> None:
        """A field is a top-level name: what is inside it does not merge; null is a value like any other."""
        writer = Writer(store)
        writer.send(body(1.0, pose={"x": 1, "y": 2}, n=1))
        writer.send(body(1.0, pose={"x": 3}, n=None))
        assert entries(store) == [{"timestamp": 1.0, "pose": {"x": 3}, "n": None}]

    def test_minus_zero_is_zero(self, store: Store) -> None:
        """The drain never sends -0.0, so there is one zero, and windows find it from both sides."""
        Writer(store).send(body(0.0, a=1), body(0.0, b=2))
        assert entries(store, window=Window(-0.0, -0.0)) == [{"timestamp": 0.0, "a": 1, "b": 2}]

    # -------------------------------------------------------------- batches

    def test_a_batch_is_applied_once(self, store: Store, again: Callable[[], Store]) -> None:
        """A batch that comes again changes nothing, whoever asks, also after newer values."""
        writer = Writer(store, [STATE, LOSS])
        old = writer.send(body(1.0, 1, x="old"), body(1.0, 2, loss=1))
        Writer(store).send(body(1.0, x="new"))
        for opened in (store, again()):
            opened.append(old)
            assert entries(opened) == [{"timestamp": 1.0, "x": "new"}]
            assert len(entries(opened, LOSS)) == 1

    def test_an_older_number_is_a_retry(self, store: Store) -> None:
        """Numbers rise; one at or below the highest was applied before."""
        writer = Writer(store)
        first = writer.send(body(1.0, x="first"))
        writer.send(body(1.0, x="second"))
        store.append(first)
        assert entries(store) == [{"timestamp": 1.0, "x": "second"}]

    def test_a_number_with_other_entries_is_a_copied_writer(self, store: Store, again: Callable[[], Store]) -> None:
        """Told, whoever asks, and nothing is stored; the batch itself may come again, and the next one goes."""
        writer = Writer(store, [STATE, LOSS])
        sent = writer.send(body(1.0, 1, x=1), body(1.0, 2, loss=1))
        for opened in (store, again()):
            for others in ([body(2.0, 1, x=2)], [*sent.bodies, body(3.0, 1, x=3)], list(sent.bodies)[:1]):
                with pytest.raises(CopiedWriter):
                    opened.append(Batch(writer.name, 1, writer.tracks, others))
            opened.append(sent)
            assert entries(opened) == [{"timestamp": 1.0, "x": 1}]
            assert len(entries(opened, LOSS)) == 1
        writer.send(body(2.0, 1, x=2))
        assert len(entries(store)) == 2

    def test_applied_tells_the_highest_number(self, store: Store, again: Callable[[], Store]) -> None:
        """0 before the first batch; each writer for itself; numbers may leave gaps."""
        writer, other = Writer(store), Writer(store)
        assert store.applied(writer.name) == 0
        writer.send(body(1.0))
        writer.number = 6
        writer.send(body(2.0))
        assert [opened.applied(writer.name) for opened in (store, again())] == [7, 7]
        assert store.applied(other.name) == 0

    def test_an_empty_batch_counts(self, store: Store) -> None:
        """A batch without bodies moves the number and nothing else."""
        writer = Writer(store)
        writer.send()
        assert store.applied(writer.name) == 1
        assert store.tracks() == []

    def test_a_batch_is_applied_whole_or_not_at_all(self, store: Store, again: Callable[[], Store]) -> None:
        """A body that cannot be read fails the batch; nothing of it is visible, and the number is free."""
        writer = Writer(store, [STATE, LOSS])
        writer.send(body(1.0, 1, x=1))
        for broken in (b"\x93\x01", b"\xff", body(2.0, 77, x=2)):
            bad = Batch(writer.name, 2, writer.tracks, [body(2.0, 1, x=2), body(2.0, 2, loss=2), broken])
            with pytest.raises((ValueError, LookupError, TypeError)):
                store.append(bad)
        for opened in (store, again()):
            assert entries(opened) == [{"timestamp": 1.0, "x": 1}]
            assert entries(opened, LOSS) == []
            assert opened.applied(writer.name) == 1
        writer.send(body(3.0, 1, x=3))
        assert [entry["x"] for entry in entries(store)] == [1, 3]

    def test_what_was_appended_is_there_for_others(self, store: Store, again: Callable[[], Store]) -> None:
        """Once `append` returned, a second opening sees it, in every kind."""
        Writer(store, [STATE, LOSS, LOGS]).send(body(1.0, 1, q=1), body(1.0, 2, loss=1), body(1.0, 3, message="hi"))
        other = again()
        assert entries(other) == [{"timestamp": 1.0, "q": 1}]
        assert entries(other, LOSS) == [{"index": 0, "timestamp": 1.0, "loss": 1}]
        assert entries(other, LOGS) == [{"index": 0, "timestamp": 1.0, "message": "hi"}]

    def test_a_forgotten_writer_leaves_its_entries(self, store: Store) -> None:
        """`forget` drops the number only; an unknown writer is no error."""
        writer = Writer(store)
        writer.send(body(1.0, x=1))
        store.forget(writer.name)
        store.forget("0" * 28)
        assert store.applied(writer.name) == 0
        assert entries(store) == [{"timestamp": 1.0, "x": 1}]

    # -------------------------------------------------------------- windows

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (None, None, [1.0, 2.0, 3.0]), (2.0, None, [2.0, 3.0]), (None, 2.0, [1.0, 2.0]), (2.0, 2.0, [2.0]),
            (1.5, 2.5, [2.0]), (1.1, 1.9, []), (3.0, 1.0, []), (4.0, None, []), (None, 0.0, []),
            (-INF, INF, [1.0, 2.0, 3.0]), (INF, None, []), (None, -INF, []), (3.0, INF, [3.0]),
            (math.nextafter(2.0, 3.0), None, [3.0]), (None, math.nextafter(2.0, 1.0), [1.0]),
        ],
    )  # fmt: skip
    def test_windows_include_their_ends(
        self, store: Store, start: float | None, end: float | None, expected: list[float]
    ) -> None:
        """Both ends belong to the window; an open side has no end; an inverted window selects nothing."""
        Writer(store).send(body(1.0, x=1), body(2.0, x=2), body(3.0, x=3))
        assert [entry["timestamp"] for entry in entries(store, window=Window(start, end))] == expected

    @pytest.mark.parametrize("late", [False, True])
    def test_windows_of_a_long_track(self, store: Store, late: bool) -> None:
        """Windows of thousands of entries, sorted or with late data, equal a filter over all of them."""
        writer = Writer(store)
        times = [number * 0.01 for number in range(3000)]
        writer.send(*(body(time, n=number, text="x" * 60) for number, time in enumerate(times)))
        if late:
            writer.send(*(body(time + 0.005, n=-number, text="late") for number, time in enumerate(times[::7])))
            writer.send(*(body(time, late=True) for time in times[::11]))
        everything = entries(store)
        assert [e["timestamp"] for e in everything] == sorted({e["timestamp"] for e in everything})
        assert len(everything) == 3000 + (429 if late else 0)
        for start, end in [(0.0, 0.0), (3.0, 3.5), (12.34, 12.34), (0.005, 29.0), (29.9, 40.0), (-5.0, 0.02)]:
            expected = [entry for entry in everything if start <= entry["timestamp"] <= end]
            assert entries(store, window=Window(start, end)) == expected

    def test_a_window_sees_every_part_of_an_instant(self, store: Store) -> None:
        """The parts of one instant lie in several batches; a window that holds the instant gives all of them."""
        writer = Writer(store)
        writer.send(*(body(float(number), a=number) for number in range(200)))
        writer.send(*(body(float(number), b=number) for number in range(199, -1, -1)))
        assert entries(store, window=Window(70.0, 71.0)) == [
            {"timestamp": 70.0, "a": 70, "b": 70},
            {"timestamp": 71.0, "a": 71, "b": 71},
        ]

    # -------------------------------------------------------------- columns

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["q"], [{"timestamp": 1.0, "q": [1]}]),
            (["q", "v"], [{"timestamp": 1.0, "q": [1]}, {"timestamp": 2.0, "v": 2}]),
            (["v", "v"], [{"timestamp": 2.0, "v": 2}]),
            (["pose.x"], [{"timestamp": 3.0, "pose": {"x": 3}}]),
            (["pose.p.z"], [{"timestamp": 3.0, "pose": {"p": {"z": 5}}}]),
            (["pose.x", "pose.p"], [{"timestamp": 3.0, "pose": {"x": 3, "p": {"z": 5, "w": None}}}]),
            (["pose", "pose.x"], [{"timestamp": 3.0, "pose": {"x": 3, "y": 4, "p": {"z": 5, "w": None}}}]),
            (["pose.x", "pose"], [{"timestamp": 3.0, "pose": {"x": 3, "y": 4, "p": {"z": 5, "w": None}}}]),
            (["pose.p.w"], [{"timestamp": 3.0, "pose": {"p": {"w": None}}}]),
            (["a.b"], [{"timestamp": 4.0, "a.b": 6, "a": {"b": 7}}, {"timestamp": 5.0, "a": {"b": 8}}]),
            (["none"], [{"timestamp": 2.0, "none": None}]),
            (["absent"], []),
            (["q.x"], []),
            (["pose.absent"], []),
            ([""], []),
            ([], []),
            (["timestamp"], [{"timestamp": float(time)} for time in range(1, 6)]),
            (["timestamp", "v"], [{"timestamp": float(t), **({"v": 2} if t == 2 else {})} for t in range(1, 6)]),
        ],
    )  # fmt: skip
    def test_columns_select_fields_and_parts(self, store: Store, names: list[str], expected: list[Entry]) -> None:
        """Fields by name, parts by a dotted path with their nesting; entries with none of them are left out."""
        Writer(store).send(
            body(1.0, q=[1]),
            body(2.0, v=2, none=None),
            body(3.0, pose={"x": 3, "y": 4, "p": {"z": 5, "w": None}}),
            body(4.0, **{"a.b": 6, "a": {"b": 7}}),
            body(5.0, a={"b": 8}),
        )
        if names == ["a.b"]:  # a field of that very name is taken first
            expected = [{"timestamp": 4.0, "a.b": 6}, {"timestamp": 5.0, "a": {"b": 8}}]
        assert entries(store, window=Window(columns=tuple(names))) == expected

    def test_columns_of_an_instant_in_several_batches(self, store: Store) -> None:
        """A column is taken of the merged entry: the newest value of it, whatever the other batches hold."""
        writer = Writer(store)
        writer.send(body(1.0, pose={"x": 1, "y": 1}, q=1), body(2.0, q=1))
        writer.send(body(1.0, pose={"y": 2}), body(2.0, v=1))
        assert entries(store, window=Window(columns=("pose.x",))) == []
        assert entries(store, window=Window(columns=("pose.y", "v"))) == [
            {"timestamp": 1.0, "pose": {"y": 2}},
            {"timestamp": 2.0, "v": 1},
        ]

    # -------------------------------------------------------------- whole arrays

    def test_column_bodies_are_entries(self, store: Store) -> None:
        """What `extend` wrote reads as if each entry had been appended."""
        Writer(store).send(
            columns([1.0, 2.0, 3.0], q=[[1.5, NAN], [2, "NaN"], None], n=[1, 2, 3]),
            columns([2.5, 2.0], n=[9, 8], late=[True, False]),
        )
        assert same(
            entries(store),
            [
                {"timestamp": 1.0, "q": [1.5, NAN], "n": 1},
                {"timestamp": 2.0, "q": [2, "NaN"], "n": 8, "late": False},
                {"timestamp": 2.5, "n": 9, "late": True},
                {"timestamp": 3.0, "q": None, "n": 3},
            ],
        )

    def test_packed_arrays_are_entries(self, store: Store) -> None:
        """NumPy arrays of every number type come back as the numbers they hold, nested by their shape."""
        np = pytest.importorskip("numpy")
        arrays = {
            "q": np.arange(18, dtype=np.float64).reshape(3, 2, 3) / 7,
            "f": np.array([0.1, INF, NAN], dtype=np.float32),
            "half": np.array([0.5, -0.0, 65504.0], dtype=np.float16),
            "big": np.array([0, 2**63, 2**64 - 1], dtype=np.uint64),
            "small": np.array([-128, 0, 127], dtype=np.int8),
            "flag": np.array([True, False, True]),
            "swapped": np.array([1, -2, 3], dtype=">i4"),
            "strided": np.arange(12).reshape(3, 4)[:, ::2],
            "none": np.zeros((3, 0)),
            "text": np.array(["a", "NaN", ""]),
        }
        Writer(store).send(columns(np.array([3.0, 1.0, 2.0]), **arrays))
        expected = [
            {"timestamp": time, **{name: array[place].tolist() for name, array in arrays.items()}}
            for time, place in [(1.0, 1), (2.0, 2), (3.0, 0)]
        ]
        assert same(entries(store), expected)

    def test_a_large_column_body(self, store: Store) -> None:
        """Tens of thousands of entries in one body: all there, in order, and windows find theirs."""
        np = pytest.importorskip("numpy")
        times = np.arange(20_000) * 0.001
        Writer(store).send(
            columns(times, q=np.column_stack([times, -times])), columns(times[::2] + 0.0005, late=times[::2])
        )
        found = entries(store)
        assert len(found) == 30_000
        assert [entry["timestamp"] for entry in found] == sorted(entry["timestamp"] for entry in found)
        window = entries(store, window=Window(10.0, 10.001))
        assert [list(entry) for entry in window] == [["timestamp", "q"], ["timestamp", "late"], ["timestamp", "q"]]

    # -------------------------------------------------------------- sequences

    def test_a_sequence_keeps_every_entry_in_the_order_of_commit(
        self, store: Store, again: Callable[[], Store]
    ) -> None:
        """Metrics and logs do not merge: equal and late timestamps, even equal entries, each keep an index."""
        writer, other = Writer(store, [LOSS]), Writer(store, [LOSS])
        writer.send(body(5.0, loss=1), body(5.0, loss=1), body(4.0, loss=2))
        other.send(body(1.0, loss=3))
        writer.send(body(5.0, loss=1))
        expected = [
            {"index": index, "timestamp": time, "loss": loss}
            for index, (time, loss) in enumerate([(5.0, 1), (5.0, 1), (4.0, 2), (1.0, 3), (5.0, 1)])
        ]
        assert entries(store, LOSS) == expected
        assert entries(again(), LOSS) == expected

    @pytest.mark.parametrize(
        ("first", "limit", "expected"),
        [
            (0, None, range(2500)), (2490, None, range(2490, 2500)), (0, 3, range(3)), (1000, 1001, range(1000, 2001)),
            (2499, 5, range(2499, 2500)), (2500, None, ()), (9999, 3, ()), (7, 0, ()), (0, 10**9, range(2500)),
        ],
    )  # fmt: skip
    def test_a_part_of_a_sequence(self, store: Store, first: int, limit: int | None, expected: Sequence[int]) -> None:
        """From an index on, and so many: indices are those of the whole."""
        writer = Writer(store, [LOSS])
        for start in (0, 1000, 2000):
            stop = min(start + 1000, 2500)
            writer.send(*(body(1e9 + number / 1000, loss=number, note="x" * 40) for number in range(start, stop)))
        found = entries(store, LOSS, Window(first=first, limit=limit))
        assert [entry["index"] for entry in found] == list(expected)
        assert [entry["loss"] for entry in found] == list(expected)

    def test_columns_of_a_sequence_keep_the_index(self, store: Store) -> None:
        """An entry of a sequence is known by its index, so a selection of columns keeps it."""
        Writer(store, [LOSS]).send(body(1.0, loss=1, acc=2), body(2.0, loss=3), body(3.0, acc=4))
        assert entries(store, LOSS, Window(columns=("acc",))) == [
            {"index": 0, "timestamp": 1.0, "acc": 2},
            {"index": 2, "timestamp": 3.0, "acc": 4},
        ]
        assert entries(store, LOSS, Window(columns=("acc", "timestamp"), first=1, limit=1)) == [
            {"index": 1, "timestamp": 2.0}
        ]

    def test_column_bodies_of_a_sequence(self, store: Store) -> None:
        """Arrays are entries of a sequence in their order."""
        Writer(store, [LOSS]).send(columns([2.0, 1.0, 2.0], loss=[1, 2, 3]), body(0.0, loss=4))
        assert [(e["index"], e["timestamp"], e["loss"]) for e in entries(store, LOSS)] == [
            (0, 2.0, 1), (1, 1.0, 2), (2, 2.0, 3), (3, 0.0, 4),
        ]  # fmt: skip

    # -------------------------------------------------------------- what is there

    def test_tracks_describes_each_series(self, store: Store, again: Callable[[], Store]) -> None:
        """Sorted by topic: entries counted once per timestamp, first and last timestamp, columns with types."""
        writer = Writer(store, [STATE, FORCE])
        writer.send(
            body(2.0, 1, q=[1.0, 2.0], n=1, index=7), body(1.0, 1, q=[3.0, 4.0], mode="grasp"), body(9.0, 2, f=1.5)
        )
        writer.send(body(2.0, 1, v=True), body(0.5, 2, f=2, pose={"x": 1}))
        for opened in (store, again()):
            state, force = opened.tracks()
            assert (state.topic, state.count, state.first_timestamp, state.last_timestamp) == (STATE.topic, 2, 1.0, 2.0)
            assert state.columns == {"q": "list[float; 2]", "mode": "str", "n": "int", "v": "bool", "index": "int"}
            assert (force.topic, force.count, force.first_timestamp, force.last_timestamp) == (FORCE.topic, 2, 0.5, 9.0)
            assert force.columns == {"f": "float | int", "pose": "dict"}

    def test_tracks_describes_sequences(self, store: Store) -> None:
        """Metrics and logs are listed under their kinds only; their index is no column."""
        Writer(store, [LOSS, LOGS]).send(body(5.0, 1, loss=1.0), body(4.0, 1, loss=2.0), body(1.0, 2, message="hi"))
        (loss,) = store.tracks("metrics")
        assert (loss.topic, loss.count, loss.first_timestamp, loss.last_timestamp) == ("train", 2, 4.0, 5.0)
        assert loss.columns == {"loss": "float"}
        assert [info.topic for info in store.tracks("logs")] == ["logs"]
        assert store.tracks() == []

    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize(
        ("start", "end", "left"),
        [
            (2.0, 3.0, [1.0, 4.0]), (1.5, 3.5, [1.0, 4.0]), (None, 2.0, [3.0, 4.0]), (3.0, None, [1.0, 2.0]),
            (2.0, 2.0, [1.0, 3.0, 4.0]), (2.1, 2.9, [1.0, 2.0, 3.0, 4.0]), (3.0, 2.0, [1.0, 2.0, 3.0, 4.0]),
            (9.0, None, [1.0, 2.0, 3.0, 4.0]), (-INF, 1.0, [2.0, 3.0, 4.0]), (1.0, 4.0, []), (None, INF, []),
        ],
    )  # fmt: skip
    def test_a_deleted_window_is_gone(
        self,
        store: Store,
        again: Callable[[], Store],
        start: float | None,
        end: float | None,
        left: list[float],
        late: bool,
    ) -> None:
        """Its entries with both ends, for every opening; the others, their fields and other tracks stay."""
        writer = Writer(store, [STATE, FORCE])
        stamps = [3.0, 4.0, 1.0, 2.0] if late else [1.0, 2.0, 3.0, 4.0]
        if late:
            writer.send(*(body(stamp, number, q=0) for stamp in reversed(stamps) for number in (1, 2)))
        writer.send(*(body(stamp, number, q=stamp) for stamp in stamps for number in (1, 2)))
        store.remove_window(STATE, start, end)
        for opened in (store, again()):
            assert [(entry["timestamp"], entry["q"]) for entry in entries(opened)] == [(t, t) for t in left]
            assert len(entries(opened, FORCE)) == 4
            infos = {info.topic: info for info in opened.tracks()}
            assert infos[STATE.topic].count == len(left) if left else STATE.topic not in infos

    def test_a_deleted_window_of_a_long_track(self, store: Store, again: Callable[[], Store]) -> None:
        """Thousands of entries: windows and lists fit what is left, and a second window goes on from there."""
        writer = Writer(store)
        for first in range(0, 9000, 3000):
            writer.send(*(body(float(number), n=number, x="a" * 40) for number in range(first, first + 3000)))
        store.remove_window(STATE, 1000.0, 7999.0)
        store.remove_window(STATE, end=99.0)
        kept = [*range(100, 1000), *range(8000, 9000)]
        for opened in (store, again()):
            assert [entry["n"] for entry in entries(opened)] == kept
            assert [e["n"] for e in entries(opened, window=Window(900.0, 8010.0))] == [
                *range(900, 1000),
                *range(8000, 8011),
            ]
            (info,) = opened.tracks()
            assert (info.count, info.first_timestamp, info.last_timestamp) == (len(kept), 100.0, 8999.0)

    def test_what_was_deleted_stays_deleted(self, store: Store, again: Callable[[], Store]) -> None:
        """A batch that comes again brings nothing back, deleting twice is fine, and what is appended later is there."""
        writer = Writer(store)
        old = writer.send(body(1.0, q=1), body(2.0, q=2))
        for _ in range(2):
            store.remove_window(STATE, 2.0, 3.0)
        store.append(old)
        assert entries(store) == [{"timestamp": 1.0, "q": 1}]
        assert store.applied(writer.name) == 1
        writer.send(body(2.0, v=3))
        for opened in (store, again()):
            assert entries(opened) == [{"timestamp": 1.0, "q": 1}, {"timestamp": 2.0, "v": 3}]

    def test_open_windows_and_unknown_tracks(self, store: Store) -> None:
        """Without bounds a window is all of a track; of an unknown one there is nothing to delete."""
        Writer(store).send(body(1.0, q=1), body(2.0, q=2))
        store.remove_window(FORCE, 1.0, 2.0)
        store.remove_window(STATE)
        assert entries(store) == []
        assert store.tracks() == []

    def test_a_part_of_a_sequence_is_not_deleted(self, store: Store) -> None:
        """The indexes behind it would move."""
        Writer(store, [LOSS, LOGS]).send(body(1.0, 1, loss=1), body(1.0, 2, message="m"))
        for track in (LOSS, LOGS):
            with pytest.raises(InvalidWindow, match="sequence"):
                store.remove_window(track, 0.0, 2.0)
            assert len(entries(store, track)) == 1

    def test_a_removed_series_is_gone(self, store: Store, again: Callable[[], Store]) -> None:
        """Its entries and its listing go, the others stay; an unknown one is no error; it can be recorded again."""
        writer = Writer(store, [STATE, FORCE, LOSS])
        old = writer.send(body(1.0, 1, q=1), body(1.0, 2, f=1), body(1.0, 3, loss=1))
        for track in (STATE, LOSS, Track("tracks", "unknown"), Track("metrics", "unknown")):
            store.remove(track)
        for opened in (store, again()):
            assert [info.topic for info in opened.tracks()] == [FORCE.topic]
            assert opened.tracks("metrics") == []
            assert entries(opened) == entries(opened, LOSS) == []
            assert entries(opened, FORCE) == [{"timestamp": 1.0, "f": 1}]
        store.append(old)
        assert entries(store) == []
        writer.send(body(2.0, 1, q=2), body(2.0, 3, loss=2))
        assert entries(store) == [{"timestamp": 2.0, "q": 2}]
        assert entries(store, LOSS) == [{"index": 0, "timestamp": 2.0, "loss": 2}]

    # -------------------------------------------------------------- revisions

    def test_a_revision_tells_every_change(self, store: Store, again: Callable[[], Store]) -> None:
        """Appended to, corrected to a value of the same size, deleted from, deleted and made anew: never the same
        twice; a second opening knows the same one, and other series keep theirs."""
        writer, seen = Writer(store, [STATE, LOSS, FORCE]), set[str]()
        writer.send(body(1.0, 3, other=1))
        (untouched,) = store.tracks()
        changes: list[Callable[[], Any]] = [
            lambda: writer.send(*(body(float(n), 1, x=1) for n in range(10)), body(1.0, 2, loss=1)),
            lambda: writer.send(body(3.0, 1, x=2), body(1.0, 2, loss=1)),
            lambda: writer.send(body(3.0, 1, x=3), body(0.5, 2, loss=2)),
            lambda: writer.send(body(99.0, 1, x=1), body(99.0, 2, loss=3)),
            lambda: [store.remove_window(STATE, 4.0, 5.0), writer.send(body(5.0, 2, loss=4))],
            lambda: [store.remove_window(STATE, 99.0, 99.0), writer.send(body(6.0, 2, loss=5))],
            lambda: writer.send(body(4.0, 1, x=1), body(7.0, 2, loss=6)),
            lambda: [store.remove(STATE), store.remove(LOSS), writer.send(body(1.0, 1, x=22), body(1.0, 2, loss=22))],
        ]
        for number, change in enumerate(changes, start=1):
            change()
            for opened in (store, again(), store):
                state, force = opened.tracks()
                (loss,) = opened.tracks("metrics")
                assert force.revision == untouched.revision != ""
                seen |= {f"state {state.revision}", f"loss {loss.revision}"}
            assert len(seen) == 2 * number, number

    def test_what_changes_no_series_keeps_its_revision(self, store: Store, again: Callable[[], Store]) -> None:
        """A batch that comes again, one without entries, reading, documents, the end of a writer."""
        writer = Writer(store, [STATE, LOSS])
        sent = writer.send(body(2.0, 1, x=1), body(1.0, 1, x=1), body(1.0, 2, loss=1))

        def known() -> list[str]:
            infos = (
                info for opened in (store, again()) for kind in ("tracks", "metrics") for info in opened.tracks(kind)
            )
            return [info.revision for info in infos]

        before = known()
        uses: list[Callable[[], Any]] = [
            lambda: store.append(sent),
            writer.send,
            lambda: [entries(opened, track) for opened in (store, again()) for track in (STATE, LOSS)],
            lambda: store.update_document("params", lambda found: {"a": 1}),
            lambda: store.forget(writer.name),
        ]
        for use in uses:
            use()
            assert known() == before

    # -------------------------------------------------------------- documents

    def test_documents_are_replaced_whole(self, store: Store, again: Callable[[], Store]) -> None:
        """None before the first update; each update sees the last one, and its result is what is there."""
        assert store.read_document("params") is None
        assert store.update_document("params", lambda known: {"was": known, "lr": 0.1}) == {"was": None, "lr": 0.1}
        result = store.update_document("params", lambda known: {"lr": (known or {})["lr"] * 2})
        assert result == {"lr": 0.2}
        assert store.read_document("params") == again().read_document("params") == {"lr": 0.2}
        assert store.read_document("experiment") is None

    @pytest.mark.parametrize("name", VALUES)
    def test_documents_keep_every_value(self, store: Store, again: Callable[[], Store], name: str) -> None:
        """The rules of entries hold in documents too."""
        store.update_document("params", lambda known: {"value": VALUES[name], "nested": {"a": [VALUES[name]]}})
        store.update_document("params", lambda known: {**(known or {}), "more": 1})
        assert same(
            again().read_document("params"), {"value": VALUES[name], "nested": {"a": [VALUES[name]]}, "more": 1}
        )

    def test_a_change_that_fails_changes_nothing(self, store: Store) -> None:
        """What the function raises goes to the caller, and the document stays."""
        store.update_document("params", lambda known: {"a": 1})

        def fail(known: Any) -> Any:
            known["a"] = 2
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            store.update_document("params", fail)
        with pytest.raises((TypeError, ValueError)):
            store.update_document("params", lambda known: {"a": object()})
        assert store.read_document("params") == {"a": 1}

    def test_documents_lose_no_concurrent_update(self, store: Store, again: Callable[[], Store]) -> None:
        """Updates at once from several threads and openings are all kept."""
        places = [store, store, again(), again()]

        def count(place: Store) -> None:
            for _ in range(10):
                place.update_document("params", lambda known: {"n": (known or {"n": 0})["n"] + 1})

        with ThreadPoolExecutor(len(places)) as pool:
            list(pool.map(count, places))
        assert store.read_document("params") == {"n": 40}

    # -------------------------------------------------------------- threads, the end

    def test_threads_see_whole_batches(self, store: Store, again: Callable[[], Store]) -> None:
        """While several threads append, every read ascends and holds each batch whole or not at all."""
        writing, problems = threading.Event(), list[str]()

        def write(number: int) -> None:
            writer = Writer(store)
            for batch in range(15):
                writer.send(*(body(number + batch * 10 + step / 8, who=number, batch=batch) for step in range(5)))

        def look() -> None:
            opened = again()
            while not writing.is_set():
                found = entries(opened)
                stamps = [entry["timestamp"] for entry in found]
                if stamps != sorted(set(stamps)):
                    problems.append("not ascending")
                sizes = [sum(e["who"] == who for e in found) for who in range(4)]
                if any(size % 5 for size in sizes):
                    problems.append(f"part of a batch: {sizes}")

        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(write, range(4)))
        finally:
            writing.set()
            for reader in readers:
                reader.join()
        assert problems == []
        assert len(entries(store)) == 4 * 15 * 5

    def test_two_openings_write_by_turns(self, store: Store, again: Callable[[], Store]) -> None:
        """What one opening remembers of the data does not hide what another one wrote."""
        first, second = Writer(store, [STATE, LOSS]), Writer(again(), [STATE, LOSS])
        for number in range(6):
            for place, writer in enumerate((first, second)):
                writer.send(body(float(number), 1, **{f"w{place}": number}), body(float(number), 2, loss=number))
                for opened in (first.store, second.store):
                    assert entries(opened)[-1][f"w{place}"] == number
                    assert len(entries(opened, LOSS)) == 2 * number + place + 1
        assert entries(store) == [{"timestamp": float(n), "w0": n, "w1": n} for n in range(6)]

    def test_reading_while_writing_goes_on(self, store: Store) -> None:
        """A read that began keeps going when the series grows, merges or is removed under it."""
        writer = Writer(store)
        writer.send(*(body(float(number), x="a" * 100) for number in range(3000)))
        reading = store.read(STATE)
        first = next(reading)
        writer.send(body(0.5, x="late"), body(5000.0, x="new"))
        store.remove(STATE)
        found = [entry["timestamp"] for block in (first, *reading) for entry in block]
        assert found == sorted(set(found))
        assert set(found) >= {float(number) for number in range(len(first))}

    def test_a_closed_store_is_closed(self, store: Store) -> None:
        """Every use after `close` raises NotOpen; closing twice is harmless."""
        writer = Writer(store)
        writer.send(body(1.0, x=1))
        store.close()
        store.close()
        uses: list[Callable[[], Any]] = [
            lambda: writer.send(body(2.0, x=2)),
            lambda: store.applied(writer.name),
            lambda: store.forget(writer.name),
            lambda: entries(store),
            lambda: store.tracks(),
            lambda: store.remove(STATE),
            lambda: store.remove_window(STATE, 1.0, 2.0),
            lambda: store.read_document("params"),
            lambda: store.update_document("params", lambda known: {}),
        ]
        for use in uses:
            with pytest.raises(NotOpen):
                use()

    # -------------------------------------------------------------- everything at random

    @settings(
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        deadline=None,
    )
    @given(
        st.lists(
            st.lists(
                st.tuples(
                    st.integers(0, 12).map(lambda number: number / 4),
                    st.dictionaries(st.sampled_from("abc"), st.integers(0, 99), max_size=2),
                ),
                min_size=1,
                max_size=6,
            ),
            max_size=6,
        ),
        st.integers(-1, 13).map(lambda number: number / 4),
        st.integers(-1, 13).map(lambda number: number / 4),
    )
    def test_equal_to_a_dictionary(
        self, store: Store, batches: list[list[tuple[float, dict[str, int]]]], start: float, end: float
    ) -> None:
        """Any batches: the store's answers equal those of a plain dictionary that merges."""
        track = Track("tracks", f"random/{next(_numbers)}")
        sequence = Track("metrics", track.topic)
        writers = [Writer(store, [track, sequence]) for _ in range(2)]
        model: dict[float, Entry] = {}
        everything: list[Entry] = []
        for number, batch in enumerate(batches):
            sent = writers[number % 2].send(*(body(t, kind, **f) for t, f in batch for kind in (1, 2)))
            for timestamp, fields in batch:
                entry = model.setdefault(timestamp, {"timestamp": timestamp})
                entry.update(fields)
                everything.append({"index": len(everything), "timestamp": timestamp, **fields})
            store.append(sent)
        ascending = [model[timestamp] for timestamp in sorted(model)]
        assert entries(store, track) == ascending
        assert entries(store, sequence) == everything
        window = [entry for entry in ascending if start <= entry["timestamp"] <= end]
        assert entries(store, track, Window(start, end)) == window
        only_a = [{"timestamp": e["timestamp"], "a": e["a"]} for e in window if "a" in e]
        assert entries(store, track, Window(start, end, ("a",))) == only_a
