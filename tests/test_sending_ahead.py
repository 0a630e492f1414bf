"""With a backlog the next batch is made while one is under way: order, boundaries, exactly-once stay what they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_dash import sending, wire
from ml_dash.ahead import one_ahead
from ml_dash.errors import CopiedWriter, StoreUnavailable
from ml_dash.journal import Journal
from ml_dash.journal_reader import Stream
from ml_dash.sending import Sender
from ml_dash.spool import read_sent
from ml_dash.store import Batch
from ml_dash.stores.http import HttpStore
from ml_dash.stores.memory import MemoryStore
from store_contract import LOSS, STATE, body, entries

COUNT = 3_000


class Server(MemoryStore):
    """Packs as the HTTP store does, with room for what a test wants to do to a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []
        self.seen: list[tuple[Batch, wire.Packed | None]] = []
        self.refused: BaseException | None = None

    def packed(self, batch: Batch, pace: object) -> wire.Packed:
        self.made.append(batch.number)
        return self._made_of(batch)

    @staticmethod
    def _made_of(batch: Batch) -> wire.Packed:
        return wire.Packed(batch.writer, batch.number, b"".join(batch.bodies), "")

    def append_whole(self, batch: Batch, packed: wire.Packed | None = None) -> int:
        refused, self.refused = self.refused, None
        if refused is not None:
            raise refused
        assert packed is None or packed == self._made_of(batch)
        self.seen.append((batch, packed))
        self.append(batch)
        return self.applied(batch.writer)


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Entries of a track, each with one of a sequence, cut into batches of some hundreds."""
    monkeypatch.setattr(sending, "BACKLOG_ENTRIES", 400)
    journal = Journal(tmp_path / "journals")
    assert (journal.track_id(STATE), journal.track_id(LOSS)) == (1, 2)
    for number in range(COUNT):
        journal.write(body(float(number), 1, n=number))
        journal.write(body(float(number), 2, loss=number))
    journal.close()
    yield Stream(journal.path)
    journal.release()


def send_on(sender: Sender, stream: Stream) -> None:
    while True:
        try:
            return sender.send(stream, None, None, backlog=True)
        except StoreUnavailable:
            continue


def check(server: Server) -> None:
    assert [entry["n"] for entry in entries(server, STATE)] == list(range(COUNT))
    assert [entry["loss"] for entry in entries(server, LOSS)] == list(range(COUNT))


def test_the_next_batch_is_made_and_not_frozen(stream: Stream, tmp_path: Path) -> None:
    """While a batch is under way the next one is packed, no more than that one, and what is frozen is still the batch
    whose fate is open."""
    ahead = []

    class Watched(Server):
        def append_whole(self, batch: Batch, packed: wire.Packed | None = None) -> int:
            for _ in range(10_000):
                if self.made[-1] > batch.number:
                    break
                threading.Event().wait(0.001)
            ahead.append(self.made[-1] - batch.number)
            assert read_sent(stream).number == batch.number
            return super().append_whole(batch, packed if batch.number < 4 else None)

    server = Watched()
    sender = Sender(server, tmp_path / "letters", stopping=lambda: len(server.seen) == 4)
    send_on(sender, stream)
    assert ahead == [1, 1, 1, 1]
    assert all(packed is not None for _, packed in server.seen[:3])
    assert read_sent(stream).number == 4


@pytest.mark.parametrize("refused", [
    wire.Unavailable("down"), CopiedWriter("copied"), wire.TooLarge("large"), wire.Refused("bad", []),
])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 3])
def test_what_was_made_for_nothing_is_made_again(
    stream: Stream, tmp_path: Path, refused: Exception, batch: int
) -> None:
    """A batch that goes under another number or name, or in halves, leaves what was packed behind it without use."""

    class Once(Server):
        def append_whole(self, one: Batch, packed: wire.Packed | None = None) -> int:
            if len(self.seen) == batch - 1 and not isinstance(refused, wire.Refused):
                self.refused, self.fate = (self.fate, None)
            elif isinstance(refused, wire.Refused) and any(b == bad for b in one.bodies):
                raise wire.Refused("bad", [(one.bodies.index(bad), "bad")])
            return super().append_whole(one, packed)

        fate: BaseException | None = refused

    bad = body(1.5, 1, n=-1)
    server = Once()
    send_on(Sender(server, tmp_path / "letters"), stream)
    check(server)
    by_name: dict[str, list[int]] = {}
    for one, _ in server.seen:
        by_name.setdefault(one.writer, []).append(one.number)
    assert all(found == sorted(set(found)) for found in by_name.values())
    assert len(by_name) == 1 + (isinstance(refused, CopiedWriter) and batch > 1)


def test_killed_between_any_two_batches(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at any note of a batch, with the next one made already: a new one goes on, everything once."""
    real, left = sending.write_sent, [0]

    class Killed(BaseException):
        pass

    def write(*args: object, **options: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "write_sent", write)
    server, died = Server(), 0
    for after in range(1, 8):
        left[0] = after
        try:
            send_on(Sender(server, tmp_path / "letters"), stream)
        except Killed:
            died += 1
    assert died == 5
    left[0] = 0
    send_on(Sender(server, tmp_path / "letters"), stream)
    check(server)


