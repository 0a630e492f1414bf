"""`ls`, `info`, `plot`, `cat`, `head`, `tail`, `export`: what was recorded, seen from the terminal."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import IMU, PICK, Ask, command, program

import ml_dash
from ml_dash.cli.series import Series, pace_of, series_of, sparkline, summary
from ml_dash.line import from_line
from ml_dash.store import Track, Window


def entries(root: Path, prefix: str, topic: str, **window: Any) -> list[dict[str, Any]]:
    """What the Python API reads."""
    with ml_dash.open(prefix, dash_root=root) as exp:
        found: list[dict[str, Any]] = exp.tracks(topic).read(**window)["entries"]
        return found


# ---------------------------------------------------------------- ls


def test_ls_shows_status(ask: Ask) -> None:
    """Every experiment with its status and number of tracks."""
    lines = [line.split() for line in ask("ls").lines]
    assert [line[:3] for line in lines[1:]] == [[PICK, "completed", "4"], [IMU, "failed", "1"]]
    assert lines[0][:3] == ["PREFIX", "STATUS", "TRACKS"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("alice", [PICK]), ("alice/*", [PICK]), ("*/drone/*", [IMU]), ("*", [PICK, IMU]), (IMU, [IMU]), ("latest", [IMU])],
)
def test_ls_patterns(ask: Ask, pattern: str, found: list[str]) -> None:
    """Patterns, parts of the path, whole prefixes, and the newest."""
    assert [one["prefix"] for one in ask("ls", pattern, "--json").json] == found


def test_ls_of_one_lists_its_topics(ask: Ask) -> None:
    """Entries, span, rate, size and columns of each topic; metrics and logs named as such."""
    printed = ask("ls", PICK)
    rows = {line[:13].strip(): line for line in printed.lines[2:]}
    assert rows["robot/state"].split()[1:6] == ["300", "2.99", "s", "100", "Hz"]
    assert "q float[2], phase str" in rows["robot/state"]
    assert any(line.startswith("metrics: train") for line in printed.lines)
    topics = ask("ls", PICK, "--json").json[0]["topics"]
    assert {one["topic"]: one["entries"] for one in topics["tracks"]} == {
        "camera/pose": 10,
        "events": 1,
        "laser": 2,
        "robot/state": 300,
    }
    assert topics["tracks"][3]["columns"] == {"q": "list[float; 2]", "phase": "str"}


def test_a_folders_path_is_taken_for_its_prefix(ask: Ask, recordings: Path) -> None:
    """What the shell completes as a path works too."""
    assert ask("ls", str(recordings / PICK), "--json").json[0]["prefix"] == PICK


def test_ls_of_nothing(ask: Ask, tmp_path: Path) -> None:
    """An empty root is no error."""
    printed = ask("ls", root=tmp_path)
    assert (printed.code, printed.out) == (0, "")
    assert "no experiments" in printed.err


# ---------------------------------------------------------------- info


def test_info_of_a_run(ask: Ask) -> None:
    """Status, host, command, parameters, tags and topics; why a run failed."""
    told = ask("info", PICK).out
    for word in ("completed", "franka", "gains.kp=100", "Picks up blocks.", "robot/state", "process "):
        assert word in told
    assert "motor 3 stalled" in ask("info", IMU).out
    document = ask("info", PICK, "--json").json
    assert document["status"] == "completed"
    assert document["params"] == {"robot": "franka", "gains": {"kp": 100.0}}


def test_info_of_a_topic(ask: Ask) -> None:
    """Rate, gaps, and for each column range, mean and course; values that are not finite are counted."""
    printed = ask("info", PICK, "robot/state", "laser")
    assert "100 Hz; usual step 10 ms" in printed.out
    assert "no gaps" in printed.out
    assert "no numbers: phase str" in printed.out
    row = next(line for line in printed.lines if line.startswith("q[0]"))
    assert row.split()[1:4] == ["0", "1.495", "2.99"]
    assert row.endswith("█")
    assert "2 not finite" in printed.out
    numbers = ask("info", PICK, "robot/state", "-s", "+1", "-e", "+1.5", "--json").json[0]
    assert numbers["entries"] == 51
    assert numbers["numbers"]["q[0]"] == {
        "absent": 0,
        "infinite": 0,
        "low": 1.0,
        "mean": pytest.approx(1.25),
        "high": 1.5,
    }


def test_dates_are_shown_for_clock_times(ask: Ask) -> None:
    """Seconds since 1970 are told as dates too."""
    assert "that is 2023-11-14T22:13:20.500Z to 2023-11-14T22:13:21.500Z" in ask("info", IMU, "imu").out


def plain(series: Series) -> tuple[list[float], dict[str, list[float | None]], dict[str, int]]:
    """A series as lists, whatever it was read with; NaN as text, because it does not equal itself."""
    columns = {
        name: [None if value is None or value != value else float(value) for value in values]
        for name, values in series.columns.items()
    }
    return [float(time) for time in series.times], columns, dict(series.absent)


def test_the_same_without_pyarrow(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and statistics do not depend on what is installed."""
    pytest.importorskip("pyarrow")
    from ml_dash.catalog import LocalCatalog

    store = LocalCatalog(recordings).store(PICK)
    for topic in ("robot/state", "camera/pose", "events"):
        fast = series_of(store, Track("tracks", topic), Window())
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "pyarrow", None)
            slow = series_of(store, Track("tracks", topic), Window())
        assert plain(fast) == plain(slow)
        for name in fast.columns:
            one, other = summary(fast, name), summary(slow, name)
            assert (one.absent, one.infinite, one.low, one.high) == (
                other.absent,
                other.infinite,
                other.low,
                other.high,
            )
            assert one.mean == pytest.approx(other.mean)
            assert sparkline(fast, name, 20) == sparkline(slow, name, 20)


