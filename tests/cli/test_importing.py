"""`ml-dash import`: what it shows, what it stores, and that it stores all or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import IMU, PICK, Ask

import ml_dash
from ml_dash import Experiment
from ml_dash.importing import Prepared
from ml_dash.store import Batch
from ml_dash.stores import adopt
from ml_dash.stores.local import LocalStore


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A trajectory, a table, and a table with a broken row."""
    texts = {
        "traj.txt": "# timestamp tx ty tz qx qy qz qw\n1.5 1 2 3 0 0 0 1\n2.5 1 2 3 0 0 0 1\n",
        "motor.csv": "t,x,y,z,n\n" + "".join(f"{n / 10},1,2,3,{n}\n" for n in range(50)),
        "broken.csv": "t,a\n0,1\n1,2,3\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root."""
    return tmp_path / "dash"


def stored(root: Path, prefix: str = "a/b/c") -> dict[str, int]:
    """The topics of an experiment with their number of entries."""
    with ml_dash.open(prefix, dash_root=root) as exp:
        return {info.topic: info.count for info in exp.tracks.list()}


def test_import(files: dict[str, str], root: Path, ask: Ask) -> None:
    """Several files become topics of their names; the table says what of each; the run is completed."""
    printed = ask("import", "a/b/c", files["traj.txt"], files["motor.csv"], root=root)
    assert printed.code == 0
    assert "traj.txt: tum, time in 'timestamp' (s)" in printed.out
    assert next(line for line in printed.lines if line.startswith("motor")).split()[:2] == ["motor", "50"]
    assert printed.err == "stored 52 rows in a/b/c\n"
    assert stored(root) == {"motor": 50, "traj": 2}
    assert ask("ls", "--json", root=root).json[0]["status"] == "completed"


def test_options_reach_the_reader(files: dict[str, str], root: Path, ask: Ask) -> None:
    """Topic, groups and columns as given."""
    words = ["--topic", "motor/left", "-g", "p=x,y,z", "--columns", "n", "--unit", "ms"]
    assert ask("import", "a/b/c", files["motor.csv"], *words, root=root).code == 0
    with ml_dash.open("a/b/c", dash_root=root) as exp:
        entry = exp.tracks("motor/left").list_entries()[1]
    assert entry == {"timestamp": 0.0001, "p": [1, 2, 3], "n": 1}


def test_dry_run_stores_nothing(files: dict[str, str], root: Path, ask: Ask) -> None:
    """It shows the same and leaves no trace."""
    printed = ask("import", "a/b/c", files["motor.csv"], "--dry-run", "--json", root=root)
    assert printed.json["stored"] is False
    assert printed.json["files"][0]["topics"][0]["fields"]["n"] == "int"
    assert not root.exists()


@pytest.mark.parametrize("order", [["traj.txt", "broken.csv"], ["broken.csv", "traj.txt"]])
def test_one_broken_file_stores_none(files: dict[str, str], root: Path, ask: Ask, order: list[str]) -> None:
    """Exit code 2, the line by number, and nothing of the other file either."""
    printed = ask("import", "a/b/c", *(files[name] for name in order), root=root)
    assert printed.code == 2
    assert "broken.csv: line 3 has 3 cells, the table has 2 columns" in printed.err
    assert not root.exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["a/b/c", "{motor.csv}", "-g", "p"], 2, "'p' is no group: write p=x,y,z, or auto"),
        (["a/b/c", "{motor.csv}", "-g", "p=x,w"], 2, "no column 'w'"),
        (["a/b/c", "{motor.csv}", "--time", "tt"], 2, "no column 'tt' for the timestamp"),
        (["a/b/c", "{motor.csv}", "{traj.txt}", "--topic", "x"], 2, "--topic is for a single file"),
        (["a/b/c", "{motor.csv}", "{motor.csv}"], 0, ""),
        (["a/b", "{motor.csv}"], 2, "needs at least owner/project/name"),
        (["a/b/c", "/no/such.csv"], 2, "does not exist"),
        (["a/b/c"], 2, "Missing argument"),
    ],
)
def test_wrong_words(files: dict[str, str], root: Path, ask: Ask, words: list[str], code: int, told: str) -> None:
    """Each mistake is told in one line."""
    filled = [files.get(word.strip("{}"), word) for word in words]
    printed = ask("import", *filled, root=root)
    assert printed.code == code
    assert told in " ".join(printed.err.split())
    assert "Traceback" not in printed.err


def full_disk_at(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let storing fail at the n-th file, when its rows are appended."""
    store, calls = Prepared.store, []

    def failing(self: Prepared, *args: Any) -> None:
        calls.append(args)
        store(self, *args)
        if len(calls) == file:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Prepared, "store", failing)


@pytest.mark.parametrize("file", [1, 2])
def test_full_disk_takes_everything_back(
    files: dict[str, str], root: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    """Where storing itself fails, an experiment that is new is not there, nor the root that was made for it."""
    full_disk_at(file, monkeypatch)
    printed = ask("import", "a/b/c", files["traj.txt"], files["motor.csv"], root=root)
    assert printed.code == 1
    assert "No space left" in printed.err
    assert not root.exists()


# ---------------------------------------------------------------- into an experiment that exists


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is not derived, with what is in it."""
    derived = (".index", ".types", ".columns", ".lock")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in derived)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def more(tmp_path: Path) -> list[str]:
    """A file for a topic that exists, and one for a topic that is new."""
    (tmp_path / "laser.csv").write_text("t,note\n0.1,seen\n7,late\n0.05,early\n")
    (tmp_path / "motor.csv").write_text("t,current\n0,1.5\n1,2.5\n")
    return [str(tmp_path / "laser.csv"), str(tmp_path / "motor.csv")]


