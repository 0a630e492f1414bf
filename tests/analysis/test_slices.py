"""Slices: what was known at a time equals a search through every entry, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash.analysis.stretch import MOST_ENTRIES, Stretch
from ml_dash.analysis.track import TrackAnalysis
from ml_dash.errors import InvalidQuery, InvalidWindow
from ml_dash.store import Entry, Window

# Multiples of 1/16 s: distances between them are exact, so that ties are ties.
SIXTEENTHS = st.integers(-(10**10), 10**10).map(lambda number: number / 16)
CLOSE = st.integers(-40, 40).map(lambda number: number / 16)
TIME = st.one_of(SIXTEENTHS, CLOSE)
TIMES = st.lists(TIME, max_size=25, unique=True).map(sorted)
BOUND = st.one_of(st.none(), TIME)


class Recorded(TrackAnalysis):
    """A track whose entries are at hand; counts what is read."""

    def __init__(self, entries: Iterable[Entry], block: int = 3) -> None:
        self.topic, self._entries, self._block, self.read = "t", list(entries), block, 0

    def blocks(self, window: Window = Window()) -> Iterable[list[Entry]]:
        """The entries in the window."""
        from ml_dash.entry import select

        low = -math.inf if window.start is None else window.start
        high = math.inf if window.end is None else window.end
        inside = [entry for entry in self._entries if low <= entry["timestamp"] <= high]
        for first in range(0, len(inside), self._block):
            part = inside[first : first + self._block]
            self.read += len(part)
            yield select(part, window.columns)


def track(times: Iterable[float]) -> Recorded:
    """Entries that know their number."""
    return Recorded({"timestamp": time, "n": number} for number, time in enumerate(times))


def brute(times: list[float], start: float | None, end: float | None) -> list[int]:
    """The numbers of the entries in a slice."""
    low, high = -math.inf if start is None else start, math.inf if end is None else end
    return [number for number, time in enumerate(times) if low <= time <= high]


@settings(max_examples=300, deadline=None)
@given(TIMES, BOUND, BOUND, st.lists(TIME, max_size=12), st.booleans())
def test_at_and_nearest_equal_a_search(
    times: list[float], start: float | None, end: float | None, asked: list[float], ordered: bool
) -> None:
    """One by one or all at once, in any order: the last entry at or before, and the closest one."""
    pytest.importorskip("pyarrow")
    asked = sorted(asked) if ordered else [*asked, *times[:3]]
    inside = brute(times, start, end)
    cut = track(times).slice(start, end)
    last = [max((n for n in inside if times[n] <= time), default=None) for time in asked]
    closest = [min(inside, key=lambda n, time=time: (abs(times[n] - time), n), default=None) for time in asked]
    assert [number(cut.at(time)) for time in asked] == last
    assert [number(cut.nearest(time)) for time in asked] == closest
    if not inside:
        return
    assert cut.at(asked).column("n").to_pylist() == last
    assert cut.nearest(asked).column("n").to_pylist() == closest
    assert cut.at(asked).column("at").to_pylist() == asked


def number(entry: Entry | None) -> int | None:
    """Which entry it is."""
    return None if entry is None else entry["n"]


@settings(max_examples=100, deadline=None)
@given(TIMES, st.lists(TIME, max_size=8), TIME.map(abs))
def test_nearest_within_a_tolerance(times: list[float], asked: list[float], tolerance: float) -> None:
    """An entry further away than the tolerance is no answer."""
    pytest.importorskip("pyarrow")
    cut = track(times).slice()
    for time in asked:
        near = [n for n, own in enumerate(times) if abs(own - time) <= tolerance]
        closest = min(near, key=lambda n, time=time: (abs(times[n] - time), n), default=None)
        assert number(cut.nearest(time, tolerance)) == closest
        if times:
            assert cut.nearest([time], tolerance).column("n").to_pylist() == [closest]


@given(TIMES, BOUND, BOUND)
def test_a_slice_is_its_entries(times: list[float], start: float | None, end: float | None) -> None:
    """Iteration, length and truth agree with the window, and a slice of a slice is the common part."""
    inside = brute(times, start, end)
    cut = track(times).slice(start, end)
    assert [entry["n"] for entry in cut] == inside
    assert len(cut) == len(inside)
    assert bool(cut) == bool(inside)
    assert [entry["n"] for entry in track(times).slice(start).slice(None, end)] == inside


def test_find_by_time_as_the_existing_product_spells_it() -> None:
    """A time gives its entry, a list gives a list, a time before the first entry is a LookupError."""
    cut = track([1.0, 3.0, 5.0, 7.0]).slice(0.0, 6.0)
    assert cut.findByTime(5.5) == {"timestamp": 5.0, "n": 2}
    assert cut.findByTime(9) == {"timestamp": 5.0, "n": 2}
    assert [entry["n"] for entry in cut.findByTime([1.0, 3.5])] == [0, 1]
    with pytest.raises(LookupError, match=r"'t' at or before 0.5"):
        cut.findByTime(0.5)


def test_asking_in_order_reads_each_entry_about_once() -> None:
    """Ten thousand questions in order read little more than the track, not the track for each."""
    source = track([index * 0.001 for index in range(10_000)])
    cut = source.slice()
    for index in range(10_000):
        assert cut.at(index * 0.001 + 0.0005)["n"] == index
    assert source.read < 5 * 10_000


def test_a_question_keeps_few_entries() -> None:
    """However dense the track around the time is, a stretch holds a bounded number of entries."""
    source = track([index * 1e-7 for index in range(50_000)])
    stretch = Stretch(source.blocks, None, None)
    assert stretch.last_at(0.004)["n"] == 40_000
    assert len(stretch._entries) <= 2 * MOST_ENTRIES + source._block


@pytest.mark.parametrize("time", [math.nan, "5", None, [1.0, math.inf], ["x"], [[1.0]]])
def test_a_time_is_a_number_of_seconds(time: Any) -> None:
    """Anything but finite numbers is an InvalidQuery that says so."""
    pytest.importorskip("pyarrow")
    with pytest.raises(InvalidQuery, match="time"):
        track([1.0]).slice().at(time)


def test_tolerances_and_bounds_are_checked() -> None:
    """A negative tolerance and a bound that is no number are refused."""
    with pytest.raises(InvalidQuery, match="tolerance_s"):
        track([1.0]).slice().nearest(1.0, -1.0)
    with pytest.raises(InvalidQuery, match="start must be a number"):
        track([1.0]).slice("a")


def test_every_form_of_table() -> None:
    """Arrow, pandas, Polars, NumPy and the capsule interface give the same entries."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    fields = [{"q": [1.0, 2.0], "pose": {"x": 5.0}}, {"q": [3.0, 4.0], "pose": {"x": 6.0}}, {"s": "hi"}]
    source = Recorded({"timestamp": float(n), **one} for n, one in enumerate(fields))
    assert source.to_arrow().schema.names == ["timestamp", "q", "pose", "s"]
    assert source.to_arrow(["q[1]", "pose.x"]).to_pydict() == {
        "timestamp": [0.0, 1.0],
        "q[1]": [2.0, 4.0],
        "pose.x": [5.0, 6.0],
    }
    assert source.to_arrow(["q"], start=1.0).num_rows == 1
    assert source.to_pandas(flat=True).columns.tolist() == ["timestamp", "q[0]", "q[1]", "pose.x", "s"]
    assert source.to_polars()["s"].to_list() == [None, None, "hi"]
    assert source.to_numpy("q")[:2].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert len(source.to_numpy("q")) == len(source.to_numpy("timestamp")) == 3
    assert pl.DataFrame(source).shape == (3, 4)
    assert pa.table(source.slice(0.0, 1.0)).num_rows == 2


