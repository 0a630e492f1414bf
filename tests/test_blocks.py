"""Bodies byte by byte: the same bodies in the same order at the other end, the same segments, and no way to cheat."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import msgspec
import pytest

pytest.importorskip("numpy")
pytest.importorskip("backports.zstd" if __import__("sys").version_info < (3, 14) else "compression.zstd")
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash import blocks as blocks_file
from ml_dash import wire
from ml_dash.blocks import LEAST, MOST_BLOCKS, WIDEST, Block, Blocks, blocks_of, columns_of, rows_of
from ml_dash.columns import encode_columns
from ml_dash.entry import encode_body
from ml_dash.server.faults import Refusal
from ml_dash.server.ingest import batch_of
from ml_dash.store import MERGED, Batch, Track
from ml_dash.stores import uniform
from ml_dash.stores.grouping import checksum, grouped
from ml_dash.stores.segments import BLOCKS, batch_entries, decode_entries, pieces

TRACKS = {1: Track(MERGED, "a"), 2: Track("metrics", "b"), 300: Track(MERGED, "c")}
STATE = {"q": [0.5] * 7, "done": False, "n": 70_000}


def body(track: int, number: int, **fields: Any) -> bytes:
    return encode_body((track, number * 0.001, fields or {**STATE, "q": [number * 0.1] * 7}))


def mixed(seed: int, count: int) -> list[bytes]:
    """Entries of several tracks and lengths in any order, and whole columns among them."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        text = {"text": "x" * draw.randrange(4), "n": draw.choice([1, 200, 70_000])}
        found.append(body(draw.choice([1, 2, 300]), number, **draw.choice([STATE, text])))
    if seed % 3 == 0:
        found.insert(draw.randrange(count), encode_columns("a", 1, [1.0, 2.0], {"x": [0.5, 0.25]})[1])
    return found


def raw_of(made_of: list[bytes], /, **changes: Any) -> bytes:
    """The second form of a batch, with something wrong in it."""
    sent = msgspec.msgpack.decode(wire.encode_batch(Batch("w", 1, TRACKS, made_of)), strict=False)
    assert sent["v"] == wire.IN_BLOCKS
    return msgspec.msgpack.encode({**sent, **changes})


@given(st.integers(0, 1 << 20), st.integers(LEAST, 200))
@settings(max_examples=100, deadline=None)
def test_the_same_bodies_come_out_in_the_same_order(seed: int, count: int) -> None:
    """Over the wire and back, by iteration, by place and by slice; and the same bodies make the same batch."""
    bodies = mixed(seed, count)
    raw = wire.encode_batch(Batch("w", 1, TRACKS, bodies))
    found = wire.decode_batch(raw).bodies
    assert isinstance(found, Blocks)
    assert len(found) == len(bodies)
    assert list(found) == bodies
    assert (found[3], found[-1], found[2:5]) == (bodies[3], bodies[-1], bodies[2:5])
    assert wire.encode_batch(Batch("w", 1, TRACKS, list(found))) == raw


