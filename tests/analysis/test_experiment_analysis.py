"""align, find, sql and doctor on real experiments: recording, finished, many at once."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ml_dash
from ml_dash import Experiment
from ml_dash.errors import ExperimentNotFound, InvalidQuery, InvalidWindow, NotOpen, TrackNotFound

pytest.importorskip("pyarrow")

from ml_dash.analysis.align import rules_of


def record(experiment: Experiment, hardest: float = 30.0) -> Experiment:
    """A second of an arm at 100 Hz with a force that rises between 0.3 and 0.6 s, and a gripper that closes."""
    for index in range(101):
        time = index / 100
        pushing = 0.3 <= time <= 0.6
        experiment.tracks("robot/state").append(q=[time, -time], mode="push" if pushing else "free", _ts=time)
        if index % 2 == 0:
            experiment.tracks("sensors/force").append(f=[0.0, 0.0, hardest if pushing else 1.0], _ts=time)
    experiment.tracks("gripper").append(open=True, _ts=0.0).append(open=False, _ts=0.5)
    return experiment


def test_importing_the_package_imports_nothing_heavy() -> None:
    """A robot that only records pays for none of the analysis."""
    code = (
        "import sys, ml_dash; ml_dash.Experiment; "
        "print({'numpy', 'pyarrow', 'pandas', 'polars', 'duckdb', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_without_the_extras(tmp_path: Path) -> None:
    """A bare install records, slices and asks single times; what needs an extra says which one."""
    code = f"""
import sys
for name in ("numpy", "pyarrow", "pandas", "polars", "duckdb", "matplotlib"):
    sys.modules[name] = None
import ml_dash
with ml_dash.Experiment("a/b/c", dash_root={str(tmp_path)!r}).run as exp:
    track = exp.tracks("arm").append(q=[1.0], _ts=1.0).append(q=[2.0], _ts=2.0)
    assert track.slice(0.0, 5.0).at(1.5)["q"] == [1.0]
    assert track.slice().nearest(1.9)["q"] == [2.0]
    assert len(list(track.slice())) == 2
    for ask in (track.to_arrow, track.plot, exp.doctor, lambda: track.slice().at([1.0]), lambda: exp.align(rate_hz=1),
                lambda: exp.find("q[0] > 1", topic="arm"), lambda: exp.sql("select 1")):
        try:
            ask()
        except ml_dash.MissingExtra as error:
            print(error)
"""
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert found.stdout.count("pip install 'ml-dash[") == 7


def test_align_while_recording(experiment: Experiment) -> None:
    """Topics and columns on one clock, also before anything is flushed."""
    record(experiment)
    table = experiment.align("robot/state.q", "sensors/force.f[2]", rate_hz=50)
    assert table.schema.names == [
        "timestamp",
        "robot/state.q",
        "robot/state:age_s",
        "sensors/force.f[2]",
        "sensors/force:age_s",
    ]
    assert table.num_rows == 51
    assert table["robot/state.q"].to_pylist()[10] == pytest.approx([0.2, -0.2])
    everything = experiment.align(like="robot/state")
    assert everything.num_rows == 101
    assert everything["gripper.open"].to_pylist()[49:51] == [True, False]


def test_a_topic_can_be_the_clock_only(experiment: Experiment) -> None:
    """like= may name a topic that is not among the aligned ones; it gives its instants and no columns."""
    record(experiment)
    table = experiment.align("gripper", like="sensors/force")
    assert table.schema.names == ["timestamp", "gripper.open", "gripper:age_s"]
    assert table.num_rows == 51


def test_the_run_can_name_the_order_of_its_quaternions(experiment: Experiment) -> None:
    """Without a named order a quaternion is not interpolated; the run's parameter, or the caller, names it."""
    track = experiment.tracks("body")
    track.append(quat=[1.0, 0.0, 0.0, 0.0], _ts=0.0).append(quat=[0.0, 1.0, 0.0, 0.0], _ts=1.0)
    assert experiment.align("body", at=[0.25])["body.quat"].to_pylist() == [[1.0, 0.0, 0.0, 0.0]]
    half = pytest.approx([0.5**0.5, 0.5**0.5, 0.0, 0.0])
    assert experiment.align("body", at=[0.5], quaternions="xyzw")["body.quat"].to_pylist() == [half]
    experiment.params.set(quaternions="wxyz")
    table = experiment.align("body", at=[0.5])
    assert table["body.quat"].to_pylist() == [half]
    assert rules_of(table)["rules"]["body.quat"]["rule"] == "slerp:wxyz"


