"""Alignment: each rule against its definition, defaults that are told, and errors for what makes no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from ml_dash.analysis.align import align, rules_of  # noqa: E402
from ml_dash.analysis.quaternions import slerp  # noqa: E402
from ml_dash.analysis.tables import numbers  # noqa: E402
from ml_dash.errors import InvalidQuery, InvalidWindow  # noqa: E402
from ml_dash.formats.arrow import entries_from_table, table_from_entries  # noqa: E402

TIMES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20, unique=True).map(sorted)
CLOCKS = st.lists(st.floats(-1.1e6, 1.1e6), max_size=20).map(sorted)


def table(times: Any, **columns: Any) -> Any:
    """A track's table; None leaves a field out of an entry."""
    entries: list[dict[str, Any]] = [{"timestamp": float(time)} for time in times]
    for name, values in columns.items():
        for entry, value in zip(entries, values, strict=True):
            if value is not None:
                entry[name] = value
    return table_from_entries(entries)


def only(result: Any, name: str) -> list[Any]:
    """One column as Python values."""
    return result.column(name).to_pylist()  # type: ignore[no-any-return]


@settings(max_examples=100, deadline=None)
@given(TIMES, st.data())
def test_own_clock_is_the_identity(times: list[float], data: Any) -> None:
    """On a track's own clock, every rule gives back each value as it was, and its age is nothing."""
    floats = st.lists(st.floats(), min_size=len(times), max_size=len(times))
    values = data.draw(floats)
    kinds = {
        "f": values,
        "v": [[value, -value] for value in values],
        "i": [int(time) for time in times],
        "s": [str(time) for time in times],
        "b": [time > 0 for time in times],
        "yaw_rad": data.draw(floats),
    }
    source = table(times, **kinds)
    result = align({"t": source}, like="t")
    assert only(result, "timestamp") == times
    assert set(only(result, "t:age_s")) == {0.0}
    for name in kinds:
        aligned, own = numbers_or_values(result, f"t.{name}"), numbers_or_values(source, name)
        np.testing.assert_array_equal(aligned, own)


def numbers_or_values(source: Any, name: str) -> Any:
    """A column as NumPy numbers, or as Python values where it holds text."""
    return source.column(name).to_pylist() if name[-1] == "s" else numbers(source, name)


@settings(max_examples=100, deadline=None)
@given(TIMES, CLOCKS, st.floats(-100, 100), st.floats(-100, 100))
def test_linear_reproduces_a_line(times: list[float], clock: list[float], slope: float, offset: float) -> None:
    """Between the first and the last entry a line comes out as the line; outside there is no value."""
    source = table(times, x=[slope * time + offset for time in times])
    result = align({"t": source}, at=clock)
    for time, value in zip(clock, only(result, "t.x"), strict=True):
        if times[0] <= time <= times[-1]:
            assert value == pytest.approx(slope * time + offset, abs=1e-6 * (1 + abs(slope) * 1e6))
        else:
            assert value is None


@settings(max_examples=150, deadline=None)
@given(TIMES, CLOCKS, st.one_of(st.none(), st.floats(0, 1e5)), st.floats(-100, 100))
def test_hold_and_nearest_equal_a_search(
    times: list[float], clock: list[float], tolerance: float | None, delay: float
) -> None:
    """hold, nearest and the age are what a search through every entry finds, tolerance and delay included."""
    source = table(times, n=list(range(len(times))), m=list(range(len(times))))
    how = {"n": "hold", "m": "nearest"}
    result = align({"t": source}, at=clock, how=how, tolerance_s=tolerance, offset_s={"t": delay})
    limit = math.inf if tolerance is None else tolerance
    measured = [time - delay for time in times]
    for at, held, near, age in zip(
        clock, only(result, "t.n"), only(result, "t.m"), only(result, "t:age_s"), strict=True
    ):
        past = [number for number, time in enumerate(measured) if time <= at]
        assert age == (at - measured[past[-1]] if past else None)
        assert held == (past[-1] if past and at - measured[past[-1]] <= limit else None)
        closest = min(range(len(measured)), key=lambda number: (abs(measured[number] - at), measured[number]))
        within = abs(measured[closest] - at) <= limit
        assert (near is None) == (not within)
        assert near is None or abs(measured[near] - at) == abs(measured[closest] - at)


