"""The local store keeps the contract, and its files are what `docs/format.md` says."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ml_dash.errors import NotOpen, StoreCorrupt
from ml_dash.files import Files
from ml_dash.schema import describe
from ml_dash.store import Store, Track, Window
from ml_dash.stores.datafile import Snapshot
from ml_dash.stores.index import Block
from ml_dash.stores.local import LocalStore
from ml_dash.stores.state import StateFile
from store_contract import FORCE, LOGS, LOSS, STATE, StoreContract, Writer, body, columns, entries


class TestLocalStore(StoreContract):
    """`LocalStore` keeps the contract; a second opening is a second object on the folder."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """The experiment's folder."""
        return tmp_path / "experiment"

    @pytest.fixture
    def store(self, place: Path) -> Iterator[LocalStore]:
        """A store on an empty folder."""
        store = LocalStore(place, tells_copies=True)
        yield store
        store.close()

    @pytest.fixture
    def again(self, store: Store, place: Path) -> Iterator[Callable[[], Store]]:
        """Another store on the same folder."""
        opened: list[LocalStore] = []

        def open_again() -> Store:
            opened.append(LocalStore(place, tells_copies=True))
            return opened[-1]

        yield open_again
        for one in opened:
            one.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The experiment's folder."""
    return tmp_path / "experiment"


@pytest.fixture
def store(place: Path) -> Iterator[LocalStore]:
    """A store on an empty folder."""
    store = LocalStore(place)
    yield store
    store.close()


