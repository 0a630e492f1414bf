"""The test vectors of `docs/format.md` against the code that writes the files."""

from __future__ import annotations

import math
import re
import struct
import zlib
from pathlib import Path

import pytest

from ml_dash import columns, entry, journal_files, line
from ml_dash.stores import index, state

DOCUMENT = (Path(__file__).parent.parent / "docs" / "format.md").read_text()
WRITER = "0018c2f6a5b3e4d01a2b3c4d5e6f"


def documented(name: str) -> str:
    """The second cell of the table row that starts with `name`."""
    rows = [row for row in re.findall(r"^\| (.+?) \| `(.+?)` \|$", DOCUMENT, re.M) if row[0].startswith(name)]
    assert len(rows) == 1, f"{name!r} stands in the document {len(rows)} times"
    return rows[0][1]


def documented_bytes(name: str) -> bytes:
    return bytes.fromhex(documented(name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NaN", math.nan),
        ("the text NaN", "NaN"),
        ("[+inf, -inf]", [math.inf, -math.inf]),
        ("the text Infinity", "Infinity"),
        ("the text -Infinity", "-Infinity"),
        ("bytes 00 ff", b"\x00\xff"),
        ("{1: 4, None: 3, 1.5: 5}", {1: 4, None: 3, 1.5: 5}),
    ],
)
def test_lines_are_as_documented(name: str, value: object) -> None:
    """A value is written as the document's line."""
    _, stamp, fields = entry.decode_body(entry.encode_body((1, 1.0, {"v": value})))
    assert documented(name).encode() + b"\n" == line.to_line(stamp, fields)


def test_record_is_as_documented() -> None:
    """A record is its length, its CRC and the msgpack body."""
    body = entry.encode_body((1, 1.5, {"q": [0.5, -0.25], "ok": True}))
    assert documented_bytes("record:") == journal_files.RECORD.pack(len(body), zlib.crc32(body)) + body


def test_column_body_is_as_documented() -> None:
    """Whole columns travel as packed little-endian values, or as a list of values."""
    body = documented_bytes("body: track 1")
    assert list(columns.expand(entry.decode_body(body))) == [[(0.0, {"n": 3, "w": "a"}), (0.1, {"n": 4, "w": "b"})]]
    packed = {"n": ["q", [], struct.pack("<2q", 3, 4)], "w": [["a", "b"]]}
    assert body == entry.encode_body((1, 2, struct.pack("<2d", 0.0, 0.1), packed))


def test_segment_header_is_as_documented() -> None:
    """A segment names its writer and its number, and checks itself."""
    head = journal_files.SEGMENT_HEADER.pack(
        journal_files.MAGIC, journal_files.VERSION, 0, bytes.fromhex(WRITER), 7, 0
    )[:-4]
    assert documented_bytes("segment header: writer") == head + struct.pack("<I", zlib.crc32(head))


def test_index_is_as_documented() -> None:
    """An index is a header that fits one state of the data file, and its blocks."""
    made = index.Index()
    made.add_block(index.Block(1.5, 2.5, 0, 120, 2))
    fingerprint = index.Fingerprint(120, 1_700_000_000_000_000_000, 1_700_000_000_500_000_000, 42)
    documented_index = documented_bytes("index header:") + documented_bytes("index block:")
    assert documented_index == made.to_bytes(fingerprint)
    assert index.parse(documented_index, fingerprint) is not None


def test_state_is_as_documented() -> None:
    """The state is one line with its CRC in front."""
    made = state.State(3, {WRITER: 2}, {"logs/logs.jsonl": 512}).to_bytes()
    assert documented("state").encode() + b"\n" == made
    attempt = {"logs/logs.jsonl": state.Attempt(512, 640, 0x1C291CA3)}
    unsure, order = {"metrics/train/data.jsonl": 64}, {"tracks/robot_state/data.jsonl": (3, 1)}
    made = state.State(4, {WRITER: 2}, {"logs/logs.jsonl": 512}, attempt, unsure, order).to_bytes()
    assert documented("attempted state").encode() + b"\n" == made
