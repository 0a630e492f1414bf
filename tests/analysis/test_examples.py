"""The examples run on the demo's recording and on real ones, and say what is known to be in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_dash import Experiment
from real_recordings import DATA

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")

CHECKOUT = Path(__file__).parents[2]


def example(name: str, *arguments: object, code: int = 0) -> str:
    """Run an example as its user does; what it printed."""
    command = [sys.executable, CHECKOUT / "examples" / f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the demo's recording, `demo/arm/one`."""
    pytest.importorskip("mujoco")
    from ml_dash.demo.record import record
    from ml_dash.demo.simulate import PickAndPlace

    root = tmp_path_factory.mktemp("demo")
    with Experiment("demo/arm/one", dash_root=root).run as run:
        record(run, PickAndPlace(seed=0), 0, lambda time: None)
    return root


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with real recordings: a drone at 200 Hz, a hand-held camera at 100 Hz, a motor at 1 kHz."""
    if not DATA.is_dir():
        pytest.skip(f"the real recordings are not here: {DATA}")
    root = tmp_path_factory.mktemp("real")

    def numbers(name: str, **options: Any) -> Any:
        return np.loadtxt(DATA / name, **options)

    drone = numbers("euroc_V1_02_groundtruth.csv", delimiter=",")
    times = np.loadtxt(DATA / "euroc_V1_02_groundtruth.csv", delimiter=",", usecols=0, dtype=np.int64)
    camera, motor = numbers("freiburg1_xyz-groundtruth.txt"), numbers("motor_1khz.csv", delimiter=",", skiprows=1)
    with Experiment("real/drone/v102", dash_root=root).run as run:
        pose = {"p": drone[:, 1:4], "quat_wxyz": drone[:, 4:8], "v": drone[:, 8:11]}
        run.tracks("drone/pose").extend(_ts=times // 10**9 + (times % 10**9) / 1e9, **pose)
    with Experiment("real/camera/xyz", dash_root=root).run as run:
        run.tracks("camera/pose").extend(_ts=camera[:, 0], p=camera[:, 1:4], quat_xyzw=camera[:, 4:8])
    with Experiment("real/motor/run", dash_root=root).run as run:
        columns = {"velocity": motor[:, 1], "current": motor[:, 4], "force": motor[:, 7]}
        run.tracks("motor").extend(_ts=motor[:, 0], **columns)
    return root


def test_slices_of_the_demo(demo: Path) -> None:
    """Two seconds of a 100 Hz track, both ends included."""
    out = example("slices", "demo/arm/one", "robot/state", 5, 7, "--root", demo)
    assert "201 entries" in out
    assert "last before the middle: {'timestamp': 6.0" in out


def test_align_of_the_demo(demo: Path, tmp_path: Path) -> None:
    """Every topic on one clock, quaternions in the order that the run names, as a Parquet file."""
    out = example("align", "demo/arm/one", "--root", demo, "--output", tmp_path / "aligned.parquet")
    assert "slerp:wxyz" in out
    assert "robot/state.q " in out
    assert (tmp_path / "aligned.parquet").read_bytes()[:4] == b"PAR1"


def test_find_in_the_demo(demo: Path) -> None:
    """The block's weight on the wrist is one long window, and it cuts every track."""
    out = example("find", "demo/*", "`robot/gripper`.force > 5", "--for", 0.5, "--root", demo)
    assert "demo/arm/one" in out
    assert "sensors/force" in out


def test_doctor_of_the_demo(demo: Path) -> None:
    """A simulated recording is sound, at the rates it was made with."""
    out = example("doctor", "demo/arm/one", "--root", demo)
    assert "1000 Hz" in out
    assert "30 Hz" in out
    assert "problem:" not in out


def test_plots_of_the_demo(demo: Path, tmp_path: Path) -> None:
    """A picture over time, and the hand's path with its orientation."""
    pytest.importorskip("matplotlib")
    path = ("--position", "ee_pos", "--orientation", "ee_quat", "--order", "wxyz")
    example("plots", "demo/arm/one", "robot/state", *path, "--root", demo, "--folder", tmp_path)
    assert {picture.name for picture in tmp_path.glob("*.png")} == {"time.png", "path.png"}


def test_slices_of_real_recordings(real: Path) -> None:
    """Epoch seconds and a camera's true stamps."""
    out = example("slices", "real/camera/xyz", "camera/pose", 1305031100, 1305031101, "--root", real)
    assert "entries of camera/pose" in out


