"""The demo: the arm really picks and places, and what is shown is what was recorded."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import ml_dash
from ml_dash.cli.app import cli
from ml_dash.cli.demo_command import demo
from ml_dash.demo import show
from ml_dash.demo.arm import BLOCK_HALF_HEIGHT, BLOCK_MASS, GRIP_FORCE, MODEL, TORQUE_LIMITS
from ml_dash.demo.record import Tallies, Tally, find_contact, read_back
from ml_dash.demo.simulate import RATES_HZ, PickAndPlace, Placement, Sample

TOPICS = {*RATES_HZ, "task/phase"}
EXPECTED = {topic: 10 * rate for topic, rate in RATES_HZ.items()} | {"task/phase": 9}


def by_topic(samples: list[Sample]) -> dict[str, list[Sample]]:
    topics: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        topics[sample.topic].append(sample)
    return topics


def column(samples: list[Sample], name: str) -> np.ndarray[Any, Any]:
    return np.array([sample.fields[name] for sample in samples])


@pytest.fixture(scope="module")
def cycle() -> dict[str, list[Sample]]:
    """The samples of one cycle, by topic."""
    return by_topic(list(PickAndPlace(seed=0).samples()))


@pytest.mark.parametrize("seed", range(5))
def test_the_block_is_lifted_carried_and_placed(seed: int) -> None:
    """Wherever block and target are, its recorded pose shows it stand, fly, and stand on the other side."""
    arm = PickAndPlace(seed=seed)
    poses = by_topic(list(arm.samples()))["object/pose"]
    positions = column(poses, "pos")
    times = np.array([sample.timestamp for sample in poses])
    start, end = positions[0], positions[-1]
    assert start[2] == pytest.approx(BLOCK_HALF_HEIGHT, abs=0.001)
    assert end[2] == pytest.approx(BLOCK_HALF_HEIGHT, abs=0.001)
    assert positions[:, 2].max() > BLOCK_HALF_HEIGHT + 0.12
    assert start[1] < -0.1
    assert end[1] > 0.1
    assert np.ptp(positions[times > 8.5], axis=0).max() < 0.0005
    (placement,) = arm.placements
    assert placement.succeeded
    assert placement.miss_m < 0.005


def test_only_friction_holds_the_block() -> None:
    """With slippery fingers the same plan leaves the block on the table, and the placement says so."""
    assert "<equality" not in MODEL
    slippery, replaced = re.subn(r'friction="1\.[02] [^"]*"', 'friction="0.001 0 0"', MODEL)
    assert replaced == 3
    arm = PickAndPlace(seed=0, model=slippery)
    heights = [s.fields["pos"][2] for s in arm.samples() if s.topic == "object/pose"]
    assert max(heights) < BLOCK_HALF_HEIGHT + 0.01
    assert not arm.placements[0].succeeded


def test_the_arm_goes_on_from_where_it_put_the_block() -> None:
    """Every further cycle carries the block back to the other side; topics keep ascending across cycles."""
    arm = PickAndPlace(cycles=3, seed=1)
    topics = by_topic(list(arm.samples()))
    assert [placement.succeeded for placement in arm.placements] == [True] * 3
    sides = [np.sign(column(topics["object/pose"], "pos")[i - 1][1]) for i in (1000, 2000, 3000)]
    assert sides == [1, -1, 1]
    assert {topic: 3 * n for topic, n in EXPECTED.items()} == {topic: len(s) for topic, s in topics.items()}


def test_each_topic_keeps_its_rate_and_true_times(cycle: dict[str, list[Sample]]) -> None:
    """Counts follow the rates; times are whole milliseconds, exact to the last bit, strictly ascending."""
    assert {topic: len(samples) for topic, samples in cycle.items()} == EXPECTED
    for topic, rate in RATES_HZ.items():
        times = [sample.timestamp for sample in cycle[topic]]
        assert times == [-(-1000 * i // rate) / 1000 for i in range(len(times))]


def test_the_state_is_21_numbers_in_4_lists(cycle: dict[str, list[Sample]]) -> None:
    """The robot's state has the shape that the benchmarks and the documentation speak of."""
    shape = {name: len(values) for name, values in cycle["robot/state"][500].fields.items()}
    assert shape == {"q": 7, "qd": 7, "ee_pos": 3, "ee_quat": 4}


