"""`compact`, `recover`, `verify`, `rm`, `du`: looking after what was recorded."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import IMU, PICK, Ask, command

import ml_dash
from ml_dash.stores.index import Fingerprint
from ml_dash.verify import verify

KILLED = """
import os, signal, sys
from ml_dash import Experiment
exp = Experiment("carol/arm/killed", dash_root=sys.argv[1]).run.start()
for number in range(1000):
    exp.tracks("a/b").append(x=float(number), _ts=number / 100)
exp.log("about to go")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The root of a run that was killed with everything still in its journal."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    return tmp_path


# ---------------------------------------------------------------- recover


def test_recover_stores_what_a_killed_run_left(killed: Path, ask: Ask) -> None:
    """Before and after, every entry is read; after, it is in `data.jsonl`, compacted, and no journal is left."""
    folder = killed / "carol/arm/killed"
    assert ask("ls", "--json", root=killed).json[0]["status"] == "crashed"
    assert len(ask("cat", "latest", "a/b", root=killed).lines) == 1000
    printed = ask("recover", root=killed)
    assert printed == (0, "carol/arm/killed: 1 journal, 1,001 entries recovered\n", "")
    assert len((folder / "tracks/a_b/data.jsonl").read_bytes().splitlines()) == 1000
    assert [one.name for one in (folder / ".journal").iterdir() if not one.name.startswith(".")] == []
    assert "nothing to recover" in ask("recover", "carol", root=killed).err
    assert len(ask("cat", "latest", "a/b", root=killed).lines) == 1000


def test_recover_reports_damage(killed: Path, ask: Ask) -> None:
    """A damaged record is told, with exit code 1; the sound ones are stored."""
    segment = next((killed / "carol/arm/killed/.journal").glob("*/*.seg"))
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"\xa1x\xcb") + 5] ^= 0xFF
    segment.write_bytes(raw)
    printed = ask("recover", "--json", root=killed)
    assert printed.code == 1
    assert printed.json[0]["journals"] == 1
    assert printed.json[0]["damage"]
    assert len(ask("cat", "latest", "a/b", root=killed).lines) == 999
    found = ask("verify", "--json", root=killed)
    assert found.code == 1
    assert any("damaged journal" in one["text"] for one in found.json)


def test_recover_leaves_a_running_run_alone(own_recordings: Path, ask: Ask) -> None:
    """Its journal belongs to somebody."""
    with ml_dash.Experiment(PICK, dash_root=own_recordings).run as exp:
        exp.tracks("robot/state").append(q=[0.0, 0.0], _ts=50.0)
        assert "nothing to recover" in ask("recover", root=own_recordings).err
        assert "running" in ask("ls", root=own_recordings).out


# ---------------------------------------------------------------- verify


def test_sound_experiments_have_no_findings(own_recordings: Path, ask: Ask) -> None:
    """Nothing to say of finished runs, also when all derived files are there."""
    assert ask("compact", PICK, "--columns", root=own_recordings).code == 0
    printed = ask("verify", root=own_recordings)
    assert printed == (0, "", "2 experiments verified, 0 problems\n")
    assert ask("verify", "--json", root=own_recordings).json == []


DATA = f"{PICK}/tracks/robot_state/data.jsonl"


def edit(root: Path, change: Callable[[bytes], bytes], name: str = DATA) -> None:
    """Change a file in place."""
    path = root / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "problem", "told"),
    [
        (DATA, lambda raw: raw.replace(b"\n", b"\nnot an entry\n", 1), True, "is no entry and is passed over (byte"),
        (DATA, lambda raw: raw[:-30], False, "the last line is torn"),
        (DATA, lambda raw: raw + raw.splitlines(keepends=True)[0], False, "late entries"),
        (f"{PICK}/experiment.json", lambda raw: raw[:40], True, "is no JSON object"),
        (f"{PICK}/params.json", lambda raw: b"[]", True, "is no JSON object"),
        (f"{PICK}/.state", lambda raw: b"x" + raw, False, "is damaged"),
        (f"{PICK}/tracks/robot_state/.index", lambda raw: raw[:100], False, "does not fit the data"),
        (f"{PICK}/logs/logs.jsonl", lambda raw: b"{}\n" + raw, True, "is no entry"),
    ],
)
def test_verify_finds(
    own_recordings: Path, ask: Ask, name: str, change: Callable[[bytes], bytes], problem: bool, told: str
) -> None:
    """Each kind of damage is told with its file; a problem makes the exit code 1, a note does not."""
    edit(own_recordings, change, name)
    printed = ask("verify", PICK, root=own_recordings)
    assert printed.code == int(problem)
    assert told in printed.out
    assert ("problem" in printed.out) == problem
    assert Path(name).name.split(".")[0] in printed.out
    quiet = ask("verify", PICK, "--quiet", root=own_recordings)
    assert bool(quiet.out) == problem


