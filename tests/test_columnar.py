"""Columns: the sidecar is right after every kind of edit, and whoever reads through it reads what was recorded."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")
pytest.importorskip("numpy")

import ml_dash  # noqa: E402
from ml_dash import Experiment  # noqa: E402
from ml_dash.catalog import LocalCatalog  # noqa: E402
from ml_dash.columnar import field_of, parquet_table, select_fields, track_table  # noqa: E402
from ml_dash.errors import MissingExtra, NotOpen  # noqa: E402
from ml_dash.files import FILES, Files  # noqa: E402
from ml_dash.formats.arrow import entries_from_table, table_from_entries  # noqa: E402
from ml_dash.line import to_line  # noqa: E402
from ml_dash.store import Track, Window  # noqa: E402
from ml_dash.stores import sidecar as sidecar_module  # noqa: E402
from ml_dash.stores.datafile import DataFile  # noqa: E402
from ml_dash.stores.derived import BESIDE, NOTHING, Derived, in_cache  # noqa: E402
from ml_dash.stores.local import LocalStore  # noqa: E402
from ml_dash.stores.sidecar import Sidecar, sidecar_path  # noqa: E402

PREFIX = "alice/robotics/pick"
TRACK = Track("tracks", "robot/state")


def entry(number: int) -> dict[str, Any]:
    """What a robot logs at one instant."""
    return {"q": [number + 0.5] * 7, "grip": number % 2 == 0, "phase": "reach", "n": number}


@pytest.fixture
def recorded(new_experiment: Callable[..., Experiment], folder: Path) -> Path:
    """The data file of a finished run of 500 entries, changed long enough ago for its columns to be kept."""
    with new_experiment().run as exp:
        for number in range(500):
            exp.tracks("robot/state").append(**entry(number), _ts=number / 100)
    return aged(folder / "tracks/robot_state/data.jsonl")


def aged(data: Path) -> Path:
    """The file, looking as if it was last changed a minute ago: within a clock step it would not be kept."""
    stat = data.stat()
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns - 60_000_000_000))
    return data


def store_of(data: Path, **options: Any) -> LocalStore:
    """A store that has not seen the file yet."""
    return LocalStore(data.parent.parent.parent, **options)


def table_of(data: Path) -> Any:
    """The columns as a fresh reader sees them."""
    return store_of(data).table(TRACK)


def truth(data: Path) -> Any:
    """The columns as the entries say, without any sidecar."""
    store = store_of(data, readonly=True)
    return table_from_entries(entry for block in store.read(TRACK) for entry in block)


def assert_same(found: Any, expected: Any) -> None:
    """The same columns, types and values; NaN equals itself."""
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert repr(list(entries_from_table(found))) == repr(list(entries_from_table(expected)))


# ---------------------------------------------------------------- made, kept, used


def test_first_reader_makes_it_and_later_ones_use_it(recorded: Path) -> None:
    """Recording makes no sidecar; the first reader of columns does; the next one gets it mapped, without a copy."""
    assert not sidecar_path(recorded).exists()
    assert_same(table_of(recorded), truth(recorded))
    made = sidecar_path(recorded).stat()
    again = table_of(recorded)
    assert_same(again, truth(recorded))
    assert sidecar_path(recorded).stat().st_ino == made.st_ino
    before = pa.total_allocated_bytes()
    column = table_of(recorded)["q"].chunk(0)
    assert pa.total_allocated_bytes() - before < column.nbytes / 2


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda raw: raw.replace(b"[7.5,", b"[8.5,", 1), id="a value, same length"),
        pytest.param(lambda raw: raw + b'{"timestamp":99.0,"q":[1.0]}\n', id="a line added"),
        pytest.param(lambda raw: raw[: raw.rfind(b'{"t')], id="a line cut"),
        pytest.param(lambda raw: raw.replace(b'"phase":"reach"', b'"phase":null', 1), id="a null"),
        pytest.param(lambda raw: raw.replace(b'"n":7,', b'"n":"x",', 1).replace(b'"n":7}', b'"n":"x"}', 1), id="text"),
        pytest.param(lambda raw: b"".join(reversed(raw.splitlines(keepends=True))), id="reversed"),
        pytest.param(lambda raw: raw + raw.splitlines(keepends=True)[3], id="a line twice"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda raw: b"\xef\xbb\xbf" + raw, id="BOM"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\n\n# a note\n", 1), id="a comment"),
        pytest.param(lambda raw: raw[:-20], id="torn"),
        pytest.param(lambda raw: b"", id="emptied"),
    ],
)
@pytest.mark.parametrize("how", ["in place", "new file", "mtime put back"])
def test_right_after_every_kind_of_edit(recorded: Path, edit: Callable[[bytes], bytes], how: str) -> None:
    """Whatever a person or program does to the file, and however it is written, columns are those of the file."""
    table_of(recorded)
    before, raw = recorded.stat(), recorded.read_bytes()
    changed = edit(raw)
    assert changed != raw
    if how == "new file":
        recorded.with_name("other").write_bytes(changed)
        os.replace(recorded.with_name("other"), recorded)
    else:
        recorded.write_bytes(changed)
    if how == "mtime put back" and len(changed) != len(raw):
        os.utime(recorded, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert_same(table_of(recorded), truth(recorded))


def test_appends_and_compaction_are_seen(recorded: Path, new_experiment: Callable[..., Experiment]) -> None:
    """A later session that appends, also late and merging entries, never meets old columns."""
    table_of(recorded)
    with new_experiment().run as exp:
        track = exp.tracks("robot/state")
        track.append(n=1000, _ts=50.0)
        for flush in (False, True, False):
            if flush:
                exp.tracks.flush()
            track.append(phase="late", _ts=0.005).append(extra=None, _ts=0.01)
            expected = table_from_entries(track.list_entries())
            assert_same(track_table(exp._session, TRACK), expected)
    assert_same(table_of(recorded), truth(recorded))
    assert truth(recorded).num_rows == 502


def test_damaged_sidecar_is_made_anew(recorded: Path) -> None:
    """Emptied, cut, scrambled or of another version: it is not used, and the next reader has a sound one."""
    table_of(recorded)
    path, whole = sidecar_path(recorded), sidecar_path(recorded).read_bytes()
    version = f"{sidecar_module.VERSION} {recorded.stat().st_size}".encode()
    for damaged in (
        b"",
        whole[:100],
        whole[:-9],
        b"x" * len(whole),
        whole.replace(version, version.replace(b"1", b"9", 1)),
    ):
        path.write_bytes(damaged)
        assert_same(table_of(recorded), truth(recorded))
        assert Sidecar(recorded, FILES, keep=NOTHING).table() is not None


def test_a_file_just_changed_is_read_but_not_kept(recorded: Path) -> None:
    """Within one step of the file system's clock a second change could look like no change."""
    now = recorded.stat().st_mtime_ns + 120_000_000_000
    os.utime(recorded, ns=(now, now))
    assert_same(table_of(recorded), truth(recorded))
    assert not sidecar_path(recorded).exists()


