"""Tracks as the user holds them: what was appended is read, at once and for ever, in every window."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_dash import Experiment, InvalidWindow, TrackInfo, from_nanoseconds
from ml_dash import open as open_run
from ml_dash.store import Window
from store_contract import same

INF = math.inf
MODES = [{"durability": "normal"}, {"durability": "strict"}, {"durability": "off"}, {"journal": "write"}]


@pytest.fixture(params=MODES, ids=lambda mode: "-".join(mode.values()))
def any_mode(
    request: pytest.FixtureRequest, new_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> Experiment:
    """A recording experiment in each mode of durability, and without a mapped journal."""
    mode = dict(request.param)
    monkeypatch.setenv("ML_DASH_JOURNAL", mode.pop("journal", ""))
    return new_experiment(**mode).run.start()


# ---------------------------------------------------------------- builders


def test_one_builder_for_each_topic(experiment: Experiment) -> None:
    """Asking again gives the same one; calls can be chained; it is true while empty, and says its topic."""
    track = experiment.tracks("robot/state")
    assert experiment.tracks("robot/state") is track
    assert experiment.tracks("robot/other") is not track
    assert track.append(_ts=1.0).append(_ts=2.0).extend(_ts=[3.0]).flush() is track
    assert experiment.tracks.flush() is experiment.tracks
    assert len(track) == 3
    assert len(experiment.tracks("empty")) == 0
    assert experiment.tracks("empty")
    assert repr(track) == "<track 'robot/state'>"
    assert track.topic == "robot/state"


def test_a_builder_that_is_not_used_leaves_nothing(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """Asking for a topic, and reading it, creates no track."""
    with new_experiment().run as exp:
        assert exp.tracks("nobody").list_entries() == []
        assert exp.tracks.list() == []
        exp.tracks.flush()
    assert not (folder / "tracks").exists()


# ---------------------------------------------------------------- reading what was appended


def test_a_read_sees_every_append(any_mode: Experiment) -> None:
    """In every mode, before and after each flush, whatever the order of the timestamps."""
    track = any_mode.tracks("x")
    times = [5.0, 1.0, 3.0, 3.0, 2.0, -1.0, 9.0, 5.0]
    for number, timestamp in enumerate(times):
        track.append(_ts=timestamp, **{f"n{number}": number}, last=number)
        expected: dict[float, dict[str, Any]] = {}
        for place, stamp in enumerate(times[: number + 1]):
            expected.setdefault(stamp, {"timestamp": stamp}).update({f"n{place}": place, "last": place})
        assert track.list_entries() == [expected[stamp] for stamp in sorted(expected)]
        if number % 3 == 1:
            track.flush()
            assert track.list_entries() == [expected[stamp] for stamp in sorted(expected)]
    any_mode.run.complete()
    with any_mode.run:
        assert any_mode.tracks("x").list_entries() == [expected[stamp] for stamp in sorted(expected)]


def test_many_entries_fill_many_segments(any_mode: Experiment, folder: Path) -> None:
    """Beyond the journal's segments, with entries of all sizes: all there, in order; nothing left of the journal."""
    track = any_mode.tracks("x")
    texts = ["x" * size for size in (10, 1_000, 100_000, 3_000_000)]
    for number in range(24):
        track.append(_ts=float(number), text=texts[number % 4], n=number)
    assert [entry["n"] for entry in track.list_entries()] == list(range(24))
    track.flush()
    assert [len(entry["text"]) for entry in track.list_entries()] == [len(texts[number % 4]) for number in range(24)]
    any_mode.run.complete()
    assert len((folder / "tracks/x/data.jsonl").read_bytes().splitlines()) == 24
    assert not list((folder / ".journal").rglob("*.seg"))


