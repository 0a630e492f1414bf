"""Readers leave the folder as it is: after every function and command names, bytes and times are what they were."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("polars")
pytest.importorskip("pyarrow")

import ml_dash
from ml_dash import Experiment
from ml_dash.analysis.experiment import ExperimentAnalysis
from ml_dash.analysis.track import TrackAnalysis
from ml_dash.catalog import LocalCatalog
from ml_dash.cli.commands import COMMANDS
from ml_dash.tracks import TrackBuilder, TracksManager

PREFIX = "alice/robotics/pick"

RECORD = """
import os, signal, sys
from ml_dash import Experiment

exp = Experiment(sys.argv[1], dash_root=sys.argv[2]).run.start()
exp.params.set(rates_hz={"robot/state": 100})
for n in range(300):
    phase = "go" if n < 200 else None
    exp.tracks("robot/state").append(q=[n / 10, 1.0], p=[n / 10, 0.0, 1.0], phase=phase, _ts=n / 100)
    exp.tracks("late").append(x=n, _ts=(n * 7 % 300) / 100)
    if n == 150:
        exp.tracks.flush()
exp.metrics("train").log(loss=0.5)
exp.log("hello")
"""
ENDS = {"completed": "exp.run.complete()", "crashed": "os.kill(os.getpid(), signal.SIGKILL)"}


@pytest.fixture(params=["completed", "crashed", "without derived files", "running"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A root with one run, in each state it can be in."""
    place = tmp_path / "dash"
    if request.param == "running":
        with Experiment(PREFIX, dash_root=place, durability="strict").run as exp:
            for n in range(300):
                exp.tracks("robot/state").append(q=[n / 10, 1.0], p=[n / 10, 0.0, 1.0], phase="go", _ts=n / 100)
                exp.tracks("late").append(x=n, _ts=(n * 7 % 300) / 100)
            exp.metrics("train").log(loss=0.5)
            exp.log("hello")
            exp.tracks.flush()
            exp._session._background.stop()  # type: ignore[union-attr]
            yield place
        return
    end = ENDS.get(request.param, ENDS["completed"])
    done = subprocess.run([sys.executable, "-c", RECORD + end, PREFIX, str(place)], check=False, timeout=60)
    assert done.returncode == (-signal.SIGKILL if request.param == "crashed" else 0)
    if request.param == "without derived files":
        for path in place.rglob(".*"):
            if path.is_file() and path.name != ".topic":
                path.unlink()
    yield place


def state(root: Path) -> dict[str, Any]:
    """Every file and folder: name, times, size, inode, content."""
    found: dict[str, Any] = {}
    for path in sorted([root, *root.rglob("*")]):
        stat = os.lstat(path)
        content = path.read_bytes() if path.is_file() else b""
        found[path.relative_to(root).as_posix()] = (
            stat.st_mtime_ns,
            stat.st_ctime_ns,
            stat.st_ino,
            stat.st_mode,
            content,
        )
    return found


Reads = dict[str, Callable[[Experiment], Any]]

TRACK: Reads = {
    "blocks": lambda exp: list(exp.tracks("robot/state").blocks()),
    "count": lambda exp: exp.tracks("robot/state").count(),
    "list_entries": lambda exp: exp.tracks("robot/state").list_entries(),
    "plot": lambda exp: exp.tracks("robot/state").plot(),
    "plot_path": lambda exp: exp.tracks("robot/state").plot_path("p"),
    "read": lambda exp: [exp.tracks("late").read(format=f) for f in ("json", "jsonl", "parquet", "mocap", "csv")],
    "slice": lambda exp: [exp.tracks("robot/state").slice(0.5, 1).at([0.6, 0.7]), len(exp.tracks("late").slice())],
    "table": lambda exp: exp.tracks("robot/state").table(),
    "to_arrow": lambda exp: exp.tracks("late").to_arrow(),
    "to_numpy": lambda exp: exp.tracks("robot/state").to_numpy("q[0]"),
    "numpy": lambda exp: exp.tracks("robot/state").numpy("q[0]"),
    "to_pandas": lambda exp: exp.tracks("robot/state").to_pandas(flat=True),
    "to_polars": lambda exp: exp.tracks("robot/state").to_polars(),
    "_repr_html_": lambda exp: exp.tracks("robot/state")._repr_html_(),
    "__len__": lambda exp: len(exp.tracks("robot/state")),
}
TRACKS: Reads = {
    "blocks": lambda exp: list(exp.tracks.blocks("robot/state")),
    "list": lambda exp: exp.tracks.list(),
    "table": lambda exp: exp.tracks.table("late"),
    "topics": lambda exp: exp.tracks.topics(),
    "__len__": lambda exp: len(exp.tracks),
}
EXPERIMENT: Reads = {
    "align": lambda exp: exp.align("robot/state.q", "late", rate_hz=50),
    "doctor": lambda exp: exp.doctor(),
    "find": lambda exp: [m.cut() for m in exp.find("`robot/state`.q[0] > 5")],
    "plot": lambda exp: exp.plot("robot/state.q"),
    "recording": lambda exp: exp.recording().topics(),
    "sql": lambda exp: exp.sql('select count(*) from "robot/state"'),
    "info": lambda exp: [exp.info, exp.status],
    "params": lambda exp: exp.params.get(),
    "metrics": lambda exp: [exp.metrics("train").read(), exp.metrics.list()],
    "log": lambda exp: exp.log.read(),
}
WRITES = {"append", "extend", "flush", "attach", "bind", "session", "delete", "window"}
"""What a reader does not call."""


