"""What an entry may hold: every timestamp refused or exact, every value refused or the same at each later stage."""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import itertools
import json
import math
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_dash import Experiment, InvalidEntry, from_nanoseconds
from ml_dash.entry import MAX_ENTRY_BYTES, check_timestamp, decode_body, encode_body
from ml_dash.line import from_line, from_lines, to_line
from ml_dash.store import Track
from ml_dash.stores.local import LocalStore
from ml_dash.tracks import TrackBuilder
from ml_dash.unpack import Unpacker
from store_contract import same

NAN, INF = math.nan, math.inf


class Real(float):
    """A float of another class."""


class Count(int):
    """An int of another class."""


class Words(str):
    """A str of another class."""


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of ints."""

    HIGH = 3


@dataclasses.dataclass(frozen=True)
class Pose:
    """A dataclass."""

    x: float = 1.5
    name: str = "tip"


Pair = collections.namedtuple("Pair", ["a", "b"])


class Tensor:
    """Looks like a tensor of another library: `__array__`, `tolist`, `shape`, no NumPy."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.shape = self.values.shape

    def __array__(self, *args: Any, **options: Any) -> Any:
        return self.values

    def tolist(self) -> Any:
        return self.values.tolist()

    def item(self) -> Any:
        return self.values.item()


class ArrayOnly:
    """Offers nothing but `__array__`."""

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.array([1.5, 2.5])


class Unprintable:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Stubborn:
    """Pretends to be an array and fails."""

    def tolist(self) -> Any:
        raise RuntimeError("cannot leave the device")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    """One experiment for all tests of this module: what they check needs a topic of its own, not a run."""
    with Experiment("a/b/c", dash_root=tmp_path_factory.mktemp("entries"), durability="off").run as experiment:
        yield experiment


_numbers = itertools.count(1)


@pytest.fixture
def arm(shared: Experiment) -> TrackBuilder:
    """A track nobody else uses. Expected messages say 'arm' where its topic stands (see `refuses`)."""
    return fresh(shared)


def fresh(experiment: Experiment) -> TrackBuilder:
    """A track nobody else uses."""
    return experiment.tracks(f"arm{next(_numbers)}")


def refuses(track: TrackBuilder, text: str) -> Any:
    """Expects an InvalidEntry, which is a ValueError, with such a text."""
    assert issubclass(InvalidEntry, ValueError)
    return pytest.raises(InvalidEntry, match=text.replace("'arm'", repr(track.topic)))


def stages(track: TrackBuilder, experiment: Experiment) -> Iterator[str]:
    """The places an entry is read from, one after the other: its journal, its file, the compacted file."""
    yield "journal"
    track.flush()
    yield "file"
    with contextlib.closing(LocalStore(experiment.folder)) as store:
        store.compact(Track("tracks", track.topic))
    yield "compacted file"


# ---------------------------------------------------------------- timestamps (row 12 of the fault plan)

EXACT = [
    (0.0, 0.0), (-0.0, 0.0), (1, 1.0), (-1, -1.0), (0, 0.0), (1.5, 1.5), (5e-324, 5e-324), (-5e-324, -5e-324),
    (1e308, 1e308), (-1.7976931348623157e308, -1.7976931348623157e308), (2**53 - 1, 9007199254740991.0),
    (-(2**53) + 1, -9007199254740991.0), (1403715524.907143168, 1403715524.907143168), (2.0**63, 2.0**63),
    (Real(1.25), 1.25), (Real(-0.0), 0.0), (Count(7), 7.0), (Level.HIGH, 3.0),
    (np.float64(1.5), 1.5), (np.float64(-0.0), 0.0), (np.float32(0.1), 0.10000000149011612), (np.float16(0.5), 0.5),
    (np.longdouble("1.5"), 1.5), (np.int8(-3), -3.0), (np.uint64(12), 12.0), (np.int64(2**53 - 1), 9007199254740991.0),
    (np.array(2.5), 2.5), (np.array(-0.0), 0.0), (np.array(3, dtype=">i4"), 3.0), (Tensor(4.5), 4.5),
]  # fmt: skip