def test_extend_and_append_take_turns(any_mode: Experiment) -> None:
    """Large and small extends between appends keep their order: for each field the later call wins."""
    track = any_mode.tracks("x")
    count = 40_000
    times = np.arange(count) / 100
    track.append(_ts=0.0, v=-1, first=1)
    track.extend(_ts=times, v=np.arange(count), q=np.ones((count, 7)))
    track.append(_ts=0.0, v=-2)
    track.extend(_ts=times[::-1], w=np.arange(count))
    track.append(_ts=times[-1], w="last")
    for _ in range(2):
        entries = track.list_entries()
        assert len(entries) == count
        assert entries[0] == {"timestamp": 0.0, "v": -2, "first": 1, "q": [1.0] * 7, "w": count - 1}
        assert entries[-1] == {"timestamp": times[-1], "v": count - 1, "q": [1.0] * 7, "w": "last"}
        assert [entry["v"] for entry in entries[1:]] == list(range(1, count))
        track.flush()


def test_nanoseconds_of_ros(experiment: Experiment) -> None:
    """Stamps by the helper, alone or as an array, are the same instants."""
    stamps = np.array([1403715524907143168 + 5_000_000 * number for number in range(100)])
    track = experiment.tracks("imu").extend(_ts=from_nanoseconds(stamps), a=np.arange(100))
    for number, stamp in enumerate(stamps.tolist()):
        track.append(_ts=from_nanoseconds(stamp), b=number)
    assert len(track) == 100
    assert all(entry["a"] == entry["b"] for entry in track.list_entries())


def test_the_closed_file_has_one_line_per_timestamp(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """Late data of several sessions: after each, the file is merged and ascending, and reading equals it."""
    for session in range(3):
        with new_experiment().run as exp:
            for number in (4, 2, 0, 3, 1):
                exp.tracks("x").append(_ts=number + session / 2, **{f"s{session}": number})
                if number == 0:
                    exp.tracks.flush()
        lines = [json.loads(line) for line in (folder / "tracks/x/data.jsonl").read_bytes().splitlines()]
        stamps = [line["timestamp"] for line in lines]
        assert stamps == sorted(set(stamps))
        with open_run(exp.prefix, dash_root=exp.root) as opened:
            assert opened.tracks("x").list_entries() == lines


# ---------------------------------------------------------------- windows


@pytest.fixture
def half_stored(experiment: Experiment) -> Experiment:
    """A track `x` with entries at 0, 1, ... 9: even ones in the file, odd ones in the journal."""
    for number in (0, 2, 4, 6, 8):
        experiment.tracks("x").append(_ts=float(number), n=number, pose={"x": number, "y": -number})
    experiment.tracks.flush()
    for number in (9, 7, 5, 3, 1):
        experiment.tracks("x").append(_ts=float(number), n=number, odd=True, pose={"x": number, "y": -number})
    return experiment


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(10)), (3, 6, range(3, 7)), (3.0, 3.0, [3]), (np.float32(2.5), np.int64(4), [3, 4]),
        (8, None, [8, 9]),
        (None, 1, [0, 1]), (-INF, INF, range(10)), (INF, None, []), (None, -INF, []), (6, 3, []), (100, 200, []),
        (-5, -1, []),
        (np.array(7.0), None, [7, 8, 9]), (-0.0, 0.0, [0]),
    ],
)  # fmt: skip
def test_windows(half_stored: Experiment, start: Any, end: Any, expected: Any) -> None:
    """Both ends belong to the window; None and infinities are open; an inverted window is empty."""
    found = half_stored.tracks("x").read(start, end)
    assert found == half_stored.tracks("x").read(start_timestamp=start, end_timestamp=end)
    assert [entry["n"] for entry in found["entries"]] == list(expected)
    assert found["count"] == len(expected)