def test_no_item_is_lost_and_none_is_made_too_early() -> None:
    """All items in order; never more than one beyond the caller's."""
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    seen = []
    for number in one_ahead(items()):
        seen.append(number)
        assert len(made) <= number + 2
    assert seen == list(range(50))


def test_what_making_an_item_raises_comes_in_its_turn() -> None:
    """Also where it is the first one."""

    def items(count: int) -> Iterator[int]:
        yield from range(count)
        raise OSError("no such segment")

    for count in (0, 1, 3):
        seen = []
        with pytest.raises(OSError, match="no such segment"):
            for number in one_ahead(items(count)):
                seen.append(number)
        assert seen == list(range(count))


def test_closing_waits_for_the_thread() -> None:
    """Nothing goes on behind the caller's back once it has left."""
    going, released = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        going.set()
        assert released.wait(30)
        yield 1

    found = one_ahead(items())
    assert next(found) == 0
    assert going.wait(30)
    threading.Timer(0.05, released.set).start()
    found.close()
    assert released.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "ml_dash-ahead"]


def test_of_a_large_batch_the_next_part_is_made_while_one_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than one ahead; the last goes under the batch's own name; none is made again."""
    store, made, sent = HttpStore("http://127.0.0.1:1", "a/b/c"), [0], list[tuple[str, int]]()
    ahead = threading.Condition()

    def packed(self: HttpStore, batch: Batch, pace: object = None) -> wire.Packed:
        with ahead:
            made[0] += 1
            ahead.notify_all()
        return wire.Packed(batch.writer, batch.number, b"", "")

    def append_whole(self: HttpStore, batch: Batch, found: wire.Packed | None = None) -> int:
        assert found is not None
        assert (found.writer, found.number) == (batch.writer, batch.number)
        sent.append((batch.writer, batch.number))
        with ahead:
            assert ahead.wait_for(lambda: made[0] == min(len(sent) + 1, 3), 30), f"{made[0]} made at {len(sent)} sent"
        return batch.number

    for name, stub in (("packed", packed), ("append_whole", append_whole), ("forget", lambda *_: None)):
        monkeypatch.setattr(HttpStore, name, stub)
    monkeypatch.setattr(HttpStore, "applied", lambda self, writer: 0 if "~" not in writer else 1)
    bodies = [bytes([0x93, 1, 0xCB]) + bytes(1 << 20) for _ in range(16)]  # four parts of four, the first of them done
    store._append_parts(Batch("w", 5, {1: STATE}, bodies), 4 * len(bodies[0]))
    part = f"w~5~{4 * len(bodies[0])}"
    assert sent == [(part, 2), (part, 3), ("w", 5)]