def test_the_numbers_belong_together(cycle: dict[str, list[Sample]]) -> None:
    """Speeds are the slope of positions, quaternions are unit and never flip, motors and fingers keep their limits."""
    q, qd = column(cycle["robot/state"], "q"), column(cycle["robot/state"], "qd")
    slopes = (q[2:] - q[:-2]) / 0.02
    assert np.abs(slopes - qd[1:-1]).mean() < 0.002
    quats = column(cycle["robot/state"], "ee_quat")
    assert np.linalg.norm(quats, axis=1) == pytest.approx(1.0)
    assert ((quats[1:] * quats[:-1]).sum(axis=1) > 0.99).all()
    assert (np.abs(column(cycle["robot/effort"], "tau")) <= TORQUE_LIMITS).all()
    assert column(cycle["robot/gripper"], "force").max() == pytest.approx(GRIP_FORCE)
    accel = np.linalg.norm(column(cycle["sensors/imu"], "accel"), axis=1)
    assert np.median(accel) == pytest.approx(9.81, abs=0.2)


def test_the_same_seed_gives_the_same_samples(cycle: dict[str, list[Sample]]) -> None:
    """A recording can be made again from its seed; another seed is another one."""
    assert by_topic(list(PickAndPlace(seed=0).samples())) == cycle
    assert by_topic(list(PickAndPlace(seed=1).samples()))["object/pose"][0] != cycle["object/pose"][0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The root and the output of one demo recorded as demo/arm/once."""
    root = tmp_path_factory.mktemp("demo") / "root"
    return root, run("--dash-root", str(root), "--prefix", "demo/arm/once")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(demo, arguments, env={"COLUMNS": "80"})


def test_everything_recorded_is_in_the_files(recorded: tuple[Path, Result]) -> None:
    """The plain files, read without our code, hold every entry of every topic, ascending, and its true values."""
    root, result = recorded
    assert result.exit_code == 0, result.output
    samples = by_topic(list(PickAndPlace(seed=0).samples()))
    for topic in TOPICS:
        path = root / "demo/arm/once/tracks" / topic.replace("/", "_") / "data.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        assert entries == [{"timestamp": sample.timestamp, **sample.fields} for sample in samples[topic]]


def test_params_logs_and_metrics_are_recorded_too(recorded: tuple[Path, Result]) -> None:
    """The run is complete, with its params, a log line for each phase, and the placement as a metric."""
    root, _ = recorded
    folder = root / "demo/arm/once"
    assert json.loads((folder / "experiment.json").read_text())["status"] == "completed"
    logged = [json.loads(line)["message"] for line in (folder / "logs/logs.jsonl").read_text().splitlines()]
    assert logged[:3] == ["reach", "descend", "grasp"]
    assert logged[-1].startswith("placed: lifted 14.")
    with ml_dash.open("demo/arm/once", dash_root=str(root)) as run:
        assert run.params.get("task") == "pick and place"
        (placement,) = run.metrics("placement").read()["entries"]
    assert placement["miss_m"] < 0.005


def test_the_parquet_file_opens(recorded: tuple[Path, Result]) -> None:
    """The exported file holds each entry of the robot's state under its columns."""
    root, result = recorded
    assert "files/robot_state.parquet" in result.output
    table = pq.read_table(root / "demo/arm/once/files/robot_state.parquet")
    assert table.num_rows == EXPECTED["robot/state"]
    assert set(table.column_names) == {"timestamp", "q", "qd", "ee_pos", "ee_quat"}


def test_the_summary_says_what_was_measured(recorded: tuple[Path, Result]) -> None:
    """Each topic is listed with its measured rate and count; the lines fit into 80 columns; the verdicts are there."""
    _, result = recorded
    assert max(len(line.rstrip()) for line in result.output.splitlines() if not re.search("dash_root| -r ", line)) <= 80
    for topic, rate in RATES_HZ.items():
        assert re.search(rf"^{topic} +{rate}\.0 Hz +{EXPECTED[topic]:,} ", result.output, re.MULTILINE)
    total = f"{sum(EXPECTED.values()):,} entries"
    assert f"recorded {total} in 8 topics" in result.output
    assert f"read back {total}, every value equal" in result.output
    assert re.search(r"cut the second around it out of 8 topics: 1,6\d\d entries in \d+ ms, grip 25 N", result.output)
    assert "10.0 of 10.0 s" in result.output
    assert "⣀" in result.output
    assert "weight taken" in result.output


def test_a_narrow_terminal_cuts_no_topic_short(recorded: tuple[Path, Result]) -> None:
    """At 50 columns the table keeps what matters most, whole; the plot shrinks."""
    root, _ = recorded
    console = Console(file=io.StringIO(), width=50)
    with ml_dash.open("demo/arm/once", dash_root=str(root)) as run:
        show.topics(console, run)
        show.picture(console, run, None)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in lines) <= 50
    assert {line.split(" ")[0] for line in lines if "/" in line.split(" ")[0]} == TOPICS


