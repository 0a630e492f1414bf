"""`ml-dash find`, `sql` and `doctor`: what they print, and what they say of bad input; never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_dash import Experiment

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")
pytest.importorskip("click")

from ml_dash.cli.app import run  # noqa: E402


@pytest.fixture
def recorded(new_experiment: Callable[..., Experiment], root: Path) -> str:
    """A root with two runs of a force sensor that is pushed in one of them, and freezes in it."""
    times = np.arange(1000) / 100
    for name, strength in (("a/push/hard", 30.0), ("a/push/soft", 3.0)):
        with new_experiment(name).run as experiment:
            force = np.random.default_rng(1).normal(size=(1000, 3))
            force[300:400, 2] += strength
            if strength > 10:
                force[600:800] = force[600]
            experiment.tracks("sensors/force").extend(_ts=times, f=force)
            experiment.tracks("robot/state").extend(_ts=times, q=np.sin(times))
    return str(root)


def test_find_prints_windows(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each window, with its run; 1 where nothing is found, as grep does."""
    assert run(["find", "a/push/*", "f[2] > 20", "-t", "sensors/force", "--for", "0.5", "-r", recorded]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["PREFIX", "START", "END", "SECONDS", "INSTANTS"],
        ["a/push/hard", "3.0", "3.99", "0.99", "100"],
    ]
    assert err == "1 window\n"
    assert run(["find", "a/push/soft", "f[2] > 20", "-t", "sensors/force", "-r", recorded]) == 1


def test_find_as_json(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts get every figure, and which runs were skipped."""
    assert run(["find", "latest", "`sensors/force`.f[2] > 2", "--json", "-r", recorded]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["moments"][0]["prefix"] == "a/push/soft"
    assert found["skipped"] == {}


def test_sql_prints_a_table(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer as a table or as JSON."""
    pytest.importorskip("duckdb")
    query = 'select count(*) as n, max(q) as q from "robot/state"'
    assert run(["sql", "a/push/hard", query, "-r", recorded, "--json"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    assert answer["n"] == 1000
    assert run(["sql", "a/push/hard", query, "-r", recorded]) == 0
    assert capsys.readouterr().out.split() == ["n", "q", "1000", repr(answer["q"])]  # every digit


def test_doctor_tells_by_its_exit_code(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where there is a problem, 0 where there is none; topics, rates and limits can be chosen."""
    assert run(["doctor", "a/push/hard", "-r", recorded]) == 1
    out = capsys.readouterr().out
    assert "f[2] stays at" in out
    assert out.rstrip().endswith("3 problems")
    assert run(["doctor", "a/push/hard", "robot/*", "-r", recorded]) == 0
    assert run(["doctor", "a/push/hard", "-r", recorded, "--limit", "flat_s=5"]) == 0


def test_doctor_as_json(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole report for scripts."""
    assert run(["doctor", "a/push/soft", "-r", recorded, "--rate", "robot/state=200", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["prefix"]) == (False, "a/push/soft")
    assert report["findings"][0]["message"] == "declared 200 Hz, measured 100 Hz"
    assert report["topics"]["robot/state"]["entries"] == 1000


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["find", "a/puhs/hard", "x > 1"], 2, "a/push/hard"),
        (["find", "a/push/hard", "x >"], 2, "expected a value at the end"),
        (["find", "a/push/hard", "`sensors/forse`.f[2] > 1"], 2, "did you mean 'sensors/force'"),
        (["find", "a/push/hard", "x > 1", "--for", "soon"], 2, "soon"),
        (["sql", "a/push/hard", "selec"], 2, "syntax error"),
        (["doctor", "a/push/hard", "robot/stat"], 2, "robot/state"),
        (["doctor", "a/push/hard", "--rate", "x"], 2, "write NAME=VALUE"),
        (["doctor", "a/push/hard", "--rate", "x=5"], 2, "rates_hz names 'x'"),
        (["doctor", "a/push/hard", "--limit", "nan=1"], 2, "no such threshold"),
        (["doctor", "a/push/hard", "--limit", "nan_share=much"], 2, "'much' is no number"),
    ],
)
def test_bad_input(recorded: str, capsys: pytest.CaptureFixture[str], args: list[str], code: int, says: str) -> None:
    """Wrong names, expressions and options: one clear message and an exit code."""
    found = run([*args, "-r", recorded])
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert found == code


def test_the_help_of_doctor_names_every_threshold() -> None:
    """None is forgotten, none is made up."""
    from dataclasses import fields

    from ml_dash.analysis.checks import Limits
    from ml_dash.cli.doctor_command import LIMIT_HELP

    named = LIMIT_HELP.split("Names: ")[1].rstrip(".").split(", ")
    assert named == [field.name for field in fields(Limits)]