@settings(max_examples=100, deadline=None)
@given(TIMES, CLOCKS, st.floats(0, 1e5))
def test_linear_needs_both_sides_within_the_tolerance(times: list[float], clock: list[float], limit: float) -> None:
    """A value between two entries is given only where each of them is near enough; at an entry it always is."""
    result = align({"t": table(times, x=[1.0] * len(times))}, at=clock, tolerance_s=limit)
    for at, value in zip(clock, only(result, "t.x"), strict=True):
        before = [time for time in times if time <= at]
        after = [time for time in times if time >= at]
        near = bool(before and after) and at - before[-1] <= limit and after[0] - at <= limit
        assert (value is not None) == near


QUATERNIONS = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 1e-3)


@settings(max_examples=100, deadline=None)
@given(QUATERNIONS, QUATERNIONS, st.floats(0, 1), st.booleans())
def test_slerp_keeps_the_norm_and_ignores_signs(one: Any, other: Any, fraction: float, flip: bool) -> None:
    """A slerped quaternion has norm 1, q and -q are the same target, and it turns at an even pace."""
    first, second, part = np.array([one]), np.array([other]), np.array([fraction])
    result = slerp(first, second, part)
    assert np.linalg.norm(result) == pytest.approx(1.0)
    flipped = slerp(first, -second if flip else second, part)
    whole = abs(float(np.dot(first[0], second[0]) / np.linalg.norm(first) / np.linalg.norm(second)))
    if whole > 1e-6:  # at half a turn both ways round are equally short
        np.testing.assert_allclose(result, flipped, atol=1e-9)
    turned = abs(float(np.dot(result[0], first[0]) / np.linalg.norm(first)))
    angle = math.acos(min(whole, 1.0)) * fraction
    assert math.acos(min(turned, 1.0)) == pytest.approx(angle, abs=2e-4)


def test_slerp_of_a_known_turn() -> None:
    """Half of a quarter turn about z is an eighth of a turn, in either order and as a dict."""
    half = math.sqrt(0.5)
    eighth = [math.cos(math.pi / 8), 0.0, 0.0, math.sin(math.pi / 8)]
    source = table(
        [0.0, 1.0],
        quat_wxyz=[[1.0, 0.0, 0.0, 0.0], [-half, 0.0, 0.0, -half]],
        quat_xyzw=[[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, half, half]],
        turn=[{"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}, {"x": 0.0, "y": 0.0, "z": half, "w": half}],
    )
    result = align({"t": source}, at=[0.5])
    assert only(result, "t.quat_wxyz")[0] == pytest.approx(eighth)
    assert only(result, "t.quat_xyzw")[0] == pytest.approx(eighth[1:] + eighth[:1])
    assert only(result, "t.turn")[0] == pytest.approx({"x": 0.0, "y": 0.0, "z": eighth[3], "w": eighth[0]})
    chosen = {name: said["rule"] for name, said in rules_of(result)["rules"].items()}
    assert chosen == {"t.quat_wxyz": "slerp:wxyz", "t.quat_xyzw": "slerp:xyzw", "t.turn": "slerp:xyzw"}


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ("angle", [3.0, -3.0], math.pi),
        ("angle", [6.2, 0.1], (6.2 + 0.1 + 2 * math.pi) / 2 - 2 * math.pi),
        ("angle:deg", [350.0, 20.0], 5.0),
        ("angle:deg", [-170.0, 170.0], -180.0),
        ("angle:deg", [720.0, 730.0], 725.0),
        ("linear", [350.0, 20.0], 185.0),
    ],
)
def test_angles_take_the_short_way(rule: str, values: list[float], expected: float) -> None:
    """Angles turn the short way round and stay in the range the recording uses."""
    result = only(align({"t": table([0.0, 1.0], a=values)}, at=[0.5], how={"a": rule}), "t.a")[0]
    turn = 360.0 if rule == "angle:deg" else 2 * math.pi
    assert min(abs(result - expected), turn - abs(result - expected)) == pytest.approx(0.0, abs=1e-9)


def test_defaults_follow_type_and_name_and_say_so() -> None:
    """Each column's rule and its reason stand in the result's metadata; what is unclear is not interpolated."""
    source = table(
        [0.0, 1.0],
        q=[[1.0, 2.0], [3.0, 4.0]],
        count=[1, 2],
        state=["open", "shut"],
        on=[True, False],
        heading=[0.1, 0.2],
        heading_deg=[350.0, 10.0],
        yaw=[350.0, 10.0],
        ee_quat=[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]],
        pose={0: [{"x": 1.0, "n": 1}, {"x": 2.0, "n": 2}]}[0],
    )
    found = rules_of(align({"a/b": source}, rate_hz=10))
    chosen = {name.removeprefix("a/b."): said["rule"] for name, said in found["rules"].items()}
    assert chosen == {
        "q": "linear",
        "count": "hold",
        "state": "hold",
        "on": "hold",
        "heading": "angle",
        "heading_deg": "angle:deg",
        "yaw": "nearest",
        "ee_quat": "nearest",
        "pose.x": "linear",
        "pose.n": "hold",
    }
    assert "unknown order" in found["rules"]["a/b.ee_quat"]["why"]
    assert found["clock"] == "rate_hz=10"