def lines(path: Path) -> list[dict]:
    """The lines of a file by the `json` module, which takes no part in writing them; bare NaN is refused."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no strict JSON")

    raw = path.read_bytes()
    assert raw.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse) for line in raw.splitlines()]


def test_files_are_where_the_document_says(store: LocalStore, place: Path) -> None:
    """`tracks/robot_state/data.jsonl` with the timestamp first, `metrics/train/data.jsonl`, `logs/logs.jsonl`."""
    Writer(store, [STATE, LOSS, LOGS]).send(
        body(1.0, 1, q=[0.1], scan=[float("inf"), float("nan")], text="NaN"),
        body(2.0, 2, loss=1),
        body(3.0, 3, message="m"),
    )
    raw = (place / "tracks/robot_state/data.jsonl").read_bytes()
    assert raw == b'{"timestamp":1.0,"q":[0.1],"scan":["Infinity","NaN"],"text":"\\u004eaN"}\n'
    assert lines(place / "metrics/train/data.jsonl") == [{"timestamp": 2.0, "loss": 1}]
    assert lines(place / "logs/logs.jsonl") == [{"timestamp": 3.0, "message": "m"}]
    assert json.loads((place / "tracks/robot_state/.topic").read_bytes())["topic"] == "robot/state"


def test_only_the_documented_names_are_visible(store: LocalStore, place: Path) -> None:
    """All but data and documents is hidden, and nothing temporary is left behind."""
    writer = Writer(store, [STATE, LOSS, LOGS])
    writer.send(body(2.0, 1, q=1), body(2.0, 2, loss=1), body(3.0, 3, message="m"))
    writer.send(body(1.0, 1, q=1))
    store.update_document("params", lambda known: {"a": 1})
    store.compact_all()
    visible = {
        os.path.relpath(os.path.join(folder, name), place)
        for folder, _, names in os.walk(place)
        for name in names
        if not name.startswith(".")
    }
    assert visible == {"params.json", "tracks/robot_state/data.jsonl", "metrics/train/data.jsonl", "logs/logs.jsonl"}
    hidden = [name for _, _, names in os.walk(place) for name in names if name.endswith((".tmp", ".compact", ".new"))]
    assert hidden == []


def test_compaction_gives_one_line_per_timestamp(store: LocalStore, place: Path) -> None:
    """After compaction the file itself is merged and ascending, and reads as before."""
    writer = Writer(store)
    writer.send(*(body(float(number), a=number, text="x" * 200) for number in range(2000)))
    writer.send(body(1000.5, late=True), body(1000.0, b=1), body(-1.0, c="Infinity", d=float("nan")))
    before = entries(store)
    assert store.compact(STATE) is True
    found = lines(place / "tracks/robot_state/data.jsonl")
    stamps = [line["timestamp"] for line in found]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 2002
    assert found[0] == {"timestamp": -1.0, "c": "Infinity", "d": "NaN"}
    assert repr(entries(store)) == repr(before)
    assert store.compact(STATE) is False


def test_compaction_leaves_a_persons_lines(store: LocalStore, place: Path) -> None:
    """A file with lines that are no entries is not rewritten; they stay, and readers skip them."""
    path = place / "tracks/robot_state/data.jsonl"
    writer = Writer(store)
    writer.send(body(2.0, x=2))
    with open(path, "ab") as file:
        file.write(b"# checked by Ann\n")
    writer.send(body(1.0, x=1))
    raw = path.read_bytes()
    assert store.compact(STATE) is False
    assert path.read_bytes() == raw
    assert [entry["x"] for entry in entries(store)] == [1, 2]


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda raw: b"\xef\xbb\xbf" + raw, id="byte order mark"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\n\n \n"), id="blank lines"),
        pytest.param(lambda raw: raw[:-1], id="no newline at the end"),
        pytest.param(lambda raw: raw + b'{"timestamp": 9.0, "x"', id="torn last line"),
        pytest.param(lambda raw: raw + b"note to self", id="foreign last line"),
        pytest.param(lambda raw: b'[1, 2]\nnull\n42\n"text"\n{}\n' + raw, id="JSON that is no entry"),
        pytest.param(
            lambda raw: b'{"timestamp": "1.0"}\n{"timestamp": null}\n{"timestamp": true}\n' + raw, id="bad stamps"
        ),
        pytest.param(
            lambda raw: b'{"timestamp": 1e999}\n{"timestamp": 99999999999999999999}\n' + raw, id="huge stamps"
        ),
        pytest.param(lambda raw: b"\xff\xfe\x00\n" + raw, id="not UTF-8"),
        pytest.param(lambda raw: raw.replace(b'"timestamp":1.0', b'"timestamp":1'), id="whole numbers as timestamps"),
        pytest.param(lambda raw: raw.replace(b'"x":1,', b'"x":1,  "x": 1 ,'), id="a name twice"),
    ],
)
def test_edited_files_are_read(store: LocalStore, place: Path, edit: Callable[[bytes], bytes]) -> None:
    """What a person or another program did to a file costs no whole line, before and after the next append."""
    path = place / "tracks/robot_state/data.jsonl"
    writer = Writer(store)
    writer.send(body(1.0, x=1, y="a"), body(2.0, x=2, y="b"))
    path.write_bytes(edit(path.read_bytes()))
    expected = [{"timestamp": 1.0, "x": 1, "y": "a"}, {"timestamp": 2.0, "x": 2, "y": "b"}]
    assert entries(store) == expected
    assert entries(LocalStore(place, readonly=True), window=Window(1.0, 1.0)) == expected[:1]
    writer.send(body(3.0, x=3))
    assert entries(store) == [*expected, {"timestamp": 3.0, "x": 3}]
    assert entries(LocalStore(place, readonly=True)) == [*expected, {"timestamp": 3.0, "x": 3}]


def test_foreign_writers_files_are_read(store: LocalStore, place: Path) -> None:
    """Folders put there by hand, with bare NaN and spaces as the `json` module writes them, are tracks like others."""
    path = place / "tracks/by_hand/data.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"timestamp": 2.0, "x": NaN, "scan": [Infinity, -Infinity]}\n{"timestamp": 1, "x": 1e400}\n')
    assert repr(entries(store, Track("tracks", "by_hand"))) == repr(
        [
            {"timestamp": 1.0, "x": float("inf")},
            {"timestamp": 2.0, "x": float("nan"), "scan": [float("inf"), -float("inf")]},
        ]
    )
    Writer(store, [Track("tracks", "by/hand"), Track("tracks", "by_hand")]).send(body(3.0, 1, n=1), body(3.0, 2, n=2))
    assert entries(store, Track("tracks", "by/hand")) == [{"timestamp": 3.0, "n": 1}]
    assert entries(store, Track("tracks", "by_hand"))[-1] == {"timestamp": 3.0, "n": 2}


def test_foreign_things_in_the_folder_harm_nothing(store: LocalStore, place: Path) -> None:
    """Files where folders belong, folders where files belong, broken `.topic` files: the sound tracks are read."""
    Writer(store, [STATE, FORCE]).send(body(1.0, 1, x=1), body(1.0, 2, f=1))
    tracks = place / "tracks"
    (tracks / "a_file").write_bytes(b"hello")
    (tracks / "empty").mkdir()
    (tracks / "data_is_a_folder" / "data.jsonl").mkdir(parents=True)
    (tracks / "robot_state" / "notes.txt").write_text("mine")
    broken = tracks / "broken"
    broken.mkdir()
    (broken / ".topic").write_bytes(b"\xff\x00not json")
    (broken / "data.jsonl").write_bytes(b'{"timestamp": 1.0, "b": 1}\n')
    for number, topic in enumerate(("../../etc", "", 5, None, "a//b", "x" * 2000)):
        odd = tracks / f"odd{number}"
        odd.mkdir()
        (odd / ".topic").write_text(json.dumps({"topic": topic}))
        (odd / "data.jsonl").write_bytes(b'{"timestamp": 1.0}\n')
    (tracks / "dangling").symlink_to(tracks / "nowhere")
    if sys.platform == "linux":  # elsewhere every name is text
        os.mkdir(os.fsencode(tracks) + b"/\xff\xfe")
    fresh = LocalStore(place)
    by_hand = {"broken", *(f"odd{number}" for number in range(6))}
    assert {info.topic for info in fresh.tracks()} == {STATE.topic, FORCE.topic, *by_hand}
    assert entries(fresh) == [{"timestamp": 1.0, "x": 1}]
    assert (tracks / "robot_state" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage\n", b"00000000 {}\n", bytes(range(64))])
@pytest.mark.parametrize("name", [".state", "tracks/robot_state/.index", "metrics/train/.index"])
def test_derived_files_are_disposable(store: LocalStore, place: Path, name: str, damage: bytes) -> None:
    """A state or index that is lost, emptied or replaced changes no answer; batches that come again change nothing."""
    writer = Writer(store, [STATE, LOSS])
    first = writer.send(body(2.0, 1, x=2), body(2.0, 2, loss=1), body(2.0, 2, loss=1))
    second = writer.send(body(1.0, 1, x=1), body(2.0, 2, loss=1))
    tracks, losses = entries(store), entries(store, LOSS)
    (place / name).write_bytes(damage)
    fresh = LocalStore(place)
    assert entries(fresh) == tracks
    assert entries(fresh, window=Window(1.0, 1.0)) == tracks[:1]
    assert entries(fresh, LOSS) == losses
    if name != ".state":  # without a state only the batch sent last comes again: its journal knows no other
        fresh.append(first)
    fresh.append(second)
    assert entries(fresh) == tracks
    assert entries(fresh, LOSS) == losses
    fresh.close()


def test_a_state_with_a_flipped_digit_is_not_believed(store: LocalStore, place: Path) -> None:
    """A number that is not the one written would drop the batches up to it: the checksum tells, and none is dropped."""
    writer = Writer(store)
    writer.send(body(1.0, x=1))
    raw = (place / ".state").read_bytes()
    assert raw.count(b'":1}') == 1
    (place / ".state").write_bytes(raw.replace(b'":1}', b'":9}'))
    fresh = LocalStore(place)
    again = Writer(fresh, name=writer.name)
    again.number = writer.number
    again.send(body(2.0, x=2))
    assert [entry["x"] for entry in entries(fresh)] == [1, 2]
    fresh.close()


def test_a_newer_version_is_told(store: LocalStore, place: Path) -> None:
    """State of a newer version is never overwritten: StoreCorrupt says which file, and reading goes on."""
    import zlib

    Writer(store).send(body(1.0, x=1))
    document = json.dumps({"version": 99, "generation": 1, "writers": {}, "sequences": {}}).encode()
    newer = f"{zlib.crc32(document):08x} ".encode() + document + b"\n"
    (place / ".state").write_bytes(newer)
    fresh = LocalStore(place)
    with pytest.raises(StoreCorrupt, match=r"\.state was written by a newer ml_dash .*upgrade"):
        Writer(fresh).send(body(2.0, x=2))
    assert entries(fresh) == [{"timestamp": 1.0, "x": 1}]
    assert (place / ".state").read_bytes() == newer
    fresh.close()


class Dying(Files):
    """Files of a process that is killed at a batch's commit: its lines are there, and nothing is put back."""

    dead = False

    def replace(self, source: Path | str, target: Path | str) -> None:
        """The commit of a batch is the second state: the first one tells where its lines will be."""
        self.dead = self.dead or (Path(target).name == ".state" and b'"attempt"' not in Path(source).read_bytes())
        if self.dead:
            raise KeyboardInterrupt
        super().replace(source, target)

    def truncate(self, fd: int, size: int) -> None:
        """A dead process takes nothing back."""
        if self.dead:
            raise OSError(errno.EIO, "dead")
        super().truncate(fd, size)