NOT_A_NUMBER = r"^_ts on topic 'arm' must be a number of seconds, got {}"
REFUSED = [
    (NAN, r"^_ts on topic 'arm' must be finite, got nan$"),
    (INF, r"^_ts on topic 'arm' must be finite, got inf$"),
    (-INF, r"^_ts on topic 'arm' must be finite, got -inf$"),
    (np.float64(NAN), r"must be finite, got nan$"),
    (np.float32(INF), r"must be finite, got inf$"),
    (np.array(NAN), r"must be finite, got nan$"),
    (Real(NAN), r"must be finite, got nan$"),
    (None, NOT_A_NUMBER.format("NoneType None")),
    (True, NOT_A_NUMBER.format("bool True")),
    (np.True_, NOT_A_NUMBER.format("bool")),
    ("1.0", NOT_A_NUMBER.format("str '1.0'")),
    (b"1", NOT_A_NUMBER.format("bytes b'1'")),
    (decimal.Decimal("1.5"), NOT_A_NUMBER.format("Decimal")),
    (fractions.Fraction(1, 2), NOT_A_NUMBER.format("Fraction")),
    (1j, NOT_A_NUMBER.format("complex")),
    (np.complex64(1), NOT_A_NUMBER.format("complex64")),
    ([1.0], NOT_A_NUMBER.format("list")),
    (np.array([1.0]), NOT_A_NUMBER.format("ndarray")),
    (np.array("1"), NOT_A_NUMBER.format("ndarray")),
    (np.array(None), NOT_A_NUMBER.format("ndarray")),
    (datetime.datetime(2026, 1, 1), NOT_A_NUMBER.format("datetime")),
    (datetime.timedelta(seconds=1), NOT_A_NUMBER.format("timedelta")),
    (np.datetime64(5, "ns"), NOT_A_NUMBER.format("datetime64")),
    (np.timedelta64(5, "ns"), NOT_A_NUMBER.format("timedelta64")),
    (np.datetime64("NaT"), NOT_A_NUMBER.format("datetime64")),
    (np.longdouble(1) / 3, NOT_A_NUMBER.format("longdouble")),
    (np.float64, NOT_A_NUMBER.format("type")),
    (Unprintable(), NOT_A_NUMBER.format(r"Unprintable \(no repr\)")),
    (2**53, r"^_ts on topic 'arm' is the integer 9007199254740992, which seconds as float64 cannot hold; "),
    (-(2**53), r"is the integer -9007199254740992, which"),
    (1403715524907143168, r"1403715524907143168, .*for integer nanoseconds \(ROS, time.time_ns\) use ml_dash\."),
    (np.int64(1403715524907143168), r"use ml_dash\.from_nanoseconds\(ns\)$"),
    (np.uint64(2**63), r"use ml_dash\.from_nanoseconds\(ns\)$"),
    (2**63, r"use ml_dash\.from_nanoseconds\(ns\)$"),
    (10**400, r"is the integer 1000.*\.\.\., which seconds"),
    (10**5000, r"is the integer \(too long to show\), which seconds"),
]


def name_of(value: Any) -> str:
    """A short name of a case."""
    return type(value).__name__


@pytest.mark.parametrize(("value", "expected"), EXACT, ids=name_of)
def test_timestamps_that_are_exact(shared: Experiment, arm: TrackBuilder, value: Any, expected: float) -> None:
    """Accepted timestamps come back as the very float64, by append and extend, from journal and file; -0.0 is 0.0."""
    assert same(check_timestamp(value), expected)
    arm.append(_ts=value, by=1).extend(_ts=[value], too=[2])
    for _ in stages(arm, shared):
        assert same(arm.list_entries(), [{"timestamp": expected, "by": 1, "too": 2}])
        assert arm.read(value, value)["count"] == 1


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=name_of)
def test_timestamps_that_are_refused(arm: TrackBuilder, value: Any, text: str) -> None:
    """Refused timestamps raise InvalidEntry, a ValueError, that says what was wrong; nothing is stored."""
    with refuses(arm, text):
        arm.append(_ts=value, x=1)
    with refuses(arm, text.replace("_ts on", r"_ts\[1\] on")):
        arm.extend(_ts=[1.0, value], x=[1, 2])
    assert arm.list_entries() == []


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (np.array([1.0, NAN]), r"^_ts\[1\] on topic 'arm' must be finite, got nan$"),
        (np.array([-INF]), r"^_ts\[0\] on topic 'arm' must be finite, got -inf$"),
        (np.array([[1.0]]), r"^_ts on topic 'arm' must be a 1-d array of numbers, got float64 \(1, 1\)$"),
        (np.array(1.0), r"must be a 1-d array of numbers, got float64 \(\)$"),
        (np.array([True]), r"must be a 1-d array of numbers, got bool"),
        (np.array(["1"]), r"must be a 1-d array of numbers, got <U1"),
        (np.array([1j]), r"must be a 1-d array of numbers, got complex128"),
        (np.array([1, 2], dtype="M8[ns]"), r"must be a 1-d array of numbers, got datetime64"),
        (np.array([1, 2], dtype="m8[ns]"), r"must be a 1-d array of numbers, got timedelta64"),
        (np.array([1.0], dtype=object), r"must be a 1-d array of numbers, got object"),
        (np.array([2**53]), r"integers that seconds as float64 cannot hold; .*from_nanoseconds"),
        (np.array([-(2**63)]), r"integers that seconds as float64 cannot hold; .*from_nanoseconds"),
        (np.array([2**63], dtype=np.uint64), r"integers that seconds as float64 cannot hold; .*from_nanoseconds"),
        (np.array([1], dtype=np.longdouble) / 3, r"cannot hold exactly"),
        (1.0, r"^extend on topic 'arm' needs _ts as an array of seconds, got float$"),
        ("1.0", r"needs _ts as an array of seconds, got str$"),
        ({1.0: 2}, r"needs _ts as an array of seconds, got dict$"),
        ({1.0}, r"needs _ts as an array of seconds, got set$"),
        (None, r"needs _ts as an array of seconds, got NoneType$"),
        ([None], r"^_ts\[0\] on topic 'arm' must be a number of seconds, got NoneType None$"),
    ],
    ids=repr,
)
def test_times_of_extend_that_are_refused(arm: TrackBuilder, times: Any, text: str) -> None:
    """Arrays of timestamps obey the rules of single ones, and the error says which one is bad."""
    with refuses(arm, text):
        arm.extend(_ts=times)
    assert arm.list_entries() == []


