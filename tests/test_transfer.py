"""Recordings from one store to another: whole, once, wherever it is interrupted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ml_dash import Experiment, wire
from ml_dash.catalog import LocalCatalog
from ml_dash.errors import StoreUnavailable
from ml_dash.ledger import Ledger, ledger_of
from ml_dash.store import MERGED, Batch, Entry, Store, Track, TrackInfo, Window
from ml_dash.stores.connection import Connection
from ml_dash.stores.http import HttpStore
from ml_dash.stores.local import LocalStore
from ml_dash.stores.memory import MemoryStore
from ml_dash.transfer import BATCH_BYTES, AlreadyThere, Moved, move
from ml_dash.zstd import decompress
from store_contract import FORCE, LOGS, LOSS, STATE, Writer, body, entries


class Unreliable(MemoryStore):
    """Fails at the n-th append, before or after it has stored."""

    def __init__(self, failures: dict[int, str] | None = None) -> None:
        super().__init__()
        self.failures, self.calls = failures or {}, 0

    def append(self, batch: Batch) -> None:
        self.calls += 1
        fate = self.failures.get(self.calls)
        if fate == "before":
            raise StoreUnavailable("not reached")
        super().append(batch)
        if fate == "after":
            raise StoreUnavailable("the answer is lost")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LocalStore]:
    """A recording of everything."""
    store = LocalStore(tmp_path / "source")
    writer = Writer(store, [STATE, FORCE, LOSS, LOGS])
    writer.send(*(body(n * 0.001, 1, n=n, q=[1.0, float("nan")]) for n in range(4500)))
    writer.send(body(5.0, 2, f=None), *(body(9.0, 3, loss=n) for n in range(2300)), body(1.0, 4, message="hi"))
    store.update_document("params", lambda known: {"a": {"b": 1}})
    store.update_document("experiment", lambda known: {"status": "completed", "created_at": "2026-01-01T00:00:00Z"})
    yield store
    store.close()


def ledger() -> Ledger:
    """What is known of the transfer of these tests, as a new process finds it."""
    return ledger_of("test", "here", "there")


def check(source: Store, target: Store) -> None:
    """Every series is there as it is here."""
    for track in (STATE, FORCE, LOSS, LOGS):
        assert repr(entries(target, track)) == repr(entries(source, track)), track
    assert target.read_document("params") == {"a": {"b": 1}}


def test_everything_moves(source: LocalStore) -> None:
    """Tracks, metrics, logs and documents; progress is told; the second time there is nothing to do."""
    target, told = MemoryStore(), list[tuple[str, int, int]]()
    moved = move(source, target, ledger(), lambda track, done, total: told.append((track.topic, done, total)))
    check(source, target)
    assert (moved.entries, moved.series, moved.refused) == (4500 + 1 + 2300 + 1, 4, [])
    assert told[:3] == [("robot/state", 2000, 4500), ("robot/state", 4000, 4500), ("robot/state", 4500, 4500)]
    assert move(source, target, ledger()).entries == 0
    check(source, target)


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 8))
def test_interrupted_anywhere(source: LocalStore, fate: str, call: int) -> None:
    """A batch whose answer was lost is not doubled, one that did not arrive is not left out."""
    target = Unreliable({call: fate})
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    move(source, target, ledger())
    check(source, target)


def test_only_what_is_new(source: LocalStore) -> None:
    """Called again after more was recorded: sequences go on behind, a changed track is merged."""
    target = MemoryStore()
    move(source, target, ledger())
    Writer(source, [STATE, LOSS]).send(body(100.0, 1, n="new"), body(0.0005, 1, n="late"), body(1.0, 2, loss="new"))
    moved = move(source, target, ledger())
    check(source, target)
    assert moved.entries == 4502 + 1


def test_a_changed_batch_is_sent_as_it_is(source: LocalStore) -> None:
    """What was frozen and then overwritten by late data arrives with the late data."""
    target = Unreliable({1: "before"})
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    Writer(source).send(body(0.0, late=1))
    move(source, target, ledger())
    check(source, target)


def test_sequences_of_others_are_not_doubled(source: LocalStore) -> None:
    """A sequence with other entries than here stays as it is, and that is said; everything else is moved."""
    target = MemoryStore()
    Writer(target, [LOSS]).send(body(1.0, loss=-1))
    before = entries(target, LOSS)
    with pytest.raises(AlreadyThere, match="train"):
        move(source, target, ledger())
    assert entries(target, LOSS) == before
    assert repr(entries(target, STATE)) == repr(entries(source, STATE))


@pytest.mark.parametrize("there", [1, 2, 10**6])
def test_a_sequence_goes_on_where_it_was_delivered_by_other_means(source: LocalStore, there: int) -> None:
    """A restored backup, or a run recorded with the server's address, has the beginning or all: the rest is sent."""
    target = MemoryStore()
    lines = entries(source, LOSS)[:there]
    for entry in lines:
        Writer(target, [LOSS]).send(body(entry["timestamp"], loss=entry["loss"]))
    move(source, target, ledger())
    check(source, target)