def test_what_to_try_next_runs_as_printed(recorded: tuple[Path, Result]) -> None:
    """The program in the output, copied as it stands, finds the force of the grasp."""
    _, result = recorded
    printed = result.output.split("Try next, in Python\n")[1]
    program = "\n".join(line[2:] for line in printed.splitlines())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    newtons = float(done.stdout.split()[0])
    assert 9.0 < newtons < 12.0


def test_the_commands_to_try_next_run_as_printed(recorded: tuple[Path, Result]) -> None:
    """Each command line in the output, as it stands, is answered with what it asks for."""
    _, result = recorded
    printed = result.output.split("Try next, in the shell\n")[1].split("\n\n")[0]
    lines = [shlex.split(line)[1:] for line in printed.splitlines()]
    assert [words[0] for words in lines] == ["info", "plot", "find"]
    said = [CliRunner().invoke(cli, words) for words in lines]
    assert [answer.exit_code for answer in said] == [0, 0, 0], said
    assert "10,000 entries" in said[0].output
    assert "q[1]" in said[1].output
    assert "window" in said[2].output


@pytest.mark.parametrize(("started_as", "named"), [("bin/ml-dash", "bin/ml-dash"), ("/nowhere/ml-dash", "ml-dash")])
def test_commands_are_named_as_they_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started_as: str, named: str
) -> None:
    """A program below the working folder is named by its path from there, any other by its name; roots are quoted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ml-dash").touch()
    lines = show.commands("my data", started_as).splitlines()
    assert lines[0] == f"{named} info latest -r 'my data' sensors/force"
    lines = show.commands(".dash", started_as).splitlines()
    assert lines[0] == f"{named} info latest sensors/force"
    assert max(map(len, lines)) <= 78


def test_the_grasp_is_found_in_the_force_track(recorded: tuple[Path, Result]) -> None:
    """The window found is the time the block was off the table, and the block is weighed within 3 %."""
    root, _ = recorded
    with ml_dash.open("demo/arm/once", dash_root=str(root)) as run:
        found = find_contact(run)
        phases = {e["phase"]: e["timestamp"] for e in run.tracks("task/phase").list_entries()}
    assert found is not None
    assert phases["lift"] <= found.start < phases["carry"]
    assert phases["lower"] < found.end < phases["retreat"]
    assert found.mass_kg == pytest.approx(BLOCK_MASS, rel=0.03)


def test_a_second_demo_leaves_the_first_alone(tmp_path: Path) -> None:
    """Without a prefix each demo has a recording of its own; a prefix in use is refused by name, nothing changed."""
    assert run("--dash-root", str(tmp_path)).exit_code == 0
    assert run("--dash-root", str(tmp_path), "--seed", "1").exit_code == 0
    first, second = sorted((tmp_path / "demo/arm").iterdir())
    data = (first / "tracks/object_pose/data.jsonl").read_bytes()
    assert data != (second / "tracks/object_pose/data.jsonl").read_bytes()
    again = run("--dash-root", str(tmp_path), "--prefix", f"demo/arm/{first.name}")
    assert again.exit_code == 2
    assert f"'demo/arm/{first.name}' is already recorded in" in again.output
    assert (first / "tracks/object_pose/data.jsonl").read_bytes() == data


@pytest.mark.parametrize("prefix", ["short/one", "../../outside/x", "a//b/c"])
def test_a_bad_prefix_is_refused_by_name(tmp_path: Path, prefix: str) -> None:
    """The error names the prefix and what is wrong with it; nothing is created."""
    result = run("--dash-root", str(tmp_path / "root"), "--prefix", prefix)
    assert result.exit_code == 1
    assert f"Error: prefix '{prefix}' " in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_an_error_line(tmp_path: Path) -> None:
    """A file in the way of the root gives one clear line and no traceback."""
    (tmp_path / "file").write_text("mine")
    result = run("--dash-root", str(tmp_path / "file" / "root"))
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert str(tmp_path / "file") in result.output


def test_without_mujoco_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command that installs it, before anything is created."""
    monkeypatch.setitem(sys.modules, "mujoco", None)
    result = run("--dash-root", str(tmp_path / "root"))
    assert result.exit_code == 1
    assert result.output == "Error: MuJoCo is not installed: pip install 'ml-dash[demo]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_unicode_gets_plain_characters(tmp_path: Path) -> None:
    """With an ASCII output the whole summary is ASCII, progress bar and plot included."""
    program = "from ml_dash.cli.demo_command import demo; demo()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--dash-root", str(tmp_path)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode("ascii")
    assert done.stderr == b""
    assert "ok placed the block" in text
    assert "v weight taken" in text


