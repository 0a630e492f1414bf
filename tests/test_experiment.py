"""A run's life: how it begins, ends, dies and goes on; alone and with others; and reading without changing anything."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ml_dash
from ml_dash import Experiment, ExperimentNotFound, InvalidEntry, InvalidPrefix, InvalidTopic, NotOpen, StoreCorrupt
from ml_dash import open as open_run
from ml_dash.journal_files import SEGMENT_HEADER

PREFIX = "alice/robotics/pick"
WAIT_S = 30.0
KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to programs")
needs_posix_names = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has text names and keeps folders in use"
)


def document(folder: Path) -> dict[str, Any]:
    """`experiment.json` by the `json` module."""
    found = json.loads((folder / "experiment.json").read_bytes())
    assert isinstance(found, dict)
    return found


def values(experiment: Experiment, topic: str = "x", field: str = "v") -> list[Any]:
    """One field of every entry of a track."""
    return [entry.get(field) for entry in experiment.tracks(topic).list_entries()]


class Program:
    """A Python program with an experiment's root; it says lines, and waits for lines."""

    def __init__(self, code: str, root: Path, **environment: str) -> None:
        head = "import os, signal, sys\nfrom ml_dash import Experiment\nROOT, PREFIX = sys.argv[1:3]\n"
        tail = "\n"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", head + code + tail, str(root), PREFIX],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip

    def heard(self, line: str) -> None:
        """Wait until the program says the line."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().strip()
        if found != line:
            pytest.fail(f"expected {line!r}, got {found!r}; {self.end()}")

    def say(self, line: str) -> None:
        """Give the program a line to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self, number: int = KILL) -> None:
        """End the program by a signal."""
        self.process.send_signal(number)
        self.end()

    def end(self) -> str:
        """Wait for the end; what the program printed to stderr."""
        _, errors = self.process.communicate(timeout=WAIT_S)
        return errors

    def succeeds(self) -> None:
        """Wait for the end, which is a good one."""
        errors = self.end()
        assert self.process.returncode == 0, errors
        assert errors == ""