def _die_with(place: Path, writer: Writer, *bodies: bytes, torn: int = 0) -> None:
    """The writer's next batch is written by a process that dies before it commits it."""
    dying = LocalStore(place, files=Dying())
    victim = Writer(dying, writer.tracks.values(), name=writer.name)
    victim.number = writer.number
    with pytest.raises(KeyboardInterrupt):
        victim.send(*bodies)
    path = place / "metrics/train/data.jsonl"
    os.truncate(path, path.stat().st_size - torn)


def test_lines_of_an_interrupted_batch_are_not_read(store: LocalStore, place: Path) -> None:
    """Lines of a sequence whose batch was not committed get no index; the batch comes again and they are there once."""
    writer = Writer(store, [LOSS])
    writer.send(body(1.0, loss=1), body(2.0, loss=2))
    _die_with(place, writer, body(3.0, loss=3), body(4.0, loss=4))
    assert len(lines(place / "metrics/train/data.jsonl")) == 4
    fresh = LocalStore(place)
    assert [entry["loss"] for entry in entries(fresh, LOSS)] == [1, 2]
    writer.send(body(3.0, loss=3), body(4.0, loss=4))
    for opened in (store, fresh, LocalStore(place)):
        assert [(entry["index"], entry["loss"]) for entry in entries(opened, LOSS)] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(lines(place / "metrics/train/data.jsonl")) == 4