def test_a_sparse_column_is_made_from_the_entries_that_have_it() -> None:
    """An entry without the field does not cut a line in two; a recorded NaN does."""
    source = table([0.0, 1.0, 2.0, 3.0], x=[0.0, None, 2.0, 3.0], y=[0.0, math.nan, 2.0, 3.0], s=["a", None, None, "b"])
    result = align({"t": source}, at=[0.5, 1.0, 2.5])
    assert only(result, "t.x") == [0.5, 1.0, 2.5]
    assert np.isnan(only(result, "t.y")[:2]).all()
    assert only(result, "t.s") == ["a", "a", "a"]


def test_the_regular_clock_covers_the_common_time() -> None:
    """rate_hz counts from where all tracks have begun to where the first one ends, both included."""
    tables = {"a": table([0.0, 10.0], x=[0.0, 1.0]), "b": table([2.0, 3.0], x=[0.0, 1.0])}
    assert only(align(tables, rate_hz=4), "timestamp") == [2.0, 2.25, 2.5, 2.75, 3.0]
    assert only(align(tables, rate_hz=1, start=9.0, end=11.0), "a.x") == [pytest.approx(0.9), 1.0, None]


def test_the_regular_clock_never_passes_the_end() -> None:
    """Rounding does not push the last instant beyond the last entry, where it would have no value."""
    beyond = 0
    for count in range(2, 200):
        for rate in (3.0, 7.0, 30.0, 100.0):
            times = [0.1 + number * (1 / rate) for number in range(count)]
            beyond += 0.1 + (count - 1) / rate > times[-1]
            result = align({"a": table(times, x=[1.0] * count)}, rate_hz=rate)
            assert only(result, "a.x") == [1.0] * count
    assert beyond  # there are such cases among them


def test_columns_and_rules_for_some() -> None:
    """Columns, parts of columns and rules are chosen by topic, by column or by both."""
    tables = {"a": table([0.0, 1.0], x=[0.0, 1.0], q=[[0.0, 5.0], [1.0, 6.0]]), "b": table([0.0, 1.0], x=[0.0, 1.0])}
    how = {"x": "hold", "b.x": "nearest", "q[1]": "hold"}
    result = align(tables, at=[0.9], columns={"a": ["q[1]", "x", "q"]}, how=how)
    assert result.schema.names == ["timestamp", "a.q[1]", "a.x", "a.q", "a:age_s", "b.x", "b:age_s"]
    assert only(result, "a.q[1]") == [5.0]
    assert (only(result, "a.x"), only(result, "b.x")) == ([0.0], [1.0])
    assert only(result, "a.q")[0] == pytest.approx([0.9, 5.9])


