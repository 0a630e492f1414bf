"""Times as they are written on the command line, and as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("click")

from ml_dash.cli.times import Moment, ago, date_of, duration, parse_moment


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("12.5", 12.5),
        ("0", 0.0),
        ("1e3", 1000.0),
        ("+5", 105.0),
        ("-2", 198.0),
        ("=-2", -2.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000.5),
    ],
)
def test_moment(text: str, timestamp: float) -> None:
    """Seconds, after the start, before the end, absolute also below zero, and dates; of a run from 100 to 200 s."""
    assert parse_moment(text).at(100.0, 200.0) == timestamp


def test_date_without_zone_is_local() -> None:
    """A date that names no zone is meant as the user's clock shows it."""
    assert parse_moment("2023-11-14T22:13:20").seconds == datetime(2023, 11, 14, 22, 13, 20).timestamp()
    assert parse_moment("2023-11-14").seconds == datetime(2023, 11, 14).timestamp()


@pytest.mark.parametrize("text", ["", "x", "1.5x", "nan", "inf", "+", "-", "+nan", "=x", "2023-13-01", "1,5"])
def test_no_moment(text: str) -> None:
    """What is no time is refused."""
    with pytest.raises(ValueError):
        parse_moment(text)


def test_empty_track_has_no_start() -> None:
    """Relative times of nothing count from zero."""
    assert Moment(5.0, "start").at(None, None) == 5.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0.0, "0 s"),
        (0.0000193, "19.3 us"),
        (0.0009999999, "1 ms"),
        (0.0655, "65.5 ms"),
        (4.334, "4.33 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (200_000, "2.3 d"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    """Lengths of time in the unit a person would choose."""
    assert duration(seconds) == shown


def test_ago() -> None:
    """How long ago, in one unit; nothing for what is no date."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = [ago((now - timedelta(seconds=s)).isoformat(), now) for s in (0, 40, 600, 7200, 400_000)]
    assert found == ["now", "40 s ago", "10 min ago", "2 h ago", "5 d ago"]
    assert ago(None) == ago("yesterday") == ""


def test_dates_are_shown_of_clock_times_only() -> None:
    """Seconds since a start are no dates."""
    assert date_of(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert date_of(12.5) is date_of(None) is date_of(-5.0) is date_of(1e300) is None
