"""The API document is the contract: each of its Python blocks runs as printed, and does what the text says."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_dash import Experiment
from ml_dash import open as open_run

DOCUMENT = Path(__file__).parent.parent / "docs" / "tracks-api.md"
ORIGINAL = DOCUMENT.parent.parent.parent / "shared" / "spec" / "tracks-api.md"
FENCE = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> dict[str, str]:
    """The document's code blocks of a language by heading; a heading's second block is `heading 2`, and so on."""
    found: dict[str, str] = {}
    heading = ""
    for match in FENCE.finditer(DOCUMENT.read_text(encoding="utf-8")):
        heading = match["heading"] or heading
        if match["code"] is not None and match["language"] == language:
            number = sum(known.rsplit(" ", 1)[0] == heading or known == heading for known in found) + 1
            found[heading if number == 1 else f"{heading} {number}"] = match["code"]
    return found


PYTHON = blocks("python")
WHOLE = {name: code for name, code in PYTHON.items() if "import Experiment" in code}
FRAGMENTS = {name: code for name, code in PYTHON.items() if name not in WHOLE}


class Names(MutableMapping[str, Any]):
    """The names a block finds. The document calls the experiment `exp` or `experiment`: they are one."""

    def __init__(self, **names: Any) -> None:
        self._names: dict[str, Any] = names

    def __getitem__(self, name: str) -> Any:
        return self._names["exp" if name == "experiment" else name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._names[name] = value

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def stand_ins() -> dict[str, Any]:
    """What the document leaves to the reader: sensor functions and readings."""
    readings = [a + b for a in ("a", "g", "f", "t", "", "v") for b in "xyz"] + ["qw", "qx", "qy", "qz"]
    return {
        "get_joint_positions": lambda: np.arange(7) / 7,
        "get_joint_velocities": lambda: np.zeros(7),
        "get_end_effector_position": lambda: np.array([0.5, 0.0, 0.6]),
        "get_end_effector_orientation": lambda: np.array([1.0, 0.0, 0.0, 0.0]),
        "get_gripper_position": lambda: 0.04,
        "get_gripper_force": lambda: 10.5,
        "np": np,
        "value": 1.0,
        **{name: number / 8 for number, name in enumerate(readings)},
    }


def run(code: str, names: Names) -> Names:
    """Execute a block as printed."""
    exec(compile(code, "tracks-api.md", "exec"), {}, names)
    return names


def read(prefix: str, topic: str, **options: Any) -> Any:
    """What a second opening finds of a track in the default root."""
    with open_run(prefix) as experiment:
        return experiment.tracks(topic).read(**options)


# ---------------------------------------------------------------- the document itself


def test_the_document_is_the_one_we_were_given() -> None:
    """The committed copy is verbatim; where the original is at hand, to the byte."""
    if not ORIGINAL.exists():
        pytest.skip(f"the original is not here: {ORIGINAL}")
    assert DOCUMENT.read_bytes() == ORIGINAL.read_bytes()


def test_every_block_is_tested() -> None:
    """No Python block of the document is left out here."""
    assert len(PYTHON) == DOCUMENT.read_text(encoding="utf-8").count("```python")
    assert set(WHOLE) == {
        "Basic Usage", "Robot Trajectory Logging", "Multi-Sensor Logging", "Time-Range Analysis",
        "Merging Data at Same Timestamp",
    }  # fmt: skip
    assert set(FRAGMENTS) == {
        "Timestamp Requirements", "Getting a TrackBuilder", "Flushing All Topics", "append(**kwargs)", "flush()",
        "Method Chaining", "read()", "list_entries()", "JSON (default)", "JSONL (JSON Lines)", "Parquet",
        "Mocap (Motion Capture JSON)", "Quick Reference",
    }  # fmt: skip


# ---------------------------------------------------------------- complete examples


def test_basic_usage(workplace: Path) -> None:
    """The example's three appends are two entries; the first has the fields of both appends at its timestamp."""
    run(WHOLE["Basic Usage"], Names())
    assert read("alice/robotics/manipulation", "robot/position")["entries"] == [
        {"timestamp": 1.0, "q": [0.1, 0.2, 0.3], "e": [0.5, 0.0, 0.6], "v": [0.01, 0.02, 0.03]},
        {"timestamp": 2.0, "q": [0.2, 0.3, 0.4], "e": [0.6, 0.1, 0.7]},
    ]