def test_rows_join_a_run_that_ended(own_recordings: Path, ask: Ask, more: list[str]) -> None:
    """Rows merge into its tracks, new topics come, the log has a line; how it ended, and every other file, stays."""
    failed, before = IMU, contents(own_recordings / IMU)
    assert ask("import", failed, *more, root=own_recordings).code == 0
    assert ask("import", PICK, *more, root=own_recordings).code == 0
    after = contents(own_recordings / IMU)
    assert {name: after[name] for name in ("experiment.json", "tracks/imu/data.jsonl")} == {
        name: before[name] for name in ("experiment.json", "tracks/imu/data.jsonl")
    }
    assert ask("ls", failed, "--json", root=own_recordings).json[0]["status"] == "failed"
    with ml_dash.open(PICK, dash_root=own_recordings) as exp:
        laser = exp.tracks("laser").list_entries()
        assert [entry["timestamp"] for entry in laser] == [0.0, 0.05, 0.1, 7.0]
        assert laser[2]["note"] == "seen"
        assert laser[2]["ranges"][0] == 2.0
        assert exp.tracks("motor").list_entries()[1] == {"timestamp": 1.0, "current": 2.5}
        assert [(line["message"], line["index"]) for line in exp.log.read()] == [("started", 0), ("imported", 1)]
    assert ask("verify", root=own_recordings).code == 0


def test_rows_join_a_run_that_goes_on(own_recordings: Path, ask: Ask, more: list[str]) -> None:
    """It is running before and after, and loses nothing."""
    with Experiment(PICK, dash_root=own_recordings).run as exp:
        exp.tracks("laser").append(note="before", _ts=0.2).flush()
        assert ask("import", PICK, *more, root=own_recordings).code == 0
        assert ask("ls", PICK, "--json", root=own_recordings).json[0]["status"] == "running"
        exp.tracks("laser").append(note="after", _ts=0.3)
    assert ask("ls", PICK, "--json", root=own_recordings).json[0]["status"] == "completed"
    with ml_dash.open(PICK, dash_root=own_recordings) as exp:
        notes = [entry.get("note") for entry in exp.tracks("laser").list_entries()]
    assert notes == [None, "early", "seen", "before", "after", "late"]


@pytest.mark.parametrize("failing", ["storing", "the first copy", "the second copy", "the log"])
def test_a_failed_import_changes_nothing(
    own_recordings: Path, ask: Ask, more: list[str], failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the disk is full: every file is as it was, no topic came, the run did not fail, nothing is left."""
    before = contents(own_recordings)
    joined = adopt._join
    seen: list[Any] = []

    def join(*given: Any) -> None:
        seen.append(given)
        joined(*given)
        if len(seen) == (2 if failing == "the second copy" else 1):
            raise OSError(28, "No space left on device")

    append = LocalStore.append

    def refused(self: LocalStore, batch: Batch) -> None:
        if batch.writer.startswith("import-"):
            raise OSError(28, "No space left on device")
        append(self, batch)

    if failing == "storing":
        full_disk_at(2, monkeypatch)
    elif failing == "the log":
        monkeypatch.setattr(LocalStore, "append", refused)
    else:
        monkeypatch.setattr(adopt, "_join", join)
    printed = ask("import", PICK, *more, root=own_recordings)
    assert (printed.code, "No space left" in printed.err) == (1, True)
    assert contents(own_recordings) == before


KILLED = """
import os, signal, sys
from ml_dash.files import Files
from ml_dash.cli.app import run

replace, place = Files.replace, int(sys.argv[1])
seen = []

def killed(self, source, target):
    if str(source).endswith(".data.jsonl.import"):
        seen.append(source)
        if len(seen) > place:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, source, target)

Files.replace = killed
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_import_leaves_whole_tracks_and_the_next_one_tidies(
    own_recordings: Path, ask: Ask, more: list[str]
) -> None:
    """Before the first file takes its name nothing has changed; the next import removes what the killed one left."""
    before = {name: body for name, body in contents(own_recordings / PICK).items() if name.startswith("tracks/laser")}
    words = ["import", PICK, *more, "-r", str(own_recordings)]
    done = subprocess.run([sys.executable, "-c", KILLED, "0", *words], timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    after = contents(own_recordings / PICK)
    assert {name: after[name] for name in before} == before
    assert list(own_recordings.glob(".import-*"))
    assert ask(*words).code == 0
    assert not list(own_recordings.glob(".import-*"))
    assert not list(own_recordings.rglob("*.import"))
    assert stored(own_recordings, PICK)["laser"] == 4
