"""The log: lines with a level in a file, and the same lines in the standard `logging` module."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_dash import Experiment, InvalidEntry
from ml_dash import open as open_run


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Everything reaches the captured log, and nothing the terminal."""
    caplog.set_level(logging.DEBUG, logger="ml_dash.run")


def lines(experiment: Experiment) -> list[dict[str, Any]]:
    """The lines without index and time."""
    return [{k: v for k, v in line.items() if k not in ("index", "timestamp")} for line in experiment.log.read()]


def test_a_line(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    """Text, level and fields are read back, and the standard logger got the same."""
    before = time.time()
    assert experiment.log("grasped", level="warning", force=12.5, pose={"x": 1}) is experiment.log
    (line,) = experiment.log.read()
    assert before <= line["timestamp"] <= time.time()
    assert line["index"] == 0
    assert lines(experiment) == [{"level": "warning", "message": "grasped", "force": 12.5, "pose": {"x": 1}}]
    (record,) = [record for record in caplog.records if record.name == "ml_dash.run"]
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "grasped")
    assert record.fields == {"force": 12.5, "pose": {"x": 1}}


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("debug", "debug"), ("info", "info"), ("warning", "warning"), ("error", "error"), ("critical", "critical"),
        ("INFO", "info"), ("Warn", "warning"), ("fatal", "critical"), (logging.ERROR, "error"), (10, "debug"),
        (0, "debug"), (15, "debug"), (25, "info"), (99, "critical"),
    ],
)  # fmt: skip
def test_levels(experiment: Experiment, caplog: pytest.LogCaptureFixture, level: Any, name: str) -> None:
    """Names in any case, their usual aliases, and the numbers of the `logging` module."""
    experiment.log("x", level=level)
    assert lines(experiment) == [{"level": name, "message": "x"}]
    assert caplog.records[-1].levelno == getattr(logging, name.upper())


@pytest.mark.parametrize("level", ["loud", "", None, True, 1.0, ["info"], "notset"], ids=repr)
def test_unknown_levels(experiment: Experiment, level: Any) -> None:
    """Refused with the list of known ones; nothing is logged anywhere."""
    with pytest.raises(InvalidEntry, match=r"^unknown level .*; known are debug, info, warning, error, critical$"):
        experiment.log("x", level=level)
    assert experiment.log.read() == []


def test_the_default_level_is_info(experiment: Experiment) -> None:
    """A bare line is information; text is taken as it is, percent signs, braces and line ends too."""
    texts = ["100 % done %s", "{braces}", "two\nlines", "", "ünï \U0001f916 \u2028", "NaN", "\x00"]
    for text in texts:
        experiment.log(text)
    assert lines(experiment) == [{"level": "info", "message": text} for text in texts]


@pytest.mark.parametrize("message", [12, 1.5, None, ["a"], ValueError("no")], ids=repr)
def test_what_is_no_text_is_made_text(experiment: Experiment, message: Any) -> None:
    """As `str` and the logging module do."""
    experiment.log(message)
    assert lines(experiment) == [{"level": "info", "message": str(message)}]


@pytest.mark.parametrize("name", ["message", "timestamp", "index"])
def test_names_that_are_taken(experiment: Experiment, name: str) -> None:
    """A field that a line has anyway is refused; nothing is logged."""
    with pytest.raises(InvalidEntry, match=f"^field '{name}' on topic 'logs' is taken: .*; rename the field$"):
        experiment.log("x", **{name: 1})
    assert experiment.log.read() == []


def test_values_that_are_refused(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    """As for entries; the standard logger does not get what the file does not hold."""
    with pytest.raises(InvalidEntry, match=r"^field 'bad' on topic 'logs' \(object\) cannot be recorded"):
        experiment.log("x", bad=object())
    with pytest.raises(InvalidEntry, match=r"lone surrogate"):
        experiment.log("\ud800")
    assert experiment.log.read() == []
    assert [record for record in caplog.records if record.name == "ml_dash.run"] == []


def test_a_part_of_the_log(experiment: Experiment) -> None:
    """From an index, so many, from file and journal."""
    for number in range(6):
        experiment.log(str(number))
        if number == 3:
            experiment.tracks.flush()
    assert [line["message"] for line in experiment.log.read(2, 3)] == ["2", "3", "4"]
    assert [line["index"] for line in experiment.log.read(start_index=4)] == [4, 5]


def test_the_file(new_experiment: Callable[..., Experiment], folder: Path, root: Path) -> None:
    """`logs/logs.jsonl`: one JSON object a line, runs one after the other."""
    for number in range(2):
        with new_experiment().run as exp:
            exp.log(f"run {number}", step=number)
    found = [json.loads(line) for line in (folder / "logs/logs.jsonl").read_bytes().splitlines()]
    assert [list(line) for line in found] == [["timestamp", "level", "message", "step"]] * 2
    with open_run(exp.prefix, dash_root=root) as opened:
        assert [(line["index"], line["message"]) for line in opened.log.read()] == [(0, "run 0"), (1, "run 1")]


def test_a_handler_that_logs_into_the_run(experiment: Experiment) -> None:
    """The standard module's records can be sent into the run's log by a handler of the user's."""

    class IntoRun(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            experiment.log(record.getMessage(), level=record.levelname)

    logger = logging.getLogger("my.robot")
    handler = IntoRun()
    logger.addHandler(handler)
    try:
        logger.error("joint %d stuck", 3)
    finally:
        logger.removeHandler(handler)
    assert lines(experiment) == [{"level": "error", "message": "joint 3 stuck"}]
