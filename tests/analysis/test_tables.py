"""Columns by name and part: the numbers are those of the entries, and unknown names offer the nearest."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from ml_dash.analysis.tables import (  # noqa: E402
    as_numbers,
    columns_of,
    from_numbers,
    numbers,
    select,
    split_reference,
    to_numpy,
)
from ml_dash.columnar import cut  # noqa: E402
from ml_dash.errors import InvalidQuery, InvalidWindow, TrackNotFound  # noqa: E402
from ml_dash.formats.arrow import entries_from_table, table_from_entries  # noqa: E402
from ml_dash.formats.arrow_types import one_chunk  # noqa: E402

NAN = math.nan


def table(*fields: dict[str, Any]) -> Any:
    """A track with one entry a second."""
    return table_from_entries([{"timestamp": float(number), **one} for number, one in enumerate(fields)])


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([1.0, 2.0], "v", [1.0, 2.0]),
        ([1, None, 3], "v", [1.0, NAN, 3.0]),
        ([True, False], "v", [1.0, 0.0]),
        ([[1.0, 2.0], [3.0, 4.0]], "v", [[1.0, 2.0], [3.0, 4.0]]),
        ([[1.0, 2.0], None], "v", [[1.0, 2.0], [NAN, NAN]]),
        ([[1.0, None], [3.0, 4.0]], "v", [[1.0, NAN], [3.0, 4.0]]),
        ([[1, 2], [3, 4]], "v[1]", [2.0, 4.0]),
        ([[1, 2], [3, 4]], "v[-1]", [2.0, 4.0]),
        ([[1, 2], [3]], "v[1]", [2.0, NAN]),
        ([[[1, 2], [3, 4]]], "v", [[[1.0, 2.0], [3.0, 4.0]]]),
        ([[[1, 2], [3, 4]]], "v[1][0]", [3.0]),
        ([{"x": 1.0, "p": [1.0, 2.0]}], "v.x", [1.0]),
        ([{"x": 1.0, "p": [1.0, 2.0]}], "v.p[1]", [2.0]),
        ([{"x": 1.0}, {"y": 2.0}], "v.x", [1.0, NAN]),
        ([{"x": 1.0}, 5.0], "v.x", [1.0, NAN]),
        ([1, 2.5, True], "v", [1.0, 2.5, 1.0]),
        ([None, None], "v", [NAN, NAN]),
    ],
)
def test_numbers(values: list[Any], column: str, expected: Any) -> None:
    """A column, an item or a part of it, as float64 with NaN where absent or null."""
    np.testing.assert_array_equal(numbers(table(*({"v": value} for value in values)), column), np.array(expected))


def test_absent_is_nan() -> None:
    """An entry without the field is NaN in every component."""
    found = numbers(table({"q": [1.0, 2.0]}, {"x": 1.0}, {"q": [3.0, 4.0]}), "q")
    np.testing.assert_array_equal(found, [[1.0, 2.0], [NAN, NAN], [3.0, 4.0]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(st.floats(), min_size=3, max_size=3)), min_size=1), st.data())
def test_numbers_of_any_slice(values: list[Any], data: Any) -> None:
    """A slice of a table gives the slice of the numbers, whatever offsets Arrow keeps inside."""
    whole = table({"v": [0.0, 0.0, 0.0]}, *({"v": value} for value in values))
    start = data.draw(st.integers(0, len(values)))
    np.testing.assert_array_equal(numbers(whole.slice(start), "v"), numbers(whole, "v")[start:])


def test_numbers_take_no_copy_of_a_plain_column() -> None:
    """A float column without gaps is the table's own memory."""
    array = numbers(table({"v": 1.0}, {"v": 2.0}), "v")
    assert not array.flags.owndata


@given(st.lists(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=3, max_size=3), min_size=1))
def test_numbers_there_and_back(values: list[Any]) -> None:
    """NumPy to Arrow to NumPy is the identity in every shape, and missing ones are null."""
    array = np.array(values)
    arrow = from_numbers(array)
    np.testing.assert_array_equal(as_numbers(pa.field("v", arrow.type), arrow), array)
    assert from_numbers(array, np.ones(len(array), bool)).null_count == len(array)


