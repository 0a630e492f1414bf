"""Metrics: index-based series, each entry kept, in the order of logging."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_dash import Experiment, InvalidEntry, InvalidWindow
from ml_dash import open as open_run


def test_log_and_read(experiment: Experiment) -> None:
    """Entries carry their index and the wall clock; log can be chained; it is read at once."""
    before = time.time()
    train = experiment.metrics("train")
    assert train.log(loss=0.5, epoch=0).log(loss=0.25, epoch=1, acc=np.float32(0.5)) is train
    found = train.read()
    assert found["count"] == len(train) == 2
    assert all(before <= entry.pop("timestamp") <= time.time() for entry in found["entries"])
    assert found["entries"] == [
        {"index": 0, "loss": 0.5, "epoch": 0},
        {"index": 1, "loss": 0.25, "epoch": 1, "acc": 0.5},
    ]


def test_fields_whose_names_are_no_python_names(experiment: Experiment) -> None:
    """A mapping may come first, as other loggers take it; named fields win."""
    train = experiment.metrics("train").log({"train/loss": 0.5, "epoch": 1}, epoch=2)
    assert {**train.read()["entries"][0], "timestamp": 0} == {"index": 0, "timestamp": 0, "train/loss": 0.5, "epoch": 2}
    with pytest.raises(InvalidEntry, match="takes fields or a mapping, got list"):
        train.log([1])  # type: ignore[arg-type]


def test_the_tail_of_a_long_series(experiment: Experiment) -> None:
    """The last entries, also beyond the end, stored and waiting, without those before them."""
    series = experiment.metrics("train")
    for n in range(5000):
        series.log(n=n)
    experiment.tracks.flush()
    series.log(n=5000)
    assert len(series) == 5001
    for start, limit in ((4998, None), (4998, 10), (5000, 5), (5001, 5), (6000, None)):
        found = series.read(start, limit)["entries"]
        assert [(entry["index"], entry["n"]) for entry in found] == [(n, n) for n in range(start, 5001)]


@pytest.mark.parametrize("flushed", [0, 5, 10])
@pytest.mark.parametrize(
    ("start", "limit", "expected"),
    [
        (0, None, range(10)), (3, None, range(3, 10)), (0, 4, range(4)), (3, 4, range(3, 7)), (9, 5, [9]),
        (10, None, []),
        (np.int64(4), np.uint8(3), range(4, 7)), (99, 1, []), (0, 0, []),
    ],
)  # fmt: skip
def test_reading_a_part(experiment: Experiment, flushed: int, start: int, limit: int | None, expected: Any) -> None:
    """From an index, so many, whether the entries are in the journal, in the file or in both."""
    train = experiment.metrics("train")
    for number in range(10):
        train.log(loss=number)
        if number + 1 == flushed:
            train.flush()
    found = train.read(start, limit)
    assert [entry["index"] for entry in found["entries"]] == list(expected)
    assert [entry["loss"] for entry in found["entries"]] == list(expected)
    assert found == train.read(start_index=start, limit=limit)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"start_index": -1}, "start_index must be an integer of at least 0, got -1"),
        ({"start_index": 1.0}, "start_index must be an integer of at least 0, got 1.0"),
        ({"start_index": True}, "start_index must be an integer of at least 0, got True"),
        ({"start_index": None}, "start_index must be an integer of at least 0, got None"),
        ({"limit": -1}, "limit must be an integer of at least 0, got -1"),
        ({"limit": "3"}, "limit must be an integer of at least 0, got '3'"),
    ],
)
def test_parts_that_make_no_sense(experiment: Experiment, arguments: dict[str, Any], text: str) -> None:
    """InvalidWindow, a ValueError, names the argument and what came; logs obey the same rule."""
    for read in (experiment.metrics("train").read, experiment.log.read):
        with pytest.raises(InvalidWindow, match=f"^{text}$") as caught:
            read(**arguments)
        assert isinstance(caught.value, ValueError)


def test_nothing_merges(experiment: Experiment) -> None:
    """Equal entries are two entries: an index is never reused, and a series begins at 0 for each name."""
    for _ in range(3):
        experiment.metrics("train").log(loss=1.0)
    experiment.metrics("eval").log(loss=1.0)
    experiment.metrics("train").flush().log()
    assert [entry["index"] for entry in experiment.metrics("train").read()["entries"]] == [0, 1, 2, 3]
    assert [entry["index"] for entry in experiment.metrics("eval").read()["entries"]] == [0]


@pytest.mark.parametrize("name", ["index", "timestamp"])
def test_names_that_are_taken(experiment: Experiment, name: str) -> None:
    """The series' own names are refused with the reason; nothing is stored. Others, `self` and `name` too, are free."""
    with pytest.raises(InvalidEntry, match=f"^field '{name}' on topic 'train' is taken: .*; rename the field$"):
        experiment.metrics("train").log(**{name: 1})
    experiment.metrics("train").log(self=1, name=2, step=3, _ts=4)
    (entry,) = experiment.metrics("train").read()["entries"]
    assert (entry["self"], entry["name"], entry["step"], entry["_ts"]) == (1, 2, 3, 4)