def test_pace_finds_gaps() -> None:
    """A hole longer than five usual steps is a gap, the longest first."""
    times = [number / 10 for number in range(50) if not 20 <= number < 30 and number != 40 and not 43 <= number < 49]
    pace = pace_of(times)
    assert pace.usual_step_s == pytest.approx(0.1)
    assert [(start, pytest.approx(length)) for start, length in pace.gaps] == [(1.9, 1.1), (4.2, 0.7)]
    assert pace_of([1.0]).rate_hz is None


def test_sparkline_leaves_holes_blank() -> None:
    """Stretches of time without values are blank; without any finite value there is nothing."""
    series = Series(
        [0.0, 1.0, 9.0, 10.0], {"x": [0.0, 0.0, 5.0, 10.0], "n": [None, float("nan"), None, None]}, {"x": 0, "n": 3}
    )
    assert sparkline(series, "x", 10) == "▁▁       █"
    assert sparkline(series, "x", 10, unicode=False) == "__       #"
    assert sparkline(series, "n", 10) == ""


# ---------------------------------------------------------------- plot


def test_plot_draws_each_column(ask: Ask) -> None:
    """A panel with its title for each part, in braille, no wider than the terminal."""
    printed = ask("plot", PICK, "robot/state", "q", "-H", "3")
    assert [line.strip() for line in printed.lines if line.strip().startswith("q[")] == ["q[0]", "q[1]"]
    assert any("⠀" < char <= "⣿" for char in printed.out)
    assert max(map(len, printed.lines)) <= 80


def test_plot_keeps_a_single_spike(own_recordings: Path, ask: Ask) -> None:
    """One entry among a hundred thousand still reaches the top of its panel."""
    with ml_dash.Experiment("a/b/spike", dash_root=own_recordings).run as exp:
        values = [0.0] * 100_000
        values[54_321] = 7.0
        exp.tracks("t").extend(_ts=[number / 1000 for number in range(100_000)], x=values)
    printed = ask("plot", "a/b/spike", "t", root=own_recordings)
    top = next(line for line in printed.lines if "7.00" in line)
    drawn = top.split("┤")[1].rstrip()
    assert len(drawn.split()) == 1
    assert 0.5 < len(drawn) / 73 < 0.6


def test_plot_writes_a_picture(ask: Ask, tmp_path: Path) -> None:
    """`-o` writes a file of the kind its ending says."""
    pytest.importorskip("matplotlib")
    assert ask("plot", PICK, "robot/state", "q", "-o", str(tmp_path / "x.png")).code == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- cat, head, tail


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        ("1", "1.05", (1.0, 1.05)),
        ("+2.9", None, (2.9, None)),
        ("-0.1", "-0.05", (2.99 - 0.1, 2.99 - 0.05)),
        (None, None, (None, None)),
    ],
)
def test_cat_windows(ask: Ask, recordings: Path, start: str | None, end: str | None, window: tuple[Any, Any]) -> None:
    """The JSON lines of a window are the entries that the API reads for it, byte for byte readable."""
    words = [*(["--start", start] if start else []), *(["--end", end] if end else [])]
    printed = ask("cat", PICK, "robot/state", "--json", *words)
    found = [from_line(line.encode()) for line in printed.lines]
    assert found == entries(recordings, PICK, "robot/state", start_timestamp=window[0], end_timestamp=window[1])
    assert found


def test_cat_by_date(ask: Ask) -> None:
    """Windows may be given as dates."""
    assert len(ask("cat", IMU, "imu", "-s", "2023-11-14T22:13:21Z").lines) == 1