@given(st.binary(min_size=1, max_size=500), st.integers(1, 20))
@settings(deadline=None)
def test_there_and_back(data: bytes, width: int) -> None:
    """Rows to columns to rows."""
    rows = data * width
    assert rows_of(columns_of(rows, width), len(rows) // width) == rows


def test_few_or_odd_bodies_stay_as_they_are() -> None:
    """Fewer than a block is worth, more lengths than blocks, bodies that are none."""
    many = [body(1, number) for number in range(LEAST)]
    assert blocks_of(many) is not None
    assert blocks_of(many[1:]) is None
    assert blocks_of([*many, b"short"]) is None
    assert blocks_of([body(1, n, text="x" * n) for n in range(32, 32 + MOST_BLOCKS + 1)]) is None
    assert wire.decode_batch(wire.encode_batch(Batch("w", 1, TRACKS, many[1:]))).bodies == many[1:]


@pytest.mark.parametrize("seed", range(12))
def test_segments_and_refusals_are_those_of_single_bodies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server checks and stores does not depend on the form."""
    draw = random.Random(seed)
    bodies = mixed(seed, 60) if seed % 2 else [body(draw.choice([1, 300]), n) for n in range(80)]
    if seed > 6:
        bodies[7] = encode_body((1, float("nan"), STATE)) if seed % 2 else encode_body((9, 1.0, STATE))

    def stored() -> Any:
        try:
            batch, count, _ = batch_of(wire.encode_batch(Batch("w", 1, TRACKS, bodies)), wire.BATCH, {})
        except Refusal as error:
            return error.fault.entries
        made = {track: pieces(track.kind, found) for track, found in batch_entries(batch).items()}
        read = {t: [decode_entries({**one.header, "_id": "s"}, one.body) for one in p] for t, p in made.items()}
        return batch.tracks, count, read

    ours = stored()
    monkeypatch.setattr(wire, "blocks_of", lambda bodies, pace: None)
    assert repr(stored()) == repr(ours)
    assert isinstance(ours, list) == (seed > 6)


def test_what_a_block_holds_is_kept_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that one call logged are never taken apart; and they read without NumPy too."""
    bodies = [body(1, number) for number in range(100)]
    batch, _, _ = batch_of(wire.encode_batch(Batch("w", 1, TRACKS, bodies)), wire.BATCH, {})
    monkeypatch.setattr(Block, "bodies", None)
    assert checksum(batch)
    [piece] = pieces(MERGED, batch_entries(batch)[TRACKS[1]])
    assert piece.header["enc"] == BLOCKS
    monkeypatch.undo()
    quick = decode_entries({**piece.header, "_id": "s"}, piece.body)
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    assert decode_entries({**piece.header, "_id": "s"}, piece.body) == quick
    assert quick == [{"timestamp": n * 0.001, **STATE, "q": [n * 0.1] * 7} for n in range(100)]


def test_a_checksum_tells_contents_apart() -> None:
    """Any other body, number of a track or order is another batch; the same entries are the same one, in either form
    and with whatever tracks that have none of them."""
    bodies = [body(1 + n % 2, n) for n in range(40)]

    def check(bodies: list[bytes], tracks: dict[int, Track] = TRACKS) -> str:
        single = Batch("w", 1, tracks, bodies)
        found = wire.decode_batch(wire.encode_batch(single))
        assert isinstance(found.bodies, Blocks)
        assert checksum(found) == checksum(single) == checksum(Batch("w", 1, {**tracks, 7: TRACKS[1]}, bodies))
        return checksum(found)

    swapped = [bodies[1], bodies[0], *bodies[2:]]
    others = [swapped, bodies[1:], [*bodies[:-1], body(1, 99)], [*bodies[:20], *reversed(bodies[20:])]]
    assert check(bodies) == check(list(bodies))
    assert len({check(bodies), check(bodies, {**TRACKS, 1: Track(MERGED, "z")}), *map(check, others)}) == 6


def test_forms_that_are_none() -> None:
    """Orders that do not fit, blocks of several tracks, counts beside the bytes: refused, nothing allocated."""
    bodies = [body(1, n) for n in range(20)] + [body(2, n) for n in range(20)]
    found = blocks_of(bodies)
    assert found is not None
    good = [[block.count, block.columns] for block in found.blocks]
    whole = columns_of(b"".join(bodies), len(bodies[0]))
    for wrong in (
        {"order": b""}, {"order": found.order[:-1]}, {"order": b"\7" * 40}, {"order": b"\0" * 40}, {"blocks": []},
        {"blocks": [[40, whole]], "order": b""}, {"blocks": [[0, b""]], "order": b""}, {"blocks": good[:1]},
        {"blocks": [[1 << 60, b"x"]], "order": b""}, {"blocks": [[-20, good[0][1]], good[1]]},
        {"blocks": [[20, bytes(20)], good[1]]}, {"blocks": [[19, good[0][1]], good[1]]},
        {"v": 1}, {"v": 3}, {"bodies": 3}, {"order": None}, {"blocks": [[20, "text"], good[1]]},
    ):  # fmt: skip
        with pytest.raises(wire.BadBatch):
            wire.decode_batch(raw_of(bodies, **wrong))
    assert list(wire.decode_batch(raw_of(bodies)).bodies) == bodies


def steps_of(make: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    """What comes out, and how many columns were put together or taken apart."""
    steps = [0]

    def counted(real: Any, width_of: Any) -> Any:
        def run(data: bytes, number: int, *pace: Any) -> bytes:
            steps[0] += width_of(data, number)
            return real(data, number, *pace)  # type: ignore[no-any-return]

        return run

    with monkeypatch.context() as patch:
        patch.setattr(blocks_file, "columns_of", counted(columns_of, lambda rows, width: width % len(rows)))
        patch.setattr(blocks_file, "rows_of", counted(rows_of, lambda data, n: len(data) // n if n > 1 else 0))
        return make(), steps[0]


def test_long_bodies_lie_beside_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images among many small entries: these share a block, nothing is done for each byte of an image, on either
    side; where all bodies are long, they stay as they are."""
    tracks = {**TRACKS, 3: Track(MERGED, "camera")}
    frames = [body(3, n, rgb=bytes(200_000)) for n in range(8)]
    bodies = [frames.pop() if n % 40 == 7 else body(1, n) for n in range(320)]
    assert not frames
    raw, steps = steps_of(lambda: wire.encode_batch(Batch("w", 1, tracks, bodies)), monkeypatch)
    assert 0 < steps < 200
    (batch, count, _), steps = steps_of(lambda: batch_of(raw, wire.BATCH, {}), monkeypatch)
    assert (count, list(batch.bodies)) == (320, bodies)
    assert steps == 0
    assert sorted(block.count for block in batch.bodies.blocks) == [1] * 8 + [312]
    assert blocks_of([body(2, n, rgb=bytes(WIDEST)) for n in range(40)]) is None


def test_what_costs_more_than_its_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few long bodies in a block, however well they compress; what is allowed is taken apart once."""

    def sent(count: int, width: int) -> bytes:
        columns = columns_of((b"\x93\x01" + bytes(width - 2)) * count, width)
        return raw_of([body(1, n) for n in range(20)], order=b"", blocks=[[count, columns]])

    def refused(raw: bytes) -> type[Exception]:
        with pytest.raises((wire.BadBatch, Refusal)) as error:
            batch_of(raw, wire.BATCH, {})
        return error.type

    for count, width in ((2, 129), (100, WIDEST + 1)):
        assert refused(sent(count, width)) is wire.BadBatch
    for count, width in ((2, 128), (64, WIDEST), (1, 100_000)):
        _, steps = steps_of(partial(refused, sent(count, width)), monkeypatch)
        assert steps == (width if count > 1 else 0)
        assert refused(sent(count, width)) is Refusal


def test_too_many_blocks_are_refused_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of blocks fit into a small request: their number is looked at first."""
    good = [body(1, n) for n in range(20)]
    blocks = [[1, good[0]]] * (MOST_BLOCKS + 1)
    raw = raw_of(good, order=bytes(MOST_BLOCKS + 1), blocks=blocks)
    monkeypatch.setattr(wire, "Block", None)
    with pytest.raises(wire.BadBatch, match="length <= 255"):
        wire.decode_batch(raw)


def test_a_series_under_two_numbers_keeps_all_entries() -> None:
    """Two numbers of a batch may stand for one series: the entries of both are stored, in the order of the batch."""
    one = Track("metrics", "loss")
    for tracks in ({1: TRACKS[1], 300: TRACKS[1]}, {1: one, 300: one}):
        bodies = [body(draw, n) for n, draw in enumerate([1, 300, 300, 1] * 10)]
        single = Batch("w", 1, tracks, bodies)
        batch, count, _ = batch_of(wire.encode_batch(single), wire.BATCH, {})
        for found in (single, batch):
            [(track, entries)] = batch_entries(found).items()
            made = [decode_entries({**one.header, "_id": "s"}, one.body) for one in pieces(track.kind, entries)]
            assert [entry["timestamp"] for piece in made for entry in piece] == [n * 0.001 for n in range(count)]
            assert grouped(found) == {track: bodies}


def test_a_series_in_two_blocks_keeps_both() -> None:
    """Entries of one series with two layouts, each fit to stay in its block: all are stored."""
    bodies = [body(1, n, **({"x": 1.0} if n < 30 else {"longer": 1.0})) for n in range(60)]
    batch, _, _ = batch_of(wire.encode_batch(Batch("w", 1, TRACKS, bodies)), wire.BATCH, {})
    assert [block.count for block in batch.bodies.blocks] == [30, 30]
    made = pieces(MERGED, batch_entries(batch)[TRACKS[1]])
    assert sum(one.header["n"] for one in made) == 60


def test_too_many_entries_are_refused_before_they_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for blocks, at once."""
    raw = wire.encode_batch(Batch("w", 1, TRACKS, [body(1, 1)] * 2_000))
    monkeypatch.setattr(Block, "bodies", None)
    with pytest.raises(Refusal, match="more than 1000 entries"):
        batch_of(raw, wire.BATCH, {}, wire.Limits(entries=1000))


def test_a_layout_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking and storing share what is found out."""
    looked = []
    real = uniform._alike_block
    monkeypatch.setattr(uniform, "_alike_block", lambda block: looked.append(block) or real(block))
    batch, _, _ = batch_of(wire.encode_batch(Batch("w", 1, TRACKS, [body(1, n) for n in range(50)])), wire.BATCH, {})
    batch_entries(batch)
    assert len(looked) == 1