def test_a_target_that_was_set_back_gets_the_rest(source: LocalStore) -> None:
    """A server restored from an older backup has less than the ledger knows."""
    known = ledger()
    move(source, MemoryStore(), known)
    target = MemoryStore()
    first = entries(source, LOSS)[0]
    Writer(target, [LOSS]).send(body(first["timestamp"], loss=first["loss"]))
    move(source, target, known)
    assert entries(target, LOSS) == entries(source, LOSS)


def test_tracks_of_others_merge(source: LocalStore) -> None:
    """Entries of a track unite with those that are there."""
    target = MemoryStore()
    Writer(target).send(body(0.0, other=1), body(-1.0, other=2))
    move(source, target, ledger())
    assert entries(target)[0] == {"timestamp": -1.0, "other": 2}
    assert entries(target)[1]["other"] == 1
    assert entries(target)[1]["n"] == 0


def test_what_the_target_refuses_is_told(source: LocalStore) -> None:
    """Each refused entry costs itself alone."""

    class Picky(MemoryStore):
        def append(self, batch: Batch) -> None:
            bad = [(place, "no") for place, one in enumerate(batch.bodies) if one == body(5.0, 1, f=None)]
            if bad:
                raise wire.Refused("no", bad)
            super().append(batch)

    target = Picky()
    moved = move(source, target, ledger())
    assert moved.refused == ["sensors/force: no"]
    assert len(entries(target, STATE)) == 4500


def test_integers_that_cannot_travel_are_told(tmp_path: Path) -> None:
    """Other programs write integers beyond 64 bits; they are left out and named."""

    class Foreign(MemoryStore):
        def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
            for block in super().read(track, window):
                yield [{**entry, "x": 1 << 70} if entry["timestamp"] == 1.0 else entry for entry in block]

    source, target = Foreign(), MemoryStore()
    Writer(source).send(body(1.0, x=1), body(2.0, x=2))
    moved = move(source, target, ledger())
    assert len(moved.refused) == 1
    assert "at 1.0" in moved.refused[0]
    assert entries(target) == [{"timestamp": 2.0, "x": 2}]


def test_documents_meet_those_there(source: LocalStore) -> None:
    """Parameters merge key by key, the processes of runs unite."""
    target = MemoryStore()
    target.update_document("params", lambda known: {"a": {"c": 2}, "d": 3})
    target.update_document(
        "experiment", lambda known: {"created_at": "2025-01-01T00:00:00Z", "processes": [{"writer": "x"}]}
    )
    move(source, target, ledger())
    assert target.read_document("params") == {"a": {"b": 1, "c": 2}, "d": 3}
    document: Any = target.read_document("experiment")
    assert document["created_at"] == "2025-01-01T00:00:00Z"
    assert document["processes"] == [{"writer": "x"}]


def test_the_target_is_listed_once_for_each_kind(tmp_path: Path) -> None:
    """Over HTTP each listing is a request that carries every series: thousands of metrics must not ask thousands of
    times."""
    with_many = LocalStore(tmp_path / "many")
    metrics = [Track("metrics", f"loss/{number}") for number in range(30)]
    Writer(with_many, metrics).send(*(body(1.0, number, loss=number) for number in range(1, 31)))
    asked: list[str] = []

    class Listed(MemoryStore):
        def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
            asked.append(kind)
            return super().tracks(kind)

    target = Listed()
    move(with_many, target, ledger())
    assert asked == ["metrics"] * 2, "before, and behind what was sent; and no kind that is not here"
    move(with_many, target, ledger())
    with_many.close()
    assert asked == ["metrics"] * 3, "nothing was sent"
    assert [entries(target, track)[0]["loss"] for track in metrics] == list(range(1, 31))


# ---------------------------------------------------------------- a target that changed meanwhile


class Changing(Unreliable):
    """May be emptied and set back, as a server is whose database was restored."""

    def copied(self) -> Any:
        """What it holds."""
        return copy.deepcopy((self._merged, self._sequences, self._documents, self._applied, self._checks))

    def restore(self, kept: Any) -> None:
        """Hold what it held."""
        self._merged, self._sequences, self._documents, self._applied, self._checks = copy.deepcopy(kept)

    def empty(self) -> None:
        """Hold nothing."""
        self.restore(({}, {}, {}, {}, {}))

    def fail(self, call: int, fate: str) -> None:
        """Let an append from now fail."""
        self.failures, self.calls = {call: fate}, 0


def test_an_emptied_target_gets_everything_each_time(source: LocalStore) -> None:
    """The ledger says what was brought; whether it is there only the target can say."""
    target = Changing()
    for _ in range(3):
        assert move(source, target, ledger()).entries == 4502 + 2300
        check(source, target)
        assert move(source, target, ledger()).entries == 0
        target.empty()


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
def test_interrupted_and_then_emptied(source: LocalStore, fate: str, call: int) -> None:
    """What was frozen does not come before what was lost: metrics and tracks are whole, and once."""
    target = Changing()
    target.fail(call, fate)
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    target.empty()
    move(source, target, ledger())
    check(source, target)