def test_numpy_of_several_columns_says_what_to_do() -> None:
    """It gives one column; a list is refused in words."""
    track = Recorded([{"timestamp": 1.0, "q": 1.0, "v": 2.0}])
    for call in (track.to_numpy, track.numpy):
        with pytest.raises(InvalidWindow, match=r"one column, named by a text such as 'q', got list \['q', 'v'\]; for"):
            call(["q", "v"])  # type: ignore[arg-type]


def test_unknown_columns_name_the_nearest_and_empty_windows_keep_their_type() -> None:
    """A column nobody recorded is an error with the nearest name; a window without entries is an empty table."""
    pytest.importorskip("pyarrow")
    source = Recorded([{"timestamp": 0.0, "force": [1.0, 2.0]}])
    with pytest.raises(InvalidWindow, match="did you mean 'force'"):
        source.to_arrow(["forse"])
    with pytest.raises(InvalidWindow, match="did you mean 'force'"):
        source.slice(5.0, 6.0).to_arrow(["forse"])
    empty = source.to_arrow(["force[0]"], start=5.0)
    assert (empty.num_rows, str(empty.schema.field("force[0]").type)) == (0, "double")
    with pytest.raises(InvalidWindow, match=r"write \['force'\]"):
        source.to_arrow("force")


def test_a_notebook_shows_each_column() -> None:
    """The HTML has a line for each column, with a picture where there are numbers, and nothing unescaped."""
    pytest.importorskip("pyarrow")
    fields = [{"q": [1.0, 2.0], "<b>": "x", "m": 1}, {"q": [3.0, math.nan], "m": "y"}]
    html = Recorded({"timestamp": float(n), **one} for n, one in enumerate(fields))._repr_html_()
    assert html.count("<tr>") == 4
    assert html.count("<svg") == 1
    assert "&lt;b&gt;" in html
    assert "<b>x" not in html
    assert "1 … 3" in html
    assert "empty" in Recorded([])._repr_html_()
