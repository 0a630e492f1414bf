"""The watch: warned once when a rate is missed, a topic falls silent or a field changes its type; never in the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from ml_dash import Experiment
from ml_dash.analysis.watch import Watch
from ml_dash.columns import encode_columns
from ml_dash.entry import encode_body
from ml_dash.errors import InvalidQuery
from ml_dash.store import Batch, Track


class Stream:
    """Feeds a watch with batches, and keeps what it says."""

    def __init__(self, **rates: float) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.watch = Watch(lambda: rates, self.said.append, lambda: self.now)

    def send(self, topic: str, times: list[float], value: Callable[[float], Any] = float) -> list[str]:
        """A batch of entries; what was said of it."""
        bodies = [encode_body((1, time, {"x": value(time)})) for time in times]
        return self.send_bodies(topic, bodies)

    def send_bodies(self, topic: str, bodies: list[bytes]) -> list[str]:
        """A batch of bodies; what was said of it."""
        before = len(self.said)
        self.watch.observe(Batch("w", 1, {1: Track("tracks", topic)}, bodies))
        return self.said[before:]


def second(number: int, rate_hz: int) -> list[float]:
    """The stamps of one second."""
    return [number + index / rate_hz for index in range(rate_hz)]


def test_a_missed_rate_is_told_once_and_again_after_it_was_met() -> None:
    """Half of the declared rate: one warning with both figures; another one only after a time at the right rate."""
    stream = Stream(arm=100)
    for number in range(6):
        stream.send("arm", second(number, 50))
    assert stream.said == ["arm: declared 100 Hz, measured 50 Hz"]
    for number in range(6, 12):
        stream.send("arm", second(number, 100))
    assert len(stream.said) == 1
    for number in range(12, 18):
        stream.send("arm", second(number, 50))
    assert len(stream.said) == 2


def test_the_declared_rate_and_undeclared_topics_are_quiet() -> None:
    """At its rate (within a tenth), or without one, nothing is said."""
    stream = Stream(arm=100)
    for number in range(6):
        assert stream.send("arm", second(number, 95)) == []
        assert stream.send("other", second(number, 3)) == []


def test_whole_arrays_are_counted_too() -> None:
    """extend: a batch of arrays has the rate of its stamps."""
    stream = Stream(arm=100)
    times = [index / 50 for index in range(200)]
    _, body = encode_columns("arm", 1, times, {"x": times})
    assert stream.send_bodies("arm", [body]) == ["arm: declared 100 Hz, measured 50 Hz"]


def test_a_changed_type_is_told() -> None:
    """A number that becomes text, a list that becomes longer; ints among floats and nulls are nothing."""
    stream = Stream()
    assert stream.send("arm", [0.0], lambda time: 1.0) == []
    assert stream.send("arm", [1.0], lambda time: 1) == []
    assert stream.send("arm", [2.0], lambda time: None) == []
    assert stream.send("arm", [3.0], lambda time: "broken") == ["arm: field 'x' was float and is str now"]
    assert stream.send("arm", [4.0], lambda time: "broken") == []
    assert stream.send("arm", [5.0], lambda time: [1, 2]) == ["arm: field 'x' was str and is list[float; 2] now"]
    assert stream.send("arm", [6.0], lambda time: [1.0]) == [
        "arm: field 'x' was list[float; 2] and is list[float; 1] now"
    ]


def test_a_clock_that_goes_back_is_told() -> None:
    """A batch that begins before the last one ended: once for the step, not for what follows it."""
    stream = Stream()
    assert stream.send("arm", [10.0, 11.0]) == []
    assert stream.send("arm", [4.0, 5.0]) == ["arm: the stamps went back from 11 to 4 s"]
    assert stream.send("arm", [6.0, 7.0]) == []


def test_a_silent_topic_is_told_by_the_others() -> None:
    """A declared topic from which nothing comes while others go on: told once."""
    stream = Stream(arm=100)
    stream.send("arm", second(0, 100))
    for number in range(10):
        stream.now = float(number)
        stream.send("other", second(number, 10))
    assert stream.said == ["arm: declared 100 Hz, nothing for 3 s"]


def test_what_cannot_be_looked_at_goes_on() -> None:
    """A damaged body is the store's business: the watch says nothing and raises nothing."""
    stream = Stream(arm=100)
    assert stream.send_bodies("arm", [b"\x93\x01"]) == []


def test_a_recording_that_is_watched(new_experiment: Callable[..., Experiment], caplog: Any) -> None:
    """Warnings come on their logger while the run goes on; the entries are all there."""
    caplog.set_level(logging.WARNING, "ml_dash.watch")
    with new_experiment(watch={"arm": 100}).run as run:
        run.params.set(rates_hz={"camera": 30})
        for index in range(300):
            run.tracks("arm").append(q=index if index < 200 else "lost", _ts=index / 50)
            run.tracks("camera").append(frame=index, _ts=index / 30)
        run.tracks.flush()
        assert len(run.tracks("arm")) == 300
    messages = [entry.getMessage() for entry in caplog.records if entry.name == "ml_dash.watch"]
    assert any("arm: declared 100 Hz, measured 50" in message for message in messages)
    assert not any("camera" in message for message in messages)


@pytest.mark.parametrize("watch", [{"arm": 0}, {"arm": "fast"}, 100])
def test_what_watch_takes(new_experiment: Callable[..., Experiment], watch: Any) -> None:
    """True, or rates above 0 by topic; anything else is refused before anything is recorded."""
    with pytest.raises(InvalidQuery, match="watch is True or a dict"):
        new_experiment(watch=watch)


def test_watch_needs_a_recording_here(root: Any) -> None:
    """Where everything goes to a server only, nothing passes the watch: it says so."""
    with pytest.raises(InvalidQuery, match="it needs dash_root"):
        Experiment("a/b/c", dash_root=None, dash_url="http://127.0.0.1:9", watch=True)


def test_a_recording_of_less_than_a_second_is_watched(new_experiment: Callable[..., Experiment], caplog: Any) -> None:
    """What passes the watch only when the run closes is judged too, by given rates and by those of the parameter."""
    caplog.set_level(logging.WARNING, "ml_dash.watch")
    with new_experiment(watch={"arm": 100}).run as run:
        run.params.set(rates_hz={"camera": 30})
        for topic in ("arm", "camera"):
            run.tracks(topic).extend(_ts=[n / 10 for n in range(100)], x=[n / 10 for n in range(100)])
    messages = [entry.getMessage() for entry in caplog.records if entry.name == "ml_dash.watch"]
    assert sorted(messages) == ["arm: declared 100 Hz, measured 10 Hz", "camera: declared 30 Hz, measured 10 Hz"]