@pytest.mark.parametrize("interrupted", [False, True])
def test_set_back_and_refilled_by_others(source: LocalStore, interrupted: bool) -> None:
    """Neither the number of entries nor the last of them tells, where others have recorded since: the writer does."""
    target = Changing()
    if interrupted:
        target.fail(3, "before")
        with pytest.raises(StoreUnavailable):
            move(source, target, ledger())
    else:
        move(source, target, ledger())
    target.empty()
    Writer(target).send(*(body(n * 0.001 + 0.0005, other=n) for n in range(-1, 9000)))
    move(source, target, ledger())
    theirs = {entry["timestamp"] for entry in entries(target)}
    assert theirs >= {entry["timestamp"] for entry in entries(source)}


def test_a_set_back_target_with_metrics_of_others_is_told(source: LocalStore) -> None:
    """As many entries as were brought, but not those: nothing is put behind them."""
    target = Changing()
    move(source, target, ledger())
    target.empty()
    Writer(target, [LOSS]).send(*(body(9.0, 1, loss=-n) for n in range(2300)))
    before = entries(target, LOSS)
    Writer(source, [LOSS]).send(body(10.0, 1, loss=1))
    for _ in range(2):
        with pytest.raises(AlreadyThere, match="train"):
            move(source, target, ledger())
        assert entries(target, LOSS) == before
    assert repr(entries(target, STATE)) == repr(entries(source, STATE))


@pytest.mark.parametrize("track", [STATE, FORCE, LOSS, LOGS])
def test_a_series_deleted_there_comes_back(source: LocalStore, track: Track) -> None:
    """A topic that is not there was deleted, or its file is lost: what is here is brought."""
    target = MemoryStore()
    move(source, target, ledger())
    target.remove(track)
    assert move(source, target, ledger()).series == 1
    check(source, target)


@pytest.mark.parametrize(("start", "end"), [(None, 1.0), (1.0, 2.0), (2.0, None)])
def test_a_window_deleted_there_comes_back(source: LocalStore, start: float | None, end: float | None) -> None:
    """It may as well be a file that was damaged, or taken from an older backup: nothing is lost."""
    target = MemoryStore()
    move(source, target, ledger())
    target.remove_window(STATE, start, end)
    move(source, target, ledger())
    check(source, target)
    assert move(source, target, ledger()).entries == 0