def test_values_that_are_refused(experiment: Experiment) -> None:
    """As for tracks, naming series and field."""
    with pytest.raises(InvalidEntry, match=r"^field 'loss' on topic 'train' \(object\) cannot be recorded"):
        experiment.metrics("train").log(epoch=1, loss=object())
    with pytest.raises(
        InvalidEntry, match=r"^entry on topic 'train' is \d+ bytes encoded, \d+ of them in field 'image'"
    ):
        experiment.metrics("train").log(epoch=1, image=b"x" * (9 << 20))
    assert experiment.metrics("train").read() == {"entries": [], "count": 0}


def test_an_empty_series(experiment: Experiment, folder: Path) -> None:
    """A name nobody logged under is empty, true, and creates nothing."""
    train = experiment.metrics("train")
    assert train.read() == {"entries": [], "count": 0}
    assert len(train) == 0
    assert train
    experiment.metrics.flush()
    assert experiment.metrics.list() == []
    assert not (folder / "metrics").exists()


def test_list(experiment: Experiment) -> None:
    """Name, count, columns with types; from journal and file."""
    experiment.metrics("train/loss").log(loss=0.5).log(loss=1, note="x")
    experiment.metrics("eval").log(acc=[1, 2])
    for _ in range(2):
        found = experiment.metrics.list()
        assert [(info.topic, info.count) for info in found] == [("eval", 1), ("train/loss", 2)]
        assert found[0].columns == {"acc": "list[int; 2]"}
        assert found[1].columns == {"loss": "float | int", "note": "str"}
        experiment.metrics.flush()


def test_the_file(experiment: Experiment, folder: Path) -> None:
    """One line an entry, in order, after a flush."""
    experiment.metrics("train/a").log(loss=1).log(loss=2).flush()
    lines = [json.loads(line) for line in (folder / "metrics/train_a/data.jsonl").read_bytes().splitlines()]
    assert [line["loss"] for line in lines] == [1, 2]
    assert [list(line) for line in lines] == [["timestamp", "loss"]] * 2


def test_series_go_on(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """Re-opened, a series continues its index; equal wall clocks, late or set back, change nothing."""
    for number in range(3):
        with new_experiment().run as exp:
            exp.metrics("train").log(run=number).log(run=number)
    with open_run(exp.prefix, dash_root=root) as opened:
        assert [(e["index"], e["run"]) for e in opened.metrics("train").read()["entries"]] == [
            (0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2),
        ]  # fmt: skip


def test_threads_log_together(new_experiment: Callable[..., Experiment]) -> None:
    """Every entry of every thread once, each thread's in its order, while others read and flush."""
    with new_experiment().run as exp:

        def logging(number: int) -> None:
            for step in range(100):
                exp.metrics("train").log(who=number, step=step)
                if step % 25 == 0:
                    exp.metrics.flush()
                    found = exp.metrics("train").read()["entries"]
                    assert [entry["index"] for entry in found] == list(range(len(found)))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(logging, range(4)))
        found = exp.metrics("train").read()["entries"]
        assert [entry["index"] for entry in found] == list(range(400))
        for number in range(4):
            assert [entry["step"] for entry in found if entry["who"] == number] == list(range(100))