@pytest.mark.parametrize("fault", ["lost", "changed"])
def test_a_difference_between_recorded_and_read_is_seen(fault: str) -> None:
    """The comparison is no formality: one entry lost or one value changed in its last bit shows up."""
    entries = [{"timestamp": i / 10, "q": [i * 0.1, 1.0]} for i in range(10)]
    written = Tallies()
    for entry in entries:
        written.add("robot/state", dict(entry))
    assert read_back(reader(entries), ["robot/state"], 10.0) == written.result()
    if fault == "lost":
        entries.pop(7)
    else:
        entries[7] = {"timestamp": 0.7, "q": [float(np.nextafter(0.7000000000000001, 1)), 1.0]}
    assert read_back(reader(entries), ["robot/state"], 10.0) != written.result()


def test_what_went_wrong_is_said() -> None:
    """A dropped block, topics that differ and a grasp that was not found are failures by name, never ticks."""
    console = Console(file=io.StringIO(), width=80)
    show.placements(console, [Placement(0.14, 0.002, 0.0), Placement(0.0, 0.4, 0.0)])
    both = {"a/b": Tally(3, "x"), "c/d": Tally(2, "y")}
    assert not show.compared(console, both, both | {"c/d": Tally(2, "z")})
    assert not show.compared(console, both, {"a/b": Tally(3, "x")})
    assert show.compared(console, both, dict(both))
    show.contact(console, None)
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line[0] for line in said] == ["✗", "✗", "✗", "✓", "✗"]
    assert said[0] == "✗ did not place the block: 1 of 2 times, at most 400.0 mm from its target"
    assert said[1].endswith("different: c/d")
    assert said[2].endswith("different: c/d")


def reader(entries: list[dict[str, Any]]) -> Any:
    """Something that reads like a run with one track."""

    def read(*, start_timestamp: float, end_timestamp: float) -> dict[str, Any]:
        return {"entries": [e for e in entries if start_timestamp <= e["timestamp"] <= end_timestamp]}

    return SimpleNamespace(tracks=lambda topic: SimpleNamespace(read=read))