def test_cat_of_several_topics_is_ordered_by_time(ask: Ask) -> None:
    """Patterns merge topics into one course of time; each line says its topic."""
    found = [json.loads(line) for line in ask("cat", PICK, "robot/*", "camera", "--json").lines]
    assert len(found) == 310
    stamps = [one["entry"]["timestamp"] for one in found]
    assert stamps == sorted(stamps)
    assert {one["topic"] for one in found} == {"robot/state", "camera/pose"}


def test_cat_for_people(ask: Ask) -> None:
    """Whole numbers, lists without commas, odd values by name, columns chosen; non-finite values in JSON as text."""
    assert ask("cat", PICK, "laser").lines == ["    0.0       ranges=[1.0 inf]", "    0.1       ranges=[2.0 nan]"]
    assert ask("cat", PICK, "robot/state", "-e", "0", "-c", "phase").lines == ["    0.0       phase=reach"]
    assert ask("cat", PICK, "laser", "--json").lines[0] == '{"timestamp":0.0,"ranges":[1.0,"Infinity"]}'
    assert ask("cat", PICK, "-k", "metrics", "train", "-c", "loss").lines[1].split()[1:] == [
        "index=1",
        f"loss={1 / 31!r}",
    ]


def test_head_and_tail(ask: Ask, recordings: Path) -> None:
    """The first and the last entries of each topic, titled where there are several."""
    whole = entries(recordings, PICK, "robot/state")
    for count in (0, 1, 7, 299, 300, 1000):
        first = [
            from_line(line.encode()) for line in ask("head", PICK, "robot/state", "-n", str(count), "--json").lines
        ]
        last = [from_line(line.encode()) for line in ask("tail", PICK, "robot/state", "-n", str(count), "--json").lines]
        assert first == whole[:count]
        assert last == (whole[-count:] if count else [])
    titles = [line for line in ask("head", PICK, "-n", "1").lines if line.startswith("==>")]
    assert titles == ["==> camera/pose <==", "==> events <==", "==> laser <==", "==> robot/state <=="]
    assert ask("tail", PICK, "-k", "logs", "-n", "1").out.endswith("level=info  message=started\n")


def test_tail_of_uneven_times(own_recordings: Path, ask: Ask) -> None:
    """The last entries are found also where they are far apart, and others dense."""
    with ml_dash.Experiment("a/b/uneven", dash_root=own_recordings).run as exp:
        stamps = [number / 1000 for number in range(5000)] + [1e6, 2e6, 3e6]
        exp.tracks("t").extend(_ts=stamps, x=list(range(len(stamps))))
    printed = ask("tail", "a/b/uneven", "t", "-n", "5", "--json", root=own_recordings)
    assert [json.loads(line)["x"] for line in printed.lines] == [4998, 4999, 5000, 5001, 5002]


RECORDER = """
import sys
from ml_dash import Experiment
with Experiment("live/run/one", dash_root=sys.argv[1]).run as exp:
    exp.tracks("a").append(x=0, _ts=0.0)
    for line in sys.stdin:
        number = int(line)
        exp.tracks("a").append(x=number, _ts=float(number))
        exp.tracks("a").append(late=True, _ts=float(number))
        if number == 2:
            exp.tracks("b/new").append(y=1, _ts=2.5)
            exp.tracks.flush()
        print("recorded", flush=True)
"""


