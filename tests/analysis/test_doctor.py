"""The doctor finds each planted fault, says where, and stays quiet about a sound recording."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from ml_dash.analysis.checks import Limits  # noqa: E402
from ml_dash.analysis.doctor import examine  # noqa: E402
from ml_dash.analysis.tables import from_numbers  # noqa: E402
from ml_dash.errors import InvalidQuery  # noqa: E402
from ml_dash.formats.arrow import table_from_entries  # noqa: E402


def sensor(times: Any, **columns: Any) -> Any:
    """A table of arrays; without columns a noisy three-axis force."""
    times = np.asarray(times, float)
    random = np.random.default_rng(1)
    columns = columns or {"f": random.normal(size=(len(times), 3))}
    return pa.table({"timestamp": times, **{name: from_numbers(np.asarray(v)) for name, v in columns.items()}})


def steady(rate_hz: float = 100.0, seconds: float = 20.0, jitter_s: float = 0.0) -> Any:
    """Stamps of a regular sensor."""
    random = np.random.default_rng(2)
    count = int(rate_hz * seconds)
    return np.arange(count) / rate_hz + random.uniform(-jitter_s, jitter_s, count)


def checks(report: Any, topic: str = "t") -> list[str]:
    """The kinds of problems of a topic."""
    return [finding.check for finding in report.problems if finding.topic == topic]


def test_a_sound_recording_has_no_findings() -> None:
    """Regular tracks with small jitter and live values: nothing to say, and the rates are measured."""
    report = examine({"a": sensor(steady(jitter_s=0.001)), "b": sensor(steady(30.0))}, rates_hz={"a": 100, "b": 30})
    assert (report.ok, report.findings) == (True, ())
    assert report.stamps["a"].rate_hz == pytest.approx(100, rel=0.02)
    assert report.stamps["b"].rate_hz == pytest.approx(30)
    assert report.stamps["a"].regular


def test_a_declared_rate_that_is_missed() -> None:
    """A sensor at half the declared rate is a problem with both figures."""
    report = examine({"t": sensor(steady(30.0))}, rates_hz={"t": 60})
    assert checks(report) == ["rate"]
    assert "declared 60 Hz, measured 30 Hz" in str(report)


def test_a_rate_that_falls_for_a_while() -> None:
    """A tenth of the track at half the rate is found without any declared rate."""
    times = np.concatenate([np.arange(1000) / 100, 10 + np.arange(250) / 50, 15 + np.arange(1000) / 100])
    report = examine({"t": sensor(times)})
    found = next(finding for finding in report.problems if finding.check == "rate")
    assert found.value == pytest.approx(50)
    assert 8 < found.at < 13


def test_gaps_say_how_many_how_long_and_where() -> None:
    """Two holes in the stamps: counted, the longest measured and located, the mean rate not spoiled."""
    times = steady()
    times = times[~(((times > 3.0) & (times < 3.5)) | ((times > 8.0) & (times < 10.0)))]
    report = examine({"t": sensor(times)})
    assert checks(report) == ["gap"]
    found = report.problems[0]
    assert "2 gaps" in found.message
    assert (found.value, found.at) == (pytest.approx(2.0, abs=0.03), pytest.approx(8.0, abs=0.03))
    assert report.stamps["t"].gaps == 2
    assert report.stamps["t"].mean_rate_hz == pytest.approx(100, rel=0.02)


def test_jitter() -> None:
    """Intervals off by more than half of the usual one are jitter; less is not."""
    assert checks(examine({"t": sensor(np.sort(steady(jitter_s=0.004)))})) == ["jitter"]
    assert checks(examine({"t": sensor(np.sort(steady(jitter_s=0.001)))})) == []


def test_stamps_that_go_back_repeat_or_jump() -> None:
    """In order of arrival: backward stamps, repeated stamps, and a clock that changes to another epoch."""
    times = steady()
    back = times.copy()
    back[500:510] -= 0.5
    assert "backward" in checks(examine({"t": sensor(back)}))
    repeated = times.copy()
    repeated[100:200:2] = repeated[101:200:2]
    assert checks(examine({"t": sensor(repeated)})) == ["repeated"]
    jumped = times.copy()
    jumped[1000:] += 1.7e9
    report = examine({"t": sensor(jumped)})
    assert checks(report) == ["jump"]
    assert report.problems[0].value == pytest.approx(1.7e9)
    assert checks(examine({"t": sensor(np.ones(20))})) == ["repeated"]


@pytest.mark.parametrize(
    ("times", "found"),
    [(np.arange(20) * 86_400.0, []), (np.append(np.arange(200) / 100, 1.7e18), ["jump"])],
    ids=["one a day", "one stamp in nanoseconds"],
)
def test_a_jump_is_judged_by_the_usual_interval(times: Any, found: list[str]) -> None:
    """A sensor that logs once a day does not jump; a step beside which the others vanish in float64 does, and leaves a
    rate, that of the usual interval."""
    report = examine({"t": pa.table({"timestamp": times, "x": np.arange(len(times), dtype=float)})})
    assert checks(report) == found
    rate = report.lines()[0][3]
    assert float(rate.removesuffix(" Hz")) == pytest.approx(1 / np.median(np.diff(times)), rel=1e-3)
    assert rate in str(report)


@pytest.mark.parametrize(("scale", "unit"), [(1e9, "nanoseconds"), (1e6, "microseconds"), (1e3, "milliseconds")])
def test_stamps_in_another_unit(scale: float, unit: str) -> None:
    """Floats that count parts of seconds since 1970 are accepted as stamps; the doctor says what they look like."""
    times = 1.7e9 + steady(seconds=5)
    assert checks(examine({"t": sensor(times)})) == []
    report = examine({"t": sensor(times * scale)})
    assert checks(report)[0] == "unit"
    assert f"look like {unit}" in str(report)


def test_events_that_are_hours_apart_are_no_jumps() -> None:
    """Bursts of entries with pauses of hours are a track of events; an epoch that changes is a jump there too."""
    random = np.random.default_rng(8)
    times = np.cumsum(np.where(np.arange(200) % 5 == 4, 7200.0, random.exponential(1.0, 200)))
    assert checks(examine({"t": sensor(times)})) == []
    assert "jump" in checks(examine({"t": sensor(np.append(times, times[-1] + 1.7e9))}))


def test_nan_beyond_a_share() -> None:
    """NaN and infinities above the limit are a problem with their share and first place; absent values are not."""
    times = steady()
    values = np.sin(times * 7.3)
    values[400:500] = math.nan
    values[500] = math.inf
    report = examine({"t": sensor(times, x=values)})
    assert checks(report) == ["nan"]
    assert (report.problems[0].value, report.problems[0].at) == (pytest.approx(0.0505), pytest.approx(4.0))
    assert examine({"t": sensor(times, x=values)}, limits=Limits(nan_share=0.1)).ok
    sparse = table_from_entries({"timestamp": t, **({"x": t} if n % 2 else {})} for n, t in enumerate(times.tolist()))
    assert examine({"t": sparse}).ok


def test_a_frozen_sensor() -> None:
    """A component that always changes and then stays the same is flat; one that seldom changes is not."""
    times = steady()
    force = np.random.default_rng(3).normal(size=(len(times), 3))
    force[900:1300, 1] = force[900, 1]
    report = examine({"t": sensor(times, f=force)})
    assert checks(report) == ["flat"]
    found = report.problems[0]
    assert (found.column, found.at) == ("f[1]", pytest.approx(9.0))
    assert found.value == pytest.approx(3.99)
    gripper = np.repeat(np.arange(4.0), len(times) // 4)
    assert examine({"t": sensor(times, g=gripper)}).ok
    constant = examine({"t": sensor(times, g=np.ones(len(times)))})
    assert constant.ok
    assert [finding.check for finding in constant.findings] == ["constant"]


def test_a_smooth_signal_that_freezes() -> None:
    """A signal without noise that stops for a fifth of the recording is flat; a rest at 0 is a note; limits decide."""
    times = steady()
    wave = np.sin(times * 1.7)
    frozen, rest = wave.copy(), wave.copy()
    frozen[1500:1900], rest[1500:1900] = frozen[1500], 0.0
    report = examine({"t": sensor(times, wave=wave, frozen=frozen, rest=rest)})
    assert [(one.severity, one.check, one.column) for one in report.findings] == [
        ("problem", "flat", "frozen"),
        ("note", "flat", "rest"),
    ]
    assert (report.problems[0].at, report.problems[0].value) == (pytest.approx(15.0), pytest.approx(3.99))
    for limits in (Limits(freeze_s=5.0), Limits(freeze_share=0.25), Limits(freeze_s=math.inf)):
        assert examine({"t": sensor(times, frozen=frozen)}, limits=limits).ok
    command = np.clip(np.floor(times) / 5, 0, 3)  # steps and holds: it never moves with nearly every entry
    assert examine({"t": sensor(times, command=command)}).ok


def test_integers_freeze_too() -> None:
    """Counts of a converter that stay the same, and a counter that stops, also beyond 2**53; flags and text do not."""
    times = steady()
    counts = np.random.default_rng(4).integers(1000, 1100, len(times))
    counts[900:1300] = 1050
    counter = np.arange(len(times)) + 2**60
    counter[800:1200] = counter[800]
    moving = np.arange(len(times)) + 2**60
    report = examine({"t": sensor(times, counts=counts, counter=counter, moving=moving)})
    assert [one.column for one in report.problems] == ["counts", "counter"]
    flags = pa.table({"timestamp": times, "on": counts > 1050, "mode": ["go"] * len(times)})
    assert examine({"t": flags}).findings == ()


def test_what_the_recorder_counted_when_entries_came() -> None:
    """A stored track ascends; late and lost entries are problems."""
    tables = {"t": sensor(steady())}
    report = examine(tables, arrived={"t": (20, 500)})
    assert [(one.check, one.severity) for one in report.findings] == [("backward", "problem"), ("repeated", "problem")]
    assert "20 of 2,500 entries came with an earlier stamp" in str(report)
    assert "500 of 2,500 entries came with the stamp and fields of the one before" in str(report)
    for nothing in ((0, 0), (None, None)):
        assert examine(tables, arrived={"t": nothing}).findings == ()
    assert examine(tables, arrived={"t": (20, 0)}, limits=Limits(late_share=0.02)).ok


def test_one_late_entry_of_a_long_recording_is_a_note() -> None:
    """One entry in a thousand may be late, in a stored track and in a table in the order of arrival; of twenty none."""
    times = steady()
    report = examine({"t": sensor(times)}, arrived={"t": (1, 0)})
    assert [(one.check, one.severity) for one in report.findings] == [("backward", "note")]
    assert "1 of 2,000 entries came with an earlier stamp" in str(report)
    assert not examine({"t": sensor(times)}, arrived={"t": (1, 0)}, limits=Limits(late_share=0.0)).ok
    assert not examine({"t": sensor(times[:20])}, arrived={"t": (1, 0)}).ok
    swapped = times.copy()
    swapped[[1000, 1001]] = swapped[[1001, 1000]]
    found = [one for one in examine({"t": sensor(swapped)}).findings if one.check == "backward"]
    assert [one.severity for one in found] == ["note"]


def test_columns_that_never_change_share_a_line() -> None:
    """Twelve constant columns of a track are one line of text, and findings of their own for programs."""
    times = steady()
    columns = {f"c{number}": np.full(len(times), float(number)) for number in range(12)}
    report = examine({"t": sensor(times, **columns), "u": sensor(times, g=np.ones(len(times)))})
    assert sum(one.check == "constant" for one in report.findings) == 13
    lines = [line for line in str(report).splitlines() if "never change" in line]
    assert lines == [
        "note: t: 12 columns never change: c0 0, c1 1, c2 2, c3 3, c4 4, c5 5, c6 6, c7 7 and 4 more",
        "note: u: g never changes from 1",
    ]
    assert report._repr_html_().count("never change") == 2


def test_a_value_at_the_end_of_its_range_is_a_note() -> None:
    """A gripper that pushes with all its force is no fault; a sensor that falls dead at 0 is."""
    times = steady()
    force = np.abs(np.random.default_rng(3).normal(size=len(times))) + 0.1
    full, dead = force.copy(), force.copy()
    full[900:1300], dead[900:1300] = 25.0, 0.0
    report = examine({"t": sensor(times, full=full, dead=dead)})
    assert [(finding.check, finding.column) for finding in report.findings] == [("flat", "dead"), ("clipped", "full")]
    assert report.problems == [report.findings[0]]


def test_columns_that_drift() -> None:
    """A column that changes its type or length is a problem that says what occurs how often."""
    entries = [{"timestamp": n / 10, "a": float(n % 7), "l": [1.0] * (1 + n % 2)} for n in range(100)]
    entries[50]["a"] = "broken"
    report = examine({"t": table_from_entries(entries)})
    assert checks(report) == ["drift", "drift"]
    assert "a changes its type: 99 number, 1 text" in str(report)
    assert "l has lists of 1 to 2 items" in str(report)


def test_a_topic_that_stops_early() -> None:
    """A regular track that ends before the others is a problem, one that starts late a note, events are neither."""
    tables = {
        "long": sensor(steady()),
        "short": sensor(steady(seconds=15)),
        "late": sensor(steady(seconds=15) + 5.0),
        "events": sensor(np.cumsum(np.random.default_rng(5).exponential(0.2, 40))),
    }
    report = examine(tables)
    assert checks(report, "short") == ["stops"]
    assert (checks(report, "late"), checks(report, "events")) == ([], [])
    notes = {(finding.topic, finding.check) for finding in report.findings if finding.severity == "note"}
    assert notes == {("late", "late"), ("events", "irregular")}


def test_a_clock_that_jumped_makes_no_other_topic_stop_early() -> None:
    """Its end says nothing about when the recording ended."""
    jumped = steady()
    jumped[1000:] += 1.7e9
    report = examine({"jumped": sensor(jumped), "sound": sensor(steady())})
    assert (checks(report, "jumped"), checks(report, "sound")) == (["jump"], [])


def test_few_entries_are_not_judged() -> None:
    """An empty track and one of three entries have no rate and no problems."""
    report = examine({"none": table_from_entries([]), "few": sensor([0.0, 1.0, 5.0], x=[1.0, 1.0, 1.0])})
    assert report.ok
    assert report.stamps["few"].rate_hz is None
    assert [finding.check for finding in report.findings] == ["empty"]


def test_the_report_in_every_form() -> None:
    """Text, HTML and JSON say the same."""
    report = examine({"<t>": sensor(steady(30.0))}, rates_hz={"<t>": 60})
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["check"] == "rate"
    assert report.to_dict()["ok"] is False
    assert "&lt;t&gt;" in report._repr_html_()
    assert str(report).splitlines()[0].startswith("topic")
    assert str(report).splitlines()[-1].startswith("problem: <t>: declared 60 Hz")


def test_wrong_options_are_refused() -> None:
    """A rate of 0, a rate for a topic that is not there, and a negative limit are errors that name them."""
    tables = {"t": sensor(steady())}
    with pytest.raises(InvalidQuery, match="must be above 0 Hz"):
        examine(tables, rates_hz={"t": 0})
    with pytest.raises(InvalidQuery, match="rates_hz names 'x'"):
        examine(tables, rates_hz={"x": 5})
    with pytest.raises(InvalidQuery, match="limit nan_share"):
        Limits(nan_share=-1)
