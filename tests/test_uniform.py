"""Bodies that look alike take a way of their own, and nobody can tell: same pieces, same refusals, byte for byte."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("backports.zstd" if __import__("sys").version_info < (3, 14) else "compression.zstd")
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash.blocks import Block, columns_of
from ml_dash.columns import encode_columns
from ml_dash.entry import encode_body
from ml_dash.server import ingest
from ml_dash.server.faults import Refusal
from ml_dash.store import MERGED, Batch, Track
from ml_dash.stores import segments, uniform
from ml_dash.stores.segments import batch_entries, decode_entries, pieces
from ml_dash.stores.uniform import LEAST, alike

TRACK = Track(MERGED, "robot/state")
NUMBERS = st.floats(width=64) | st.integers(-(1 << 63), (1 << 64) - 1)
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.text(min_size=1, max_size=4).filter(lambda name: name != "timestamp"), VALUES, max_size=18)


def other_numbers(value: Any, draw: random.Random) -> Any:
    """The same value with other floats and bools in it."""
    if isinstance(value, bool):
        return draw.random() < 0.5
    if isinstance(value, float):
        return draw.choice([draw.uniform(-1e3, 1e3), math.nan, math.inf, -0.0, 5e-324])
    if isinstance(value, list):
        return [other_numbers(one, draw) for one in value]
    if isinstance(value, dict):
        return {name: other_numbers(one, draw) for name, one in value.items()}
    return value


def bodies_of(fields: dict[str, Any], draw: random.Random, count: int = LEAST + 5) -> list[bytes]:
    """Entries of one layout, a millisecond apart."""
    return [encode_body((1, 1e9 + n * 0.001, other_numbers(fields, draw))) for n in range(count)]


def both_ways(make: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The result as it is, and with nothing ever alike."""
    found = make()
    with monkeypatch.context() as without:
        for module in (segments, ingest):
            without.setattr(module, "alike", lambda bodies: None)
        without.setattr(segments, "of_columns", lambda body: None)
        return found, make()


def made_pieces(bodies: list[bytes]) -> list[tuple[dict[str, Any], Any]]:
    """Headers but for how the body is kept, and entries as they read."""
    return read_pieces(batch_entries(Batch("w", 1, {1: TRACK}, bodies))[TRACK])


def read_pieces(found: segments.Entries) -> list[tuple[dict[str, Any], Any]]:
    """The same of entries."""
    made = pieces(MERGED, found)
    read = [repr(decode_entries({**one.header, "_id": "s"}, one.body)) for one in made]
    kept = {"enc", "raw", "size", "crc"}
    heads = [{name: value for name, value in one.header.items() if name not in kept} for one in made]
    return list(zip(heads, read, strict=True))