@pytest.mark.parametrize(
    "times",
    [
        [3.0, 1.0, 2.0], (3, 1, 2), range(1, 4), iter([1.0, 2.0, 3.0]), np.array([1, 2, 3], dtype=np.uint8),
        Tensor([1, 2, 3]), np.array([1, 2, 3], dtype=">f4"), np.arange(6.0)[1:4],
        np.array([1, 2, 3], dtype=np.longdouble),
    ],
    ids=repr,
)  # fmt: skip
def test_times_of_extend_that_are_exact(arm: TrackBuilder, times: Any) -> None:
    """Sequences, iterables, arrays of every number type and tensors are taken as timestamps."""
    arm.extend(_ts=times, x=[0, 0, 0])
    assert [entry["timestamp"] for entry in arm.list_entries()] == [1.0, 2.0, 3.0]


def test_a_missing_timestamp_is_told(arm: TrackBuilder) -> None:
    """`append` and `extend` without `_ts` raise a ValueError that shows how to write it."""
    with refuses(arm, r"^append on topic 'arm' needs _ts, the timestamp in seconds: .append\(\.\.\., _ts=1\.0\); for "):
        arm.append(x=1)
    with refuses(arm, r"needs _ts, the timestamp in seconds"):
        arm.extend(x=[1])
    assert arm.list_entries() == []


# ---------------------------------------------------------------- nanoseconds


INSTANTS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**12) | st.integers(17 * 10**17, 18 * 10**17)


@settings(max_examples=300)
@given(st.lists(INSTANTS, max_size=5))
def test_nanoseconds_are_the_nearest_float(stamps: list[int]) -> None:
    """Alone, in a list and in an array, an instant becomes the one nearest float64, so that it meets itself."""
    exact = [float(fractions.Fraction(one, 10**9)) for one in stamps]
    assert [from_nanoseconds(one) for one in stamps] == exact
    assert from_nanoseconds(stamps) == exact
    array = from_nanoseconds(np.array(stamps, dtype=np.int64))
    assert array.dtype == np.float64
    assert array.tolist() == exact