@pytest.mark.parametrize("lost", [(0.0, 99.0), (4.499, -99.0)])
def test_an_end_that_others_made_up_for_comes_back(source: LocalStore, lost: tuple[float, float]) -> None:
    """As many entries as were brought, but the track does not reach as far."""
    target = MemoryStore()
    move(source, target, ledger())
    at = 2.25005
    target.remove_window(STATE, lost[0], lost[0])
    Writer(target).send(body(at, other=1))
    move(source, target, ledger())
    missing = {entry["timestamp"] for entry in entries(source)} - {entry["timestamp"] for entry in entries(target)}
    assert not missing


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 5))
def test_a_loss_between_two_attempts_comes_back(call: int, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A track that is brought once more hides it: there are more entries all the time than that attempt brought."""
    monkeypatch.setattr("ml_dash.transfer.BATCH_ENTRIES", 3)
    source, target = MemoryStore(), Changing()
    writer = Writer(source)
    writer.send(*(body(float(n), x=n) for n in range(10)))
    move(source, target, ledger())
    writer.send(body(10.0, x=10))
    target.fail(call, fate)
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    target.remove_window(STATE, 0.0, 1.0)
    assert move(source, target, ledger()).series == 1
    assert entries(target) == entries(source)
    assert move(source, target, ledger()) == Moved()


def test_what_the_target_does_not_keep_is_sent_no_more_than_twice() -> None:
    """Old entries that are deleted as they come keep no transfer from ending."""

    class Forgetful(Unreliable):
        def append(self, batch: Batch) -> None:
            super().append(batch)
            self.remove_window(STATE, None, 1.0)

    source, target = MemoryStore(), Forgetful()
    Writer(source).send(*(body(float(n), x=n) for n in range(10)))
    moved = move(source, target, ledger())
    assert (moved.series, moved.entries) == (1, 20)
    assert len(entries(target)) == 8


def test_late_data_between_two_attempts_arrives(source: LocalStore) -> None:
    """An interrupted transfer goes on behind where it was: what came before that meanwhile is not left out."""
    target = Unreliable({3: "before"})
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    Writer(source).send(body(0.0005, late=1))
    move(source, target, ledger())
    check(source, target)


def test_another_recording_of_that_name_is_told(source: LocalStore, tmp_path: Path) -> None:
    """Recorded anew, a sequence is no continuation, however long it is: it is not put behind the former one."""
    target = MemoryStore()
    move(source, target, ledger())
    before = entries(target, LOSS)
    anew = LocalStore(tmp_path / "anew")
    Writer(anew, [LOSS]).send(*(body(9.0, 1, loss=-n) for n in range(2400)))
    anew.update_document("experiment", lambda known: {"created_at": "2026-02-02T00:00:00Z"})
    with pytest.raises(AlreadyThere, match="train"):
        move(anew, target, ledger())
    anew.close()
    assert entries(target, LOSS) == before


def test_what_was_refused_keeps_no_sequence_from_going_on(tmp_path: Path) -> None:
    """The target has fewer entries than were sent; what is recorded later arrives behind them."""

    class Picky(MemoryStore):
        def append(self, batch: Batch) -> None:
            bad = [(place, "no") for place, one in enumerate(batch.bodies) if one == body(2.0, 1, loss=2)]
            if bad:
                raise wire.Refused("no", bad)
            super().append(batch)

    source, target = MemoryStore(), Picky()
    writer = Writer(source, [LOSS])
    writer.send(*(body(float(n), 1, loss=n) for n in range(5)))
    assert move(source, target, ledger()).refused == ["train: no"]
    writer.send(body(5.0, 1, loss=5))
    assert move(source, target, ledger()).entries == 1
    assert [entry["loss"] for entry in entries(target, LOSS)] == [0, 1, 3, 4, 5]


def test_the_target_keeps_one_writer(source: LocalStore) -> None:
    """By it the target is known again; those of former transfers are forgotten."""
    target = MemoryStore()
    for number in range(3):
        Writer(source).send(body(200.0 + number, n=number))
        move(source, target, ledger())
        assert len(target._applied) == 1


def test_sequences_that_are_there_are_read_once(source: LocalStore) -> None:
    """Where others have brought all of them they are compared the first time; later the listing suffices."""
    read: list[Track] = []

    class Read(MemoryStore):
        def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
            read.append(track)
            return super().read(track, window)

        def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
            found = super().tracks(kind)
            read.clear()
            return found

    only, target = MemoryStore(), Read()
    for store in (only, target):
        Writer(store, [LOSS]).send(*(body(1.0, 1, loss=n) for n in range(10)))
    for expected in (1, 0, 0):
        move(only, target, ledger())
        assert len(read) == expected
    assert len(entries(target, LOSS)) == 10


def test_two_at_once_wait_for_each_other(source: LocalStore) -> None:
    """The same command started twice, as a nightly one that takes longer than a day: sequences are there once."""
    target = MemoryStore()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: move(source, target, ledger()), range(4)))
    assert sorted(one.entries for one in done) == [0, 0, 0, 6802]
    check(source, target)


# ---------------------------------------------------------------- what only the contents tell


def test_a_correction_of_the_same_size_arrives(source: LocalStore) -> None:
    """As many entries, the same ends, the same bytes: the file is another one all the same."""
    target = MemoryStore()
    Writer(source).send(body(0.002, n=5))
    source.compact_all()
    move(source, target, ledger())
    (before,) = (info for info in source.tracks() if info.topic == STATE.topic)
    Writer(source).send(body(0.002, n=6))
    source.compact_all()
    (after,) = (info for info in source.tracks() if info.topic == STATE.topic)
    assert (before.count, before.size_bytes, before.last_timestamp) == (after.count, after.size_bytes, 4.499)
    move(source, target, ledger())
    assert entries(target)[2]["n"] == 6
    check(source, target)
    assert move(source, target, ledger()).entries == 0


def test_a_correction_in_the_journal_arrives(tmp_path: Path) -> None:
    """A run that is still recording: what it replaced is in no file yet."""
    target = MemoryStore()
    with Experiment("ada/push/run", dash_root=tmp_path).run as experiment:
        source = LocalCatalog(tmp_path).store("ada/push/run")
        for value in (1, 2, 3):
            experiment.tracks("robot/state").append(_ts=1.0, x=value)
            experiment.metrics("train").log(loss=value)
            move(source, target, ledger())
            assert entries(target) == [{"timestamp": 1.0, "x": value}]
            assert [entry["loss"] for entry in entries(target, LOSS)] == list(range(1, value + 1))
            assert move(source, target, ledger()).entries == 0
    move(source, target, ledger())
    assert len(entries(target, LOSS)) == 3


class Older(MemoryStore):
    """A server that tells no revisions."""

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        return [replace(info, revision="") for info in super().tracks(kind)]


def test_stores_without_revisions(tmp_path: Path) -> None:
    """From an older server tracks are fetched each time, so that no correction is missed; sequences are there once."""
    source, target = Older(), Older()
    writer = Writer(source, [STATE, LOSS])
    writer.send(*(body(float(n), 1, x=1) for n in range(5)), *(body(float(n), 2, loss=n) for n in range(5)))
    for value in (2, 3):
        assert move(source, target, ledger()).entries >= 5
        writer.send(body(3.0, 1, x=value))
        move(source, target, ledger())
        assert entries(target) == entries(source)
        assert entries(target, LOSS) == entries(source, LOSS)
    writer.send(body(9.0, 2, loss=9))
    move(source, target, ledger())
    assert entries(target, LOSS) == entries(source, LOSS)


@pytest.mark.parametrize("grown", [0, 5])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_metrics_that_others_made_anew_are_not_taken_for_ours(source: LocalStore, grown: int, shift: float) -> None:
    """Deleted there and recorded by others, as many and at the same times: nothing is put behind them."""
    target = MemoryStore()
    move(source, target, ledger())
    target.remove(LOSS)
    Writer(target, [LOSS]).send(*(body(9.0 + shift, loss=-n) for n in range(2300)))
    before = entries(target, LOSS)
    Writer(source, [LOSS]).send(*(body(10.0, loss=n) for n in range(grown)))
    for _ in range(2):
        with pytest.raises(AlreadyThere, match="train"):
            move(source, target, ledger())
        assert entries(target, LOSS) == before


def test_metrics_made_anew_between_two_attempts(source: LocalStore) -> None:
    """In the middle of a transfer no revision is known: as many entries with other ends are not ours."""
    target = Unreliable({6: "before"})
    with pytest.raises(StoreUnavailable):
        move(source, target, ledger())
    assert len(entries(target, LOSS)) == 2000
    target.remove(LOSS)
    Writer(target, [LOSS]).send(*(body(9.5, loss=n) for n in range(2000)))
    target.failures = {}
    with pytest.raises(AlreadyThere, match="train"):
        move(source, target, ledger())
    assert len(entries(target, LOSS)) == 2000


def test_metrics_made_anew_here_are_not_put_behind_the_former(tmp_path: Path) -> None:
    """Deleted here and recorded again, as many and at the same times: the target's are others then."""
    source, target = MemoryStore(), MemoryStore()
    Writer(source, [LOSS]).send(*(body(9.0, loss=n) for n in range(10)))
    move(source, target, ledger())
    source.remove(LOSS)
    Writer(source, [LOSS]).send(*(body(9.0, loss=-n) for n in range(10)))
    with pytest.raises(AlreadyThere, match="train"):
        move(source, target, ledger())


@pytest.mark.parametrize("interrupted", [0, 3, 4])
@pytest.mark.parametrize("same", [0, 1, 2, 4])
def test_metrics_made_anew_here_and_longer_are_others(same: int, interrupted: int) -> None:
    """Neither their first timestamp nor their length tells, and some of them may be what they were, at either end;
    also in the middle of a transfer, with a batch under way."""
    source, target = MemoryStore(), Unreliable({interrupted: "before"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_dash.transfer.BATCH_ENTRIES", 1)
        Writer(source, [LOSS]).send(*(body(float(n), loss=n) for n in range(5)))
        with suppress(StoreUnavailable):
            move(source, target, ledger())
        source.remove(LOSS)
        Writer(source, [LOSS]).send(*(body(float(n), loss=n if n % 5 >= 5 - same else -1 - n) for n in range(9)))
        before = entries(target, LOSS)
        for _ in range(2):
            with pytest.raises(AlreadyThere, match="train"):
                move(source, target, ledger())
            assert entries(target, LOSS) == before


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("nan"), None], {"a": {"b": float("nan")}, "c": 1}])
def test_the_order_of_fields_makes_no_other_entry(tmp_path: Path, value: Any) -> None:
    """Others brought the same entries, with NaN in them, their fields in another order; other values are others."""
    for other in (value, float("inf")):
        source, target = LocalStore(tmp_path / repr(other is value)), MemoryStore()
        Writer(source, [LOSS]).send(*(body(float(n), loss=value, z=n) for n in range(3)))
        turned = dict(reversed(value.items())) if isinstance(value, dict) else value
        Writer(target, [LOSS]).send(*(body(float(n), z=n, loss=turned if other is value else other) for n in range(2)))
        if other is value:
            assert move(source, target, ledger_of("same")).entries == 1
            assert len(entries(target, LOSS)) == 3
        else:
            with pytest.raises(AlreadyThere):
                move(source, target, ledger_of("other"))
        source.close()