def test_align_of_real_recordings(real: Path) -> None:
    """A drone from 200 to 50 Hz: quaternions by slerp in their named order, unit ones afterwards."""
    out = example("align", "real/drone/v102", "--root", real)
    assert "slerp:wxyz" in out
    import ml_dash

    with ml_dash.open("real/drone/v102", dash_root=real) as run:
        table = run.align("drone/pose.quat_wxyz", rate_hz=50)
    turns = np.array(table["drone/pose.quat_wxyz"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1.0)
    assert len(turns) == pytest.approx(16702 / 4, abs=2)


def test_find_in_real_recordings(real: Path) -> None:
    """One question to all runs: only the drone has a velocity, the others are told to be skipped."""
    out = example("find", "real/*", "norm(`drone/pose`.v) > 1.5", "--for", 0.2, "--root", real)
    assert out.count("skipped") == 2
    assert "real/drone/v102 from" in out


def test_doctor_of_real_recordings(real: Path) -> None:
    """Measured rates of real sensors; the motor's columns that freeze are told."""
    assert "200 Hz" in example("doctor", "real/drone/v102", "--root", real)
    assert "1000 Hz" in example("doctor", "real/motor/run", "--root", real)


def test_plots_of_real_recordings(real: Path, tmp_path: Path) -> None:
    """A drone's flight in space, its order told by the column's name."""
    pytest.importorskip("matplotlib")
    path = ("--position", "p", "--orientation", "quat_wxyz")
    example("plots", "real/drone/v102", "drone/pose", *path, "--root", real, "--folder", tmp_path)
    assert {picture.name for picture in tmp_path.glob("*.png")} == {"time.png", "path.png"}


def test_tables_of_the_demo(demo: Path, tmp_path: Path) -> None:
    """Every form of table has each entry; the page has a picture of each column."""
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    out = example("tables", "demo/arm/one", "robot/state", "q", "--root", demo, "--page", tmp_path / "track.html")
    assert "q: fixed_size_list<item: double>[7]" in out
    assert "101 entries in the first second" in out
    assert "q float64 (1000, 7)" in out
    assert "1000 rows in Polars" in out
    assert (tmp_path / "track.html").read_text().count("<svg") == 4


def test_tables_of_real_recordings(real: Path) -> None:
    """A drone's quaternions, 200 a second."""
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    out = example("tables", "real/drone/v102", "drone/pose", "quat_wxyz", "--root", real)
    assert "quat_wxyz float64 (16702, 4)" in out
    assert "201 entries in the first second" in out


def test_sql_of_the_demo_and_of_real_recordings(demo: Path, real: Path) -> None:
    """Two topics joined by time; a drone's greatest speed."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    query = 'select count(*) n from "sensors/force" f asof join "robot/gripper" g using (timestamp) where g.force > 5'
    assert int(example("sql", "demo/arm/one", query, "--root", demo).split()[1]) > 1000
    query = 'select round(max(sqrt(v[1]*v[1] + v[2]*v[2] + v[3]*v[3])), 2) as fastest from "drone/pose"'
    assert example("sql", "real/drone/v102", query, "--root", real).split()[0] == "fastest"


def test_watch_warns(tmp_path: Path) -> None:
    """Each trouble once, on standard error, while the recording goes on."""
    command = [sys.executable, CHECKOUT / "examples" / "watch.py", "--root", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 2, done.stderr
    assert "sensors/force" in told[0]
    assert "robot/state" in told[1]


WITHOUT = {
    "simulated": ("recorded demo/arm/simulated", 0),
    "align": ("slerp:wxyz", 0),
    "doctor": ("problem: sensors/force: f[0] stays at", 1),
    "find": ("demo/arm/simulated from 4.0 to", 0),
    "slices": ("201 entries of robot/state between 4.0 and 6.0 s", 0),
    "sql": ("greatest_force", 0),
    "tables": ("q float64 (1000, 7)", 0),
    "plots": ("path.png", 0),
    "watch": ("", 0),
    "import_csv": ("3000 rows of motor", 0),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CHECKOUT / "examples").glob("*.py")))
def test_examples_do_something_without_arguments(
    name: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts one to see what it does sees it: on a simulated arm in the folder for temporary files."""
    for module in {"sql": ["duckdb", "pandas"], "tables": ["polars", "pandas"], "plots": ["matplotlib"]}.get(
        name, ["pandas"]
    ):
        pytest.importorskip(module)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    said, code = WITHOUT[name]
    assert said in example(name, code=code)
    assert (name in ("watch", "import_csv")) == bool(list(workplace.glob(".dash")))


def test_every_example_is_run() -> None:
    """None is forgotten; `import_csv` is run by the tests of importing too."""
    text = Path(__file__).read_text(encoding="utf-8")
    names = {path.stem for path in (CHECKOUT / "examples").glob("*.py")} - {"import_csv"}
    assert {name for name in names if f'"{name}' not in text} == set()