@pytest.mark.parametrize("ctime", [True, False])
def test_verify_compares_derived_files_with_the_data(
    own_recordings: Path, ask: Ask, ctime: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types or columns that claim to fit and say something else are problems; the ctime, where there is one, shows
    an edit of the same size whose mtime was put back."""
    pytest.importorskip("pyarrow")
    if not ctime:  # as on Windows
        of = Fingerprint.of
        monkeypatch.setattr(Fingerprint, "of", lambda stat: of(stat)._replace(ctime_ns=0))
    data = own_recordings / DATA
    os.utime(data, ns=(data.stat().st_atime_ns, data.stat().st_mtime_ns - 10**9))
    assert ask("compact", PICK, "--columns", root=own_recordings).code == 0
    assert {".columns", ".types"} <= {path.name for path in data.parent.iterdir()}
    before = data.stat()
    data.write_bytes(data.read_bytes().replace(b'"phase":"reach"', b'"phase":1.25e03', 1))
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    told = {finding.path.name for finding in verify(own_recordings / PICK) if finding.problem}
    assert told == (set() if ctime else {".columns", ".types"})


def test_verify_tells_what_waits(killed: Path, ask: Ask) -> None:
    """Journals of processes that are gone are a note that names the command."""
    printed = ask("verify", root=killed)
    assert printed.code == 0
    assert "1,001 records of a process that is gone wait: 'ml-dash recover'" in printed.out


# ---------------------------------------------------------------- compact


def test_compact_sorts_late_entries_in(own_recordings: Path, ask: Ask) -> None:
    """Only what needs it is rewritten; what is read stays the same."""
    late = b'{"timestamp":0.005,"late":true}\n{"timestamp":1.0,"phase":"grasp"}\n'
    edit(own_recordings, lambda raw: raw + late)
    before = ask("cat", PICK, "robot/state", "--json", root=own_recordings).out
    rewritten = ask("compact", "--json", root=own_recordings).json
    assert [(one["prefix"], one["topic"]) for one in rewritten] == [(PICK, "robot/state")]
    lines = (own_recordings / DATA).read_bytes().splitlines()
    stamps = [json.loads(line)["timestamp"] for line in lines]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 301
    assert ask("cat", PICK, "robot/state", "--json", root=own_recordings).out == before
    assert "nothing to do" in ask("compact", root=own_recordings).err


# ---------------------------------------------------------------- rm


def answered(words: list[str], root: Path, answer: str) -> tuple[int, str]:
    """The command on a terminal where somebody answers; its code and what it asked."""
    main, sub = pty.openpty()
    process = subprocess.Popen(command(*words, root=root), stdin=sub, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(sub)
    os.write(main, f"{answer}\n".encode())
    _, asked = process.communicate(timeout=60)
    os.close(main)
    return process.returncode, asked.decode()


def test_rm_asks(own_recordings: Path) -> None:
    """Nothing goes without a yes; the question says how much it is."""
    code, asked = answered(["rm", IMU], own_recordings, "n")
    assert code != 0
    assert "Delete bob/drone/imu with 1 topic" in asked
    assert (own_recordings / IMU).is_dir()
    code, asked = answered(["rm", IMU], own_recordings, "y")
    assert code == 0
    assert not (own_recordings / "bob").exists()


def test_rm_of_topics(own_recordings: Path, ask: Ask) -> None:
    """Patterns of topics go, the others stay."""
    printed = ask("rm", PICK, "robot/*", "laser", "--yes", root=own_recordings)
    assert printed.code == 0
    assert [one["topic"] for one in ask("ls", PICK, "--json", root=own_recordings).json[0]["topics"]["tracks"]] == [
        "camera/pose",
        "events",
    ]


def test_rm_of_a_running_experiment_is_refused(own_recordings: Path, ask: Ask) -> None:
    """Who records keeps the folder."""
    with ml_dash.Experiment(PICK, dash_root=own_recordings).run:
        printed = ask("rm", PICK, "-y", root=own_recordings)
        assert printed.code == 1
        assert "is being recorded now" in printed.err
    assert ask("rm", PICK, "-y", root=own_recordings).code == 0


def test_rm_leaves_experiments_below(own_recordings: Path, ask: Ask) -> None:
    """A prefix may be the beginning of another one's; that one stays whole."""
    with ml_dash.Experiment(f"{PICK}/second/try", dash_root=own_recordings).run as exp:
        exp.tracks("a").append(x=1, _ts=1.0)
    assert ask("rm", PICK, "-y", root=own_recordings).code == 0
    assert [one["prefix"] for one in ask("ls", "--json", root=own_recordings).json] == [f"{PICK}/second/try", IMU]
    assert len(ask("cat", f"{PICK}/second/try", root=own_recordings).lines) == 1


# ---------------------------------------------------------------- du


def test_du_adds_up(own_recordings: Path, ask: Ask) -> None:
    """Data, derived and journal together are every byte of the folder."""
    found = ask("du", "--json", root=own_recordings).json
    for one in found:
        files = [path for path in (own_recordings / one["prefix"]).rglob("*") if path.is_file()]
        assert one["data_bytes"] + one["derived_bytes"] + one["journal_bytes"] == sum(f.stat().st_size for f in files)
    assert ask("du", root=own_recordings).lines[-1].startswith("total")
    topics = ask("du", PICK, "--json", root=own_recordings).json
    assert topics[0]["topic"] == "robot/state"
    assert topics[0]["data_bytes"] == (own_recordings / DATA).stat().st_size