# ---------------------------------------------------------------- slow links, large entries


class Slow(MemoryStore):
    """Takes some batches, then is not reached until it is given more."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.sizes = 0, list[tuple[int, int]]()

    def append(self, batch: Batch) -> None:
        if batch.bodies:
            if not self.left:
                raise StoreUnavailable("cut")
            self.left -= 1
            self.sizes.append((len(batch.bodies), sum(map(len, batch.bodies))))
        super().append(batch)


def tried(source: Store, target: Store, calls: int = 5) -> Moved:
    """What a transfer did that is called again until it ends."""
    for _ in range(calls):
        if isinstance(target, Slow):
            target.left = 2
        with suppress(StoreUnavailable):
            return move(source, target, ledger())
    raise AssertionError("it never ends")


def test_a_track_that_grows_between_attempts_arrives(tmp_path: Path) -> None:
    """Each attempt brings it further, whatever was recorded meanwhile; all is there once the recording ends."""
    source, target = LocalStore(tmp_path / "source"), Slow()
    writer = Writer(source)
    writer.send(*(body(float(n), x=n) for n in range(10_000)))
    for attempt in range(12):
        target.left = 2
        with pytest.raises(StoreUnavailable):
            move(source, target, ledger())
        assert len(entries(target)) >= min(4000 * (attempt + 1), 10_000)
        writer.send(body(20_000.0 + attempt, x=attempt), body(attempt + 0.5, late=attempt))
    tried(source, target, calls=8)  # what is left of one pass, and all of another
    assert entries(target) == entries(source)
    assert move(source, target, ledger()).entries == 0
    source.close()


def test_batches_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images go a few at a time; one that is larger than a batch goes alone."""
    monkeypatch.setattr("ml_dash.transfer.BATCH_BYTES", 1 << 20)
    source, target = LocalStore(tmp_path / "source"), Slow()
    target.left = 1000
    writer = Writer(source, [STATE, LOGS])
    for n in range(12):
        writer.send(body(float(n), 1, image="x" * (2_000_000 if n == 7 else 400_000)), body(1.0, 2, n="y" * 600_000))
    move(source, target, ledger())
    assert entries(target) == entries(source)
    assert entries(target, LOGS) == entries(source, LOGS)
    assert [count for count, size in target.sizes] == [2, 2, 2, 1, 1, 2, 2] + [1] * 12
    assert all(size <= 1 << 20 or count == 1 for count, size in target.sizes)
    source.close()