@pytest.mark.parametrize("name", ["start_timestamp", "end_timestamp"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "must be finite, got nan"), ("1", "must be a number of seconds, got str '1'"),
        (True, "must be a number"),
        ([1.0], "must be a number of seconds, got list"), (2**60, "is the integer 1152921504606846976, which seconds"),
        (1j, "must be a number of seconds, got complex"),
        (np.datetime64(1, "s"), "must be a number of seconds, got datetime64"),
    ],
)  # fmt: skip
def test_bounds_that_make_no_sense(half_stored: Experiment, name: str, value: Any, text: str) -> None:
    """InvalidWindow, a ValueError, names the argument."""
    with pytest.raises(InvalidWindow, match=f"^{name}: {text}") as caught:
        half_stored.tracks("x").read(**{name: value})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "columns",
    [["n"], ("n",), {"n"}, {"n": 1}, iter(["n"]), (name for name in ["n"]), np.array(["n"])],
    ids=lambda c: type(c).__name__,
)
def test_columns_are_any_iterable_of_names(half_stored: Experiment, columns: Any) -> None:
    """Lists, tuples, sets, generators, arrays of text."""
    found = half_stored.tracks("x").read(columns=columns)["entries"]
    assert found == [{"timestamp": float(number), "n": number} for number in range(10)]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ("n", r"^columns must be a list of names, got the text 'n'; write columns=\['n'\]$"),
        (b"n", r"^columns must be a list of names, got the text b'n'"),
        (1, r"^columns must be a list of names, got int$"),
        ([1], r"^columns must be a list of names, got int 1 in it$"),
        (["n", None], r"^columns must be a list of names, got NoneType None in it$"),
        ([["n"]], r"^columns must be a list of names, got list \['n'\] in it$"),
    ],
)
def test_columns_that_make_no_sense(half_stored: Experiment, columns: Any, text: str) -> None:
    """A string instead of a list is the usual slip: the error shows how to write it."""
    with pytest.raises(InvalidWindow, match=text):
        half_stored.tracks("x").read(columns=columns)


@pytest.mark.parametrize(
    ("columns", "count", "first"),
    [
        (["n"], 10, {"timestamp": 0.0, "n": 0}), (["odd"], 5, {"timestamp": 1.0, "odd": True}),
        (["unknown"], 0, None), ([], 0, None),
        (["pose.x"], 10, {"timestamp": 0.0, "pose": {"x": 0}}),
        (["pose.x", "odd"], 10, {"timestamp": 0.0, "pose": {"x": 0}}),
        (["pose"], 10, {"timestamp": 0.0, "pose": {"x": 0, "y": 0}}), (["timestamp"], 10, {"timestamp": 0.0}),
        (["pose.z"], 0, None), (["n.x"], 0, None), (["timestamp", "odd"], 10, {"timestamp": 0.0}),
    ],
)  # fmt: skip
def test_columns(half_stored: Experiment, columns: list[str], count: int, first: dict[str, Any] | None) -> None:
    """Entries that have none of the columns are left out, from file and journal alike."""
    found = half_stored.tracks("x").read(columns=columns)
    assert found["count"] == count
    assert (found["entries"] or [None])[0] == first


def test_a_dict_in_the_journal_replaces_one_in_the_file(experiment: Experiment) -> None:
    """A column is a part of the newest value: a part that only the older dict had is gone."""
    track = experiment.tracks("x").append(_ts=1.0, pose={"x": 1, "y": 1}).append(_ts=2.0, q=1).flush()
    track.append(_ts=1.0, pose={"y": 2}).append(_ts=2.0, v=1)
    assert track.read(columns=["pose.x"])["entries"] == []
    assert track.read(columns=["pose.y", "v"])["entries"] == [
        {"timestamp": 1.0, "pose": {"y": 2}}, {"timestamp": 2.0, "v": 1},
    ]  # fmt: skip


def test_blocks(half_stored: Experiment) -> None:
    """The same entries in ascending blocks, with the same windows, for tracks larger than memory."""
    track = half_stored.tracks("x")
    assert [entry for block in track.blocks() for entry in block] == track.list_entries()
    window = Window(2.0, 5.0, ("n",))
    assert [entry for block in track.blocks(window) for entry in block] == track.read(2, 5, ["n"])["entries"]