def test_switched_off(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ML_DASH_COLUMNS=off` reads columns without leaving a file."""
    monkeypatch.setenv("ML_DASH_COLUMNS", "off")
    assert_same(table_of(recorded), truth(recorded))
    assert not sidecar_path(recorded).exists()


@pytest.fixture
def cache() -> Path:
    """The user's cache folder."""
    return Path(os.environ["ML_DASH_CACHE"])


def test_readers_keep_columns_in_the_cache(recorded: Path, cache: Path) -> None:
    """A store opened read-only keeps nothing; `ml_dash.open` in the user's cache, where the next reader finds it."""
    assert store_of(recorded, readonly=True).table(TRACK).num_rows == 500
    assert not cache.exists()
    kept = []
    for _ in range(2):
        with ml_dash.open(PREFIX, dash_root=recorded.parents[5]) as exp:
            assert_same(track_table(exp._session, TRACK), truth(recorded))
        kept += [path.stat().st_ino for path in cache.glob("*.columns")]
    assert len(kept) == 2
    assert len(set(kept)) == 1
    assert not sidecar_path(recorded).exists()
    recorded.write_bytes(recorded.read_bytes().replace(b"[7.5,", b"[8.5,", 1))
    aged(recorded)
    with ml_dash.open(PREFIX, dash_root=recorded.parents[5]) as exp:
        assert_same(track_table(exp._session, TRACK), truth(recorded))


def test_columns_beside_the_data_serve_readers(recorded: Path, cache: Path) -> None:
    """What a recording process or `ml-dash compact --columns` made is used; nothing is cached then."""
    table_of(recorded)
    with ml_dash.open(PREFIX, dash_root=recorded.parents[5]) as exp:
        assert_same(track_table(exp._session, TRACK), truth(recorded))
    assert not list(cache.glob("*.columns"))


def test_the_cache_is_bounded(recorded: Path, tmp_path: Path) -> None:
    """What was used longest ago goes first; a file larger than the bound is not kept, but read all the same."""
    cache = tmp_path / "bounded"
    size = store_of(recorded, readonly=True, derive=Derived(cache=cache)).table(TRACK).nbytes
    kept = []
    for number in range(3):
        copy = tmp_path / f"copy{number}" / "tracks" / "robot_state" / "data.jsonl"
        shutil.copytree(recorded.parent, copy.parent)
        aged(copy)
        derive = Derived(cache=cache, limit=4 * size)  # the file is larger than its columns
        store_of(copy, readonly=True, derive=derive).table(TRACK)
        kept.append({path.name for path in cache.glob("*.columns")})
        for place, path in enumerate(sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, ns=(place, place))
        total = sum(path.stat().st_size for path in cache.iterdir())
        assert total <= 4 * size
    assert kept[-1] - kept[-2], "the last one is kept"
    assert store_of(recorded, readonly=True, derive=Derived(cache=cache, limit=10)).table(TRACK).num_rows == 500
    assert sum(path.stat().st_size for path in cache.iterdir()) <= 4 * size


def test_without_a_cache_columns_are_kept_in_memory(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ML_DASH_CACHE_BYTES=0`: one reader makes them once, and leaves nothing."""
    monkeypatch.setenv("ML_DASH_CACHE_BYTES", "0")
    assert in_cache() is NOTHING
    store = store_of(recorded, readonly=True, derive=in_cache())
    assert store.table(TRACK) is store.table(TRACK)


class ReadOnly(Files):
    """Files of a medium that cannot be written."""

    def open(self, path: Path | str, flags: int, mode: int = 0o644) -> int:
        """Only for reading."""
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return super().open(path, flags, mode)


def test_folder_that_cannot_be_written(recorded: Path) -> None:
    """On read-only media columns are read, only not kept."""
    store = store_of(recorded, files=ReadOnly(), readonly=True, derive=BESIDE)
    assert_same(store.table(TRACK), truth(recorded))
    assert [one.topic for one in store.tracks()] == ["robot/state"]
    assert not sidecar_path(recorded).exists()


def test_full_disk_costs_only_the_sidecar(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sidecar cannot be written the reader still has the columns, and nothing half-written stays."""

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sidecar_module, "_write", full)
    assert_same(table_of(recorded), truth(recorded))
    assert sorted(path.name for path in recorded.parent.glob(".columns*")) == []