def test_nanoseconds_keep_the_shape() -> None:
    """Scalars give a float, arrays an array of their shape, tuples a list; unsigned numbers too."""
    assert type(from_nanoseconds(np.int64(1_500_000_000))) is float
    assert from_nanoseconds(np.array([[1], [2]], dtype=np.uint64)).shape == (2, 1)
    assert from_nanoseconds((1_000_000_000, 5)) == [1.0, 5e-9]
    assert from_nanoseconds(np.array([2**64 - 1], dtype=np.uint64)).tolist() == [18446744073.709553]
    assert from_nanoseconds(np.array([], dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize("value", [1.5, "1", None, True, np.array([1.5]), [1, 2.0], np.float64(1), np.timedelta64(1)])
def test_nanoseconds_are_integers(value: Any) -> None:
    """Anything but integers is refused by name."""
    with pytest.raises(InvalidEntry, match=r"^from_nanoseconds needs (integers|an integer), got "):
        from_nanoseconds(value)


# ---------------------------------------------------------------- values: what each becomes

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=2))
CONVERTED: list[tuple[Any, Any]] = [
    ((1, (2.5, "a")), [1, [2.5, "a"]]),
    (Pair(1, [2]), [1, [2]]),
    ({5}, [5]),
    (frozenset(["NaN"]), ["NaN"]),
    (b"\x00\xff", "AP8="),
    (bytearray(b"ab"), "YWI="),
    (memoryview(b"ab"), "YWI="),
    ({1: "a", 2.5: "b", False: "c", None: "d"}, {"1": "a", "2.5": "b", "false": "c", "null": "d"}),
    ({-7: 0, 2**64 - 1: 1}, {"-7": 0, "18446744073709551615": 1}),
    ({NAN: 1, INF: 2, -INF: 3}, {"NaN": 1, "Infinity": 2, "-Infinity": 3}),
    ({(1, "a"): 1, b"k": 2}, {'[1,"a"]': 1, "aw==": 2}),
    ({Colour.RED: 1, Level.HIGH: 2}, {"red": 1, "3": 2}),
    ({Pose(): {"in": {Pose(2.0): [NAN]}}}, {'{"x":1.5,"name":"tip"}': {"in": {'{"x":2.0,"name":"tip"}': [NAN]}}}),
    ({np.int64(3): 1, np.float64(0.5): 2, np.str_("s"): 3}, {"3": 1, "0.5": 2, "s": 3}),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    (collections.UserDict(a=Words("w")), {"a": "w"}),
    (Real(1.5), 1.5),
    (Count(3), 3),
    (Words("NaN"), "NaN"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Pose(), {"x": 1.5, "name": "tip"}),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (decimal.Decimal("1.50"), "1.50"),
    (decimal.Decimal("NaN"), "NaN"),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
    (datetime.datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00Z"),
    (datetime.datetime(2026, 1, 2, 3, tzinfo=EAST), "2026-01-02T01:00:00Z"),
    ([datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), NAN], ["1969-12-31T23:59:59.999999Z", NAN]),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (PurePosixPath("runs/1.pt"), "runs/1.pt"),
    (np.array([(1, 2.5), (3, NAN)], dtype=[("x", "i4"), ("y", "f8")]), {"x": [1, 3], "y": [2.5, NAN]}),
    (np.array([(1, [2.5, 3.5])], dtype=[("x", "i4"), ("y", "f8", 2)])[0], {"x": 1, "y": [2.5, 3.5]}),
    (datetime.time(3, 4), "03:04:00"),
    (datetime.timedelta(seconds=1.5), "PT1.5S"),
    (np.float64(0.1), 0.1),
    (np.float32(0.1), 0.10000000149011612),
    (np.float16(NAN), NAN),
    (np.longdouble("1.5"), 1.5),
    (np.int8(-5), -5),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("text"), "text"),
    (np.bytes_(b"ab"), "YWI="),
    (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
    (np.array([[1.5, NAN], [INF, -0.0]]), [[1.5, NAN], [INF, -0.0]]),
    (np.array(5), 5),
    (np.zeros((2, 0)), [[], []]),
    (np.zeros((0, 2)), []),
    (np.array([True, False]), [True, False]),
    (np.array(["a", "NaN"]), ["a", "NaN"]),
    (np.array([None, 1, "a", [2]], dtype=object), [None, 1, "a", [2]]),
    (np.array(["2026-01-02"], dtype="M8[D]"), ["2026-01-02"]),
    (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    (np.arange(12).reshape(3, 4)[::2, ::-2].T, [[3, 11], [1, 9]]),
    (np.array([1, 2], dtype=">i4"), [1, 2]),
    (Tensor([[1, 2]]), [[1, 2]]),
    (Tensor(1.5), 1.5),
    (ArrayOnly(), [1.5, 2.5]),
    ({"deep": [np.float32(1.5), {"x": np.array([1])}]}, {"deep": [1.5, {"x": [1]}]}),
]


@pytest.mark.parametrize(("value", "expected"), CONVERTED, ids=lambda value: name_of(value))
def test_conversions(shared: Experiment, arm: TrackBuilder, value: Any, expected: Any) -> None:
    """Each kind of value has one documented conversion, the same in journal, file and compacted file."""
    arm.append(_ts=2.0, v=value, n=1)
    late = {"timestamp": 1.0, "v": [expected], "scan": [NAN]}
    whole = {"timestamp": 2.0, "v": expected, "n": 1}
    for stage in stages(arm, shared):
        assert same(arm.list_entries(), [late, whole][stage == "journal" :])
        arm.append(_ts=1.0, v=[value], scan=[NAN])


def test_values_are_copied_at_once(arm: TrackBuilder) -> None:
    """The caller may reuse its buffers as soon as append or extend returned."""
    array, rows, inner = np.array([1.0, 2.0]), [[1], [2]], {"x": [1]}
    arm.append(_ts=1.0, array=array, inner=inner).extend(_ts=[2.0, 3.0], array=array, rows=rows)
    array[:] = 9
    inner["x"].append(2)
    rows[0].append(9)
    assert arm.list_entries() == [
        {"timestamp": 1.0, "array": [1.0, 2.0], "inner": {"x": [1]}},
        {"timestamp": 2.0, "array": 1.0, "rows": [1]},
        {"timestamp": 3.0, "array": 2.0, "rows": [2]},
    ]


# ---------------------------------------------------------------- values: what is refused


def endless() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int, value: Any = 1.5) -> Any:
    """A value inside so many lists and dicts."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


NOT_KNOWN = r"^field 'v' on topic 'arm' \({}\) cannot be recorded: {} has no form in JSON; convert it to numbers, "
NOT_RECORDED: list[tuple[Any, str]] = [
    (object(), NOT_KNOWN.format("object", r"builtins\.object")),
    (1j, NOT_KNOWN.format("complex", r"builtins\.complex")),
    (np.complex64(1), NOT_KNOWN.format("complex64", r"builtins\.complex")),
    (np.array([1j]), NOT_KNOWN.format("ndarray", r"builtins\.complex")),
    (np.array([object()]), NOT_KNOWN.format("ndarray", r"builtins\.object")),
    (np.array(object()), NOT_KNOWN.format("ndarray", r"builtins\.object")),
    (lambda: 1, NOT_KNOWN.format("function", r"builtins\.function")),
    ((one for one in [1]), NOT_KNOWN.format("generator", r"builtins\.generator")),
    (range(3), NOT_KNOWN.format("range", r"builtins\.range")),
    (collections.deque([1]), NOT_KNOWN.format("deque", r"collections\.deque")),
    (fractions.Fraction(1, 2), NOT_KNOWN.format("Fraction", r"fractions\.Fraction")),
    (np.float64, NOT_KNOWN.format("type", r"builtins\.type")),
    (sys, NOT_KNOWN.format("module", r"builtins\.module")),
    ({"a": [1, object()]}, NOT_KNOWN.format("dict", r"builtins\.object")),
    (Unprintable(), NOT_KNOWN.format("Unprintable", r"test_entry\.Unprintable")),
    (Stubborn(), r"^field 'v' on topic 'arm' \(Stubborn\) cannot be recorded: RuntimeError: cannot leave the device$"),
    ("\ud800", r"^field 'v' on topic 'arm' \(str\) cannot be recorded: text with a lone surrogate, which UTF-8 cannot"),
    (["ok", "\udfff"], r"\(list\) cannot be recorded: text with a lone surrogate"),
    ({"\ud800": 1}, r"\(dict\) cannot be recorded: text with a lone surrogate"),
    (2**64, r"^field 'v' on topic 'arm' \(int\) cannot be recorded: an integer beyond 64 bits; store it as text or fl"),
    (-(2**63) - 1, r"\(int\) cannot be recorded: an integer beyond 64 bits"),
    ({"a": [10**30]}, r"\(dict\) cannot be recorded: an integer beyond 64 bits"),
    ({2**64: 1}, r"\(dict\) cannot be recorded: an integer beyond 64 bits"),
    (endless(), r"^field 'v' on topic 'arm' \(list\) cannot be recorded: it is nested too deeply, or contains itself$"),
    (deep(100_000), r"nested too deeply, or contains itself$"),
    (datetime.datetime(1, 1, 1, tzinfo=EAST), r"\(datetime\) cannot be recorded: date value out of range$"),
    (b"x" * MAX_ENTRY_BYTES, r"^entry on topic 'arm' is 83886\d\d bytes encoded, 83886\d\d of them in field 'v'; "),
    (np.zeros(1 << 20), r"in field 'v'; the limit is 8388608 \(8 MiB\): keep large data in a file and record its na"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), NOT_RECORDED, ids=lambda value: name_of(value))
def test_values_that_are_refused(arm: TrackBuilder, value: Any, text: str) -> None:
    """A value nobody could read back is refused with topic, field and type; before and after it all is well."""
    arm.append(_ts=1.0, v=1)
    with refuses(arm, text):
        arm.append(_ts=2.0, before=1, v=value, after=2)
    with refuses(arm, "'arm'"):
        arm.extend(_ts=[3.0], ok=[1], v=[value])
    arm.append(_ts=4.0, v=4)
    assert arm.list_entries() == [{"timestamp": 1.0, "v": 1}, {"timestamp": 4.0, "v": 4}]
    arm.flush()
    assert arm.list_entries() == [{"timestamp": 1.0, "v": 1}, {"timestamp": 4.0, "v": 4}]


def test_the_field_name_timestamp_is_taken(shared: Experiment, arm: TrackBuilder) -> None:
    """Every other name is free, `self`, `topic` and empty ones included."""
    for append in (lambda: arm.append(_ts=1.0, timestamp=2), lambda: arm.extend(_ts=[1.0], timestamp=[2])):
        with refuses(arm, r"^field 'timestamp' on topic 'arm' is taken: .*; rename the field$"):
            append()
    names = ["self", "topic", "", "index", "time", "a.b", "NaN", "_ts_", "class", "ü", "\u2028", "x" * 5000, '"', "\n"]
    arm.append(_ts=1.0, **{name: name for name in names})
    arm.extend(_ts=[2.0], **{name: [name] for name in names})
    for _ in stages(arm, shared):
        assert arm.list_entries() == [{"timestamp": t, **{name: name for name in names}} for t in (1.0, 2.0)]
        assert arm.read(columns=["index"])["count"] == 2


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
def test_field_names_are_text(arm: TrackBuilder, name: str) -> None:
    """A name that UTF-8 cannot hold is refused like such a value, and the message can be printed."""
    with pytest.raises(InvalidEntry, match="lone surrogate") as caught:
        arm.append(_ts=1.0, **{name: 1})
    str(caught.value).encode()


def test_many_fields(shared: Experiment, arm: TrackBuilder) -> None:
    """The number of fields has no limit."""
    fields = {f"joint_{number}": number for number in range(20_000)}
    arm.append(_ts=1.0, **fields)
    for _ in stages(arm, shared):
        assert arm.list_entries() == [{"timestamp": 1.0, **fields}]


@pytest.mark.parametrize("levels", [100, 253, 254, 255, 256, 500, 800, 900])
def test_deep_nesting(shared: Experiment, arm: TrackBuilder, levels: int) -> None:
    """What the encoder takes is written and read at every stage, however deep."""
    arm.append(_ts=2.0, v=deep(levels)).append(_ts=3.0, v=deep(levels, NAN))
    for late, _ in enumerate(stages(arm, shared)):
        first, second = arm.read(2.0, 3.0)["entries"]
        assert unwrap(first["v"]) == (levels, 1.5)
        assert unwrap(second["v"])[0] == levels
        assert math.isnan(unwrap(second["v"])[1])
        assert len(arm.read(format="jsonl").splitlines()) == len(arm)
        arm.append(_ts=1.0 - late, v="late")
    shared.params.set(v=deep(levels))
    assert unwrap(shared.params.get("v")) == (levels, 1.5)


def unwrap(value: Any) -> tuple[int, Any]:
    """How deep a value lies, and the value."""
    levels = 0
    while isinstance(value, (list, dict)):
        value, levels = (value[0] if isinstance(value, list) else value["a"]), levels + 1
    return levels, value


def test_the_largest_entry(shared: Experiment, arm: TrackBuilder) -> None:
    """An entry just below 8 MiB is taken, one byte more is not; a small one follows in its place."""
    overhead = len(encode_body((200, 1.0, {"v": "x" * (1 << 16)}))) - (1 << 16)
    room = MAX_ENTRY_BYTES - overhead
    arm.append(_ts=1.0, v="x" * room)
    with refuses(arm, r"is 8388\d\d\d bytes encoded"):
        arm.append(_ts=2.0, v="x" * (room + 2))
    arm.append(_ts=3.0, v="small")
    for _ in stages(arm, shared):
        assert [len(entry["v"]) for entry in arm.list_entries()] == [room, 5]


def test_raw_msgpack_nobody_can_read_blocks_nothing(
    new_experiment: Callable[..., Experiment], caplog: pytest.LogCaptureFixture
) -> None:
    """msgspec passes `Raw` bytes through unseen: rubbish in them costs that entry, loudly, and no other."""
    experiment = new_experiment().run.start()
    track = experiment.tracks("arm").append(_ts=1.0, v=1).append(_ts=2.0, v=msgspec.Raw(b"\xc1")).append(_ts=3.0, v=3)
    other = experiment.tracks("other").append(_ts=1.0, v=1)
    for _ in range(2):
        assert [entry["v"] for entry in track.list_entries()] == [1, 3]
        assert len(other.list_entries()) == 1
        track.flush()
    assert "1 entries cannot be read and are set aside" in caplog.text


# ---------------------------------------------------------------- every stage reads the same

TEXT = st.text(max_size=8) | st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "null", '"NaN"', ',"NaN"', ': "Infinity"]', "[NaN", "\\u004eaN", "\\", "xNaN"]
)
NUMBER = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**63, -0.0, 5e-324, 1e22, 1e16]),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBER, TEXT)
KEYS = st.one_of(TEXT, st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.booleans(), st.none())
ODD = st.one_of(
    st.binary(max_size=6),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.just(EAST), min_value=datetime.datetime(1900, 1, 1)),
    st.dates(),
    st.uuids(),
    st.sampled_from([Colour.RED, Level.HIGH, Pose(), Pose(2.5, "NaN"), Words("NaN"), Real(2.5), Count(3)]),
    NUMBER.filter(lambda number: isinstance(number, float)).map(np.float64),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.lists(st.floats(width=32), max_size=3).map(lambda values: np.array(values, dtype=np.float32)),
    st.lists(st.integers(-128, 127), max_size=3).map(lambda v: np.array([v, v], dtype=np.int8)),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN | ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(TEXT, inner, max_size=2),
    ),
    max_leaves=8,
)
NAMES = TEXT.filter(lambda name: name != "timestamp")
FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)
STAMPS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1)


def as_read(value: Any) -> Any:
    """What the documentation promises for a value, worked out without the package."""
    if isinstance(value, np.generic | np.ndarray):
        return as_read(value.tolist())
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Pose):
        return {"x": value.x, "name": value.name}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        text = value.isoformat() if value.tzinfo is None else value.astimezone(UTC).isoformat()
        return text.replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dict):
        return {as_key(key): as_read(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_read(item) for item in value]
    for plain in (bool, float, int, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def as_key(key: Any) -> str:
    """A key as the `json` module writes it."""
    (text,) = json.loads(json.dumps({key: 0}))
    return str(text)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(STAMPS, FIELDS)
def test_body_line_and_entry_agree(timestamp: float, fields: dict[str, Any]) -> None:
    """Through body and line, alone and in a block, an entry is what was promised, and the line is strict JSON."""
    stamp = check_timestamp(timestamp)
    expected = {"timestamp": stamp, **as_read(fields)}
    body = decode_body(encode_body((1, stamp, fields)))
    line = to_line(body[1], body[2])
    assert same(from_line(line), expected)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.startswith(b'{"timestamp":')
    strict = json.loads(line, parse_constant=lambda token: pytest.fail(f"{token} is no strict JSON"))
    assert list(strict) == list(expected)
    both = from_lines(line + b'{"timestamp":1.0}\n' + line)
    assert same(both, [expected, {"timestamp": 1.0}, expected])


UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
STEPS = st.lists(st.lists(st.tuples(STAMPS, FIELDS), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=60, suppress_health_check=UNHURRIED)
@given(STEPS)
def test_every_stage_gives_back_what_append_accepted(shared: Experiment, steps: Any) -> None:
    """Appends with flushes between them: journal, file, compacted file and jsonl all equal a dictionary that merges."""
    model: dict[float, dict[str, Any]] = {}
    arm = fresh(shared)
    for step in steps:
        for timestamp, fields in step:
            arm.append(_ts=timestamp, **fields)
            stamp = check_timestamp(timestamp)
            model.setdefault(stamp, {"timestamp": stamp}).update(as_read(fields))
        expected = [model[stamp] for stamp in sorted(model)]
        assert same(arm.list_entries(), expected)
        arm.flush()
        assert same(arm.list_entries(), expected)
    with contextlib.closing(LocalStore(shared.folder)) as store:
        store.compact(Track("tracks", arm.topic))
    lines = (shared.folder / "tracks" / arm.topic / "data.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["timestamp"] for line in lines] == sorted(model)
    assert same(arm.list_entries(), expected)
    assert same(from_lines(arm.read(format="jsonl")), expected)


@settings(max_examples=60, suppress_health_check=UNHURRIED)
@given(st.integers(1, 6), st.data())
def test_extend_equals_appends(shared: Experiment, count: int, data: Any) -> None:
    """`extend` of lists and arrays gives the very entries that as many appends give."""
    times = data.draw(st.lists(STAMPS, min_size=count, max_size=count))
    rows = st.lists(VALUES, min_size=count, max_size=count)
    arrays = st.sampled_from(["<f8", ">f4", "<f2", "i1", "<u8", ">i2", "?"]).flatmap(
        lambda kind: st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), min_size=count, max_size=count).map(
            lambda values: np.array(values, dtype=kind)
        )
    )
    fields = data.draw(st.dictionaries(NAMES, rows | arrays, max_size=3))
    whole, single = fresh(shared), fresh(shared)
    whole.extend(_ts=times, **fields)
    for place, timestamp in enumerate(times):
        single.append(_ts=timestamp, **{name: values[place] for name, values in fields.items()})
    for _ in range(2):
        assert same(whole.list_entries(), single.list_entries())
        shared.tracks.flush()


WIDE = st.sampled_from([15, 16, 255, 256, 65_535, 65_536])


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    VALUES | WIDE.map(lambda size: "x" * size) | WIDE.map(lambda size: [0] * size) | WIDE.map(bytes), st.integers(1, 40)
)
def test_the_plain_decoder_agrees(value: Any, cut: int) -> None:
    """The decoder for what msgspec does not read back reads what it does, too; a body that is cut is told as such."""
    raw = encode_body(value)
    assert same(Unpacker(raw, str).whole(), msgspec.msgpack.decode(raw))
    with pytest.raises(ValueError, match=r"truncated|behind"):
        Unpacker(raw[: max(0, len(raw) - cut)], str).whole()
    with pytest.raises(ValueError, match="1 bytes behind the msgpack value"):
        Unpacker(raw + b"\xc0", str).whole()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 8, 16, 255, 256, 70_000])
def test_extensions_are_told(arm: TrackBuilder, size: int) -> None:
    """msgpack extensions, which only msgspec's own users have, become their code and base64, whatever is in them."""
    for code, place in ((5, 1.0), (-1, 2.0)):
        arm.append(_ts=place, v=msgspec.msgpack.Ext(code, b"\xff" * size))
    found = arm.list_entries()
    assert found[0]["v"] == {"code": 5, "data": base64.b64encode(b"\xff" * size).decode()}
    assert len(found) == 2