@pytest.mark.parametrize(
    ("column", "error", "says"),
    [
        ("forse", InvalidWindow, "did you mean 'force'"),
        ("force[3]", InvalidWindow, "'force' has 3 items"),
        ("force.x", InvalidWindow, "has no parts by name"),
        ("pose.z", InvalidWindow, "has no part 'z'; known: 'x', 'y'"),
        ("pose", InvalidQuery, "has parts, name one of them: pose.x, pose.y"),
        ("label", InvalidQuery, "holds text, numbers are needed"),
        ("lists", InvalidQuery, "lists of 1 to 2 items"),
        ("lists[-1]", InvalidWindow, "count from the front"),
        ("mixed", InvalidQuery, "mixes types (1 float, 1 str)"),
        ("mixed.a", InvalidWindow, "no entry has this part"),
    ],
)
def test_what_is_no_column_of_numbers(column: str, error: type[Exception], says: str) -> None:
    """Unknown columns and columns that are no numbers say what is there instead."""
    pose = {"x": 1.0, "y": 2.0}
    source = table(
        {"force": [1.0, 2.0, 3.0], "label": "a", "pose": pose, "lists": [1.0], "mixed": 1.0},
        {"force": [1.0, 2.0, 3.0], "label": "b", "pose": pose, "lists": [1.0, 2.0], "mixed": "x"},
    )
    with pytest.raises(error) as caught:
        numbers(source, column)
    assert says in str(caught.value)


def test_a_name_with_dots_comes_first() -> None:
    """A field whose own name has dots or brackets is found before a part of another field."""
    source = table({"a.b": 1.0, "a": {"b": 2.0}, "a[0]": 3.0})
    assert numbers(source, "a.b").tolist() == [1.0]
    assert numbers(source, "a[0]").tolist() == [3.0]


def test_select_leaves_out_entries_that_have_nothing() -> None:
    """Entries with none of the columns go, also of parts; a recorded null counts as there; timestamp keeps all."""
    source = table({"q": [1.0, 2.0]}, {"n": None}, {"x": 1.0}, {"n": 1}, {"q": [3.0, 4.0]})
    assert list(entries_from_table(select(source, ["q[0]", "n"]))) == [
        {"timestamp": 0.0, "q[0]": 1.0},
        {"timestamp": 1.0, "n": None},
        {"timestamp": 3.0, "n": 1},
        {"timestamp": 4.0, "q[0]": 3.0},
    ]
    assert select(source, ["timestamp", "x"]).num_rows == 5
    assert select(source, None) is source
    assert columns_of(source) == ["q", "n", "x"]


def test_text_comes_as_objects() -> None:
    """to_numpy of text is an object array with None where absent."""
    assert to_numpy(table({"s": "a"}, {}), "s").tolist() == ["a", None]


@given(st.lists(st.integers(-5, 5), unique=True).map(sorted), st.integers(-6, 6), st.integers(-6, 6))
def test_a_window_is_inclusive(times: list[int], start: int, end: int) -> None:
    """Both ends belong to a window; an upside-down one is empty."""
    source = table_from_entries([{"timestamp": float(time)} for time in times])
    found = one_chunk(cut(source, start, end)["timestamp"]).to_pylist()
    assert found == [time for time in times if start <= time <= end]


def test_references_to_topics_and_columns() -> None:
    """topic, topic.column and topics with dots are told apart; unknown topics offer the nearest."""
    topics = ["robot/state", "cam.left"]
    assert split_reference("robot/state", topics) == ("robot/state", None)
    assert split_reference("robot/state.q[0]", topics) == ("robot/state", "q[0]")
    assert split_reference("cam.left.pose.x", topics) == ("cam.left", "pose.x")
    with pytest.raises(TrackNotFound, match=r"did you mean 'robot/state'\?"):
        split_reference("robot/stat", topics)


def test_integers_that_floats_would_round_stay_integers() -> None:
    """Stamps in nanoseconds come out of `to_numpy` as they went in; where some are absent it is an error, not a NaN."""
    first = 1_700_000_000_000_000_001
    full = table_from_entries([{"timestamp": float(n), "ns": first + n, "two": [first, n]} for n in range(3)])
    assert to_numpy(full, "ns").tolist() == [first, first + 1, first + 2]
    assert to_numpy(full, "two").tolist() == [[first, n] for n in range(3)]
    gaps = table_from_entries([{"timestamp": 0.0, "ns": first}, {"timestamp": 1.0, "x": 1}])
    with pytest.raises(InvalidQuery, match="beyond"):
        to_numpy(gaps, "ns")
    assert to_numpy(gaps, "x").dtype == np.float64


@pytest.mark.parametrize("columns", ["q", [None], [1], 5])
def test_columns_that_are_no_names(experiment: Any, columns: Any) -> None:
    """A text, other values, and what is no list are refused by name, not by accident."""
    experiment.tracks("t").append(q=1.0, _ts=0.0)
    with pytest.raises(InvalidWindow, match="columns must be a list of names"):
        experiment.tracks("t").to_arrow(columns)