@pytest.mark.parametrize("torn", [0, 5, 30])
@pytest.mark.parametrize("begun", [True, False])
def test_another_writer_comes_before_the_interrupted_batch(
    store: LocalStore, place: Path, torn: int, begun: bool
) -> None:
    """A client's batch may reach a restarted server before the one it died with: none is lost, none is doubled."""
    first, second = Writer(store, [LOSS]), Writer(store, [LOSS, STATE], name="ef" * 14)
    if begun:
        first.send(body(1.0, loss=1))
    _die_with(place, first, body(3.0, loss=3), body(4.0, loss=4), torn=torn)
    second.send(body(5.0, loss=5), body(5.0, 2, x=5))
    first.send(body(3.0, loss=3), body(4.0, loss=4))
    wanted = [1, 5, 3, 4] if begun else [5, 3, 4]
    for opened in (store, LocalStore(place)):
        assert [entry["loss"] for entry in entries(opened, LOSS)] == wanted
    assert len(lines(place / "metrics/train/data.jsonl")) == len(wanted)


def test_a_batch_without_sequences_comes_before_the_interrupted_one(store: LocalStore, place: Path) -> None:
    """What was taken back is not committed by somebody else's batch."""
    first, second = Writer(store, [LOSS]), Writer(store, [STATE], name="ef" * 14)
    _die_with(place, first, body(3.0, loss=3))
    second.send(body(5.0, x=5))
    assert entries(store, LOSS) == []
    first.send(body(3.0, loss=3))
    assert [entry["loss"] for entry in entries(LocalStore(place), LOSS)] == [3]


def test_lines_somebody_added_stay(store: LocalStore, place: Path) -> None:
    """A person's lines in a sequence are kept: behind a committed batch, and behind one that was interrupted."""
    writer, path = Writer(store, [LOSS]), place / "metrics/train/data.jsonl"
    writer.send(body(1.0, loss=1))
    with open(path, "ab") as file:
        file.write(b'{"timestamp":2.0,"loss":2}\n')
    _die_with(place, writer, body(3.0, loss=3))
    with open(path, "ab") as file:
        file.write(b'{"timestamp":9.0,"loss":9}\n')
    writer.send(body(3.0, loss=3))
    assert [entry["loss"] for entry in entries(store, LOSS)] == [1, 2, 9, 3]
    _die_with(place, writer, body(4.0, loss=4))
    path.write_bytes(path.read_bytes().replace(b'{"timestamp":2.0,"loss":2}\n', b""))
    writer.send(body(4.0, loss=4))
    assert [entry["loss"] for entry in entries(store, LOSS)] == [1, 9, 3, 4, 4], "better a line twice than one lost"


