"""What `read(format=...)` gives: the same entries in every format, and files that the tools of the field open."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ml_dash import Experiment, InvalidWindow
from ml_dash.formats import FORMATS
from ml_dash.formats.arrow import entries_from_table
from ml_dash.formats.parquet import read_parquet
from ml_dash.line import from_lines
from ml_dash.tracks import TrackBuilder
from store_contract import same

NAN, INF = math.nan, math.inf
DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"

ENTRIES: list[dict[str, Any]] = [
    {"timestamp": 0.0, "q": [0.1, 0.2], "n": 1, "mode": "reach", "ok": True, "pose": {"p": [1.0, 2.0], "w": 1}},
    {"timestamp": 0.5, "q": [0.3, NAN], "n": 2, "mode": "NaN", "ok": False, "scan": [INF, -INF, 1.0]},
    {"timestamp": 1.0, "q": [0.5, 0.6], "n": -(2**63), "ok": None, "pose": {"p": [3.0, 4.0], "w": 2}},
    {"timestamp": 2.0},
    {"timestamp": 2.5, "q": [0.7, 0.8], "mixed": 1, "big": 2**64 - 1, "ünï": "ü", "a.b": 1.5},
    {"timestamp": 4.0, "mixed": "text", "empty": [], "scan": [1.0], "time": 7, "time_": 8, "only_last": 1.25},
]


@pytest.fixture
def track(experiment: Experiment) -> TrackBuilder:
    """A track with all kinds of values and gaps: part of it in the file, late and unsorted, part in the journal."""
    track = experiment.tracks("arm/state")
    for place in (2, 0, 5):
        append(track, ENTRIES[place])
    track.flush()
    for place in (4, 1, 3):
        append(track, ENTRIES[place])
    return track


def append(track: TrackBuilder, entry: dict[str, Any]) -> None:
    """Append an entry as it is to be read."""
    track.append(_ts=entry["timestamp"], **{name: value for name, value in entry.items() if name != "timestamp"})


def parquet_entries(data: bytes) -> list[dict[str, Any]]:
    """The entries of a Parquet file by our own rules of reading them back."""
    return list(entries_from_table(read_parquet(data)))


WINDOWS: list[dict[str, Any]] = [
    {},
    {"start_timestamp": 0.5, "end_timestamp": 2.0},
    {"columns": ["q"]},
    {"columns": ["q", "pose.w", "a.b"]},
    {"columns": ["timestamp"]},
    {"start_timestamp": 1.0, "columns": ["scan", "only_last"]},
    {"start_timestamp": 2.0, "end_timestamp": 1.0},
    {"start_timestamp": 99.0},
    {"columns": []},
    {"columns": ["unknown"]},
]


@pytest.mark.parametrize("window", WINDOWS, ids=repr)
def test_every_format_has_the_same_entries(track: TrackBuilder, window: dict[str, Any]) -> None:
    """Windows and columns select alike, and what is empty is so alike, in json, jsonl, Parquet and mocap."""
    pytest.importorskip("pyarrow")
    found = track.read(**window)
    assert found["count"] == len(found["entries"])
    if not window:
        assert same(found["entries"], ENTRIES)
    assert same(from_lines(track.read(**window, format="jsonl")), found["entries"])
    assert same(unordered(parquet_entries(track.read(**window, format="parquet"))), unordered(found["entries"]))
    frames = track.read(**window, format="mocap")["frames"]
    assert [frame["time"] for frame in frames] == [entry["timestamp"] for entry in found["entries"]]
    assert [len(frame) for frame in frames] == [len(entry) for entry in found["entries"]]


def unordered(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries with their fields by name: a table has one order of columns for all."""
    return [dict(sorted(entry.items())) for entry in entries]


@pytest.mark.parametrize("name", ["unknown", "JSON", "", None, 1, ["json"], "json "], ids=repr)
def test_an_unknown_format_is_refused_before_reading(experiment: Experiment, name: Any) -> None:
    """A ValueError lists the known formats, also for a topic that is empty and a window that makes no sense."""
    with pytest.raises(
        InvalidWindow, match=r"^unknown format .*; known are 'json', 'jsonl', 'parquet', 'mocap'"
    ) as caught:
        experiment.tracks("nobody").read(start_timestamp="rubbish", format=name)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)


def test_the_documented_formats_are_there() -> None:
    """The four of the API document."""
    assert {"json", "jsonl", "parquet", "mocap"} <= set(FORMATS)


