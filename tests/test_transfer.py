"""Recordings from one store to another: whole, once, wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_dash import wire
from ml_dash.errors import StoreUnavailable
from ml_dash.store import MERGED, Batch, Entry, Store, Track, TrackInfo, Window
from ml_dash.stores.local import LocalStore
from ml_dash.stores.memory import MemoryStore
from ml_dash.transfer import AlreadyThere, Ledger, ledger_of, move
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
    with_many.close()
    assert asked == ["metrics"]
    assert [entries(target, track)[0]["loss"] for track in metrics] == list(range(1, 31))