@pytest.mark.parametrize("late", [False, True])
def test_windows_of_a_long_track(new_experiment: Callable[..., Experiment], late: bool) -> None:
    """Out of fifty thousand entries, sorted or with late ones in file and journal, each window equals a filter."""
    with new_experiment(durability="off").run as exp:
        track = exp.tracks("x")
        times = np.arange(50_000) / 1000
        track.extend(_ts=times, n=np.arange(50_000), q=np.ones((50_000, 3))).flush()
        if late:
            track.extend(_ts=times[::10] + 0.0005, late=np.arange(5000)).flush()
            track.extend(_ts=times[::100], again=np.arange(500))
        everything = track.list_entries()
        assert len(everything) == (55_000 if late else 50_000)
        for start, end in [
            (0.0, 0.01),
            (25.0, 25.0),
            (24.9995, 25.0005),
            (49.99, 99.0),
            (-1.0, 0.0),
            (12.3456, 12.3456),
        ]:
            expected = [entry for entry in everything if start <= entry["timestamp"] <= end]
            assert track.read(start, end)["entries"] == expected


# ---------------------------------------------------------------- what there is


def test_list_tells_what_there_is(experiment: Experiment) -> None:
    """Topic, count, first and last timestamp, columns with types, bytes; sorted; from journal, file and both."""
    experiment.tracks("robot/state").append(_ts=2.0, q=[1.0, 2.0], mode="a").append(_ts=2.0, n=1).append(
        _ts=-1.0, q=[1.0]
    )
    experiment.tracks("arm").extend(_ts=np.arange(3.0), pose=[{"x": 1}] * 3, index=[1, None, 2.5])
    for stored in range(2):
        arm, state = experiment.tracks.list()
        assert isinstance(arm, TrackInfo)
        assert (arm.topic, arm.count, arm.first_timestamp, arm.last_timestamp) == ("arm", 3, 0.0, 2.0)
        assert arm.columns == {"pose": "dict", "index": "float | int | null"}
        assert (state.topic, state.count, state.first_timestamp, state.last_timestamp) == ("robot/state", 2, -1.0, 2.0)
        assert state.columns == {"q": "list[float; ...]", "mode": "str", "n": "int"}
        assert len(experiment.tracks) == 2
        if stored:
            path = experiment.folder / "tracks/robot_state/data.jsonl"
            assert state.size_bytes == path.stat().st_size > 0
        experiment.tracks.flush()
    experiment.tracks("arm").append(_ts=99.0, new=True)
    experiment.tracks("last").append(_ts=0.0)
    arm, last, _ = experiment.tracks.list()
    assert (arm.count, arm.last_timestamp, arm.columns["new"]) == (4, 99.0, "bool")
    assert (last.topic, last.count, last.columns) == ("last", 1, {})


def test_a_revision_counts_what_journals_hold(experiment: Experiment) -> None:
    """Another one after each append, whether it is in the file yet or not; the same while nothing happens."""
    track, seen = experiment.tracks("x"), list[str]()
    experiment.tracks("y").append(_ts=1.0, y=1)
    (other,) = experiment.tracks.list()
    for value in range(6):
        track.append(_ts=1.0, x=value)
        for _ in range(2):
            listed, untouched = experiment.tracks.list()
            seen.append(listed.revision)
            assert untouched.revision == other.revision
        if value % 2:
            experiment.tracks.flush()
            other = experiment.tracks.list()[1]
    assert seen[::2] == seen[1::2]
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([[[1.0, 0.0]] * 4, [[0.0, 1.0]] * 4], "list[list[float; 2]; 4]"),
        ([[[1.0, 0.0]] * 4, [[0.0, 1.0]] * 3], "list[list[float; 2]; ...]"),
        ([[0, 0, 0], [0.1, 0.2, 0.3]], "list[float; 3]"),
        ([[[1, 0.5], [0, 1]]], "list[list[float; 2]; 2]"),
        ([[[1], [1, 2]]], "list[list[int; ...]; 2]"),
        ([[1, "a"], []], "list[any; ...]"),
        ([[], [1.5, 2.5]], "list[float; ...]"),
    ],
)
def test_list_names_the_types_of_lists(experiment: Experiment, values: list[Any], name: str) -> None:
    """Matrices and lists of whole and broken numbers have one name, with the length where it is constant."""
    track = experiment.tracks("x")
    for stamp, value in enumerate(values):
        track.append(_ts=stamp, q=value)
    assert experiment.tracks.list()[0].columns == {"q": name}
    experiment.tracks.flush()
    assert experiment.tracks.list()[0].columns == {"q": name}