def test_a_lost_state_and_several_writers(store: LocalStore, place: Path) -> None:
    """Nobody knows any more which batches are applied: those that come again are left out, whoever comes first."""
    first, second = Writer(store, [LOSS]), Writer(store, [LOSS], name="ef" * 14)
    first.send(body(1.0, loss=1))
    second.send(body(2.0, loss=2), body(2.0, loss=2))
    (place / ".state").unlink()
    first.number = second.number = 0
    first.send(body(1.0, loss=1))
    first.send(body(2.0, loss=2))
    second.send(body(2.0, loss=2), body(2.0, loss=2))
    second.send(body(3.0, loss=3))
    assert [entry["loss"] for entry in entries(store, LOSS)] == [1, 2, 2, 2, 3]


def test_what_came_out_of_order_is_counted(store: LocalStore, place: Path) -> None:
    """Late and repeated entries are counted as they come, over batches and openings, and each writer for itself."""
    writer, other = Writer(store, [STATE]), Writer(store, [STATE], name="ef" * 14)
    writer.send(body(1.0, x=1), body(2.0, x=2), body(2.0, x=2), body(2.0, y=2), body(3.0, x=3))
    other.send(body(1.5, x=1), body(2.5, x=2))
    counts = [(info.late, info.repeated) for info in store.tracks()]
    assert counts == [(0, 1)], "y is new at its instant"
    writer.send(body(2.5, x=1), body(4.0, x=2))
    writer.send(columns([5.0, 4.5, 4.5], x=[1, 2, 3]))
    store.compact(STATE)
    assert [(info.late, info.repeated) for info in LocalStore(place).tracks()] == [(2, 2)]
    store.remove(STATE)
    writer.send(body(6.0, x=1))
    assert [(info.late, info.repeated) for info in store.tracks()] == [(0, 0)]


@pytest.mark.parametrize("reopened", [False, True], ids=["recorded", "index rebuilt"])
@pytest.mark.parametrize("alone", [True, False], ids=["late alone", "late before others"])
def test_one_late_entry_costs_little(
    store: LocalStore, place: Path, monkeypatch: pytest.MonkeyPatch, alone: bool, reopened: bool
) -> None:
    """In a long track one entry came late: counting, listing and a window read the blocks beside it, not the track."""
    writer = Writer(store)
    for second in range(40):
        writer.send(*(body(second + i / 400, x=[0.125] * 20, n=i) for i in range(400)))
    writer.send(body(3.00125, y=1), *(() if alone else (body(40.0 + i, x=[0.5]) for i in range(40))))
    if reopened:
        next(place.rglob(".index")).unlink()
    reader = LocalStore(place)
    reader.extent(STATE)  # the index is made
    loaded: list[int] = []
    real = Snapshot.load

    def counting(self: Snapshot, block: Block) -> list[dict]:
        loaded.append(block.entries)
        return real(self, block)

    monkeypatch.setattr(Snapshot, "load", counting)
    count = 40 * 400 + 1 + (0 if alone else 40)
    assert reader.extent(STATE) == (count, 39.9975 if alone else 79.0)
    assert 0 < sum(loaded) < 2_000
    reader.tracks()  # keeps the types of every line
    loaded.clear()
    (info,) = reader.tracks()
    assert info.count == count
    assert info.columns["y"] == "int"
    assert 0 < sum(loaded) < 4_000
    loaded.clear()
    found = [e["timestamp"] for block in reader.read(STATE, Window(2.999, 3.003)) for e in block]
    assert found == [3.0, 3.00125, 3.0025]
    assert 0 < sum(loaded) < 1_000
    reader.close()


def test_a_type_that_merging_took_away_is_not_listed(store: LocalStore) -> None:
    """Text was corrected to a number at the same instant, late: the column has numbers only, before compaction too."""
    writer = Writer(store)
    writer.send(body(1.0, x="?"), body(2.0, x=2))
    writer.send(body(1.0, x=1))
    writer.send(body(3.0, x=3))
    assert [info.columns["x"] for info in store.tracks()] == ["int"]
    store.compact(STATE)
    assert [info.columns["x"] for info in store.tracks()] == ["int"]