def test_a_topic_nobody_recorded_is_empty_in_every_format(experiment: Experiment, folder: Path) -> None:
    """Each format has its empty form, and reading creates nothing."""
    pytest.importorskip("pyarrow")
    empty = experiment.tracks("nobody")
    assert empty.read() == {"entries": [], "count": 0}
    assert empty.read(format="jsonl") == b""
    table = read_parquet(empty.read(format="parquet"))
    assert (table.num_rows, table.column_names, str(table.schema.types[0])) == (0, ["timestamp"], "double")
    assert empty.read(format="mocap") == {
        "version": "1.0",
        "metadata": {"topic": "nobody", "fps": 0.0, "duration": 0.0, "frameCount": 0, "startTime": 0.0, "endTime": 0.0},
        "channels": [],
        "frames": [],
    }
    assert not (folder / "tracks").exists()


# ---------------------------------------------------------------- jsonl


def test_jsonl_is_strict_and_is_the_file(experiment: Experiment, track: TrackBuilder, folder: Path) -> None:
    """One strict JSON object a line, the timestamp first: the bytes that the closed `data.jsonl` has."""
    raw = track.read(format="jsonl")
    assert type(raw) is bytes
    for line in raw.splitlines():
        strict = json.loads(line, parse_constant=lambda token: pytest.fail(f"{token} is no strict JSON"))
        assert next(iter(strict)) == "timestamp"
    experiment.run.complete()
    assert (folder / "tracks/arm_state/data.jsonl").read_bytes() == raw


# ---------------------------------------------------------------- mocap


def schema() -> dict[str, Any]:
    """The JSON Schema published in `docs/format.md`."""
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## `mocap`\n")[1]
    found = json.loads(section.split("```json\n")[1].split("```")[0])
    assert isinstance(found, dict)
    return found


def check_mocap(document: dict[str, Any]) -> None:
    """Valid by the published schema, also after a way through JSON text."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(document)
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(document)))


def test_mocap(track: TrackBuilder) -> None:
    """Version, metadata, channels and frames as published; the measured rate; no two fields in one channel."""
    mocap = track.read(format="mocap")
    check_mocap(mocap)
    assert mocap["metadata"] == {
        "topic": "arm/state", "fps": 5 / 4, "duration": 4.0, "frameCount": 6, "startTime": 0.0, "endTime": 4.0,
    }  # fmt: skip
    assert mocap["channels"] == [
        "q", "n", "mode", "ok", "pose", "scan", "mixed", "big", "ünï", "a.b", "empty", "time_", "time__", "only_last",
    ]  # fmt: skip
    assert same(mocap["frames"][1], {"time": 0.5, **{k: v for k, v in ENTRIES[1].items() if k != "timestamp"}})
    assert (mocap["frames"][5]["time_"], mocap["frames"][5]["time__"]) == (7, 8)


@pytest.mark.parametrize(
    ("times", "fps", "duration"),
    [
        ([], 0.0, 0.0), ([5.0], 0.0, 0.0), ([0.0, 0.5], 2.0, 0.5), ([-1.0, 0.0, 1.0, 3.0], 0.75, 4.0),
        ([1e9 + n / 100 for n in range(101)], 100.0, 1.0), ([3.0, 1.0, 2.0, 1.0], 1.0, 2.0),
    ],
)  # fmt: skip
def test_mocap_measures_the_rate(experiment: Experiment, times: list[float], fps: float, duration: float) -> None:
    """(frames - 1) / duration, from the frames there are, whatever their order of arrival."""
    track = experiment.tracks("body").extend(_ts=times, hip=[[0.0, 1.0, 0.0]] * len(times))
    mocap = track.read(format="mocap")
    check_mocap(mocap)
    assert mocap["metadata"]["fps"] == pytest.approx(fps)
    assert mocap["metadata"]["duration"] == pytest.approx(duration)
    assert mocap["metadata"]["frameCount"] == len(mocap["frames"]) == len(set(times))
    assert [frame["time"] for frame in mocap["frames"]] == sorted(set(times))


def test_the_schema_refuses_what_is_no_mocap(track: TrackBuilder) -> None:
    """The published schema can fail: a missing, extra or wrong member is found."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    good = track.read(format="mocap")
    for change in (
        {"version": "2.0"}, {"frames": [{"q": 1}]}, {"channels": ["q", "q"]}, {"metadata": {}}, {"extra": 1},
        {"metadata": {**good["metadata"], "fps": -1}}, {"metadata": {**good["metadata"], "frameCount": 1.5}},
    ):  # fmt: skip
        assert not validator.is_valid({**good, **change}), change


# ---------------------------------------------------------------- Parquet in other hands


@pytest.fixture
def parquet(track: TrackBuilder) -> bytes:
    """The track as the bytes of a Parquet file."""
    pytest.importorskip("pyarrow")
    data = track.read(format="parquet")
    assert type(data) is bytes
    return data