@given(FIELDS, st.integers(0, 1 << 30))
@settings(max_examples=300, deadline=None)
def test_pieces_are_the_same_either_way(fields: dict[str, Any], seed: int) -> None:
    """Headers and entries are equal, whatever the layout."""
    bodies = bodies_of(fields, random.Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        ours, plain = both_ways(lambda: made_pieces(bodies), patch)
    assert ours == plain


def test_the_robot_state_is_alike() -> None:
    """What control loops record takes the quick way: else nothing here tests it."""
    draw = random.Random(1)
    state = {"q": [0.0] * 7, "qd": [0.0] * 7, "ee_pos": [0.0] * 3, "ee_quat": [0.0] * 4}
    mixed = {"x": 1.5, "done": True, "n": 70_000, "phase": "reach", "pose": {"at": [[0.0]], "none": None}}
    for fields in (state, mixed):
        block = alike(bodies_of(fields, draw))
        assert block is not None
        assert block.ascends


@pytest.mark.parametrize("count", [LEAST, 5_000, 70_000])
def test_many_entries_are_cut_into_pieces_that_hold_them_all(count: int) -> None:
    """Pieces stay below the limit and hold every entry once, in order."""
    draw = random.Random(count)
    bodies = bodies_of({"q": [0.0] * 14}, draw, count)
    found = pieces(MERGED, batch_entries(Batch("w", 1, {1: TRACK}, bodies))[TRACK])
    assert all(one.header["raw"] <= segments.PIECE_BYTES for one in found)
    stamps = [e["timestamp"] for one in found for e in decode_entries({**one.header, "_id": "s"}, one.body)]
    assert stamps == [1e9 + n * 0.001 for n in range(count)]
    assert sum(one.header["n"] for one in found) == count


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "?", "f2"])
def test_arrays_are_the_same_either_way(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole arrays give the pieces that their entries give, with NaN, any shape and any order of time."""
    import numpy as np

    draw = np.random.default_rng(5)
    n, taken = 40, []
    for shape in ((), (7,), (20,), (3, 4), (2, 2, 2), (1, 1, 1, 1)):
        for times in (np.arange(n) * 0.1, np.arange(n)[::-1] * 1.0, np.arange(n) // 2 * 1.0, np.arange(n) * 100.0):
            values = draw.normal(size=(n, *shape)).astype(dtype)
            values.flat[3] = np.nan if values.dtype.kind == "f" else 0
            _, body = encode_columns("t", 1, times, {"q": values, "x": np.zeros(n)})
            taken.append(isinstance(batch_entries(Batch("w", 1, {1: TRACK}, [body]))[TRACK], uniform.Alike))
            ours, plain = both_ways(lambda body=body: made_pieces([body]), monkeypatch)
            assert ours == plain
    assert any(taken) == (dtype not in ("i4", "?"))
    assert not all(taken)


def test_time_that_does_not_ascend_goes_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated and late timestamps are merged, and long pauses cut the batch, as ever."""
    for times in ([5.0] * 20, [float(-n) for n in range(20)], [float(n) for n in range(19)] + [1e9]):
        bodies = [encode_body((1, t, {"x": float(n)})) for n, t in enumerate(times)]
        ours, plain = both_ways(lambda bodies=bodies: made_pieces(bodies), monkeypatch)
        assert ours == plain


def _as_read(piece: tuple[dict[str, Any], Any]) -> Any:
    header, entries = piece
    return {name: value for name, value in header.items() if name not in ("raw", "size", "crc")}, entries


def checked(bodies: list[bytes]) -> Any:
    """What the server says to a batch."""
    try:
        return ingest.check(Batch("w", 1, {1: TRACK}, bodies))
    except Refusal as refused:
        return refused.fault.code, refused.fault.entries


def test_damaged_bodies_are_refused_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any byte of any body changed to anything: the same answer as without the quick way, and the same pieces."""
    draw = random.Random(3)
    fields = {"q": [0.0] * 2, "s": "text", "n": 300, "b": True, "d": {"k": [1.0]}}
    refused = 0
    for _ in range(1500):
        bodies = bodies_of(fields, draw, LEAST)
        place, at = draw.randrange(len(bodies)), draw.randrange(len(bodies[0]))
        which = range(len(bodies)) if draw.random() < 0.5 else [place]
        byte = draw.randrange(256)
        for number in which:
            bodies[number] = bodies[number][:at] + bytes([byte]) + bodies[number][at + 1 :]
        ours, plain = both_ways(lambda bodies=bodies: checked(bodies), monkeypatch)
        assert ours == plain, (at, byte)
        refused += not isinstance(ours, int)
        if isinstance(ours, int):
            ours, plain = both_ways(lambda bodies=bodies: made_pieces(bodies), monkeypatch)
            # What nobody's encoder writes (a small integer in a wide form) is kept as it came, and reads the same.
            assert [_as_read(one) for one in ours] == [_as_read(one) for one in plain], (at, byte)
    assert 300 < refused < 1200


def test_a_block_is_alike_where_its_bodies_are() -> None:
    """Any byte of any body changed to anything: columns are judged as the bodies by themselves are, and never where
    more than a number differs."""
    draw = random.Random(4)
    fields = {"q": [0.0] * 2, "s": "text", "n": 300, "b": True, "d": {"k": [1.0]}}
    unlike = 0
    for _ in range(600):
        bodies = bodies_of(fields, draw, LEAST)
        place, at = draw.randrange(len(bodies)), draw.randrange(len(bodies[0]))
        bodies[place] = bodies[place][:at] + bytes([draw.randrange(256)]) + bodies[place][at + 1 :]
        by_row = alike(bodies)
        by_column = uniform.alike_block(Block(LEAST, columns_of(b"".join(bodies), len(bodies[0]))))
        assert (by_row is None) == (by_column is None), (place, at)
        unlike += by_row is None
        if by_row is not None and by_column is not None:
            assert by_row.encoded(0, LEAST) == by_column.encoded(0, LEAST)
    assert 200 < unlike < 500


def test_without_numpy_nothing_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's extra does not bring NumPy: the store works without it."""
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    assert uniform.alike([encode_body((1, float(n), {"x": 1.0})) for n in range(50)]) is None