@settings(max_examples=300)
@given(st.binary(max_size=40) | st.text(max_size=30).map(str.encode))
def test_reading_lines_never_fails(raw: bytes) -> None:
    """Any bytes are an entry or none; blocks of them give the entries that single lines give."""
    for line in (raw, b'{"timestamp":1.0,"x":' + raw + b"}\n", b'{"timestamp":' + raw + b"}"):
        entry = from_line(line)
        assert entry is None or type(entry["timestamp"]) is float
        found = [from_line(one) for one in line.split(b"\n") if one.strip()]
        assert repr(from_lines(line)) == repr([one for one in found if one is not None])


# ---------------------------------------------------------------- extend: lengths and shapes


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"q": np.zeros((2, 7))}, r"^field 'q' on topic 'arm' has 2 values for 3 timestamps; the first axis of an arr"),
        ({"ok": [1, 2, 3], "q": [1, 2]}, r"^field 'q' on topic 'arm' has 2 values for 3 timestamps"),
        ({"q": np.zeros(4)}, r"has 4 values for 3 timestamps"),
        ({"q": 1.0}, r"^field 'q' on topic 'arm': extend needs an array or list of 3 values, got float$"),
        ({"q": np.float64(1)}, r"extend needs one value for each of the 3 timestamps, got a single one$"),
        ({"q": np.array(1)}, r"extend needs one value for each of the 3 timestamps, got a single one$"),
        ({"q": "abc"}, r"extend needs an array or list of 3 values, got str$"),
        ({"q": b"abc"}, r"extend needs an array or list of 3 values, got bytes$"),
        ({"q": {"a": 1, "b": 2, "c": 3}}, r"extend needs an array or list of 3 values, got dict$"),
        ({"q": {1, 2, 3}}, r"extend needs an array or list of 3 values, got set$"),
        ({"q": None}, r"extend needs an array or list of 3 values, got NoneType$"),
        ({"q": (one for one in [1, 2, 3])}, r"extend needs an array or list of 3 values, got generator$"),
        ({"q": [1, object(), 3]}, r"^field 'q' on topic 'arm' \(list\) cannot be recorded: builtins\.object"),
        ({"q": np.array([1j, 2, 3])}, r"^field 'q' on topic 'arm' \(ndarray\) cannot be recorded: builtins\.complex"),
        ({"q": [2**64, 1, 2]}, r"\(list\) cannot be recorded: an integer beyond 64 bits"),
        ({"q": ["\ud800", "", ""]}, r"\(list\) cannot be recorded: text with a lone surrogate"),
        ({"q": np.zeros((3, 2 << 20))}, r"^entry on topic 'arm' is \d+ bytes encoded, \d+ of them in field 'q'; the "),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_extend_refuses_what_does_not_fit(arm: TrackBuilder, fields: dict[str, Any], text: str) -> None:
    """One array of a wrong length or kind refuses the whole call, naming the field; nothing is stored."""
    with refuses(arm, text):
        arm.extend(_ts=[1.0, 2.0, 3.0], **fields)
    assert arm.list_entries() == []


def test_extend_of_nothing(arm: TrackBuilder) -> None:
    """No timestamps, no entries; timestamps without fields mark instants; a masked array has None where append has."""
    arm.extend(_ts=[], q=[]).extend(_ts=np.array([]), q=np.zeros((0, 7)))
    assert arm.list_entries() == []
    assert arm.extend(_ts=[2.0, 1.0]).list_entries() == [{"timestamp": 1.0}, {"timestamp": 2.0}]
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    assert arm.extend(_ts=[1.0, 2.0], q=masked).list_entries() == [
        {"timestamp": 1.0, "q": 1.0},
        {"timestamp": 2.0, "q": None},
    ]