COLUMNS = {name for entry in ENTRIES for name in entry}


def test_parquet_types(parquet: bytes) -> None:
    """Every column that occurs anywhere has the type its values call for."""
    types = {field.name: str(field.type) for field in read_parquet(parquet).schema}
    assert set(types) >= COLUMNS
    assert types["timestamp"] == types["a.b"] == types["only_last"] == "double"
    assert types["n"] == "int64"
    assert types["big"] == "uint64"
    assert types["mode"] == types["mixed"] == "string"
    assert types["ok"] == "bool"
    assert types["q"].startswith("fixed_size_list<")
    assert types["scan"].startswith("list<")
    assert types["pose"].startswith("struct<p: fixed_size_list<")


def test_parquet_in_pandas(parquet: bytes) -> None:
    """`pd.read_parquet(io.BytesIO(data))` as the API document says."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(io.BytesIO(parquet))
    assert set(frame.columns) >= COLUMNS
    assert frame["timestamp"].tolist() == [entry["timestamp"] for entry in ENTRIES]
    assert frame["q"][0].tolist() == [0.1, 0.2]
    assert frame["mode"].tolist()[:2] == ["reach", "NaN"]
    assert frame["only_last"].tolist()[5] == 1.25
    assert frame["pose"][2]["p"].tolist() == [3.0, 4.0]
    assert frame["q"].isna().tolist() == ["q" not in entry for entry in ENTRIES]


def test_parquet_in_polars(parquet: bytes) -> None:
    """Polars reads columns, lists, structs and gaps."""
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(io.BytesIO(parquet))
    assert set(frame.columns) >= COLUMNS
    assert frame["timestamp"].to_list() == [entry["timestamp"] for entry in ENTRIES]
    assert frame["q"].to_list()[0] == [0.1, 0.2]
    assert frame["q"].to_list()[3] is None
    assert math.isnan(frame["q"].to_list()[1][1])
    assert frame["scan"].to_list()[1] == [INF, -INF, 1.0]
    assert frame["big"].to_list()[4] == 2**64 - 1
    assert frame["pose"].struct.field("w").to_list()[:3] == [1, None, 2]


def test_parquet_in_duckdb(parquet: bytes, tmp_path: Path) -> None:
    """DuckDB queries the file."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "track.parquet"
    path.write_bytes(parquet)
    with duckdb.connect() as database:
        rows = database.execute(
            f"""SELECT count(*), max("timestamp"), sum(n), max(q[2]) FILTER (NOT isnan(q[2])), max(pose.w),
            count(only_last) FROM '{path}'"""
        ).fetchall()
        names = {row[0] for row in database.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}
    assert rows == [(6, 4.0, 3 - 2**63, 0.8, 2, 1)]
    assert names >= COLUMNS


def test_parquet_of_many_blocks(experiment: Experiment) -> None:
    """A column that begins late, changes its kind or its length far into the track is whole in the file."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    count = 70_000
    times = [number / 100 for number in range(count)]
    track = experiment.tracks("long").extend(_ts=times, n=list(range(count)), q=[[0.5, 1.5]] * count)
    track.append(_ts=times[-1] + 1, late=True, n=0.5, q=[1.0])
    frame = pandas.read_parquet(io.BytesIO(track.read(format="parquet")))
    assert len(frame) == count + 1
    assert frame["timestamp"].is_monotonic_increasing
    assert frame["n"].tolist() == [*map(float, range(count)), 0.5]
    assert frame["late"].notna().sum() == 1
    assert frame["q"][count].tolist() == [1.0]


@pytest.mark.parametrize("levels", [10, 90, 200, 600])
def test_deep_values_in_every_format(experiment: Experiment, levels: int) -> None:
    """Deep nesting, lists in lists or dicts in dicts, is written by every format and comes back."""
    pytest.importorskip("pyarrow")
    lists, dicts = deep(levels, lambda value: [value]), deep(levels, lambda value: {"a": value})
    track = experiment.tracks("deep").append(_ts=1.0, lists=lists, dicts=dicts)
    for _ in range(2):
        for name in FORMATS:
            assert track.read(format=name)
        (entry,) = parquet_entries(track.read(format="parquet"))
        assert levels_of(entry["lists"]) == levels_of(entry["dicts"]) == levels
        track.flush()


def deep(levels: int, around: Any) -> Any:
    """1.5 inside so many containers."""
    value: Any = 1.5
    for _ in range(levels):
        value = around(value)
    return value


def levels_of(value: Any) -> int:
    """How many containers a value is inside."""
    levels = 0
    while isinstance(value, (list, dict)):
        value, levels = (value[0] if isinstance(value, list) else value["a"]), levels + 1
    assert value == 1.5
    return levels