def test_tail_follows_a_run_of_another_process(tmp_path: Path) -> None:
    """Each instant once and whole, journal included, topics that begin later too; it ends when the run does."""
    recorder = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert recorder.stdin is not None
    assert recorder.stdout is not None

    def append(number: int) -> None:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        recorder.stdin.write(f"{number}\n")
        recorder.stdin.flush()
        assert recorder.stdout.readline() == "recorded\n"

    append(1)
    follower = subprocess.Popen(
        command("tail", "-f", "latest", "-n", "1", "--json", root=tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    first = {"topic": "a", "entry": {"timestamp": 1.0, "x": 1, "late": True}}
    assert json.loads(follower.stdout.readline()) == first, "lines of one form, since other topics may join"
    append(2)
    found = [json.loads(follower.stdout.readline()) for _ in range(2)]
    append(3)
    found.append(json.loads(follower.stdout.readline()))
    recorder.stdin.close()
    recorder.stdout.close()
    assert recorder.wait(30) == 0
    assert follower.stdout.read() == ""
    assert follower.wait(30) == 0
    follower.stdout.close()
    assert {"topic": "b/new", "entry": {"timestamp": 2.5, "y": 1}} in found
    assert {"topic": "a", "entry": {"timestamp": 2.0, "x": 2, "late": True}} in found
    assert found[-1] == {"topic": "a", "entry": {"timestamp": 3.0, "x": 3, "late": True}}


def test_tail_follow_of_a_finished_run_ends(ask: Ask) -> None:
    """There is nothing to wait for."""
    printed = ask("tail", "-f", PICK, "events", "--json")
    assert printed.code == 0
    assert printed.json == {"timestamp": 1.5, "event": "größer"}, "one topic by name: as it is stored"
    assert "not being recorded any more" in printed.err


# ---------------------------------------------------------------- export


def test_export_to_stdout_and_files(ask: Ask, recordings: Path, tmp_path: Path) -> None:
    """Every format holds the same entries as the API's read of that format; the ending chooses it."""
    whole = entries(recordings, PICK, "robot/state")
    assert [from_line(line.encode()) for line in ask("export", PICK, "robot/state").lines] == whole
    assert json.loads(ask("export", PICK, "robot/state", "-f", "json").out) == {"entries": whole, "count": 300}
    for ending in ("jsonl", "csv", "json", "mocap.json"):
        path = tmp_path / f"x.{ending}"
        words = ["-f", "mocap"] if ending == "mocap.json" else []
        assert ask("export", PICK, "robot/state", "-o", str(path), *words).code == 0
        assert path.stat().st_size > 1000
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [float(row["q[0]"]) for row in rows] == [entry["q"][0] for entry in whole]
    assert json.loads((tmp_path / "x.mocap.json").read_text())["metadata"]["frameCount"] == 300


def test_export_parquet(ask: Ask, recordings: Path, tmp_path: Path) -> None:
    """Parquet files of several topics, in a folder, named as the recorder names them."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    printed = ask("export", PICK, "-f", "parquet", "-o", str(tmp_path / "out"), "-s", "+1")
    assert printed.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "camera_pose.parquet", "events.parquet", "laser.parquet", "robot_state.parquet",
    ]  # fmt: skip
    table = pq.read_table(tmp_path / "out/robot_state.parquet")
    assert table.num_rows == 200
    assert table.schema.field("q").type.list_size == 2
    assert pa.types.is_float64(table.schema.field("timestamp").type)


def test_export_replaces_a_file_only_when_complete(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before stays until the new file is whole; nothing half-written is left."""
    import ml_dash.formats.json as json_format

    path = tmp_path / "x.jsonl"
    path.write_text("before")

    def full(*args: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_format, "to_jsonl", full)
    printed = ask("export", PICK, "robot/state", "-o", str(path))
    assert printed.code == 1
    assert "No space left" in printed.err
    assert [one.name for one in tmp_path.iterdir()] == ["x.jsonl"]
    assert path.read_text() == "before"


def test_csv_takes_values_apart(tmp_path: Path, ask: Ask) -> None:
    """Ragged lists, dicts, truth values, nulls and text with commas each find their cell."""
    with ml_dash.Experiment("a/b/c", dash_root=tmp_path).run as exp:
        track = exp.tracks("t")
        track.append(a=[1, [2, 3]], b=True, c=None, s='x,"y"', _ts=1.0)
        track.append(a=[], b=1.5, d={"x": {"y": 1}}, _ts=2.0).append(a="t", _ts=3.0).append(_ts=4.0)
    printed = ask("export", "a/b/c", "t", "-f", "csv", root=tmp_path)
    assert list(csv.reader(io.StringIO(printed.out))) == [
        ["timestamp", "a", "a[0]", "a[1][0]", "a[1][1]", "b", "c", "s", "d.x.y"],
        ["1.0", "", "1", "2", "3", "true", "", 'x,"y"', ""],
        ["2.0", "", "", "", "", "1.5", "", "", "1"],
        ["3.0", "t", "", "", "", "", "", "", ""],
        ["4.0", "", "", "", "", "", "", "", ""],
    ]


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ml-dash ver", ["verify"]),
        ("ml-dash cat al", [PICK]),
        ("ml-dash cat lat", ["latest"]),
        (f"ml-dash cat {PICK} rob", ["robot/state"]),
        (f"ml-dash cat -k metrics {PICK} t", ["train"]),
        (f"ml-dash export {PICK} --format j", ["jsonl", "json"]),
    ],
)
def test_completion(recordings: Path, line: str, offered: list[str]) -> None:
    """Commands, prefixes, topics and choices are completed."""
    shell = {"_ML_DASH_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    printed = program(root=recordings, **shell)
    assert [row.split(",")[1] for row in printed.lines] == offered


def test_completion_of_nothing_is_silent(tmp_path: Path) -> None:
    """Where there is no root, completing offers nothing and complains of nothing."""
    shell = {"_ML_DASH_COMPLETE": "bash_complete", "COMP_WORDS": "ml-dash cat x", "COMP_CWORD": "2"}
    printed = program(root=tmp_path / "none", **shell)
    assert (printed.code, printed.out.strip(), printed.err) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(ask: Ask, shell: str) -> None:
    """Each shell gets a script that asks this program."""
    assert "_ML_DASH_COMPLETE" in ask("completion", shell).out
