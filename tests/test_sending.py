"""One stream to a server that fails in every way it can: nothing lost, nothing doubled, nothing blocked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_dash import sending, wire
from ml_dash.errors import CopiedWriter, StoreUnavailable, Unauthorized
from ml_dash.journal import Journal
from ml_dash.journal_files import Mark
from ml_dash.journal_reader import Stream
from ml_dash.sending import Sender
from ml_dash.spool import read_sent
from ml_dash.store import Batch, Track
from ml_dash.stores.memory import MemoryStore
from store_contract import LOSS, STATE, body, columns, entries

Fate = Callable[["Server", Batch], None]


class Server(MemoryStore):
    """Keeps the contract, tells copied writers, and does to each batch what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.fate: Fate = lambda server, batch: None
        self.after: Fate = lambda server, batch: None
        self.seen: list[Batch] = []
        self._contents: dict[tuple[str, int], list[bytes]] = {}

    def append(self, batch: Batch) -> None:
        self.seen.append(batch)
        self.fate(self, batch)
        known = self._contents.setdefault((batch.writer, batch.number), list(batch.bodies))
        if known != list(batch.bodies):
            raise CopiedWriter("another batch had this number")
        super().append(batch)
        self.after(self, batch)


@pytest.fixture
def server() -> Server:
    """The other side."""
    return Server()


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    """A stream that is being written."""
    journal = Journal(tmp_path / "journals")
    assert (journal.track_id(STATE), journal.track_id(LOSS)) == (1, 2)
    yield journal
    journal.close()
    journal.release()


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Where dead letters go."""
    return tmp_path / "letters"


def put(journal: Journal, count: int, start: int = 0) -> None:
    """Entries of a track, each with one of a sequence, whose doubling would show."""
    for number in range(start, start + count):
        journal.write(body(float(number), 1, n=number))
        journal.write(body(float(number), 2, loss=number))


def stream_of(journal: Journal) -> Stream:
    return Stream(journal.path)


def send(sender: Sender, journal: Journal) -> None:
    sender.send(stream_of(journal), journal.mark(), None)


def send_on(sender: Sender, journal: Journal, most: int = 200) -> int:
    """Send again and again until it succeeds; returns how many attempts failed."""
    for failed in range(most):
        try:
            send(sender, journal)
            return failed
        except StoreUnavailable:
            continue
    raise AssertionError(f"not delivered after {most} attempts")


def numbers(server: Server) -> tuple[list[int], list[int]]:
    return [entry["n"] for entry in entries(server, STATE)], [entry["loss"] for entry in entries(server, LOSS)]


def written(letters: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in letters.glob("*.jsonl") for line in path.read_bytes().splitlines()]


def failing(error: Exception, when: Callable[[Batch], bool]) -> Fate:
    def fate(server: Server, batch: Batch) -> None:
        if when(batch):
            raise error

    return fate


def holds(needle: bytes) -> Callable[[Batch], bool]:
    return lambda batch: any(needle in one for one in batch.bodies)


def test_everything_arrives_in_order(server: Server, journal: Journal, letters: Path) -> None:
    """Batches of at most 2,000 entries, numbers without gaps, everything once."""
    put(journal, 3000)
    send(Sender(server, letters), journal)
    assert numbers(server) == (list(range(3000)), list(range(3000)))
    assert [batch.number for batch in server.seen] == [1, 2, 3, 4][: len(server.seen)]
    assert all(len(batch.bodies) <= 2600 for batch in server.seen)
    assert not letters.exists()


def test_a_sender_goes_on_where_it_was(server: Server, journal: Journal, letters: Path) -> None:
    """Nothing is sent twice by one sender; another one sends the last batch again and the server knows it."""
    put(journal, 10)
    sender = Sender(server, letters)
    send(sender, journal)
    put(journal, 10, 10)
    send(sender, journal)
    assert sum(len(batch.bodies) for batch in server.seen) == 40
    put(journal, 10, 20)
    send(Sender(server, letters), journal)
    assert numbers(server) == (list(range(30)), list(range(30)))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_an_answer_that_is_lost(server: Server, journal: Journal, letters: Path, lost: int) -> None:
    """The batch arrived, its answer did not: sent again by the same or another process, it counts once."""
    put(journal, 1500)
    sender = Sender(server, letters)
    left = [lost]

    def lose(server: Server, batch: Batch) -> None:
        if left[0]:
            left[0] -= 1
            raise wire.Unavailable("the answer is lost")

    server.after = lose
    assert send_on(sender, journal) == lost
    put(journal, 10, 1500)
    left[0] = 1
    with pytest.raises(StoreUnavailable):
        send(sender, journal)
    put(journal, 10, 1510)
    send_on(Sender(server, letters), journal)
    assert numbers(server) == (list(range(1520)), list(range(1520)))


def test_entries_the_server_names_as_bad(server: Server, journal: Journal, letters: Path) -> None:
    """Each costs itself alone: it is kept with the reason, its neighbours arrive."""
    put(journal, 50)

    def refuse(server: Server, batch: Batch) -> None:
        bad = [
            (place, "no sevens")
            for place, one in enumerate(batch.bodies)
            if one in (body(7.0, 1, n=7), body(17.0, 1, n=17))
        ]
        if bad:
            raise wire.Refused("bad", bad)

    server.fate = refuse
    sender = Sender(server, letters)
    send(sender, journal)
    good = [number for number in range(50) if number not in (7, 17)]
    assert numbers(server) == (good, list(range(50)))
    assert [(one["entry"]["n"], one["reason"], one["topic"]) for one in written(letters)] == [
        (7, "no sevens", "robot/state"), (17, "no sevens", "robot/state"),
    ]  # fmt: skip
    assert sender.refused == 2


def test_a_batch_of_nothing_but_bad_entries(server: Server, journal: Journal, letters: Path) -> None:
    """It is set aside whole and what follows arrives."""
    put(journal, 3)
    server.fate = failing(
        wire.Refused("all bad", [(place, "bad") for place in range(6)]), lambda batch: batch.number == 1
    )
    sender = Sender(server, letters)
    send(sender, journal)
    put(journal, 3, 3)
    send(sender, journal)
    assert numbers(server) == ([3, 4, 5], [3, 4, 5])
    assert len(written(letters)) == 6


@pytest.mark.parametrize("poison", [0, 1, 777, 1498, 1499])
def test_a_poisoned_entry_never_blocks_the_rest(server: Server, journal: Journal, letters: Path, poison: int) -> None:
    """A batch that meets nothing but 500 is halved until the one entry is alone; all others arrive, once."""
    put(journal, 1500)
    needle = body(float(poison), 1, n=poison)
    server.fate = failing(wire.Unavailable("boom", status=500), holds(needle))
    send_on(Sender(server, letters), journal)
    assert numbers(server) == ([n for n in range(1500) if n != poison], list(range(1500)))
    (letter,) = written(letters)
    assert letter["entry"] == {"timestamp": float(poison), "n": poison}


def test_an_ill_server_costs_one_entry_at_most(server: Server, journal: Journal, letters: Path) -> None:
    """While every batch meets 500, no more than one entry is set aside, and everything else is kept and sent later."""
    put(journal, 200)
    server.fate = failing(wire.Unavailable("boom", status=500), lambda batch: True)
    sender = Sender(server, letters)
    for _ in range(300):
        with pytest.raises(StoreUnavailable):
            send(sender, journal)
    assert len(written(letters)) == 1
    server.fate = lambda server, batch: None
    send_on(sender, journal)
    assert sorted(numbers(server)[0]) == list(range(1, 200))


@pytest.mark.parametrize("status", [0, 408, 425, 429, 502, 503, 504, 507])
def test_outages_never_cut_a_batch(server: Server, journal: Journal, letters: Path, status: int) -> None:
    """Whatever is no fault of the batch is tried again as it is, for ever."""
    put(journal, 20)
    server.fate = failing(wire.Unavailable("later", status=status), lambda batch: True)
    sender = Sender(server, letters)
    for _ in range(30):
        with pytest.raises(StoreUnavailable):
            send(sender, journal)
    assert {len(batch.bodies) for batch in server.seen} == {40}
    assert {batch.number for batch in server.seen} == {1}
    assert not letters.exists()


def test_a_refused_token_changes_nothing(server: Server, journal: Journal, letters: Path) -> None:
    """401 and 403 come out as they are; with a good token everything arrives."""
    put(journal, 20)
    server.fate = failing(Unauthorized("no"), lambda batch: True)
    sender = Sender(server, letters)
    with pytest.raises(Unauthorized):
        send(sender, journal)
    server.fate = lambda server, batch: None
    send(sender, journal)
    assert numbers(server) == (list(range(20)), list(range(20)))


def test_a_copied_spool_loses_nothing(server: Server, journal: Journal, letters: Path) -> None:
    """Somebody else used our name: our entries arrive under another one."""
    put(journal, 5)
    server.append(Batch(journal.writer, 1, {1: Track("tracks", "other")}, [body(1.0, other=1)]))
    sender = Sender(server, letters)
    send(sender, journal)
    put(journal, 5, 5)
    send(sender, journal)
    assert numbers(server) == (list(range(10)), list(range(10)))
    assert server.seen[-1].writer.startswith(journal.writer + ".")
    assert sender.renamed == 1
    put(journal, 5, 10)
    send(Sender(server, letters), journal)
    assert numbers(server) == (list(range(15)), list(range(15)))


def test_a_copy_that_overtakes(server: Server, journal: Journal, letters: Path) -> None:
    """While this sender runs, a copy of its spool delivers more under its name: a number that means nothing to the
    server any more is noticed by the answer, and everything goes under a new name."""

    class Whole:
        """Says the highest number, as a server does."""

        def append_whole(self, batch: Batch) -> int:
            if batch.number > server.applied(batch.writer):
                server.append(batch)
            return server.applied(batch.writer)

        def __getattr__(self, name: str) -> Any:
            return getattr(server, name)

    sender = Sender(Whole(), letters)  # type: ignore[arg-type]
    put(journal, 10)
    send(sender, journal)
    for number in (2, 3):
        server.append(Batch(journal.writer, number, {1: STATE}, [body(100.0 + number, n=100 + number)]))
    put(journal, 10, 10)
    send(sender, journal)
    put(journal, 10, 20)
    send(sender, journal)
    assert numbers(server) == ([*range(30), 102, 103], list(range(30)))
    assert read_sent(stream_of(journal)).writer != journal.writer


def test_a_copy_that_was_further(server: Server, journal: Journal, letters: Path) -> None:
    """The server knows numbers that we never gave: ours are not taken for those."""
    put(journal, 5)
    send(Sender(server, letters), journal)
    for number in (2, 3, 4):
        server.append(Batch(journal.writer, number, {1: Track("tracks", "other")}, [body(float(number), other=1)]))
    put(journal, 5, 5)
    send(Sender(server, letters), journal)
    assert numbers(server)[0] == list(range(10))


def test_a_boundary_is_frozen_before_the_first_attempt(server: Server, journal: Journal, letters: Path) -> None:
    """A number means the same entries for a process that comes later, though more was appended meanwhile."""
    put(journal, 10)
    server.fate = failing(wire.Unavailable("down"), lambda batch: True)
    with pytest.raises(StoreUnavailable):
        send(Sender(server, letters), journal)
    put(journal, 10, 10)
    server.fate = lambda server, batch: None
    send(Sender(server, letters), journal)
    contents = {(batch.number, len(batch.bodies)) for batch in server.seen}
    assert contents == {(1, 20), (2, 20)}


def test_the_newest_second_is_held_back(server: Server, journal: Journal, letters: Path) -> None:
    """With a soft end the batch ends at the first new instant behind it, so the parts of one instant go together."""
    put(journal, 10)
    soft = journal.mark()
    journal.write(body(9.0, 1, late="part of the last instant"))
    put(journal, 10, 10)
    sender = Sender(server, letters)
    sender.send(stream_of(journal), journal.mark(), soft)
    assert entries(server, STATE)[-1] == {"timestamp": 9.0, "n": 9, "late": "part of the last instant"}
    assert sender.acknowledged(stream_of(journal)) > soft
    sender.send(stream_of(journal), journal.mark(), soft)
    assert len(entries(server, STATE)) == 10


def test_large_columns_are_batches_of_their_own(server: Server, journal: Journal, letters: Path) -> None:
    """A body of more than a MiB goes alone, between what was appended before and after it."""
    put(journal, 1)
    journal.write_apart(columns([float(n) for n in range(1, 200_001)], 1, x=[0.5] * 200_000))
    put(journal, 1, 300_000)
    send(Sender(server, letters), journal)
    assert [len(batch.bodies) for batch in server.seen] == [2, 1, 2]
    assert len(entries(server, STATE)) == 200_002


def test_what_stops_in_the_middle_goes_on(server: Server, journal: Journal, letters: Path) -> None:
    """Stopped between two batches, the rest is sent by the next one."""
    put(journal, 4000)
    sender = Sender(server, letters, stopping=lambda: len(server.seen) >= 2)
    send(sender, journal)
    assert len(server.seen) == 2
    send(Sender(server, letters), journal)
    assert numbers(server) == (list(range(4000)), list(range(4000)))


@pytest.mark.parametrize("call", range(1, 9))
def test_a_sender_killed_at_every_write(
    server: Server, journal: Journal, letters: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after any write of what it knows, with the answer lost or not: everything arrives once."""
    put(journal, 1200)
    made = [0]
    real = sending.write_sent

    class Killed(BaseException):
        pass

    def write(*args: Any, **options: Any) -> None:
        made[0] += 1
        if made[0] == call and call % 2:
            raise Killed
        real(*args, **options)
        if made[0] == call:
            raise Killed

    bad = body(3.0, 1, n=3)

    def refuse(server: Server, batch: Batch) -> None:
        found = [(place, "bad") for place, one in enumerate(batch.bodies) if one == bad]
        if found:
            raise wire.Refused("bad", found)

    server.fate = refuse
    monkeypatch.setattr(sending, "write_sent", write)
    for _ in range(8):
        try:
            send(Sender(server, letters), journal)
            break
        except Killed:
            put(journal, 1, 1200 + made[0])
    expected = [n for n in range(1200) if n != 3]
    assert [n for n in numbers(server)[0] if n < 1200] == expected
    assert [n for n in numbers(server)[1] if n < 1200] == list(range(1200))
    assert {one["entry"]["n"] for one in written(letters)} == {3}


def test_a_damaged_note_loses_nothing(server: Server, journal: Journal, letters: Path) -> None:
    """Without what it knew of itself a stream is sent again under another name: tracks merge."""
    put(journal, 10)
    send(Sender(server, letters), journal)
    (journal.path / "sent").write_bytes(b"garbage")
    assert read_sent(stream_of(journal)).end == Mark(0, 0)
    put(journal, 10, 10)
    send(Sender(server, letters), journal)
    assert numbers(server)[0] == list(range(20))