@pytest.fixture
def program(root: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs on `root`; what is left of them is ended after the test."""
    started: list[Program] = []

    def start(code: str, **environment: str) -> Program:
        started.append(Program(code, root, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=WAIT_S)


def wait_for(condition: Callable[[], bool]) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# ---------------------------------------------------------------- beginning and end


def test_a_run_that_completes(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """None, running, completed; everything stored at the end, and no journal left."""
    experiment = new_experiment()
    assert experiment.status is None
    assert not folder.exists()
    with experiment.run as exp:
        assert exp is experiment
        assert experiment.status == document(folder)["status"] == "running"
        exp.tracks("x").append(_ts=1.0, v=1)
    assert experiment.status == document(folder)["status"] == "completed"
    assert (folder / "tracks/x/data.jsonl").read_bytes() == b'{"timestamp":1.0,"v":1}\n'
    assert [name for name in os.listdir(folder / ".journal") if not name.startswith(".")] == []


def test_what_experiment_json_holds(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """Prefix, times, and for each process host, command, commit and pairs of wall and monotonic clock readings."""
    before = time.time(), time.monotonic()
    with new_experiment(readme="about", tags=["a", "b"], metadata={"robot": {"dof": 7}}).run:
        pass
    after = time.time(), time.monotonic()
    found = document(folder)
    assert found["prefix"] == PREFIX
    assert (found["readme"], found["tags"], found["metadata"]) == ("about", ["a", "b"], {"robot": {"dof": 7}})
    assert found["created_at"] == found["started_at"] < found["ended_at"]
    assert found["started_at"].endswith("Z")
    (process,) = found["processes"]
    assert process["pid"] == os.getpid()
    assert process["command"][0] == sys.executable
    assert process["status"] == "completed"
    assert {"host", "python", "platform", "git", "working_directory", "started_at", "ended_at"} <= set(process)
    for name in ("clocks", "clocks_at_end"):
        assert before[0] <= process[name]["wall"] <= after[0]
        assert before[1] <= process[name]["monotonic"] <= after[1]


def test_the_commit_is_the_working_directorys(new_experiment: Callable[..., Experiment], workplace: Path) -> None:
    """In a git checkout the commit and whether it is clean; elsewhere nothing; a strange file name does not matter."""
    with new_experiment("a/b/none").run as experiment:
        assert experiment.info["processes"][0]["git"] is None
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "core.quotePath=false"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "m"], ["config", "core.quotePath", "false"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    with new_experiment("a/b/clean").run as experiment:
        assert experiment.info["processes"][0]["git"] == {"commit": commit, "dirty": False}
    name = os.fsdecode(b"\xff\xfe") if sys.platform == "linux" else "\u00ff"
    Path(name).write_text("x")
    subprocess.run(["git", "add", "-A"], check=True)
    with new_experiment("a/b/dirty").run as experiment:
        assert experiment.info["processes"][0]["git"] == {"commit": commit, "dirty": True}


def test_starting_and_ending_by_hand(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """start gives the experiment; complete, fail and cancel end it with their status and reason."""
    experiment = new_experiment()
    for end, status, error in (
        (experiment.run.complete, "completed", None),
        (lambda: experiment.run.fail("arm hit the table"), "failed", "arm hit the table"),
        (lambda: experiment.run.fail(ValueError("no path")), "failed", "ValueError: no path"),
        (experiment.run.fail, "failed", None),
        (experiment.run.cancel, "cancelled", None),
    ):
        assert experiment.run.start() is experiment
        end()
        assert experiment.status == document(folder)["status"] == status
        assert document(folder)["processes"][-1].get("error") == error


def test_a_run_may_end_inside_its_block(new_experiment: Callable[..., Experiment]) -> None:
    """What was said in the block counts, and leaving it does nothing more."""
    experiment = new_experiment()
    with experiment.run as exp:
        exp.run.cancel()
    assert experiment.status == "cancelled"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("the gripper slipped"), "failed", "RuntimeError: the gripper slipped"),
        (KeyboardInterrupt(), "cancelled", None),
        (SystemExit(), "completed", None),
        (SystemExit(0), "completed", None),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (SystemExit("no arm"), "failed", "SystemExit: no arm"),
        (GeneratorExit(), "completed", None),
    ],
    ids=repr,
)
def test_what_leaves_the_block_decides_the_status(
    new_experiment: Callable[..., Experiment], folder: Path, error: BaseException, status: str, text: str | None
) -> None:
    """An exception propagates as it is, and what was appended is stored."""
    experiment = new_experiment()
    with pytest.raises(type(error)) as caught, experiment.run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
        raise error
    assert caught.value is error
    assert experiment.status == status
    assert document(folder)["processes"][0].get("error") == text
    with open_run(PREFIX, dash_root=experiment.root) as opened:
        assert values(opened) == [1]


@pytest.mark.parametrize(
    ("code", "status", "returned"),
    [
        ("", "completed", 0),
        ("sys.exit(0)", "completed", 0),
        ("raise RuntimeError('lost')", "failed", 1),
        ("signal.raise_signal(signal.SIGINT)", "cancelled", -2),
    ],
)
def test_a_program_that_forgets_to_end_its_run(
    program: Callable[..., Program], root: Path, folder: Path, code: str, status: str, returned: int
) -> None:
    """At the interpreter's exit everything is stored, and the status tells whether an exception ended it."""
    ended = program(
        f"exp = Experiment(PREFIX, dash_root=ROOT).run.start()\nexp.tracks('x').append(_ts=1.0, v=1)\n{code}"
    )
    ended.end()
    assert ended.process.returncode == returned
    assert document(folder)["status"] == status
    assert (folder / "tracks/x/data.jsonl").read_bytes() == b'{"timestamp":1.0,"v":1}\n'


@needs_signals
@pytest.mark.parametrize("there", [True, False], ids=["server", "no server"])
def test_a_program_that_forgets_to_end_its_run_on_a_server(
    program: Callable[..., Program], root: Path, there: bool
) -> None:
    """Ctrl-C ends it as Ctrl-C ends programs, whatever is loaded and sent at the interpreter's exit."""
    from http_server import Server
    from ml_dash.catalog import LocalCatalog
    from ml_dash.server.app import create_app

    with Server(create_app(LocalCatalog(root.parent / "served"), tokens=None)) as server:
        url = server.url if there else "http://127.0.0.1:9"
        ended = program(
            f"exp = Experiment(PREFIX, dash_root=ROOT, dash_url={url!r}, token='x').run.start()\n"
            "exp.tracks('x').append(_ts=1.0, v=1)\nsignal.raise_signal(signal.SIGINT)"
        )
        ended.end()
    assert ended.process.returncode == -signal.SIGINT


@needs_signals
def test_ctrl_c_cancels(program: Callable[..., Program], folder: Path) -> None:
    """SIGINT in the block: cancelled, and the program ends as Python ends then."""
    running = program(
        "with Experiment(PREFIX, dash_root=ROOT).run as exp:\n"
        "    exp.tracks('x').append(_ts=1.0, v=1)\n    print('ready', flush=True)\n    sys.stdin.readline()"
    )
    running.heard("ready")
    running.kill(signal.SIGINT)
    assert document(folder)["status"] == "cancelled"
    assert (folder / "tracks/x/data.jsonl").exists()


@pytest.mark.parametrize(
    ("left", "met", "status"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt(), "cancelled"),
        (None, KeyboardInterrupt(), "cancelled"),
        (ValueError("mine"), KeyboardInterrupt(), "failed"),
        (None, OSError("the disk"), "failed"),
        (KeyboardInterrupt(), OSError("the disk"), "cancelled"),
        (ValueError("mine"), OSError("the disk"), "failed"),
    ],
    ids=str,
)
def test_trouble_while_closing(
    new_experiment: Callable[..., Experiment], folder: Path, left: BaseException | None, met: BaseException, status: str
) -> None:
    """Ctrl-C again, or a disk that refuses: the status tells how the run ended, the block's own exception leaves it
    unless Ctrl-C came last, and the next open stores the rest."""
    experiment = new_experiment()
    wanted = left if left is not None and isinstance(met, Exception) else met

    def refuse(*_: object, **__: object) -> None:
        raise met

    with pytest.raises(type(wanted)) as raised, experiment.run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
        exp._session._drain.run = refuse
        if left is not None:
            raise left
    assert raised.value is wanted
    assert "the next open stores it" in "".join(raised.value.__notes__)
    assert (document(folder)["status"], document(folder)["processes"][0]["status"]) == (status, status)
    with experiment.run as exp:
        assert values(exp) == [1]


# ---------------------------------------------------------------- use outside an open run