def test_types_are_kept_where_nothing_is_interpolated() -> None:
    """Held integers, truth values, text, mixtures and lists come out in their own types."""
    kinds = {"i": [1, 2**60], "b": [True, False], "s": ["x", "y"], "m": [1, "x"], "l": [[1], [1, 2]], "v": [[1], [2]]}
    source = table([0.0, 1.0], **kinds)
    result = align({"t": source}, at=[-1.0, 0.5, 7.0])
    for name in kinds:
        assert result.schema.field(f"t.{name}").type == source.schema.field(name).type
        assert only(result, f"t.{name}")[0] is None
        assert only(result, f"t.{name}")[1:] == source.column(name).to_pylist()
    names = [name for name in result.schema.names if not name.endswith("age_s")]
    again = list(entries_from_table(result.select(names)))
    assert again[2]["t.m"] == "x"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one clock"),
        ({"rate_hz": 5, "like": "a"}, "one clock"),
        ({"rate_hz": 0}, "rate_hz must be above 0"),
        ({"rate_hz": "50"}, "rate_hz must be above 0, got '50'"),
        ({"rate_hz": 5, "tolerance_s": "x"}, "tolerance_s must be 0 or more, got 'x'"),
        ({"rate_hz": 5, "offset_s": 0.1}, "offset_s must be a dict"),
        ({"rate_hz": 5, "offset_s": {"a": "x"}}, "offset_s of 'a' must be a number"),
        ({"rate_hz": 5, "how": "hold"}, "how must be a dict"),
        ({"rate_hz": 5, "start": "x"}, "start must be a number"),
        ({"rate_hz": 5, "quaternions": "xyz"}, "quaternions must be one of"),
        ({"rate_hz": math.nan}, "rate_hz must be above 0"),
        ({"rate_hz": 1e12}, "narrow start and end"),
        ({"like": "b"}, "like names 'b', no topic that is aligned here; known: 'a'"),
        ({"at": [1.0, 0.5]}, "at must ascend: 1.0 is followed by 0.5"),
        ({"at": ["x"]}, "at must be timestamps"),
        ({"at": [math.nan]}, "finite"),
        ({"rate_hz": 5, "start": 2.0, "end": 1.0}, "start 2.0 lies after end 1.0"),
        ({"rate_hz": 5, "tolerance_s": -1}, "tolerance_s"),
        ({"rate_hz": 5, "offset_s": {"b": 1.0}}, "offset_s names 'b'"),
        ({"rate_hz": 5, "how": {"text": "linear"}}, "'text' holds text, numbers are needed"),
        ({"rate_hz": 5, "how": {"q": "slerp"}}, "say the order"),
        ({"rate_hz": 5, "how": {"q": "slerp:wxyz"}}, "needs quaternions of 4 numbers, 'a.q' has shape (3,)"),
        ({"rate_hz": 5, "how": {"q": "cubic"}}, "the rules are linear"),
        ({"rate_hz": 5, "how": {"qq": "hold"}}, "did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    """Each wrong option gets an InvalidQuery that names it."""
    source = table([0.0, 1.0], q=[[1.0, 0.0, 0.0]] * 2, text=["x", "y"])
    with pytest.raises(InvalidQuery) as caught:
        align({"a": source}, **options)
    assert says in str(caught.value)


def test_no_common_time_names_each_span() -> None:
    """Tracks that never overlap are an error that says from when to when each of them goes."""
    tables = {"a": table([0.0, 1.0], x=[0.0, 1.0]), "b": table([5.0, 6.0], x=[0.0, 1.0])}
    with pytest.raises(InvalidQuery, match=r"share no time.*'a' 0.0 to 1.0; 'b' 5.0 to 6.0"):
        align(tables, rate_hz=5)
    with pytest.raises(InvalidQuery, match="'a' has no entries"):
        align({"a": table([])}, rate_hz=5)
    with pytest.raises(InvalidQuery, match="must ascend"):
        align({"a": table([1.0, 0.0], x=[1.0, 2.0])}, like="a")
    with pytest.raises(InvalidWindow, match=r"no column 'y'; known"):
        align({"a": table([0.0], x=[1.0])}, like="a", columns={"a": ["y"]})


def test_a_zero_quaternion_has_no_direction() -> None:
    """A quaternion of norm 0 gives NaN, not an error in the middle of a recording."""
    source = table([0.0, 1.0], quat_wxyz=[[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    result = align({"t": source}, at=[0.5, 1.0])
    assert np.isnan(only(result, "t.quat_wxyz")[0]).all()
    assert only(result, "t.quat_wxyz")[1] == [1.0, 0.0, 0.0, 0.0]


def test_an_entry_at_an_instant_does_not_ask_its_neighbour() -> None:
    """A broken quaternion spoils what is between it and its neighbours, never the neighbours themselves."""
    source = table([0.0, 1.0, 2.0], quat_wxyz=[[1.0, 0.0, 0.0, 0.0], [math.nan] * 4, [0.0, 1.0, 0.0, 0.0]])
    found = only(align({"t": source}, like="t"), "t.quat_wxyz")
    assert found[0] == [1.0, 0.0, 0.0, 0.0]
    assert np.isnan(found[1]).all()
    assert found[2] == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("turn", [1e-12, 1e-6, 1e-4, 1e-3, 0.03, 0.1, 1.0, 3.0])
def test_slerp_is_exact_for_small_turns_too(turn: float) -> None:
    """A quarter of any turn is a quarter of its angle, to the last digits: no threshold is seen in the result."""
    one, other = np.array([[1.0, 0, 0, 0]]), np.array([[math.cos(turn / 2), math.sin(turn / 2), 0, 0]])
    result = slerp(one, other, np.array([0.25]))[0]
    assert 2 * math.atan2(result[1], result[0]) == pytest.approx(turn / 4, rel=1e-9)