def test_unknown_topics_offer_the_nearest(experiment: Experiment) -> None:
    """A misspelt topic is an error with the right name, and asking for it records nothing."""
    record(experiment)
    for ask in (
        lambda: experiment.align("robot/stat", rate_hz=5),
        lambda: experiment.align("robot/state", like="robot/stat"),
        lambda: experiment.find("`robot/stat`.q[0] > 1"),
        lambda: experiment.find("q[0] > 1", topic="robot/stat"),
        lambda: experiment.doctor("robot/stat"),
    ):
        with pytest.raises(TrackNotFound, match="did you mean 'robot/state'"):
            ask()
    assert [info.topic for info in experiment.tracks.list()] == ["gripper", "robot/state", "sensors/force"]


def test_found_windows_cut_every_track(experiment: Experiment) -> None:
    """The window of a strong force, what the robot did in it, and the moments as a table."""
    record(experiment)
    moments = experiment.find("norm(`sensors/force`.f) > 20", for_s=0.05)
    assert [(moment.start, moment.end) for moment in moments] == [(0.3, 0.6)]
    cut = moments[0].cut()
    assert sorted(cut) == ["gripper", "robot/state", "sensors/force"]
    assert {entry["mode"] for entry in cut["robot/state"]} == {"push"}
    assert len(moments[0].slice("robot/state", before_s=0.1, after_s=0.1)) == 51
    assert moments.to_arrow().to_pydict() == {
        "prefix": [experiment.prefix],
        "start": [0.3],
        "end": [0.6],
        "duration_s": [pytest.approx(0.3)],
        "instants": [16],
    }
    both = experiment.find("mode == 'push' and q[0] > 0.55", topic="robot/state")
    assert [(moment.start, moment.end) for moment in both] == [(0.56, 0.6)]


def test_find_in_every_run(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """One question to many recordings; runs without the topic are told, none is left out silently."""
    for name, hardest in (("a/pick/one", 30.0), ("a/pick/two", 5.0), ("a/pick/three", 40.0)):
        with new_experiment(name).run as run:
            record(run, hardest)
    with new_experiment("a/pick/other").run as run:
        run.tracks("imu").append(a=1.0, _ts=0.0)
    moments = ml_dash.find(root, "a/pick/*", "max(`sensors/force`.f) > 20")
    assert [moment.prefix for moment in moments] == ["a/pick/one", "a/pick/three"]
    assert list(moments.skipped) == ["a/pick/other"]
    assert "1 skipped" in repr(moments)
    assert len(moments[1].cut("robot/state")["robot/state"]) == 31
    assert len(moments[:1]) == 1
    assert len(ml_dash.find(root, "a", "max(f) > 20", topic="sensors/force")) == 2


def test_find_in_no_run(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """No such experiment, nothing to search in any of them, an expression that cannot be read: each says so."""
    with new_experiment("a/pick/one").run as run:
        record(run)
    with pytest.raises(ExperimentNotFound, match="no experiment 'a/pikc/one'"):
        ml_dash.find(root, "a/pikc/one", "max(f) > 20")
    with pytest.raises(InvalidQuery, match=r"^a/pick/one: no topic 'imu'"):
        ml_dash.find(root, "a/*", "max(imu.a) > 20")
    with new_experiment("a/pick/bare").run as run:
        run.tracks("other").append(x=1, _ts=0.0)
    told = "none of 2 experiments could be searched; a/pick/one: no column 'g'"
    with pytest.raises(InvalidQuery, match=told):
        ml_dash.find(root, "a/*", "max(g) > 20", topic="sensors/force")
    with pytest.raises(InvalidQuery, match="expected a value"):
        ml_dash.find(root, "a/*", "max(imu.a) > ")


def test_sql(experiment: Experiment) -> None:
    """Each topic is a table; joins, parameters and quoted names work, the answer is an Arrow table."""
    pytest.importorskip("duckdb")
    record(experiment)
    found = experiment.sql('select count(*) as n, max(f[3]) as hardest from "sensors/force" where f[3] > ?', [20])
    assert found.to_pydict() == {"n": [16], "hardest": [30.0]}
    joined = experiment.sql(
        'select s.timestamp from "robot/state" s join "sensors/force" f using (timestamp) where f.f[3] > 20 order by 1'
    )
    assert joined["timestamp"].to_pylist() == [index / 100 for index in range(30, 61, 2)]
    assert experiment.sql("select open from gripper -- where 'robot/state'").num_rows == 2


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ('select * from "robot/stat"', TrackNotFound, "did you mean 'robot/state'"),
        ("selec 1", InvalidQuery, "syntax error"),
        ("select nope from gripper", InvalidQuery, "nope"),
        ("select * from read_csv('/etc/passwd')", InvalidQuery, "disabled"),
        ("select * from '/etc/passwd'", TrackNotFound, "no topic '/etc/passwd'"),
        ("copy gripper to 'x.csv'", InvalidQuery, "disabled"),
        ("set log_query_path='x.log'", InvalidQuery, "locked"),
        ("call enable_logging(storage='file', storage_path='x')", InvalidQuery, ""),
    ],
)
def test_sql_that_cannot_be_answered(experiment: Experiment, query: str, error: type[Exception], says: str) -> None:
    """Unknown topics offer the nearest; files cannot be reached; DuckDB's own complaints come as InvalidQuery."""
    pytest.importorskip("duckdb")
    record(experiment)
    with pytest.raises(error) as caught:
        experiment.sql(query)
    assert says in str(caught.value)


