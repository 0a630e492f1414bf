"""`ml-dash import`: what it shows, what it stores, and that it stores all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from terminal import PICK, Ask

import ml_dash
from ml_dash.importing import Prepared


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
    """Where storing itself fails, an experiment that is new goes again."""
    full_disk_at(file, monkeypatch)
    printed = ask("import", "a/b/c", files["traj.txt"], files["motor.csv"], root=root)
    assert printed.code == 1
    assert "No space left" in printed.err
    assert ask("ls", "--json", root=root).json == []


def test_full_disk_leaves_what_was_there(
    files: dict[str, str], own_recordings: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an experiment that existed only the new topics go."""
    before = stored(own_recordings, PICK)
    full_disk_at(2, monkeypatch)
    assert ask("import", PICK, files["traj.txt"], files["motor.csv"], root=own_recordings).code == 1
    assert stored(own_recordings, PICK) == before
