"""Recordings of others: what is recognised, what becomes of it, and that a broken file leaves nothing behind."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_dash import Experiment
from ml_dash.errors import InvalidFile, MissingExtra
from ml_dash.importing import Options, import_file, inspect_file
from ml_dash.line import from_lines
from real_recordings import recording


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of the given lines."""

    def written(name: str, *lines: str, end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_text(end.join(lines) + end, encoding="utf-8", newline="")
        return path

    return written


def entries(experiment: Experiment, topic: str) -> list[dict[str, Any]]:
    """What was stored."""
    return experiment.tracks(topic).list_entries()


# ---------------------------------------------------------------- TUM and EuRoC


def test_tum(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Eight numbers a line are a pose: position and quaternion x, y, z, w; comments are passed over."""
    path = write(
        "traj.txt", "# ground truth", "1305031098.6659 1.5 0.5 2 0 0 0.6 -0.8", "", "1305031098.7 1 2 3 0 0 0 1"
    )
    report = import_file(experiment, path, Options(topic="camera/pose"))
    assert (report.format, report.time_unit, report.rows) == ("tum", "s", 2)
    assert report.topics[0].fields == {"p": "list[float; 3]", "q": "list[float; 4]"}
    assert entries(experiment, "camera/pose") == [
        {"timestamp": 1305031098.6659, "p": [1.5, 0.5, 2.0], "q": [0.0, 0.0, 0.6, -0.8]},
        {"timestamp": 1305031098.7, "p": [1.0, 2.0, 3.0], "q": [0.0, 0.0, 0.0, 1.0]},
    ]


def test_euroc(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Nanoseconds become seconds, rounded once; vectors lose their frames' names, quaternions become x, y, z, w."""
    head = "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"
    path = write(
        "gt.csv",
        head + ", b_w_RS_S_x [rad s^-1], b_w_RS_S_y [], b_w_RS_S_z []",
        "1403715524907143168,1,2,3,0.5,0.1,0.2,0.3,7,8,9",
    )
    report = import_file(experiment, path)
    assert (report.format, report.time_unit) == ("euroc", "ns")
    assert entries(experiment, "gt") == [
        {
            "timestamp": 1403715524907143168 / 10**9,
            "p": [1, 2, 3],
            "q": [0.1, 0.2, 0.3, 0.5],
            "b_w": [7, 8, 9],
        }
    ]
    assert any(note.startswith("q is stored in the order q_RS_x") for note in report.notes)


def test_real_tum(experiment: Experiment) -> None:
    """3,000 poses of the TUM benchmark, first and last as in the file."""
    path = recording("freiburg1_xyz-groundtruth.txt")
    import_file(experiment, path)
    found = entries(experiment, "freiburg1_xyz-groundtruth")
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(found) == len(rows) == 3000
    assert [[e["timestamp"], *e["p"], *e["q"]] for e in found] == [[float(cell) for cell in row] for row in rows]


def test_real_euroc(experiment: Experiment) -> None:
    """16,702 states of EuRoC, every number as in the file."""
    path = recording("euroc_V1_02_groundtruth.csv")
    import_file(experiment, path, Options(topic="gt"))
    rows = list(csv.reader(path.read_text().splitlines()))[1:]
    found = entries(experiment, "gt")
    assert len(found) == len(rows) == 16_702
    for entry, row in zip(found, rows, strict=True):
        numbers = [float(cell) for cell in row[1:]]
        assert entry["timestamp"] == int(row[0]) / 10**9
        assert entry["p"] + [entry["q"][3]] + entry["q"][:3] + entry["v"] + entry["b_w"] + entry["b_a"] == numbers


def test_real_sparse_wide_csv(experiment: Experiment) -> None:
    """Two robots in one table: each topic has the rows in which its cells are filled, and nothing else."""
    path = recording("turtle_sparse.csv")
    report = import_file(experiment, path, Options(depth=2))
    assert {topic.topic for topic in report.topics} == {"turtle1/cmd_vel", "turtle2/cmd_vel"}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for robot in ("turtle1", "turtle2"):
        there = [row for row in rows if row[f"/{robot}/cmd_vel/linear/x"]]
        found = entries(experiment, f"{robot}/cmd_vel")
        assert [entry["timestamp"] for entry in found] == [float(row["__time"]) for row in there]
        assert [entry["linear"]["x"] for entry in found] == [float(r[f"/{robot}/cmd_vel/linear/x"]) for r in there]


# ---------------------------------------------------------------- CSV


def test_plain_csv(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Columns are what their cells say: ints, floats, truth values, text; an empty cell is no value."""
    path = write("motor.csv", "t,n,x,ok,label", "0,1,0.5,true,on", '0.001,2,3,false,"a, ""b"""', "0.002,,nan,,")
    import_file(experiment, path)
    found = entries(experiment, "motor")
    assert found[:2] == [
        {"timestamp": 0.0, "n": 1, "x": 0.5, "ok": True, "label": "on"},
        {"timestamp": 0.001, "n": 2, "x": 3.0, "ok": False, "label": 'a, "b"'},
    ]
    assert found[2].keys() == {"timestamp", "x"}
    assert math.isnan(found[2]["x"])
    assert [type(found[0][name]) for name in ("n", "x")] == [int, float]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_and_line_ends(experiment: Experiment, write: Callable[..., Path], sign: str, end: str) -> None:
    """The separator is found; a byte order mark and blank lines do not matter."""
    path = write("x.csv", "\ufefftime" + sign + "a", f"1{sign}2.5", "", f"3{sign}4.5", end=end)
    import_file(experiment, path)
    assert entries(experiment, "x") == [{"timestamp": 1.0, "a": 2.5}, {"timestamp": 3.0, "a": 4.5}]


@pytest.mark.parametrize(
    ("head", "cell", "seconds"),
    [
        ("timestamp", "12.5", 12.5),
        ("Time", "1700000000.25", 1700000000.25),
        ("time_ms", "1500", 1.5),
        ("t (us)", "1500", 0.0015),
        ("stamp [ns]", "1403715524907143168", 1403715524.9071431),
        ("timestamp", "1403715524907143168", 1403715524.9071431),
        ("timestamp", "1700000000123456", 1700000000.123456),
        ("timestamp", "1700000000123", 1700000000.123),
        ("date", "2023-11-14T22:13:20.5Z", 1700000000.5),
        ("datetime", "2023-11-14 22:13:20", 1700000000.0),
        ("header.stamp", "7", 7.0),
    ],
)
def test_timestamp_is_recognised(
    experiment: Experiment, write: Callable[..., Path], head: str, cell: str, seconds: float
) -> None:
    """By its name, in the unit that the name or the size says, to the nearest float64."""
    import_file(experiment, write("x.csv", f"a,{head},b", f"1,{cell},2"))
    assert entries(experiment, "x") == [{"timestamp": seconds, "a": 1, "b": 2}]


def test_timestamp_is_chosen(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Options overrule what would be recognised."""
    path = write("x.csv", "time,other,a", "1,2000,3")
    import_file(experiment, path, Options(topic="chosen", time="other", unit="ms"))
    assert entries(experiment, "chosen") == [{"timestamp": 2.0, "time": 1, "a": 3}]


def test_groups(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Vectors by name of their own, in the given order; with a missing part as null; all missing, absent."""
    path = write("x.csv", "t,x,y,z,q_0,q_1,n", "0,1,2,3,4,5,6", "1,1,,3,4,5,6", "2,,,,4,5,6")
    import_file(experiment, path, Options(groups={"p": ("x", "y", "z"), "qn": ("q_1", "n")}, topic="own"))
    assert entries(experiment, "own")[0] == {"timestamp": 0.0, "p": [1, 2, 3], "qn": [5, 6], "q_0": 4}
    import_file(experiment, path, Options(auto_group=True, topic="auto"))
    assert entries(experiment, "auto") == [
        {"timestamp": 0.0, "xyz": [1, 2, 3], "q": [4, 5], "n": 6},
        {"timestamp": 1.0, "xyz": [1, None, 3], "q": [4, 5], "n": 6},
        {"timestamp": 2.0, "q": [4, 5], "n": 6},
    ]


def test_choosing_columns(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Only what is asked for; numbers kept as text where they are names."""
    path = write("x.csv", "t,id,a,b", "0,007,1,NA", "1,008,2,5")
    import_file(experiment, path, Options(columns=("id", "b"), text=("id",), missing=("NA",)))
    assert entries(experiment, "x") == [{"timestamp": 0.0, "id": "007"}, {"timestamp": 1.0, "id": "008", "b": 5}]


def test_wide_names(experiment: Experiment, write: Callable[..., Path]) -> None:
    """What stands before the last slash is the topic, below a topic of one's own; or slashes mean nothing."""
    path = write("x.csv", "t,/arm/q/x,/arm/q/y,/base/v", "0,1,2,3")
    report = import_file(experiment, path, Options(topic="run7"))
    assert [topic.topic for topic in report.topics] == ["run7/arm/q", "run7/base"]
    assert entries(experiment, "run7/arm/q") == [{"timestamp": 0.0, "x": 1, "y": 2}]
    import_file(experiment, path, Options(topic="flat", wide=False))
    assert entries(experiment, "flat") == [{"timestamp": 0.0, "/arm/q/x": 1, "/arm/q/y": 2, "/base/v": 3}]


def test_same_stamps_merge_and_the_later_row_wins(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Rows of one timestamp are one entry, also when they fill different cells; the report counts them."""
    path = write("x.csv", "t,a,b", "0,1,", "0,2,7", "0,3,", "1,4,8")
    report = import_file(experiment, path)
    assert report.topics[0].repeated == 2
    assert entries(experiment, "x") == [{"timestamp": 0.0, "a": 3, "b": 7}, {"timestamp": 1.0, "a": 4, "b": 8}]


def test_rows_in_any_order(experiment: Experiment, write: Callable[..., Path]) -> None:
    """What is stored ascends."""
    import_file(experiment, write("x.csv", "t,a", "3,1", "-1,2", "2,3"))
    assert [entry["timestamp"] for entry in entries(experiment, "x")] == [-1.0, 2.0, 3.0]


# ---------------------------------------------------------------- files that cannot be imported


@pytest.mark.parametrize(
    ("name", "lines", "told"),
    [
        ("x.csv", ["t,a", "0,1", "1,2,3"], "line 3 has 3 cells, the table has 2 columns"),
        ("x.csv", ["t,a", "0,1", "1"], "line 3 has 1 cells"),
        ("x.csv", ["t,a", "0,1", "1,oops"], "column 'a' holds numbers up to line 3, which has 'oops'"),
        ("x.csv", ["t,a", "0,true", "1,maybe"], "column 'a' holds true or false up to line 3"),
        ("x.csv", ["t,a", "0,1", ",2"], "line 3 has no timestamp"),
        ("x.csv", ["t,a", "0,1", "inf,2"], "line 3 has the timestamp inf"),
        (
            "x.csv",
            ["date,a", "2023-01-01,1", "yesterday,2"],
            "line 3 has the timestamp 'yesterday', which is not a date",
        ),
        ("x.csv", ["a,b", "0,1"], "no column is called like a timestamp; name it (time=, --time). Columns: a, b"),
        ("x.csv", ["t,a,a", "0,1,2"], "two columns are called 'a'"),
        ("x.csv", ["t", "0"], "no rows with values beside the timestamp"),
        ("x.csv", ["# only a comment"], "has no rows"),
        ("x.csv", ["t,a", "0,99999999999999999999"], "integers beyond 64 bits"),
        ("x.csv", ["t,a", "0,9007199254740993", "1,0.5"], "integers beyond what floats hold"),
        ("x.csv", ["t,a", "0,1_000", "1,2"], "x.csv"),
        ("x.csv", ["t,a", '0,"open', "1,2"], "x.csv"),
        ("x.jsonl", ['{"timestamp": 1, "a": 1}', "{broken"], "line 2 is no JSON object"),
        ("x.jsonl", ['{"timestamp": 1, "a": 1}', "[1]"], "line 2 is no JSON object"),
        ("x.jsonl", ['{"timestamp": 1, "a": 1}', '{"a": 2}'], "x.jsonl: line 2 has no timestamp"),
        ("x.jsonl", ['{"timestamp": [1], "a": 1}'], "x.jsonl: line 1 has"),
        ("x.jsonl", ['{"timestamp": {"sec": 1}, "a": 1}'], "x.jsonl: line 1 has"),
        ("x.jsonl", ['{"timestamp": "soon", "a": 1}'], "line 1 has the timestamp 'soon'"),
        ("x.txt", ['[{"timestamp": 1}]'], "one JSON array"),
        ("x.npz", ["no archive"], "x.npz cannot be read"),
        ("x.bvh", ["HIERARCHY"], "in no format that can be imported"),
        ("x.mcap", ["\x89MCAP0"], ".mcap cannot be imported; read its messages with the mcap"),
    ],
)
def test_broken_files_are_named_and_leave_nothing(
    experiment: Experiment, write: Callable[..., Path], name: str, lines: list[str], told: str
) -> None:
    """The error names the file's line and column; no row of it is stored, however many came before."""
    path = write(name, *lines)
    if told == "x.csv":  # whatever is read of these, it is no silent guess
        try:
            report = inspect_file(path)
        except InvalidFile:
            return
        assert report.topics[0].fields == {"a": "str"}
        return
    with pytest.raises(InvalidFile) as caught:
        import_file(experiment, path)
    assert told in str(caught.value)
    assert experiment.tracks.list() == []


def test_broken_row_far_behind(experiment: Experiment, tmp_path: Path) -> None:
    """A broken row after a hundred thousand good ones still leaves nothing, and is named by its line."""
    path = tmp_path / "long.csv"
    path.write_text("t,a\n" + "".join(f"{n / 1000},{n}\n" for n in range(100_000)) + "100,1,2\n")
    with pytest.raises(InvalidFile, match="line 100002 has 3 cells"):
        import_file(experiment, path)
    assert experiment.tracks.list() == []


def test_large_integers_before_a_late_fraction(experiment: Experiment, tmp_path: Path) -> None:
    """A column that turns to floats long after an integer floats cannot hold is refused, not rounded."""
    path = tmp_path / "ids.csv"
    path.write_text("t,id\n0,9007199254740993\n" + "".join(f"{n},{n}\n" for n in range(1, 50_000)) + "50000,0.5\n")
    with pytest.raises(InvalidFile, match="integers beyond what floats hold"):
        import_file(experiment, path)
    report = import_file(experiment, path, Options(text=("id",)))
    assert report.topics[0].fields == {"id": "str"}


def test_no_text_at_all(experiment: Experiment, tmp_path: Path) -> None:
    """Binary files and other encodings are told apart from tables."""
    (tmp_path / "x.csv").write_bytes(b"t,a\n0,\xff\xfe\n")
    with pytest.raises(InvalidFile, match=r"no UTF-8 text \(byte"):
        inspect_file(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_bytes(b"\0\1\2\3")
    with pytest.raises(InvalidFile, match="in no format that can be imported"):
        inspect_file(tmp_path / "y.csv")
    with pytest.raises(FileNotFoundError):
        inspect_file(tmp_path / "none.csv")


def test_wrong_options(write: Callable[..., Path]) -> None:
    """Formats, units and columns that do not exist are refused with what there is."""
    path = write("x.csv", "time,alpha", "0,1")
    for options, told in (
        (Options(format="xls"), "known are csv, tum"),
        (Options(unit="days"), "known are s, ms, us, ns, iso"),
        (Options(time="tme"), "did you mean 'time'"),
        (Options(columns=("alph",)), "did you mean 'alpha'"),
        (Options(groups={"p": ("alpha", "beta")}), "no column 'beta'"),
    ):
        with pytest.raises(InvalidFile, match=told):
            inspect_file(path, options)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(st.sampled_from('t,ae1.\n"#;- \r\t{}[]:x'), max_size=120).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever a file holds, looking at it ends with a report or with an error that names it."""
    for name in ("f.csv", "f.jsonl", "f.npz", "f.parquet"):
        path = tmp_path / name
        path.write_bytes(content)
        with contextlib.suppress(InvalidFile):
            assert inspect_file(path).rows > 0


# ---------------------------------------------------------------- JSON lines, Parquet, npz


ODD: list[dict[str, Any]] = [
    {"q": [1.0, 2.0], "n": 1, "note": "ünï,\n"},
    {"q": [1.0, float("inf")], "n": None},
    {"pose": {"x": 1.0, "deep": [{"a": None}]}, "n": "text"},
    {},
    {"q": [], "big": 2**63},
]


@pytest.fixture
def odd(new_experiment: Callable[..., Experiment]) -> Experiment:
    """A run whose entries differ in every way."""
    exp = new_experiment("alice/odd/run").run.start()
    for number, fields in enumerate(ODD):
        exp.tracks("t").append(**fields, _ts=number / 2)
    return exp


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_own_exports_come_back_as_they_were(
    odd: Experiment, new_experiment: Callable[..., Experiment], tmp_path: Path, form: str
) -> None:
    """Exported and imported again, a track is the same: nulls, absences, mixtures, nesting, instants without fields."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"t.{form}"
    path.write_bytes(odd.tracks("t").read(format=form))
    again = new_experiment("alice/odd/again").run.start()
    import_file(again, path)
    assert [repr(sorted(one.items())) for one in entries(again, "t")] == [
        repr(sorted(one.items())) for one in entries(odd, "t")
    ]


def test_own_csv_comes_back_as_vectors(
    odd: Experiment, new_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """A CSV export is a table of numbers again, its lists found by name."""
    odd.tracks("arm").extend(_ts=[0.0, 0.5], q=[[1.5, 2.5], [3.5, 4.5]], grip=[True, False])
    path = tmp_path / "arm.csv"
    path.write_bytes(odd.tracks("arm").read(format="csv"))
    again = new_experiment("alice/odd/again").run.start()
    import_file(again, path, Options(auto_group=True))
    assert entries(again, "arm") == entries(odd, "arm")


def test_json_lines_of_others(experiment: Experiment, write: Callable[..., Path]) -> None:
    """Another name for the time, its unit, bare NaN, fields that come and go."""
    path = write("x.ndjson", '{"stamp_ms": 1500, "a": NaN}', "", '{"b": {"c": [1, null]}, "stamp_ms": 2500}')
    import_file(experiment, path)
    found = entries(experiment, "x")
    assert math.isnan(found[0].pop("a"))
    assert found == [{"timestamp": 1.5}, {"timestamp": 2.5, "b": {"c": [1, None]}}]


def test_npz(experiment: Experiment, tmp_path: Path) -> None:
    """Arrays as long as the time become fields of their shape; others are named and left out; objects refused."""
    np = pytest.importorskip("numpy")
    count = 120_000
    times = np.arange(count) * 1_000_000 + 1_700_000_000_000_000_000
    path = tmp_path / "walk.npz"
    q = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    np.savez(path, time=times, q=q, ok=np.arange(count) % 2 == 0, fps=60)
    report = import_file(experiment, path, Options(topic="walk"))
    assert report.notes[0] == "left out fps (): not as long as the timestamps"
    assert report.topics[0].fields == {"q": "list[list[float; 3]; 2]", "ok": "bool"}
    found = entries(experiment, "walk")
    assert len(found) == count
    assert found[-1] == {"timestamp": times[-1].item() / 10**9, "q": q[-1].tolist(), "ok": False}
    np.savez(path, time=np.arange(2), x=np.array([{}, {}], dtype=object))
    with pytest.raises(InvalidFile, match="cannot be read"):
        inspect_file(path)


def test_parquet_of_others(experiment: Experiment, tmp_path: Path) -> None:
    """Arrow's own timestamps in any unit and zone, dictionaries, lists and nulls."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    stamps = pa.array([1_700_000_000_000_123, 1_700_000_001_000_000], pa.timestamp("us", "UTC"))
    table = pa.table(
        {
            "when": stamps,
            "q": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "label": pa.array(["a", "b"]).dictionary_encode(),
            "gap": pa.array([1, None]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    import_file(experiment, tmp_path / "x.parquet", Options(time="when"))
    assert entries(experiment, "x") == [
        {"timestamp": 1_700_000_000.000123, "q": [1.0, 2.0], "label": "a", "gap": 1},
        {"timestamp": 1_700_000_001.0, "q": [3.0, 4.0], "label": "b"},
    ]


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow or NumPy the error says what to install; text needs neither."""
    import sys

    for name in ("pyarrow", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "x.csv").write_text("t,a\n0,1\n")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "x.npz").write_bytes(b"PK")
    assert inspect_file(tmp_path / "x.csv").rows == 1
    for name in ("x.parquet", "x.npz"):
        with pytest.raises(MissingExtra, match="pip install"):
            inspect_file(tmp_path / name)


# ---------------------------------------------------------------- storing


def test_looking_stores_nothing(experiment: Experiment, write: Callable[..., Path]) -> None:
    """`inspect_file` says what would be, and needs no experiment."""
    report = inspect_file(write("x.csv", "t,a", "0,1", "2,0.5"))
    topic = report.topics[0]
    assert (topic.topic, topic.rows, topic.first_timestamp, topic.last_timestamp) == ("x", 2, 0.0, 2.0)
    assert topic.fields == {"a": "float"}
    assert experiment.tracks.list() == []


def test_rows_merge_with_what_is_there(experiment: Experiment, write: Callable[..., Path]) -> None:
    """An import is like appends: entries of one timestamp are one."""
    experiment.tracks("x").append(a=1, b=2, _ts=0.0)
    import_file(experiment, write("x.csv", "t,b,c", "0,3,4"))
    assert entries(experiment, "x") == [{"timestamp": 0.0, "a": 1, "b": 3, "c": 4}]


def test_progress_reaches_the_files_size(write: Callable[..., Path]) -> None:
    """The bytes that are told add up to whole readings of the file."""
    path = write("x.csv", "t,a", *(f"{number},{number}" for number in range(10_000)))
    told: list[int] = []
    inspect_file(path, advance=told.append)
    assert sum(told) % path.stat().st_size == 0
    assert len(told) > 2


def test_json_lines_need_no_index_of_ours(experiment: Experiment, write: Callable[..., Path]) -> None:
    """A `data.jsonl` itself can be imported."""
    lines = ['{"timestamp":1.0,"q":[0.5,"NaN"]}', '{"timestamp":2.0,"s":"\\u004eaN"}']
    path = write("data.jsonl", *lines)
    import_file(experiment, path, Options(topic="copy"))
    expected = from_lines(path.read_bytes())
    assert repr(entries(experiment, "copy")) == repr(expected)
    assert json.loads(lines[0])["q"][1] == "NaN"