def test_listing_an_unsorted_track_equals_reading_it(place: Path) -> None:
    """Count, extent and types of tracks with late, repeated and replaced entries, asked after every batch."""
    chosen = random.Random(7)
    for track in range(30):
        store = LocalStore(place / str(track))
        writer = Writer(store)
        for step in range(12):
            start = step * 10 if chosen.random() < 0.7 else chosen.randrange(0, 120)
            stamps = [start + chosen.randrange(0, 12) / 2 for _ in range(chosen.randrange(1, 6))]
            values = [chosen.choice([1, 0.5, "text", None, [1.0, 2.0]]) for _ in stamps]
            writer.send(*(body(stamp, **{chosen.choice("ab"): v}) for stamp, v in zip(stamps, values, strict=True)))
            (info,) = store.tracks()
            known = entries(store)
            assert (info.count, info.columns) == (len(known), describe(known))
            assert store.extent(STATE) == (len(known), known[-1]["timestamp"])
        store.close()


def test_a_type_that_merging_took_away_stays_away_when_the_index_is_made_again(store: LocalStore, place: Path) -> None:
    """The new index cuts blocks elsewhere: what was kept of the types must not be taken for another block's."""
    writer = Writer(store)
    wrong = {1000: {"x": {"no": "number"}}}
    writer.send(*(body(float(n), pad="-" * 70, **wrong.get(n, {"x": n})) for n in range(1200)))
    assert [info.columns["x"] for info in store.tracks()] == ["dict | int"]
    writer.send(body(1000.0, x=1))
    assert [info.columns["x"] for info in store.tracks()] == ["int"]
    next(place.rglob(".index")).unlink()
    again = LocalStore(place)
    assert [info.columns["x"] for info in again.tracks()] == ["int"]
    again.close()


def test_a_batch_that_failed_and_comes_again_is_not_late(place: Path) -> None:
    """What the full disk refused counts once, when it is stored."""
    full = FullOnce()
    store = LocalStore(place, files=full)
    writer = Writer(store, [STATE])
    writer.send(body(1.0, x=1))
    full.at = place / ".state"
    with pytest.raises(OSError, match="No space"):
        writer.send(body(2.0, x=2), body(3.0, x=3))
    writer.number -= 1
    writer.send(body(2.0, x=2), body(3.0, x=3))
    assert [(info.count, info.late, info.repeated) for info in store.tracks()] == [(3, 0, 0)]
    writer.send(body(2.5, x=4))
    assert [info.late for info in store.tracks()] == [1]
    store.close()


class FullOnce(Files):
    """A disk on which replacing one file fails once."""

    at: Path | None = None

    def replace(self, source: Path | str, target: Path | str) -> None:
        """Rename, or fail."""
        if target == self.at:
            self.at = None
            raise OSError(errno.ENOSPC, "No space left on device")
        super().replace(source, target)


def test_a_removed_series_leaves_nothing_and_its_folder_is_free(store: LocalStore, place: Path) -> None:
    """Another opening that knew the series does not write into the folder's next owner."""
    other = LocalStore(place)
    writer = Writer(other, [Track("tracks", "a/b")])
    writer.send(body(1.0, x="a/b"))
    store.remove(Track("tracks", "a/b"))
    Writer(store, [Track("tracks", "a_b")]).send(body(1.0, y="a_b"))
    assert entries(other, Track("tracks", "a/b")) == []
    writer.send(body(2.0, x="a/b again"))
    for opened in (store, other):
        assert entries(opened, Track("tracks", "a/b")) == [{"timestamp": 2.0, "x": "a/b again"}]
        assert entries(opened, Track("tracks", "a_b")) == [{"timestamp": 1.0, "y": "a_b"}]
    other.close()