def test_list_takes_what_append_took(experiment: Experiment) -> None:
    """One value nested hundreds of levels deep does not keep the tracks from being listed."""
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    experiment.tracks("x").append(_ts=1.0, q=deep)
    assert experiment.tracks.list()[0].columns == {"q": "list[" * 9 + "...]" + "; 1]" * 8}
    experiment.tracks.flush()
    assert experiment.tracks.list()[0].count == 1


class OnDevice:
    """A tensor that NumPy cannot have: on a GPU, or with a gradient."""

    def __init__(self, values: Any, *, lost: bool = False) -> None:
        self.values, self.lost = np.asarray(values), lost
        self.shape = self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def tolist(self) -> Any:
        if self.lost:
            raise RuntimeError("the device is gone")
        return self.values.tolist()


def test_extend_takes_the_tensors_that_append_takes(experiment: Experiment) -> None:
    """A tensor that gives a list but no array is recorded; one that gives neither is refused by topic and field."""
    track = experiment.tracks("arm")
    track.extend(_ts=[0.0, 1.0], q=OnDevice([[1.5, 2.5], [3.5, 4.5]]))
    assert [entry["q"] for entry in track.list_entries()] == [[1.5, 2.5], [3.5, 4.5]]
    with pytest.raises(ValueError, match=r"^field 'q' on topic 'arm' .OnDevice. cannot be recorded: .*device is gone"):
        track.extend(_ts=[2.0, 3.0], q=OnDevice([1.5, 2.5], lost=True))
    assert len(track) == 2


def test_extend_names_the_timestamp_it_refuses(experiment: Experiment) -> None:
    """Among thousands of timestamps the place of the bad one is told."""
    with pytest.raises(ValueError, match=r"^_ts\[2\] on topic 'arm' must be finite, got nan$"):
        experiment.tracks("arm").extend(_ts=[0.0, 1.0, math.nan], q=[1, 2, 3])


def test_bounds_may_be_numpys_infinities(half_stored: Experiment) -> None:
    """An infinite bound is an open side, whoever made it."""
    track = half_stored.tracks("x")
    assert track.read(-np.float32(INF), np.array(INF))["count"] == 10
    assert track.read(np.float32(INF))["count"] == 0


def test_removing_is_not_offered_by_accident(experiment: Experiment) -> None:
    """What the user holds of a track can add and read, nothing else changes data."""
    public = {name for name in dir(experiment.tracks("x")) if not name.startswith("_")}
    assert not public & {"remove", "delete", "clear", "pop", "truncate"}


# ---------------------------------------------------------------- everything at random