def test_robot_trajectory_logging(workplace: Path) -> None:
    """A thousand entries of state and gripper, the parameters, and the count in the log."""
    run(WHOLE["Robot Trajectory Logging"], Names(**stand_ins()))
    state = read("alice/robotics/pick-place", "robot/state")
    assert state["count"] == len(state["entries"]) == 1000
    assert state["entries"][-1]["timestamp"] == 999 * 0.01
    assert set(state["entries"][0]) == {"timestamp", "q", "qd", "ee_pos", "ee_quat"}
    assert read("alice/robotics/pick-place", "robot/gripper")["count"] == 1000
    with open_run("alice/robotics/pick-place") as experiment:
        assert experiment.params.get("robot") == "franka_panda"
        assert [line["message"] for line in experiment.log.read()] == ["Logged 1000 trajectory points"]
        assert experiment.status == "completed"


def test_multi_sensor_logging(workplace: Path) -> None:
    """Three tracks of different rates."""
    run(WHOLE["Multi-Sensor Logging"], Names(**stand_ins()))
    with open_run("alice/sensors/calibration") as experiment:
        assert {info.topic: info.count for info in experiment.tracks.list()} == {
            "sensors/imu": 2000, "sensors/camera": 300, "sensors/force": 10_000,
        }  # fmt: skip
        assert experiment.tracks("sensors/imu").read(end_timestamp=0.0)["entries"] == [
            {"timestamp": 0.0, "accel": [0.0, 0.125, 0.25], "gyro": [0.375, 0.5, 0.625]}
        ]


def test_time_range_analysis(workplace: Path) -> None:
    """A resumed experiment is read in a window; the Parquet file opens."""
    with Experiment("alice/robotics/experiment-1").run as exp:
        times = np.arange(10_000) * 0.001
        exp.tracks("sensors/force").extend(_ts=times, fx=np.where(times <= 7.0, times, 99.0))
        exp.tracks("robot/state").append(q=[0.1], _ts=1.0)
    names = run(WHOLE["Time-Range Analysis"], Names())
    assert names["contact_data"]["count"] == 2001
    assert names["max_force"] == 7.0
    with open_run("alice/robotics/experiment-1") as experiment:
        assert [line["message"] for line in experiment.log.read()] == ["Max contact force: 7.00N"]
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(workplace / "trajectory.parquet")["timestamp"].tolist() == [1.0]


def test_merging_data_at_same_timestamp(workplace: Path) -> None:
    """Each timestamp has the fields of all three sources."""
    run(WHOLE["Merging Data at Same Timestamp"], Names(**stand_ins()))
    fused = read("alice/fusion/experiment", "fused")
    assert [entry["timestamp"] for entry in fused["entries"]] == np.arange(0, 10, 0.1).tolist()
    fields = {"timestamp", "x", "y", "z", "vx", "vy", "vz", "qw", "qx", "qy", "qz"}
    assert all(set(entry) == fields for entry in fused["entries"])


# ---------------------------------------------------------------- fragments


@pytest.fixture
def names(workplace: Path, new_experiment: Callable[..., Experiment]) -> Names:
    """An open experiment with a track like the document's, and the stand-ins."""
    exp = new_experiment().run.start()
    for step in range(21):
        exp.tracks("robot/position").append(q=[step, 0.2], e=[0.5], qd=[0.0], extra=step, _ts=float(step))
    return Names(exp=exp, **stand_ins())


def statements(code: str) -> Iterator[tuple[str, str]]:
    """Each statement of a block, and the comment at its end."""
    lines = code.splitlines()
    for node in ast.parse(code).body:
        end = lines[(node.end_lineno or 1) - 1]
        yield ast.get_source_segment(code, node) or "", end.partition("#")[2].strip()


def test_timestamp_requirements(names: Names) -> None:
    """The valid calls are stored, and each call marked `Error!` raises ValueError and stores nothing."""
    marks = []
    for statement, comment in statements(FRAGMENTS["Timestamp Requirements"]):
        marks.append(comment)
        if comment == "Error!":
            with pytest.raises(ValueError, match="_ts"):
                run(statement, names)
        else:
            run(statement, names)
    assert marks == ["", "", "", "Error!", "Error!"]
    assert names["exp"].tracks("sensor").list_entries() == [
        {"timestamp": 0.0, "temp": 25.5}, {"timestamp": 0.5, "temp": 26.0}, {"timestamp": 1.0, "temp": 26.5},
    ]  # fmt: skip


def test_getting_a_track_builder(names: Names) -> None:
    """A builder for each topic; asking creates nothing."""
    run(FRAGMENTS["Getting a TrackBuilder"], names)
    assert names["builder"].topic == "robot/position"
    assert [info.topic for info in names["exp"].tracks.list()] == ["robot/position"]