def test_use_outside_a_run(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """Before the start and after the end every use raises NotOpen and says where to write it."""
    experiment = new_experiment()
    kept: list[Any] = []

    def uses() -> list[Callable[[], Any]]:
        return [
            lambda: experiment.tracks("x"),
            lambda: experiment.tracks.flush(),
            lambda: experiment.tracks.list(),
            lambda: len(experiment.tracks),
            lambda: experiment.metrics("train"),
            lambda: experiment.metrics.list(),
            lambda: experiment.metrics.flush(),
            lambda: experiment.params.set(a=1),
            lambda: experiment.params.get(),
            lambda: experiment.log("hello"),
            lambda: experiment.log.read(),
            lambda: experiment.run.complete(),
            lambda: experiment.run.fail("x"),
            lambda: experiment.run.cancel(),
            lambda: experiment.__enter__(),
            *[lambda one=one: one.append(_ts=2.0) for one in kept[:1]],
            *[lambda one=one: one.extend(_ts=[2.0]) for one in kept[:1]],
            *[lambda one=one: one.read() for one in kept],
            *[lambda one=one: one.flush() for one in kept],
            *[lambda one=one: len(one) for one in kept],
            *[lambda one=one: one.log(a=1) for one in kept[1:]],
        ]

    for use in uses():
        with pytest.raises(NotOpen, match=r"with experiment\.run|is not open"):
            use()
    assert not folder.exists()
    with experiment.run as exp:
        kept = [exp.tracks("x").append(_ts=1.0), exp.metrics("train").log(a=1)]
        with pytest.raises(NotOpen, match=f"^{PREFIX} is open already$"):
            experiment.run.start()
    for use in uses():
        with pytest.raises(NotOpen, match=r"with experiment\.run|is not open"):
            use()
    assert issubclass(NotOpen, RuntimeError)


def test_builders_that_were_kept_go_on(new_experiment: Callable[..., Experiment]) -> None:
    """What the user holds of tracks and metrics works in the next run of the same experiment."""
    experiment = new_experiment()
    with experiment.run:
        track, metric = experiment.tracks("x").append(_ts=1.0, v=1), experiment.metrics("train").log(a=1)
    with experiment.run:
        assert track.append(_ts=2.0, v=2).flush() is experiment.tracks("x")
        metric.log(a=2)
        assert values(experiment) == [1, 2]
        assert metric.read()["count"] == len(metric) == 2


def test_an_open_generator_of_a_closed_run(new_experiment: Callable[..., Experiment]) -> None:
    """A read that has begun ends well or with NotOpen when the run is closed under it, never with a lower error."""
    experiment = new_experiment().run.start()
    experiment.tracks("x").extend(_ts=range(5000), v=range(5000) and list(range(5000))).flush()
    reading = iter(experiment.tracks("x").blocks())
    next(reading)
    experiment.run.complete()
    try:
        list(reading)
    except NotOpen:
        pass


# ---------------------------------------------------------------- opening again


def test_opening_again_continues(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """The same experiment goes on: entries, parameters, metrics and log lines add up, sessions are counted."""
    for number in range(3):
        with new_experiment().run as exp:
            exp.tracks("x").append(_ts=float(-number), v=number)
            exp.tracks("x").append(_ts=1.0, **{f"n{number}": number})
            exp.metrics("train").log(loss=number)
            exp.params.set({f"p{number}": number})
            exp.log(f"line {number}")
    found = document(folder)
    assert (found["session"], found["status"], len(found["processes"])) == (3, "completed", 3)
    assert found["created_at"] == found["processes"][0]["started_at"]
    assert found["started_at"] == found["processes"][2]["started_at"]
    with open_run(PREFIX, dash_root=folder.parents[2]) as opened:
        assert [entry["timestamp"] for entry in opened.tracks("x").list_entries()] == [-2.0, -1.0, 0.0, 1.0]
        assert opened.tracks("x").read(1.0, 1.0)["entries"] == [{"timestamp": 1.0, "n0": 0, "n1": 1, "n2": 2}]
        assert [entry["loss"] for entry in opened.metrics("train").read()["entries"]] == [0, 1, 2]
        assert opened.params.get() == {"p0": 0, "p1": 1, "p2": 2}
        assert [line["message"] for line in opened.log.read()] == ["line 0", "line 1", "line 2"]


def test_a_failed_run_that_goes_on_completes(new_experiment: Callable[..., Experiment]) -> None:
    """The status is that of the newest session."""
    experiment = new_experiment()
    experiment.run.start().run.fail("no")
    with experiment.run:
        assert experiment.status == "running"
    assert experiment.status == "completed"


# ---------------------------------------------------------------- death

KILLED = """
exp = Experiment(PREFIX, dash_root=ROOT).run.start()
for number in range(1000):
    exp.tracks('x').append(_ts=float(number), v=number)
    if number == 500:
        exp.tracks.flush()
exp.metrics('train').log(loss=1).log(loss=2)
exp.log('before the end')
exp.params.set(lr=0.1)
print('ready', flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("number", sorted({KILL, signal.SIGTERM}))
def test_a_killed_run_has_crashed_and_lost_nothing(
    program: Callable[..., Program], root: Path, folder: Path, number: int
) -> None:
    """Readers see every entry whose append had returned, at once and unchanged; a new start recovers and goes on."""
    killed = program(KILLED)
    killed.heard("ready")
    killed.kill(number)
    before = files_of(folder)
    with open_run(PREFIX, dash_root=root) as opened:
        assert opened.status == "crashed"
        assert values(opened) == list(range(1000))
        assert [entry["loss"] for entry in opened.metrics("train").read()["entries"]] == [1, 2]
        assert [line["message"] for line in opened.log.read()] == ["before the end"]
        assert opened.params.get() == {"lr": 0.1}
        assert [(info.topic, info.count) for info in opened.tracks.list()] == [("x", 1000)]
    assert files_of(folder) == before
    experiment = Experiment(PREFIX, dash_root=root)
    assert experiment.status == "crashed"
    with experiment.run as exp:
        assert values(exp) == list(range(1000))
        exp.tracks("x").append(_ts=1000.0, v=1000)
        exp.metrics("train").log(loss=3)
    found = document(folder)
    assert (found["status"], [one["status"] for one in found["processes"]]) == ("completed", ["crashed", "completed"])
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == list(range(1001))
        assert [entry["index"] for entry in opened.metrics("train").read()["entries"]] == [0, 1, 2]
    lines = (folder / "tracks/x/data.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["v"] for line in lines] == list(range(1001))


def test_a_crashed_run_that_is_listed_by_an_older_document(
    new_experiment: Callable[..., Experiment], folder: Path
) -> None:
    """A document that says running while nobody holds the run's lock means crashed, whatever numbers it names."""
    with new_experiment().run:
        pass
    found = document(folder)
    found["status"] = found["processes"][0]["status"] = "running"
    found["processes"][0]["pid"] = os.getpid()
    (folder / "experiment.json").write_text(json.dumps(found))
    assert new_experiment().status == "crashed"


# ---------------------------------------------------------------- several at once

RANK = """
rank = int(os.environ['RANK'])
with Experiment(PREFIX, dash_root=ROOT).run as exp:
    print('ready', flush=True)
    sys.stdin.readline()
    for number in range(300):
        exp.tracks('shared').append(_ts=float(number), **{f'rank{rank}': number})
        exp.tracks(f'own/{rank}').append(_ts=float(number), v=number)
        exp.metrics('train').log(rank=rank, step=number)
        if number % 100 == rank:
            exp.tracks.flush()
    exp.params.set({f'rank{rank}': {'done': True}})
    print('done', flush=True)
    sys.stdin.readline()
    if os.environ.get('FAIL') == str(rank):
        raise RuntimeError('rank failed')
"""


def test_several_processes_record_one_run(program: Callable[..., Program], root: Path, folder: Path) -> None:
    """Ranks on one prefix: their fields meet in one entry, nothing is lost or doubled, the last one ends the run."""
    ranks = [program(RANK, RANK=str(number)) for number in range(3)]
    for rank in ranks:
        rank.heard("ready")
    for rank in ranks:
        rank.say("go")
    for rank in ranks:
        rank.heard("done")
    with open_run(PREFIX, dash_root=root) as opened:
        assert opened.status == "running"
        assert opened.tracks("shared").read()["count"] == 300
    for rank in ranks[:2]:
        rank.say("leave")
        rank.succeeds()
    assert document(folder)["status"] == "running"
    ranks[2].say("leave")
    ranks[2].succeeds()
    found = document(folder)
    assert (found["status"], found["session"]) == ("completed", 1)
    assert [one["status"] for one in found["processes"]] == ["completed"] * 3
    with open_run(PREFIX, dash_root=root) as opened:
        assert opened.tracks("shared").list_entries() == [
            {"timestamp": float(n), "rank0": n, "rank1": n, "rank2": n} for n in range(300)
        ]
        for number in range(3):
            assert values(opened, f"own/{number}") == list(range(300))
            steps = [e["step"] for e in opened.metrics("train").read()["entries"] if e["rank"] == number]
            assert steps == list(range(300))
        assert opened.params.get() == {f"rank{number}": {"done": True} for number in range(3)}
    stamps = [json.loads(line)["timestamp"] for line in (folder / "tracks/shared/data.jsonl").read_bytes().splitlines()]
    assert stamps == [float(number) for number in range(300)]


def test_one_failing_rank_fails_the_run(program: Callable[..., Program], folder: Path) -> None:
    """The run's status is the worst of its processes'."""
    ranks = [program(RANK, RANK=str(number), FAIL="0") for number in range(2)]
    for rank in ranks:
        rank.heard("ready")
        rank.say("go")
    for rank in ranks:
        rank.heard("done")
        rank.say("leave")
        rank.end()
    assert document(folder)["status"] == "failed"
    assert {one["status"] for one in document(folder)["processes"]} == {"failed", "completed"}


def test_a_dead_neighbours_entries_are_stored_by_the_living(
    program: Callable[..., Program], root: Path, folder: Path
) -> None:
    """While one process records on, another one's journal is applied after its death; the run has crashed in part."""
    killed = program(KILLED)
    killed.heard("ready")
    with Experiment(PREFIX, dash_root=root).run as exp:
        assert values(exp) == list(range(1000))
        killed.kill()
        assert values(exp) == list(range(1000))
        exp.tracks("x").append(_ts=0.0, v="newer").flush()
        assert values(exp)[:2] == ["newer", 1]
        assert len((folder / "tracks/x/data.jsonl").read_bytes().splitlines()) >= 1001
    assert document(folder)["status"] == "crashed"
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == ["newer", *range(1, 1000)]


def test_two_experiments_in_one_process(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """Two objects on one prefix record together, each in its own journal; the later append to leave wins."""
    first, second = new_experiment(), new_experiment()
    with first.run, second.run:
        first.tracks("x").append(_ts=1.0, a=1)
        second.tracks("x").append(_ts=1.0, b=2)
        assert (
            first.tracks("x").list_entries()
            == second.tracks("x").list_entries()
            == [{"timestamp": 1.0, "a": 1, "b": 2}]
        )
        second.tracks.flush()
        second.run.complete()
        assert document(folder)["status"] == "running"
        first.tracks("x").append(_ts=1.0, b=3)
    assert document(folder)["status"] == "completed"
    with open_run(PREFIX, dash_root=first.root) as opened:
        assert opened.tracks("x").list_entries() == [{"timestamp": 1.0, "a": 1, "b": 3}]


def test_threads_record_together(new_experiment: Callable[..., Experiment]) -> None:
    """Appends of several threads to shared and own topics are all there, while other threads read and flush."""
    errors: list[BaseException] = []
    with new_experiment().run as exp:
        done = threading.Event()

        def record(number: int) -> None:
            try:
                for step in range(400):
                    exp.tracks("shared").append(_ts=float(step), **{f"t{number}": step})
                    exp.tracks(f"own/{number}").append(_ts=float(step), v=step)
            except BaseException as error:
                errors.append(error)

        def look() -> None:
            try:
                while not done.is_set():
                    stamps = [entry["timestamp"] for entry in exp.tracks("shared").list_entries()]
                    assert stamps == sorted(set(stamps))
                    exp.tracks.flush()
                    exp.tracks.list()
            except BaseException as error:
                errors.append(error)

        writers = [threading.Thread(target=record, args=(number,)) for number in range(4)]
        reader = threading.Thread(target=look)
        for thread in (*writers, reader):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert errors == []
        assert exp.tracks("shared").list_entries()[399].keys() == {"timestamp", "t0", "t1", "t2", "t3"}
        for number in range(4):
            assert values(exp, f"own/{number}") == list(range(400))


ENDED_IN_A_HANDLER = """
from ml_dash.files import Files
exp = Experiment(PREFIX, dash_root=ROOT)
inside, leaves = sys.argv[3:5]

def handler(*_):
    exp.run.complete()
    if leaves == 'exit':
        sys.exit(0)

signal.signal(signal.SIGTERM, handler)
real = getattr(Files, inside)

def interrupted(self, *args, **options):
    import threading
    if armed and threading.current_thread() is threading.main_thread():
        armed.clear()
        os.kill(os.getpid(), signal.SIGTERM)
    return real(self, *args, **options)

setattr(Files, inside, interrupted)
armed = set()
with exp.run:
    track = exp.tracks('x')
    for n in range(50):
        track.append(_ts=float(n), v=n)
        if n == 10:
            armed.add(1)
        if n % 5 == 0:
            track.flush()
    print('not left', exp.status, flush=True)
"""


@pytest.mark.parametrize("inside", ["sync", "replace", "write_at"])
@pytest.mark.parametrize("leaves", ["exit", "return"])
def test_a_signal_handler_ends_the_run_wherever_it_comes(
    root: Path, inside: str, leaves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a flush or an append of its own thread nothing can be let go of: the run ends when the block is left."""
    monkeypatch.setenv("ML_DASH_JOURNAL", "write")
    head = "import os, signal, sys\nfrom ml_dash import Experiment\nROOT, PREFIX = sys.argv[1:3]\n"
    command = [sys.executable, "-c", head + ENDED_IN_A_HANDLER, str(root), PREFIX, inside, leaves]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with open_run(PREFIX, dash_root=root) as opened:
        assert opened.status == "completed"
        seen = values(opened)
        assert seen == list(range(50)) if leaves == "return" else seen == list(range(len(seen))) and len(seen) > 10


SPAWNED = """
import multiprocessing, sys
from ml_dash import Experiment

def work(exp, number):
    with exp.run:
        exp.tracks('x').append(_ts=float(number), v=number)

if __name__ == '__main__':
    with Experiment(sys.argv[2], dash_root=sys.argv[1], tags=['a']).run as exp:
        workers = [multiprocessing.get_context('spawn').Process(target=work, args=(exp, n)) for n in (1, 2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
"""


def test_spawned_workers_join_the_run(root: Path, tmp_path: Path) -> None:
    """An open experiment can be sent to a worker (a DataLoader's, where processes are spawned), which joins its run."""
    script = tmp_path / "workers.py"  # a spawned process imports it
    script.write_text(SPAWNED)
    subprocess.run([sys.executable, script, root, PREFIX], check=True, timeout=60)
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == [1, 2]
        assert len({one["pid"] for one in opened.info["processes"]}) == 3
        assert {one["session"] for one in opened.info["processes"]} == {1}


def test_a_copy_takes_no_token_along(experiment: Experiment) -> None:
    """Pickles are kept; what cannot be sent says what can."""
    exp = Experiment("a/b/c", dash_root=experiment.root, token="secret", watch={"x": 5.0}, durability="off")
    packed = pickle.dumps(exp)
    assert b"secret" not in packed
    copy = pickle.loads(packed)
    assert (copy.prefix, copy.root, copy.folder) == (exp.prefix, exp.root, exp.folder)
    for part in (experiment.tracks, experiment.tracks("x"), experiment.log):
        with pytest.raises(TypeError, match="send the experiment to the other process"):
            pickle.dumps(part)


CHILDREN = """
exp = Experiment(PREFIX, dash_root=ROOT).run.start()
exp.tracks('x').append(_ts=0.0, v='parent')
for number in (1, 2):
    child = os.fork()
    if child == 0:
        exp.tracks('x').append(_ts=float(number), v=f'child {number}')
        exp.metrics('train').log(child=number)
        if number == 1:
            sys.exit(0)
        os._exit(0)
    os.waitpid(child, 0)
idle = os.fork()
if idle == 0:
    exp.run.complete()
    os._exit(0)
os.waitpid(idle, 0)
print(exp.status, flush=True)
exp.tracks('x').append(_ts=3.0, v='parent')
exp.run.complete()
"""


ORPHAN = """
exp = Experiment(PREFIX, dash_root=ROOT).run.start()
if os.fork() == 0:
    exp.tracks('x').append(_ts=1.0, v='child')
    print('recording', flush=True)
    while not os.path.exists(os.path.join(ROOT, 'stop')):
        time.sleep(0.01)
    os._exit(0)
time.sleep(600)
"""


@needs_fork
def test_a_run_goes_on_in_a_child_that_outlives_its_parent(
    program: Callable[..., Program], root: Path, folder: Path
) -> None:
    """Running as long as the child records; crashed when it is gone without a word."""
    parent = program("import time\n" + ORPHAN)
    parent.heard("recording")
    parent.process.send_signal(KILL)
    parent.process.wait(60)
    with open_run(PREFIX, dash_root=root) as opened:
        assert (opened.status, values(opened)) == ("running", ["child"])
    (root / "stop").touch()
    parent.end()
    with open_run(PREFIX, dash_root=root) as opened:
        assert (opened.status, values(opened)) == ("crashed", ["child"])


@needs_fork
def test_forked_children_record_into_the_parents_run(program: Callable[..., Program], root: Path, folder: Path) -> None:
    """A child's entries are kept however it leaves, with its clocks; its leaving does not end its parent's run."""
    parent = program(CHILDREN)
    parent.heard("running")
    parent.succeeds()
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == ["parent", "child 1", "child 2", "parent"]
        assert sorted(entry["child"] for entry in opened.metrics("train").read()["entries"]) == [1, 2]
        assert opened.status == "completed"
        first, *children = opened.info["processes"]
        assert [child["status"] for child in children] == ["forked", "forked"], "the idle child recorded nothing"
        assert {child["parent"] for child in children} == {first["writer"]}
        assert len({one["pid"] for one in (first, *children)}) == 3
        for child in children:
            assert child["clocks"]["monotonic"] >= first["clocks"]["monotonic"]
            assert child["session"] == first["session"]


# ---------------------------------------------------------------- reading without changing anything


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its modification time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


READ_ONLY_MEDIA = """
import errno, json
import ml_dash
from ml_dash import open as open_run

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {f'os.{n}' for n in 'mkdir rename remove rmdir link symlink truncate chmod utime'.split()}

def refuse(event, arguments):
    if event == 'open' and not isinstance(arguments[0], int) and os.fsdecode(arguments[0]).startswith(ROOT):
        if arguments[2] & WRITING:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])
    if event in CHANGES and os.fsdecode(arguments[0]).startswith(ROOT):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])

sys.addaudithook(refuse)
"""

READ_ALL = """
with open_run(PREFIX, dash_root=ROOT) as exp:
    print(json.dumps({
        'entries': exp.tracks('x').list_entries(),
        'window': exp.tracks('x').read(2.0, 3.0, columns=['v'])['entries'],
        'jsonl': len(exp.tracks('x').read(format='jsonl').splitlines()),
        'parquet': len(exp.tracks('x').read(format='parquet')) > 0,
        'mocap': exp.tracks('x').read(format='mocap')['metadata']['frameCount'],
        'tracks': [[info.topic, info.count] for info in exp.tracks.list()],
        'metrics': exp.metrics('train').read()['count'],
        'log': [line['message'] for line in exp.log.read()],
        'params': exp.params.get(),
        'status': exp.status,
        'table': exp.tracks('x').table().num_rows,
    }), flush=True)
"""


@pytest.mark.parametrize("state", ["completed", "crashed", "no index"])
def test_reading_from_read_only_media(program: Callable[..., Program], root: Path, folder: Path, state: str) -> None:
    """Where every write, rename and new name is refused, everything is read, of finished and of crashed runs."""
    pytest.importorskip("pyarrow")
    recorder = program(
        "exp = Experiment(PREFIX, dash_root=ROOT).run.start()\n"
        "exp.tracks('x').append(_ts=3.0, v=3).flush().append(_ts=2.0, v=2).append(_ts=1.0, v=1)\n"
        "exp.metrics('train').log(loss=1)\nexp.params.set(a=1)\nexp.log('hello')\n"
        + ("os.kill(os.getpid(), signal.SIGKILL)" if state == "crashed" else "exp.run.complete()")
    )
    recorder.end()
    if state == "no index":
        for index in folder.rglob(".*index"):
            index.unlink()
    before = files_of(folder)
    reader = program(READ_ONLY_MEDIA + READ_ALL)
    assert reader.process.stdout is not None
    printed = reader.process.stdout.read()
    reader.succeeds()
    assert json.loads(printed) == {
        "entries": [{"timestamp": float(v), "v": v} for v in (1, 2, 3)],
        "window": [{"timestamp": float(v), "v": v} for v in (2, 3)],
        "jsonl": 3,
        "parquet": True,
        "mocap": 3,
        "tracks": [["x", 3]],
        "metrics": 1,
        "log": ["hello"],
        "params": {"a": 1},
        "status": "crashed" if state == "crashed" else "completed",
        "table": 3,
    }
    assert files_of(folder) == before


def test_reading_from_a_read_only_mount(new_experiment: Callable[..., Experiment], root: Path, tmp_path: Path) -> None:
    """The same on a real read-only mount, where this user may make one."""
    with new_experiment().run as exp:
        exp.tracks("x").append(_ts=2.0, v=2).flush().append(_ts=1.0, v=1)
    place = tmp_path / "mounted"
    place.mkdir()
    commands = [["mount", "--bind", str(root), str(place)], ["mount", "-o", "remount,bind,ro", str(place)]]
    done = [subprocess.run(command, capture_output=True, check=False).returncode for command in commands]
    try:
        if any(done):
            pytest.skip("this user may not mount: read-only media are tested by refusing the calls only")
        with pytest.raises(OSError, match="Read-only"):
            (place / "probe").write_text("x")
        with open_run(PREFIX, dash_root=place) as opened:
            assert values(opened) == [1, 2]
            assert opened.tracks("x").read(format="mocap")["metadata"]["frameCount"] == 2
            assert opened.status == "completed"
        with pytest.raises(OSError, match="Read-only"):
            Experiment(PREFIX, dash_root=place).run.start()
    finally:
        subprocess.run(["umount", str(place)], capture_output=True, check=False)


def test_reading_a_run_that_another_process_records(program: Callable[..., Program], root: Path, folder: Path) -> None:
    """What is in the other's journal is seen at once, new entries too, and nothing is written."""
    recorder = program(
        "exp = Experiment(PREFIX, dash_root=ROOT).run.start()\n"
        "for line in sys.stdin:\n"
        "    exp.tracks('x').append(_ts=float(line), v=int(line))\n    exp.metrics('m').log(n=int(line))\n"
        "    exp.log(f'line {line.strip()}', level='debug')\n    print('ok', flush=True)\n"
        "exp.run.complete()\n"
    )
    wait_for(lambda: (folder / "experiment.json").exists())
    with open_run(PREFIX, dash_root=root) as opened:
        for number in range(1, 6):
            recorder.say(str(number))
            recorder.heard("ok")
            assert opened.status == "running"
            assert values(opened) == list(range(1, number + 1))
            assert opened.metrics("m").read()["count"] == number
            assert len(opened.log.read()) == number
            assert [(info.topic, info.count) for info in opened.tracks.list()] == [("x", number)]
    recorder.succeeds()
    assert document(folder)["status"] == "completed"


def test_what_is_open_for_reading_refuses_to_record(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """Every write raises NotOpen; closing twice is harmless; a closed one is closed."""
    with new_experiment().run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
    opened = open_run(PREFIX, dash_root=root)
    uses: list[Callable[[], Any]] = [
        lambda: opened.tracks("x").append(_ts=2.0),
        lambda: opened.tracks("x").extend(_ts=[2.0]),
        lambda: opened.tracks("x").flush(),
        lambda: opened.tracks.flush(),
        lambda: opened.metrics("m").log(a=1),
        lambda: opened.params.set(a=1),
        lambda: opened.log("x"),
    ]
    for use in uses:
        with pytest.raises(NotOpen, match=r"^this experiment is open for reading only$"):
            use()
    with pytest.raises(NotOpen, match=r"is open already for reading only: record with Experiment\(prefix\)\.run$"):
        opened.run.start()
    assert values(opened) == [1]
    opened.close()
    opened.close()
    with pytest.raises(NotOpen):
        opened.tracks("x")


def test_opening_what_does_not_exist(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """ExperimentNotFound, a LookupError, names prefix and root; a folder above experiments is none; nothing appears."""
    with pytest.raises(ExperimentNotFound, match=rf"^no experiment '{PREFIX}' in {root}; there is none$"):
        open_run(PREFIX, dash_root=root)
    assert issubclass(ExperimentNotFound, LookupError)
    assert not root.exists()
    with new_experiment("alice/robotics/day1/pick").run:
        pass
    with pytest.raises(ExperimentNotFound, match=r"^no experiment 'alice/robotics/day1'"):
        open_run("alice/robotics/day1", dash_root=root)


def test_opening_what_another_program_wrote(root: Path, folder: Path) -> None:
    """A folder with a data file and nothing else of ours is read."""
    (folder / "tracks/robot_state").mkdir(parents=True)
    (folder / "tracks/robot_state/data.jsonl").write_text('{"timestamp": 2, "q": NaN}\n{"timestamp": 1.0, "q": 1}\n')
    with open_run(PREFIX, dash_root=root) as opened:
        assert [info.topic for info in opened.tracks.list()] == ["robot_state"]
        assert [entry["timestamp"] for entry in opened.tracks("robot_state").list_entries()] == [1.0, 2.0]
        assert opened.status is None
        assert opened.params.get() == {}


# ---------------------------------------------------------------- where things are


def test_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    """ML_DASH_PREFIX and ML_DASH_ROOT stand in for what is not given; what is given wins."""
    monkeypatch.setenv("ML_DASH_PREFIX", "env/project/name")
    monkeypatch.setenv("ML_DASH_ROOT", str(workplace / "elsewhere"))
    with Experiment().run as exp:
        exp.tracks("x").append(_ts=1.0)
    assert (workplace / "elsewhere/env/project/name/tracks/x/data.jsonl").exists()
    assert Experiment("a/b/c").folder == (workplace / "elsewhere/a/b/c").resolve()
    assert Experiment(dash_root="here").folder == (workplace / "here/env/project/name").resolve()
    assert len(open_run("env/project/name").tracks("x")) == 1
    monkeypatch.setenv("ML_DASH_ROOT", "")
    assert Experiment().root == (workplace / ".dash").resolve()
    for value in ("", None):
        monkeypatch.setenv("ML_DASH_PREFIX", "") if value == "" else monkeypatch.delenv("ML_DASH_PREFIX")
        with pytest.raises(InvalidPrefix, match="ML_DASH_PREFIX"):
            Experiment()
    monkeypatch.setenv("ML_DASH_PREFIX", "not enough")
    with pytest.raises(InvalidPrefix, match="needs at least owner/project/name"):
        Experiment()


def test_relative_roots_are_resolved_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root is where it was when the experiment was made, wherever the program goes; "~" is the user's home."""
    experiment = Experiment(PREFIX)
    assert experiment.root == (workplace / ".dash").resolve()
    (workplace / "away").mkdir()
    monkeypatch.chdir(workplace / "away")
    with experiment.run as exp:
        exp.tracks("x").append(_ts=1.0)
    assert (workplace / ".dash" / PREFIX / "tracks/x/data.jsonl").exists()
    assert os.listdir(workplace / "away") == []
    monkeypatch.setenv("HOME", str(workplace))
    assert Experiment(PREFIX, dash_root="~/data").root == (workplace / "data").resolve()
    assert Experiment(PREFIX, dash_root=Path("sub")).root == (workplace / "away/sub").resolve()


@needs_posix_names
def test_a_working_directory_that_is_gone(new_experiment: Callable[..., Experiment], workplace: Path) -> None:
    """With an absolute root a run records although the program's folder was removed under it."""
    experiment = new_experiment()
    workplace.rmdir()
    with experiment.run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
    assert experiment.info["processes"][0]["working_directory"] is None


@needs_posix_names
def test_arguments_that_are_no_text(program: Callable[..., Program], folder: Path) -> None:
    """A command line with bytes that UTF-8 cannot hold is kept with escapes."""
    program(
        "sys.argv.append(os.fsdecode(b'a\\xff'))\nwith Experiment(PREFIX, dash_root=ROOT).run:\n    pass"
    ).succeeds()
    assert document(folder)["processes"][0]["command"][-1] == "a\\udcff"


@pytest.mark.parametrize("place", ["", "alice", "alice/robotics", PREFIX])
def test_a_file_in_the_way(root: Path, place: str) -> None:
    """A root, or a part of the prefix, that is a file: an OSError that names it, and the file stays."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    experiment = Experiment(PREFIX, dash_root=root)
    with pytest.raises(OSError, match=str(path)):
        experiment.run.start()
    assert path.read_text() == "precious"
    with pytest.raises(NotOpen):
        experiment.tracks("x")
    with pytest.raises(ExperimentNotFound):
        open_run(PREFIX, dash_root=root)


def test_a_root_that_cannot_be_written(program: Callable[..., Program], root: Path, folder: Path) -> None:
    """Starting a run there raises an OSError at once and changes nothing."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
    before = files_of(folder)
    writer = program(
        READ_ONLY_MEDIA + "try:\n    Experiment(PREFIX, dash_root=ROOT).run.start()\n"
        "except OSError as error:\n    print(type(error).__name__, error.errno == errno.EROFS, flush=True)\n"
    )
    writer.heard("OSError True")
    writer.succeeds()
    assert files_of(folder) == before


def test_a_bad_description_is_refused_at_once(root: Path) -> None:
    """Durability, readme, tags and metadata that cannot be kept raise a ValueError before anything exists."""
    for options, text in (
        ({"durability": "maybe"}, r"durability is one of normal, strict, off, got 'maybe'"),
        ({"metadata": {"a": object()}}, r"field 'metadata'.*cannot be recorded"),
        ({"readme": "\ud800"}, r"field 'readme'.*lone surrogate"),
        ({"tags": [2**70]}, r"field 'tags'.*64 bits"),
    ):
        with pytest.raises(InvalidEntry, match=text):
            Experiment(PREFIX, dash_root=root, **options)
    assert not root.exists()


# ---------------------------------------------------------------- foreign and broken files


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"\xff", b'{"a":', b"null"])
def test_an_experiment_json_that_is_broken(root: Path, folder: Path, content: bytes) -> None:
    """It is named and not overwritten; the data beside it can be read, and is not harmed."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
    (folder / "experiment.json").write_bytes(content)
    experiment = Experiment(PREFIX, dash_root=root)
    with pytest.raises(StoreCorrupt, match=r"experiment\.json is no JSON object; move it away or mend it"):
        experiment.run.start()
    with pytest.raises(NotOpen):
        experiment.tracks("x")
    assert (folder / "experiment.json").read_bytes() == content
    assert [name for name in os.listdir(folder / ".journal") if not name.startswith(".")] == []
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == [1]


@pytest.mark.parametrize(
    "content",
    [
        {}, {"mine": {"a": 1}}, {"status": 7, "processes": "many", "session": "x", "created_at": None},
        {"status": "running", "processes": [1, "two", None, {}, {"status": "running"}]},
        {"status": "running", "processes": [{"status": "running", "writer": 5}, {"status": []}]},
        {"status": "running", "processes": {"a": 1}}, {"processes": None, "session": True},
    ],
    ids=repr,
)  # fmt: skip
def test_an_experiment_json_of_another_program(root: Path, folder: Path, content: dict[str, Any]) -> None:
    """Whatever it says under our names, the run works, and what it says under other names stays."""
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps(content))
    Experiment(PREFIX, dash_root=root).info  # noqa: B018
    open_run(PREFIX, dash_root=root).close()
    experiment = Experiment(PREFIX, dash_root=root)
    with experiment.run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
        assert exp.status == "running"
    assert experiment.status == "completed"
    assert document(folder).get("mine") == content.get("mine")


def test_a_folder_deleted_under_the_recording(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """What cannot be stored any more is told by flush and at the end: neither returns as if all were well."""
    exp = new_experiment()
    track = exp.run.start().tracks("x").append(_ts=1.0, v=1)
    shutil.rmtree(root)
    with pytest.raises(StoreCorrupt, match="was deleted while it is recorded to"):
        track.flush()
    with pytest.raises(StoreCorrupt, match="was deleted while it is recorded to") as caught:
        exp.run.complete()
    assert not hasattr(caught.value, "__notes__"), "no journal keeps it"
    assert exp.status != "completed"
    with exp.run:
        track.append(_ts=2.0, v=2)
    with open_run(exp.prefix, dash_root=root) as found:
        assert found.tracks("x").list_entries() == [{"timestamp": 2.0, "v": 2}]


def test_rubbish_in_the_journal_folder(root: Path, folder: Path) -> None:
    """Files and folders nobody of us made stay where they are and disturb nobody."""
    journals = folder / ".journal"
    for name in ("folder", "0" * 28, ".new-mine", "0123456789abcdef0123456789ab"):
        (journals / name).mkdir(parents=True)
    (journals / ("0" * 28) / "0000000001.seg").write_bytes(b"rubbish" * 100)
    (journals / ("0" * 28) / "tracks").write_bytes(b"\xff\xfe not json\n{}\n")
    (journals / "file").write_text("mine")
    (journals / "folder" / "0000000001.seg").write_bytes(bytes(5000))
    (journals / "folder" / "notes.txt").write_text("mine")
    (folder / "x.lock").write_text("mine")
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.tracks("x").append(_ts=1.0, v=1).flush()
        assert values(exp) == [1]
        assert [info.topic for info in exp.tracks.list()] == ["x"]
    assert (journals / "file").read_text() == (journals / "folder/notes.txt").read_text() == "mine"
    assert (folder / "x.lock").read_text() == "mine"
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened) == [1]


def test_files_of_a_newer_version(root: Path, folder: Path) -> None:
    """A state or journal of a newer version stops the start before anything is touched, naming file and remedy."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.tracks("x").append(_ts=1.0, v=1)
    state = json.dumps({"version": 99, "generation": 7, "writers": {}, "sequences": {}, "more": 1}).encode()
    (folder / ".state").write_bytes(f"{zlib.crc32(state):08x} ".encode() + state + b"\n")
    before = {name: content for name, content in files_of(folder).items() if not name.startswith(".journal")}
    experiment = Experiment(PREFIX, dash_root=root)
    with pytest.raises(StoreCorrupt, match=r"\.state was written by a newer ml_dash .*: upgrade"):
        experiment.run.start()
    assert {name: content for name, content in files_of(folder).items() if not name.startswith(".journal")} == before
    with pytest.raises(NotOpen):
        experiment.tracks("x")


def test_a_journal_of_a_newer_version(program: Callable[..., Program], root: Path, folder: Path) -> None:
    """What a newer program left unfinished stops the start, unchanged; what is stored can be read all the same."""
    killed = program(KILLED)
    killed.heard("ready")
    killed.kill()
    size = SEGMENT_HEADER.size
    for segment in sorted((folder / ".journal").glob("*/*.seg")):
        raw = bytearray(segment.read_bytes())
        raw[4:6] = struct.pack("<H", 99)
        raw[size - 4 : size] = struct.pack("<I", zlib.crc32(raw[: size - 4]))
        segment.write_bytes(raw)
    before = {name: content for name, (_, content) in files_of(folder).items()}
    experiment = Experiment(PREFIX, dash_root=root)
    with pytest.raises(StoreCorrupt, match=r"\.seg was written by a newer ml_dash \(journal version 99\): upgrade"):
        experiment.run.start()
    after = {name: content for name, (_, content) in files_of(folder).items()}
    assert {name: after.get(name) for name in before} == before
    with open_run(PREFIX, dash_root=root) as opened:
        assert values(opened)[:501] == list(range(501))


# ---------------------------------------------------------------- the package


def test_topics_in_a_closed_run_are_not_remembered(new_experiment: Callable[..., Experiment]) -> None:
    """A bad topic is told as such, also where no run is open."""
    with pytest.raises(InvalidTopic):
        new_experiment().tracks("")


def test_shown(root: Path) -> None:
    """The repr of what the user holds says what it is."""
    experiment = Experiment("a/b/c", dash_root=root)
    assert repr(experiment) == f"<Experiment 'a/b/c' in {root.resolve()}>"
    assert repr(experiment.tracks) == "<tracks of a closed experiment>"
    assert ml_dash.__version__