@pytest.mark.parametrize(
    ("reads", "of"), [(TRACK, TrackBuilder), (TRACKS, TracksManager), (EXPERIMENT, ExperimentAnalysis)]
)
def test_every_function_is_tried(reads: Reads, of: type) -> None:
    """A function that is added is added here."""
    public = {name for name, _ in inspect.getmembers(of, callable) if not name.startswith("_")}
    assert public - WRITES <= set(reads)
    assert issubclass(TrackBuilder, TrackAnalysis)


def test_reading_changes_nothing(root: Path) -> None:
    """Each function of an experiment opened to read, one after the other, in every state of a run."""
    before = state(root)
    for name, read in {**TRACK, **{f"tracks.{n}": r for n, r in TRACKS.items()}, **EXPERIMENT}.items():
        with ml_dash.open(PREFIX, dash_root=root) as exp:
            read(exp)
        assert state(root) == before, name
    assert len(ml_dash.find(root, "alice/*", "`robot/state`.q[0] > 5")) == 1
    catalog = LocalCatalog(root, readonly=True)
    assert [info.prefix for info in catalog.experiments()] == [PREFIX]
    assert catalog.store(PREFIX).table(ml_dash.store.Track("tracks", "late")).num_rows == 300
    assert state(root) == before


COMMAND_LINES = {
    "ls": [["ls"], ["ls", PREFIX], ["ls", "-t", "--json"]],
    "info": [["info", PREFIX], ["info", PREFIX, "robot", "--json"]],
    "plot": [["plot", PREFIX, "late"], ["plot", PREFIX, "robot/state", "-o", "{out}/plot.png"]],
    "cat": [["cat", PREFIX], ["cat", PREFIX, "-k", "logs"]],
    "head": [["head", PREFIX]],
    "tail": [["tail", PREFIX, "-n", "3"]],
    "find": [["find", PREFIX, "`robot/state`.q[0] > 5"]],
    "sql": [["sql", PREFIX, 'select max(x) from "late"']],
    "doctor": [["doctor", PREFIX]],
    "export": [["export", PREFIX, "-o", "{out}/all", "-f", f] for f in ("jsonl", "json", "csv", "parquet", "mocap")],
    "verify": [["verify"]],
    "du": [["du"], ["du", "-t"]],
    "status": [["status"]],
    "completion": [["completion", "bash"]],
}
CHANGING = {"import", "serve", "token", "push", "pull", "sync", "recover", "compact", "rm", "demo"}
ELSEWHERE = {"archive", "objects"}
"""Commands of a server's data."""


def test_every_command_is_tried() -> None:
    """A command that is added is one or the other."""
    assert set(COMMANDS) - CHANGING - ELSEWHERE <= set(COMMAND_LINES)


def test_commands_that_look_change_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them, in every state of a run."""
    pytest.importorskip("rich")
    from ml_dash.cli.app import run

    before = state(root)
    for words in (words for lines in COMMAND_LINES.values() for words in lines):
        where = [] if words[0] == "completion" else ["-r", str(root)]
        code = run([*(word.format(out=tmp_path) for word in words), *where])
        told = capsys.readouterr().err
        assert code in (0, 1), (words, told)
        assert state(root) == before, words
