"""Records of one length are read together; what is read is what one by one gives."""

from __future__ import annotations

import random

import pytest

from ml_dash import journal_reader
from ml_dash.batches import Group
from ml_dash.journal_files import Mark, crc32, record_header

BASE = 64


def chunk_of(draw: random.Random, lengths: list[int]) -> bytes:
    """Records of these lengths, cut anywhere, at times with one byte that is another one."""
    bodies = [draw.randbytes(length) for length in lengths]
    chunk = bytearray(b"".join(record_header(len(body), crc32(body)) + body for body in bodies))
    if draw.random() < 0.5:
        chunk[draw.randrange(len(chunk))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.5:
        chunk += bytes(draw.randrange(200))
    return bytes(chunk[: draw.randrange(len(chunk) + 1)] if draw.random() < 0.5 else chunk)


@pytest.mark.parametrize("seed", range(60))
def test_together_or_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bodies, ends and wish for more, whole, torn, damaged, or behind a hole."""
    draw = random.Random(seed)
    alike = [draw.choice([1, 13, 225])] * draw.randrange(14, 60)
    lengths = alike if seed % 3 else [*alike, *[draw.randrange(1, 300) for _ in range(20)], *alike]
    chunk = chunk_of(draw, lengths)
    found = journal_reader._split(chunk, BASE)
    monkeypatch.setattr(journal_reader, "_split_alike", lambda chunk, base: ([], []))
    assert journal_reader._split(chunk, BASE) == found


def test_records_of_one_length_are_read_together() -> None:
    """Else nothing here tests it; and zeros are no records, however well they check."""
    draw = random.Random(1)
    body = draw.randbytes(225)
    chunk = (record_header(225, crc32(body)) + body) * 40
    assert journal_reader._split_alike(chunk + chunk[:100], BASE) == (
        [body] * 40, [BASE + 233 * (n + 1) for n in range(40)],
    )  # fmt: skip
    assert journal_reader._split_alike(bytes(4096), BASE) == ([], [])


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25, 30, 31, 1000])
def test_where_a_size_is_reached(size: int) -> None:
    """The fewest bodies that are as many bytes; all of them where they are fewer."""
    group = Group(Mark(1, BASE))
    group.extend(1, [b"x" * 10, b"y" * 15, b"z" * 5], [74, 89, 94])
    expected = next((n for n in range(4) if len(b"".join(group.bodies[:n])) >= size), 3)
    assert group._behind(size) == expected