def test_images_go_several_at_once() -> None:
    """One request for each costs a way there and back for each: four images of usual size share one."""
    source, target = MemoryStore(), Slow()
    target.left = 1
    Writer(source).send(*(body(float(n), image="x" * 900_000) for n in range(4)))
    move(source, target, ledger())
    ((count, size),) = target.sizes
    assert (count, size <= BATCH_BYTES) == (4, True)


# ---------------------------------------------------------------- what is refused


class Picky(Changing):
    """Refuses entries that say BAD, before it stores the others, or behind that: as where a batch goes in parts."""

    def __init__(self, failures: dict[int, str] | None = None, *, rest_stored: bool = False) -> None:
        super().__init__(failures)
        self.rest_stored = rest_stored

    def append(self, batch: Batch) -> None:
        bad = [(place, f"no {place}") for place, one in enumerate(batch.bodies) if b"BAD" in one]
        if bad and not self.rest_stored:
            self.calls += 1
            raise wire.Refused("no", bad)
        super().append(replace(batch, bodies=[one for one in batch.bodies if b"BAD" not in one]))
        if bad:
            raise wire.Refused("no", bad, rest_stored=True)


@pytest.mark.parametrize("bad", [[0], [2, 3, 9], list(range(10))])
@pytest.mark.parametrize("rest_stored", [False, True])
@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("track", [STATE, LOSS])
def test_what_was_refused_in_an_attempt_that_was_interrupted_is_told(
    track: Track, call: int, fate: str, rest_stored: bool, bad: list[int]
) -> None:
    """Each refused entry is told once, with the call that ends; the others are there once; a sequence goes on."""
    source, target = MemoryStore(), Picky({call: fate}, rest_stored=rest_stored)
    writer = Writer(source, [track])
    writer.send(*(body(float(n), loss="BAD" if n in bad else n) for n in range(10)))
    moved = tried(source, target)
    assert moved.left_out == len(moved.refused) == len(bad)
    target.failures = {}
    assert move(source, target, ledger()) == Moved()
    writer.send(body(10.0, loss=10))
    moved = move(source, target, ledger())
    assert moved.left_out == (len(bad) if track == STATE else 0), "a track that changed is sent again"
    assert [e["loss"] for e in entries(target, track)] == [n for n in range(11) if n not in bad]


def test_a_sequence_with_refused_entries_is_known_again(tmp_path: Path) -> None:
    """Its revision there is another one, as after a copy of the files; without what was refused it is the same."""
    source, target = MemoryStore(), Picky()
    writer = Writer(source, [LOSS])
    writer.send(*(body(float(n), loss="BAD" if n in (2, 3, 8) else n) for n in range(9)))
    assert move(source, target, ledger()).left_out == 3
    target._note_change(LOSS)
    writer.send(body(9.0, loss=9))
    moved = move(source, target, ledger())
    assert (moved.entries, moved.left_out) == (1, 0), "which is not tried and told again"
    assert [e["loss"] for e in entries(target, LOSS)] == [0, 1, 4, 5, 6, 7, 9]


def test_of_many_refused_entries_the_first_say_why(source: LocalStore) -> None:
    """All are counted; the ledger does not grow with them."""
    target = Picky()
    Writer(source, [LOGS]).send(*(body(1.0, message="BAD") for _ in range(5000)))
    moved = move(source, target, ledger())
    assert moved.left_out == 5000
    assert 1 <= len(moved.refused) <= 100
    (path,) = (one for one in ledger().path.parent.glob("*.json"))
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize(("backup", "told"), [(1, 2), (2, 0), (4, 0), (6, 0), (9, 0)])
def test_a_target_that_was_set_back_keeps_its_refusals(backup: int, told: int) -> None:
    """What it refused it has not, whichever backup it is: its metrics go on. Told again is only what is tried again,
    behind the end of what it has."""
    source, target, kept = MemoryStore(), Picky(), dict[int, Any]()
    writer = Writer(source, [LOSS])
    for n in range(1, 10):
        writer.send(body(float(n), loss="BAD" if n in (3, 4) else n))
        move(source, target, ledger())
        kept[n] = target.copied()
    writer.send(body(10.0, loss=10))
    move(source, target, ledger())
    target.restore(kept[backup])
    assert move(source, target, ledger()).left_out == told
    assert [e["loss"] for e in entries(target, LOSS)] == [1, 2, 5, 6, 7, 8, 9, 10]
    assert move(source, target, ledger()) == Moved()