def test_sql_does_not_see_python_variables(experiment: Experiment) -> None:
    """A table is a topic and nothing else: a variable of the program is not found by its name."""
    duckdb = pytest.importorskip("duckdb")
    record(experiment)
    secret: Any = experiment.tracks("gripper").to_arrow()
    assert duckdb.sql("select * from secret").fetchall()
    with pytest.raises(TrackNotFound):
        experiment.sql("select * from secret")
    assert secret.num_rows == 2


def test_doctor(experiment: Experiment) -> None:
    """All topics or some, with declared rates."""
    record(experiment)
    report = experiment.doctor(rates_hz={"sensors/force": 100})
    assert [finding.check for finding in report.problems] == ["rate"]
    assert experiment.doctor("robot/state").ok
    experiment.params.set(rates_hz={"sensors/force": 200, "robot/state": 100, "unrecorded": 5, "gripper": "often"})
    assert "declared 200 Hz, measured 50 Hz" in str(experiment.doctor())


def test_a_finished_run_is_opened_to_be_analysed(experiment: Experiment, root: Path) -> None:
    """After closing, the same questions need ml_dash.open; a closed one says so."""
    record(experiment).run.complete()
    with pytest.raises(NotOpen):
        experiment.find("`sensors/force`.f[2] > 20")
    with ml_dash.open(experiment.prefix, dash_root=root) as again:
        assert len(again.find("`sensors/force`.f[2] > 20")) == 1
        assert again.align("robot/state", rate_hz=10).num_rows == 11
        assert again.tracks("robot/state").slice(0.2, 0.4).at(0.255)["q"] == [0.25, -0.25]
        assert again.doctor().stamps["robot/state"].rate_hz == pytest.approx(100)


def test_doctor_of_stamps_that_were_sorted_away(tmp_path: Path) -> None:
    """A finished run ascends; entries that came late or replaced the one before are problems all the same, appends that
    add fields to an instant are none."""
    with Experiment("a/b/stamps", dash_root=tmp_path).run as exp:
        for number in range(200):
            exp.tracks("sound").append(x=math.sin(number), _ts=number / 100)
            exp.tracks("sound").append(y=math.cos(number), _ts=number / 100)
            exp.tracks("late").append(x=math.sin(number), _ts=number / 100 - (0.5 if number == 150 else 0.0))
            exp.tracks("twice").append(x=math.sin(number), _ts=number // 2 / 100)
        within = exp.doctor()
    with ml_dash.open("a/b/stamps", dash_root=tmp_path) as exp:
        report = exp.doctor()
    found = [(finding.topic, finding.check) for finding in report.problems if finding.check in ("backward", "repeated")]
    assert sorted(found) == [("late", "backward"), ("twice", "repeated")]
    assert [str(one) for one in within.problems] == [str(one) for one in report.problems]


def test_a_table_of_moments(experiment: Experiment) -> None:
    """Its columns by name, the nearest offered; a notebook shows the first of them without any library for tables."""
    for number in range(100):
        experiment.tracks("<arm>").append(x=number % 2, _ts=number / 10)
    found = experiment.find("x > 0", topic="<arm>")
    assert found.to_arrow(["start"]).num_rows == 50
    with pytest.raises(InvalidWindow, match="no column 'strat'; did you mean 'start'"):
        found.to_arrow(["strat"])
    html = found._repr_html_()
    assert html.count("<tr>") == 21
    assert "&lt;50 moments" in html
    assert "<td>0.1</td>" in html