def test_readonly_changes_nothing(store: LocalStore, place: Path) -> None:
    """A read-only opening reads with and without an index, creates no file, and refuses to write."""
    Writer(store, [STATE, LOSS]).send(body(2.0, 1, x=2), body(1.0, 1, x=1), body(1.0, 2, loss=1))
    store.close()
    for index in place.rglob(".index"):
        index.unlink()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    opened = LocalStore(place, readonly=True)
    assert [entry["x"] for entry in entries(opened)] == [1, 2]
    assert len(entries(opened, LOSS)) == 1
    assert [info.count for info in opened.tracks()] == [2]
    for use in (lambda: Writer(opened).send(body(3.0)), lambda: opened.update_document("params", lambda known: {})):
        with pytest.raises(NotOpen, match="reading only"):
            use()
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_document_that_is_no_object_is_told(store: LocalStore, place: Path) -> None:
    """A params file somebody broke is named, not overwritten."""
    store.update_document("params", lambda known: {"a": 1})
    path = place / "params.json"
    for damage in (b"", b"[1]", b"{", b"\xff\xff", b"null"):
        path.write_bytes(damage)
        with pytest.raises(StoreCorrupt, match=r"params\.json is no JSON object"):
            store.read_document("params")
        with pytest.raises(StoreCorrupt, match=r"params\.json is no JSON object"):
            store.update_document("params", lambda known: {"b": 2})
        assert path.read_bytes() == damage


def test_a_copied_folder_does_not_take_the_topic(store: LocalStore, place: Path) -> None:
    """Somebody's copy of a track's folder, which names the same topic, is neither read nor written in its place."""
    Writer(store).send(body(1.0, x=1))
    shutil.copytree(place / "tracks/robot_state", place / "tracks/a_copy")
    for number, opened in enumerate((store, LocalStore(place)), start=2):
        Writer(opened).send(body(float(number), x=number))
    assert [entry["x"] for entry in entries(store)] == [1, 2, 3]
    assert len(lines(place / "tracks/a_copy/data.jsonl")) == 1


def test_a_file_in_the_way_does_not_stop_a_topic(store: LocalStore, place: Path) -> None:
    """Where a file has the name of a topic's folder, the topic gets another one, and the file stays."""
    (place / "tracks").mkdir(parents=True)
    (place / "tracks/robot_state").write_text("notes")
    Writer(store).send(body(1.0, x=1))
    assert entries(store) == entries(LocalStore(place)) == [{"timestamp": 1.0, "x": 1}]
    assert (place / "tracks/robot_state").read_text() == "notes"


class Unreadable(Files):
    """A file system on which one track's data may not be read."""

    def open(self, path: Path | str, flags: int, mode: int = 0o644) -> int:
        """Refuse the data file of `secret`."""
        if "secret" in str(path) and str(path).endswith(".jsonl"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return super().open(path, flags, mode)


def test_a_file_that_may_not_be_read(store: LocalStore, place: Path) -> None:
    """PermissionError names it; the other tracks are read and written as before."""
    secret = Track("tracks", "secret")
    Writer(store, [STATE, secret]).send(body(1.0, 1, x=1), body(1.0, 2, y=1))
    opened = LocalStore(place, files=Unreadable())
    with pytest.raises(PermissionError, match=r"secret/data\.jsonl"):
        entries(opened, secret)
    with pytest.raises(PermissionError, match=r"secret/data\.jsonl"):
        Writer(opened, [STATE, secret]).send(body(2.0, 1, x=2), body(2.0, 2, y=2))
    assert entries(opened) == [{"timestamp": 1.0, "x": 1}]
    Writer(opened).send(body(3.0, x=3))
    assert [entry["x"] for entry in entries(store)] == [1, 3]
    assert entries(store, secret) == [{"timestamp": 1.0, "y": 1}]
    opened.close()


def test_three_hundred_topics_in_one_batch(store: LocalStore) -> None:
    """Many series at once: each has its own folder, and all are found again."""
    tracks = [Track("tracks", f"sensors/{number}") for number in range(300)]
    writer = Writer(store, tracks)
    writer.send(
        *(body(1.0, number, x=number) for number in writer.tracks), *(columns([2.0], n, y=[n]) for n in writer.tracks)
    )
    assert len(store.tracks()) == 300
    assert entries(store, tracks[299]) == [{"timestamp": 1.0, "x": 300}, {"timestamp": 2.0, "y": 300}]


def test_a_checksum_of_another_kind_tells_no_copy(place: Path) -> None:
    """A batch that came again behind an update of the server is itself, though its checksum was a CRC32 before."""
    with closing(LocalStore(place, tells_copies=True)) as store:
        writer = Writer(store, [LOSS])
        sent = writer.send(body(1.0, loss=1))
        state = StateFile(place / ".state", Files())
        kept = state.read()
        assert list(kept.checks) == [writer.name]
        state.write(replace(kept, checks={writer.name: 1234}))  # type: ignore[dict-item]
        store.append(sent)
        assert len(entries(store, LOSS)) == 1