def test_an_emptied_target_may_take_what_was_refused() -> None:
    """It may be another one, or have other limits by now: everything is tried again, and told again."""
    source, target = MemoryStore(), Picky()
    Writer(source, [LOSS]).send(*(body(float(n), loss="BAD" if n in (0, 3) else n) for n in range(6)))
    for _ in range(2):
        assert move(source, target, ledger()).left_out == 2
        assert len(entries(target, LOSS)) == 4
        target.empty()
    other = MemoryStore()
    assert move(source, other, ledger()) == Moved(series=1, entries=6)
    assert entries(other, LOSS) == entries(source, LOSS)


def test_refusals_that_nobody_was_told_of_survive_a_target_that_was_set_back() -> None:
    """The call that they belong to was interrupted."""
    source, target = MemoryStore(), Picky()
    writer = Writer(source, [LOSS, STATE])
    writer.send(body(0.0, 1, loss=0))
    move(source, target, ledger())
    backup = target.copied()
    writer.send(body(1.0, 1, loss="BAD"), body(2.0, 1, loss=2))
    target.fail(2, "before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_dash.transfer.BATCH_ENTRIES", 1)
        with pytest.raises(StoreUnavailable):
            move(source, target, ledger())
    target.restore(backup)
    assert move(source, target, ledger()).refused == ["train: no 0"]
    assert [e["loss"] for e in entries(target, LOSS)] == [0, 2]


def test_without_its_ledger_nothing_is_left_out_in_silence() -> None:
    """The state folder is lost: what is not there between what is, may have been refused, or is another process's that
    the target never had. Nobody can know, so it is said at each call, and nothing is stored."""
    source, target = MemoryStore(), Picky()
    writer = Writer(source, [LOSS])
    writer.send(*(body(float(n), loss="BAD" if n in (0, 3) else n) for n in range(6)))
    move(source, target, ledger())
    ledger().path.unlink()
    writer.send(*(body(float(n), loss=n) for n in range(6, 9)))
    for _ in range(2):
        with pytest.raises(AlreadyThere, match="train"):
            move(source, target, ledger())
    assert [e["loss"] for e in entries(target, LOSS)] == [1, 2, 4, 5]


def test_our_entries_in_another_order_are_others() -> None:
    """What is there must follow in the order that it has here, and nothing may be there that is not here."""
    source = MemoryStore()
    Writer(source, [LOSS]).send(*(body(float(n), loss=n) for n in range(4)))
    for order in ([1, 0], [0, 2, 1], [0, 9], [0, 1, 2, 3, 3]):
        target = MemoryStore()
        Writer(target, [LOSS]).send(*(body(float(n), loss=n) for n in order))
        with pytest.raises(AlreadyThere):
            move(source, target, ledger_of(repr(order)))
        assert [e["loss"] for e in entries(target, LOSS)] == order