def test_track_larger_than_the_memory_limit(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit columns wait in files, also when a late part widens a type."""
    with recorded.open("ab") as file:
        file.write(to_line(100.0, {"n": 0.5, "q": [1.0], "grip": None, "new": {"x": 1}}))
    aged(recorded)
    monkeypatch.setattr(sidecar_module, "SPILL_BYTES", 4096)
    monkeypatch.setattr(sidecar_module, "CHUNK_BYTES", 4096)
    found = table_of(recorded)
    assert_same(found, truth(recorded))
    assert_same(table_of(recorded), truth(recorded))
    assert found["n"].type == pa.float64()


def test_many_readers_at_once(recorded: Path) -> None:
    """Readers that make the sidecar at the same time all get the columns, and leave one sound file."""
    expected, found, errors = truth(recorded), [], []

    def read() -> None:
        try:
            found.append(table_of(recorded))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 8
    for table in found:
        assert_same(table, expected)
    assert [path.name for path in recorded.parent.glob(".columns*")] == [".columns"]
    assert_same(Sidecar(recorded, FILES, keep=NOTHING).table(), expected)


def test_leftover_of_a_killed_reader_is_written_over(recorded: Path) -> None:
    """A half-written sidecar does not keep the next reader from making one."""
    recorded.with_name(".columns.new").write_bytes(b"half")
    table_of(recorded)
    assert sorted(path.name for path in recorded.parent.glob(".columns*")) == [".columns"]


def test_removed_track_takes_its_columns_along(recorded: Path) -> None:
    """Nothing of a removed track stays, and its successor starts anew."""
    store = store_of(recorded)
    store.table(TRACK)
    store.remove(TRACK)
    assert store.table(TRACK) is None
    assert not recorded.parent.exists()


# ---------------------------------------------------------------- journals on top


LIVE = """
import sys
from ml_dash import Experiment
exp = Experiment("alice/robotics/pick", dash_root=sys.argv[1]).run.start()
track = exp.tracks("robot/state")
for number in range(300):
    track.append(q=[float(number)] * 7, _ts=number / 100)
exp.tracks.flush()
for number in range(200, 400):
    track.append(q=[-1.0] * 7, late=number, _ts=number / 100)
print("ready", flush=True)
sys.stdin.read()
"""


def test_columns_of_a_run_of_another_process(root: Path) -> None:
    """A living run's columns are its file's with what its journal holds on top; so are a killed one's."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for wait in (True, False):
        with ml_dash.open(PREFIX, dash_root=root) as exp:
            expected = table_from_entries(exp.tracks("robot/state").list_entries())
            assert_same(track_table(exp._session, TRACK), expected)
            window = track_table(exp._session, TRACK, Window(2.5, 3.5))
            assert window.num_rows == 101
            assert set(window.column("late").to_pylist()) == set(range(250, 351))
        if wait:
            process.kill()
            process.communicate()
    assert expected.num_rows == 400


def test_topic_that_is_only_in_the_journal(experiment: Experiment) -> None:
    """Before the first flush a track has columns too; one nobody recorded has none but the time."""
    experiment.tracks("new").append(x=1, _ts=1.0)
    table = track_table(experiment._session, Track("tracks", "new"))
    assert table.to_pylist() == [{"timestamp": 1.0, "x": 1}]
    assert track_table(experiment._session, Track("tracks", "none")).schema.names == ["timestamp"]


def test_closed_run_has_no_columns_to_give(experiment: Experiment) -> None:
    """As every read, columns of a closed run are refused."""
    session = experiment._session
    experiment.run.complete()
    with pytest.raises(NotOpen):
        track_table(session, TRACK)


# ---------------------------------------------------------------- windows and columns


@settings(max_examples=60)
@given(
    low=st.none() | st.floats(-1, 6, allow_nan=False),
    high=st.none() | st.floats(-1, 6, allow_nan=False),
    columns=st.none()
    | st.lists(st.sampled_from(["q", "q[3]", "pose.x", "pose", "a.b", "timestamp", "nothing"]), max_size=3),
)
def test_windows_and_columns_equal_the_entries(
    low: float | None, high: float | None, columns: list[str] | None
) -> None:
    """A window of some fields holds the entries that the JSON read gives for them, in whole fields."""
    with LocalCatalogOf() as store:
        table = track_table(store, TRACK, Window(low, high), columns)
        fields = None if columns is None else [field_of(store.table(TRACK).schema, c) or c for c in columns]
        window = Window(low, high, None if fields is None else tuple(fields))
        expected = [entry for block in store.read(TRACK, window) for entry in block]
        found = list(entries_from_table(table))
        assert found == [{name: one[name] for name in table.schema.names if name in one} for one in expected]


class LocalCatalogOf:
    """A store with a track whose fields come and go, made once."""

    place: Path | None = None

    def __enter__(self) -> Any:
        import tempfile

        if LocalCatalogOf.place is None:
            LocalCatalogOf.place = Path(tempfile.mkdtemp())
            with Experiment(PREFIX, dash_root=LocalCatalogOf.place).run as exp:
                for number in range(50):
                    fields = {"q": [float(number)] * 4} if number % 2 else {"pose": {"x": number}, "a.b": number}
                    exp.tracks("robot/state").append(**fields, _ts=number / 10)
                exp.tracks("robot/state").append(_ts=5.5)
        self.store = LocalCatalog(LocalCatalogOf.place).store(PREFIX)
        return self.store

    def __exit__(self, *exc: object) -> None:
        self.store.close()


@pytest.fixture(scope="module", autouse=True)
def cleared() -> Any:
    """Nothing of the shared store stays."""
    yield
    if LocalCatalogOf.place is not None:
        shutil.rmtree(LocalCatalogOf.place)
        LocalCatalogOf.place = None


def test_fields_are_named_as_everywhere() -> None:
    """A name with dots or brackets is the whole name first, then a part of the longest field before them."""
    schema = pa.schema([("timestamp", pa.float64()), ("a", pa.int64()), ("a.b", pa.int64()), ("q[0]", pa.int64())])
    names = ["a", "a.b", "a.b.c", "a.c", "q[0]", "q[1]", "timestamp", "b", ""]
    assert [field_of(schema, name) for name in names] == ["a", "a.b", "a.b", "a", "q[0]", None, None, None, None]


def test_nulls_stay_apart_from_absences() -> None:
    """Choosing a field keeps the entries that recorded it as null and leaves out those that lack it."""
    table = table_from_entries([{"timestamp": 1.0, "x": None}, {"timestamp": 2.0}, {"timestamp": 3.0, "x": 1}])
    assert list(entries_from_table(select_fields(table, ["x"]))) == [
        {"timestamp": 1.0, "x": None},
        {"timestamp": 3.0, "x": 1},
    ]


# ---------------------------------------------------------------- what the API gives


def test_parquet_export_reads_the_sidecar(recorded: Path, cache: Path) -> None:
    """`read("parquet")` of a warm track and of a cold one are the same table, windows and columns included."""
    import pyarrow.parquet as pq

    def export(**options: Any) -> Any:
        with ml_dash.open(PREFIX, dash_root=recorded.parents[5]) as exp:
            return pq.read_table(io.BytesIO(exp.tracks("robot/state").read(format="parquet", **options)))

    for options in ({}, {"start_timestamp": 1.0, "end_timestamp": 2.0}, {"columns": ["q", "n"]}):
        shutil.rmtree(cache, ignore_errors=True)
        cold, warm = export(**options), export(**options)
        assert_same(cold, warm)
        assert list(cache.glob("*.columns"))
    assert list(entries_from_table(export())) == list(entries_from_table(truth(recorded)))


def test_parquet_of_parts_keeps_the_nesting(experiment: Experiment) -> None:
    """`columns=["pose.x"]` exports a struct of that part alone, as the other formats do."""
    experiment.tracks("t").append(pose={"x": 1.0, "y": 2.0}, _ts=1.0).append(other=1, _ts=2.0)
    table = parquet_table(experiment._session, Track("tracks", "t"), Window(columns=("pose.x",)))
    assert table.to_pylist() == [{"timestamp": 1.0, "pose": {"x": 1.0}}]


def test_without_pyarrow_columns_name_the_extra(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; recording and the other formats need nothing."""
    experiment.tracks("t").append(x=1, _ts=1.0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"ml-dash\[parquet\]"):
        experiment.tracks("t").read(format="parquet")
    assert experiment.tracks("t").read()["count"] == 1


# ---------------------------------------------------------------- types beside the data


def test_listing_keeps_types_and_reads_what_was_added(
    recorded: Path, new_experiment: Callable[..., Experiment]
) -> None:
    """The kept types give the same listing, also after appends, edits and damage, and reading is only of the rest."""
    types = recorded.with_name(".types")
    first = store_of(recorded).tracks()
    assert types.exists()
    assert store_of(recorded).tracks() == first
    with new_experiment().run as exp:
        exp.tracks("robot/state").append(n="text", new=[1, 2], _ts=100.0)
    listed = store_of(recorded).tracks()[0]
    assert listed.columns["n"] == "int | str"
    assert listed.columns["new"] == "list[int; 2]"
    assert listed.count == 501
    types.write_bytes(b"{}")
    assert store_of(recorded).tracks()[0] == listed
    recorded.write_bytes(recorded.read_bytes().replace(b'"n":"text"', b'"n":8'))
    assert store_of(recorded).tracks()[0].columns["n"] == "int"


def test_listing_a_large_track_again_reads_no_entries(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second listing looks at no line of a track that did not change."""
    expected = store_of(recorded).tracks()

    def refuse(*args: Any) -> Any:
        raise AssertionError("a block was read")

    from ml_dash.stores.datafile import Snapshot

    monkeypatch.setattr(Snapshot, "load", refuse)
    monkeypatch.setattr(Snapshot, "load_together", refuse)
    assert store_of(recorded).tracks() == expected


def test_summary_of_a_snapshot_ends_with_its_blocks(recorded: Path) -> None:
    """A snapshot of a whole sorted file ends where the file does."""
    with DataFile(recorded, FILES).snapshot() as snapshot:
        assert snapshot is not None
        assert snapshot.end == recorded.stat().st_size