@pytest.mark.parametrize("block", ["Flushing All Topics", "flush()"])
def test_flushing(names: Names, block: str) -> None:
    """After a flush the entries are in the file."""
    path = names["exp"].folder / "tracks" / "robot_position" / "data.jsonl"
    run(FRAGMENTS[block], names)
    assert len(path.read_bytes().splitlines()) == 21
    assert names["exp"].tracks("robot/position").flush() is names["exp"].tracks("robot/position")


def test_append(names: Names) -> None:
    """Every field of the example comes back; append returns the builder."""
    run(FRAGMENTS["append(**kwargs)"], names)
    builder = names["exp"].tracks("robot/state")
    assert builder.list_entries() == [
        {
            "timestamp": 1.5,
            "q": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            "qd": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
            "tau": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            "gripper_pos": 0.04,
            "gripper_force": 10.5,
        }
    ]
    assert builder.append(q=[], _ts=2.0) is builder


def test_method_chaining(names: Names) -> None:
    """Three appends and a flush in one line."""
    run(FRAGMENTS["Method Chaining"], names)
    assert names["exp"].tracks("events").list_entries() == [
        {"timestamp": 0.0, "event": "start"},
        {"timestamp": 1.0, "event": "calibration"},
        {"timestamp": 2.0, "event": "ready"},
    ]


def test_read(names: Names) -> None:
    """All of it, a window with both ends, chosen columns, and both together."""
    results = []
    for statement, _ in statements(FRAGMENTS["read()"]):
        results.append(run(statement, names)["data"]["entries"])
    everything, window, columns, both = results
    assert [entry["timestamp"] for entry in everything] == [float(step) for step in range(21)]
    assert window == everything[:11]
    assert columns == [{"timestamp": e["timestamp"], "q": e["q"], "e": e["e"]} for e in everything]
    assert both == [{"timestamp": e["timestamp"], "q": e["q"], "qd": e["qd"]} for e in everything[5:16]]


def test_list_entries(names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    """A list of dictionaries, as the loop of the example prints them."""
    run(FRAGMENTS["list_entries()"], names)
    assert capsys.readouterr().out.splitlines()[:2] == ["t=0.0: q=[0, 0.2]", "t=1.0: q=[1, 0.2]"]


def test_export_formats(names: Names) -> None:
    """Each format's fragment returns what its comment says."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for block in ("JSON (default)", "JSONL (JSON Lines)", "Parquet", "Mocap (Motion Capture JSON)"):
        run(FRAGMENTS[block], names)
    entries = names["data"]["entries"]
    assert entries[1] == {"timestamp": 1.0, "q": [1, 0.2], "e": [0.5], "qd": [0.0], "extra": 1}
    assert type(names["jsonl_bytes"]) is bytes
    assert [json.loads(line) for line in names["jsonl_bytes"].splitlines()] == entries
    assert type(names["parquet_bytes"]) is bytes
    frame = pandas.read_parquet(io.BytesIO(names["parquet_bytes"]))
    assert frame["timestamp"].tolist() == [entry["timestamp"] for entry in entries]
    assert names["mocap_data"]["metadata"]["frameCount"] == 21


def test_quick_reference(names: Names) -> None:
    """Every line of the summary runs, and reads what its first line appended."""
    run(FRAGMENTS["Quick Reference"].replace('columns=["field1", "field2"]', 'columns=["field"]'), names)
    assert names["entries"] == names["data"]["entries"] == [{"timestamp": 1.0, "field": 1.0}]
    run(FRAGMENTS["Quick Reference"], names)
    assert names["data"] == {"entries": [], "count": 0}


# ---------------------------------------------------------------- storage format


def test_storage_format(workplace: Path) -> None:
    """The tree and the lines of the section "Storage Format"."""
    (tree,) = [code for code in blocks("").values() if ".dash/" in code]
    folders = re.findall(r"[├└]── (\w+)/", tree)
    assert folders == ["owner", "project", "experiment", "tracks", "robot_position", "camera_rgb", "sensors_imu"]
    (printed,) = blocks("json").values()
    lines = [json.loads(line) for line in printed.splitlines()]
    with Experiment("owner/project/experiment").run as exp:
        for line in lines:
            exp.tracks("robot/position").append(
                _ts=line["timestamp"], **{k: v for k, v in line.items() if k != "timestamp"}
            )
        exp.tracks("camera/rgb").append(_ts=0.0)
        exp.tracks("sensors/imu").append(_ts=0.0)
    tracks = workplace / ".dash" / "owner" / "project" / "experiment" / "tracks"
    assert {path.name for path in tracks.iterdir()} == set(folders[4:])
    stored = (tracks / "robot_position" / "data.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in stored] == lines
    assert [list(json.loads(line)) for line in stored] == [list(line) for line in lines]