@pytest.mark.parametrize("track", [STATE, LOSS])
@pytest.mark.parametrize("takes_empty", [False, True])
def test_a_target_that_refuses_everything_and_names_nobody(track: Track, takes_empty: bool) -> None:
    """One request for each batch, not for each entry; what was refused is told, not raised; other series arrive."""

    class Strict(Unreliable):
        def append(self, batch: Batch) -> None:
            self.calls += 1
            if track in batch.tracks.values() or not (batch.bodies or takes_empty):
                raise wire.Refused("no", [])
            MemoryStore.append(self, batch)

    source, target = MemoryStore(), Strict()
    writer = Writer(source, [track, LOGS])
    writer.send(*(body(float(n), 1, loss=n) for n in range(5000)))
    moved = move(source, target, ledger())
    assert (moved.left_out, moved.entries, moved.refused[0]) == (5000, 0, f"{track.topic}: no")
    assert target.calls <= 4
    assert move(source, target, ledger()) == Moved()
    writer.send(body(1.0, 2, message="hi"))
    assert move(source, target, ledger()).entries == 1
    assert len(entries(target, LOGS)) == 1
    assert move(source, target, ledger()) == Moved()


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_server_that_names_no_entry_refuses_all_of_them(size: int) -> None:
    """In one request, or for each part of a batch that is too large for one."""
    import httpx2

    asked = list[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        if request.method != "POST" or not wire.decode_batch(decompress(request.content, 1 << 26)).bodies:
            return httpx2.Response(200, json={"applied": 0, "count": 0})
        return httpx2.Response(422, json={"error": {"code": "bad_entries", "message": "not this"}})

    connection = Connection("http://there")
    connection._client = httpx2.Client(base_url="http://there", transport=httpx2.MockTransport(answer))
    store = HttpStore("http://there", "ada/push/run", connection=connection)
    with pytest.raises(wire.Refused, match="not this") as error:
        store.append(Batch("w", 1, {1: STATE}, [body(float(n), x="x" * size) for n in range(3)]))
    assert [at for at, _ in error.value.entries] == ([] if size == 10 else [0, 1, 2])
    assert asked.count("POST") == (1 if size == 10 else 6)
    connection.close()


def test_a_refusal_that_names_no_entry_is_told(source: LocalStore) -> None:
    """A whole batch is left out, and that is said."""

    class Strict(MemoryStore):
        def append(self, batch: Batch) -> None:
            if batch.bodies and set(batch.tracks.values()) == {FORCE}:
                raise wire.Refused("not this one", [])
            super().append(batch)

    moved = move(source, Strict(), ledger())
    assert (moved.left_out, moved.refused) == (1, ["sensors/force: not this one"])


def test_what_was_refused_is_told_with_what_others_have(source: LocalStore) -> None:
    """The error for other metrics is no reason to keep quiet about the rest."""
    target = Picky()
    Writer(target, [LOSS]).send(body(1.0, loss=-1))
    Writer(source, [LOGS]).send(body(2.0, message="BAD"))
    with pytest.raises(AlreadyThere, match="1 entries were left out, the first: logs: no 1"):
        move(source, target, ledger())


def test_a_ledger_of_another_version_is_void(source: LocalStore) -> None:
    """What is there is looked at; nothing is missing, and nothing twice."""
    target = MemoryStore()
    move(source, target, ledger())
    path = ledger().path
    for text in (
        "",
        "{}",
        '{"batches": ["w", 1, 1, ["metrics", "train", 0, 5, 5, 9], null], "origin": 1, "series": {}}',
    ):
        path.write_text(text)
        Writer(source, [LOSS]).send(body(20.0, loss=1))
        move(source, target, ledger())
        check(source, target)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_refused(seed: int) -> None:
    """Recording, refusals and interruptions in any order: a call that ends well has brought what can be brought, once,
    and everything that was left out was told once by then."""
    random = Random(seed)
    source, target = MemoryStore(), Picky()
    writer, count, told = Writer(source, [LOSS, LOGS]), 0, 0

    def record() -> None:
        nonlocal count
        for _ in range(random.randrange(1, 9)):
            count += 1
            at = float(count if random.random() < 0.7 else 1)
            value = "BAD" if random.random() < 0.25 else count
            writer.send(body(at, random.randrange(1, 3), n=value, x=float("nan")))

    def transfer(failures: dict[int, str]) -> None:
        nonlocal told
        target.failures, target.calls, target.rest_stored = failures, 0, random.random() < 0.5
        with suppress(StoreUnavailable):
            told += move(source, target, ledger()).left_out
            here = [[e["n"] for e in entries(source, track)] for track in (LOSS, LOGS)]
            assert [[e["n"] for e in entries(target, track)] for track in (LOSS, LOGS)] == [
                [n for n in values if n != "BAD"] for values in here
            ]
            assert told == sum(values.count("BAD") for values in here)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_dash.transfer.BATCH_ENTRIES", 3)
        for _ in range(40):
            step = random.random()
            if step < 0.4:
                record()
            else:
                transfer({random.randrange(1, 9): random.choice(["before", "after"])} if step < 0.85 else {})
        transfer({})


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_the_target(seed: int, tmp_path: Path) -> None:
    """Recording, transfers that are interrupted, backups, restores and deletions in any order: after a transfer that
    ends well, everything that is here is there, and of sequences nothing else and nothing twice."""
    random = Random(seed)
    source, target, kept = LocalStore(tmp_path / "here"), Changing(), [Changing().copied()]
    writer, clock = Writer(source, [STATE, FORCE, LOSS, LOGS]), 0

    def record() -> None:
        nonlocal clock
        for _ in range(random.randrange(1, 9)):
            clock += 1
            at = float(clock if random.random() < 0.8 else random.randrange(clock))
            writer.send(body(at, random.randrange(1, 5), n=clock))

    def interrupted() -> None:
        target.fail(random.randrange(1, 6), random.choice(["before", "after"]))
        with suppress(StoreUnavailable):
            move(source, target, ledger())
        target.failures = {}

    def whole() -> None:
        move(source, target, ledger())
        for track in (LOSS, LOGS, STATE, FORCE):
            assert entries(target, track) == entries(source, track)

    steps = [record, record, interrupted, interrupted, whole, target.empty, lambda: kept.append(target.copied())]
    steps += [lambda: target.restore(random.choice(kept)), lambda: target.remove(random.choice([STATE, LOSS]))]
    steps += [lambda: target.remove_window(STATE, random.randrange(clock + 1), clock), source.compact_all]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_dash.transfer.BATCH_ENTRIES", 3)
        for _ in range(60):
            random.choice(steps)()
        whole()
    source.close()