STAMP = st.integers(-4, 12).map(lambda number: number / 4)
FIELDS = st.dictionaries(
    st.sampled_from("abc"), st.integers(0, 99) | st.fixed_dictionaries({"x": st.integers(0, 9)}), max_size=2
)
STEP = st.one_of(
    st.tuples(st.just("append"), STAMP, FIELDS),
    st.tuples(st.just("append"), STAMP, FIELDS),
    st.tuples(st.just("extend"), st.lists(STAMP, max_size=5), st.sampled_from("abc")),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("drain"), st.none(), st.none()),
    st.tuples(st.just("reopen"), st.none(), st.none()),
    st.tuples(
        st.just("window"), st.tuples(STAMP, STAMP), st.lists(st.sampled_from(["a", "b", "a.x", "c"]), max_size=2)
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=3, max_size=25))
def test_equal_to_a_dictionary(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """Appends, extends, flushes, re-opening and windows in any order: always what a merging dictionary holds."""
    experiment = Experiment("a/b/c", dash_root=tmp_path_factory.mktemp("model"), durability="off")
    experiment.run.start()
    track, model = experiment.tracks("x"), dict[float, dict[str, Any]]()
    for kind, first, second in steps:
        if kind == "append":
            track.append(_ts=first, **second)
            model.setdefault(first, {"timestamp": first}).update(second)
        elif kind == "extend":
            track.extend(_ts=first, **{second: list(range(len(first)))})
            for value, stamp in enumerate(first):
                model.setdefault(stamp, {"timestamp": stamp})[second] = value
        elif kind == "flush":
            experiment.tracks.flush()
        elif kind == "reopen":
            experiment.run.complete()
            experiment.run.start()
        elif kind == "window":
            check_window(track, model, *first, second)
        assert same(track.list_entries(), [model[stamp] for stamp in sorted(model)])
        assert len(track) == len(model)
    experiment.run.complete()
    with open_run("a/b/c", dash_root=experiment.root) as opened:
        assert [info.topic for info in opened.tracks.list()] == (["x"] if model else [])
        for info in opened.tracks.list():
            assert same(opened.tracks(info.topic).list_entries(), [model[stamp] for stamp in sorted(model)])


def check_window(track: Any, model: dict[float, dict[str, Any]], start: float, end: float, columns: list[str]) -> None:
    """A window with columns equals the same selection from the dictionary."""
    expected = []
    for stamp in sorted(model):
        found: dict[str, Any] = {"timestamp": stamp}
        for column in columns:
            value = model[stamp].get(column.split(".")[0])
            if column == "a.x" and isinstance(value, dict) and "a" not in found:
                found["a"] = {"x": value["x"]}
            elif "." not in column and column in model[stamp]:
                found[column] = value
        if start <= stamp <= end and len(found) > 1:
            expected.append(found)
    assert same(unordered(track.read(start, end, columns)["entries"]), unordered(expected))


@pytest.mark.parametrize("at", [0, 31, 32, 60])
@pytest.mark.parametrize(
    "special", [math.nan, math.inf, -math.inf, np.float32("nan"), "NaN", "Infinity", "null", "To Infinity"]
)
def test_none_beside_what_json_lacks(experiment: Experiment, special: Any, at: int) -> None:
    """An optional field that is None, in the same piece of entries as a NaN or a text that looks like one."""
    track = experiment.tracks("x")
    wanted = []
    for n in range(70):
        fields = {"n": n, "maybe": None, "bytes": b"\xcb\x7f\xf8", **({"v": [special, 1.0]} if n == at else {})}
        track.append(_ts=float(n), **fields)
        wanted.append({"timestamp": float(n), **fields, "bytes": "y3/4"})
    if isinstance(special, np.float32):
        wanted[at]["v"] = [math.nan, 1.0]
    assert same(track.flush().list_entries(), wanted)


def test_counting_reads_no_entry(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a track whose file ascends comes from its index, and what waits in the journal is added."""
    track = experiment.tracks("x").extend(_ts=[float(n) for n in range(5000)], n=list(range(5000))).flush()
    track.append(_ts=6000.0, n=1).append(_ts=6000.0, m=1)
    with monkeypatch.context() as patched:
        patched.setattr("ml_dash.session.Session.read", lambda *_: pytest.fail("read"))
        assert len(track) == 5001
    track.append(_ts=2.5, n=1)
    assert len(track) == 5002


def unordered(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries with their fields by name."""
    return [dict(sorted(entry.items())) for entry in entries]
