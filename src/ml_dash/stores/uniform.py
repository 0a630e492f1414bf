"""Bodies that all look alike, handled as one block of bytes instead of one by one.

A track that is logged by one call has one layout: the same fields in the same order, lists of the same lengths, numbers
of the same width. In msgpack the bodies of such entries differ only in the bytes of their numbers. One of them is
decoded and walked; the others are compared with it at memory speed, everything but those bytes, and mean what it means
with other numbers in it. Whole arrays (`extend`) become such bodies without a comparison. Whatever differs more (a
longer text, one more field, time that does not ascend) is for the caller's way entry by entry, which takes ten times as
long.

Needs NumPy; without it nothing is ever alike.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..blocks import LEAST, Block, columns_of
from ..columns import expand
from ..entry import encode_body
from ..store import Entry

if TYPE_CHECKING:
    import numpy as np

MAX_LEVELS = 3
_HEAD = 11
"""Bytes of an entry's body before its fields: the array's mark, the track's number, the timestamp."""
_ENTRY, _FLOAT64 = 0x93, 0xCB
_NONE, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_NUMBERS = {0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
"""The bytes behind the mark of each number that has a fixed width."""
_CODES = {0xCB: "f8", 0xCC: "u1", 0xCD: "u2", 0xCE: "u4", 0xCF: "u8", 0xD0: "i1", 0xD1: "i2", 0xD2: "i4", 0xD3: "i8"}
_FIXED, _FREE, _BOOL = 0xFF, 0x00, 0xFE
"""Which bits of a byte are the same in every body."""
_FLOATS = {"d": "<f8", "f": "<f4"}
_TIMESTAMP = b"\xa9timestamp"


class _Unlike(Exception):
    """A body of which not only numbers may differ."""


class Layout(NamedTuple):
    """What the bytes of a body are.

    `mask` says of each byte which of its bits every body shares; `leaves` are the places of the marks of all values
    that are neither list nor dict, in their order.
    """

    mask: bytes
    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Bodies of one track, each an entry, that differ in numbers only.

    `rows` has shape (entries, bytes of a body); `times` are the timestamps in seconds, in the order of the bodies.
    """

    first: bytes
    rows: np.ndarray[Any, Any]
    times: np.ndarray[Any, Any]
    layout: Layout

    def __len__(self) -> int:
        return len(self.times)

    @property
    def ascends(self) -> bool:
        """Whether time ascends strictly; false for a NaN."""
        return bool((self.times[1:] > self.times[:-1]).all())

    @property
    def longest_gap(self) -> float:
        """The longest time between two neighbours, in seconds."""
        return float((self.times[1:] - self.times[:-1]).max())

    @property
    def is_finite(self) -> bool:
        """Whether every timestamp is."""
        return bool((self.times - self.times == 0.0).all())

    @property
    def entry_bytes(self) -> int:
        """Of each entry, in msgpack."""
        return len(self.first)

    def part(self, first: int, last: int) -> Alike:
        """Some of the bodies, without a copy."""
        return replace(self, rows=self.rows[first:last], times=self.times[first:last])

    def columns(self, first: int, last: int) -> bytes:
        """Some of the bodies byte by byte, as in a block."""
        if self.rows.flags.c_contiguous:
            return columns_of(self.rows[first:last].tobytes(), len(self.first))
        return self.rows.T[:, first:last].tobytes()

    def encoded(self, first: int, last: int) -> bytes:
        """Some of them as the msgpack array of entries `{"timestamp": ..., fields...}`."""
        return _as_entries(self.first, self.rows[first:last])

    def entries(self) -> list[Entry]:
        """All of them as they read."""
        return msgspec.msgpack.decode(self.encoded(0, len(self)))  # type: ignore[no-any-return]


def alike(bodies: Sequence[bytes]) -> Alike | None:
    """The bodies as one block; None where they are not alike, or too few."""
    if len(bodies) < LEAST:
        return None
    try:
        import numpy as np
    except ImportError:
        return None
    first = bodies[0]
    if set(map(len, bodies)) != {len(first)}:
        return None
    try:
        layout = _layout(first)
    except (_Unlike, IndexError):
        return None
    rows = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), len(first))
    if ((rows ^ rows[0]) & np.frombuffer(layout.mask, np.uint8)).any():
        return None
    return Alike(first, rows, rows[:, 3:_HEAD].copy().view(">f8").ravel(), layout)


def alike_block(block: Block) -> Alike | None:
    """The same of a block's bodies, which stay where they are."""
    if block.found is ...:
        block.found = _alike_block(block)
    return block.found  # type: ignore[no-any-return]


def _alike_block(block: Block) -> Alike | None:
    if block.count < LEAST:
        return None
    try:
        import numpy as np

        layout = _layout(block.first)
    except (ImportError, _Unlike, IndexError):
        return None
    columns = np.frombuffer(block.columns, np.uint8).reshape(block.width, block.count)
    mask = np.frombuffer(layout.mask, np.uint8)
    shared = np.flatnonzero(mask != _FREE)
    of_them = columns[shared]
    if ((of_them ^ of_them[:, :1]) & mask[shared, None]).any():
        return None
    return Alike(block.first, columns.T, columns[3:_HEAD].T.copy().view(">f8").ravel(), layout)


def continues(one: Alike, other: Alike) -> bool:
    """Whether two blocks are alike with each other, so that they can be joined."""
    import numpy as np

    if len(one.first) != len(other.first):
        return False
    differ = np.frombuffer(one.first, np.uint8) ^ np.frombuffer(other.first, np.uint8)
    return not (differ & np.frombuffer(one.layout.mask, np.uint8)).any()


def joined(blocks: Sequence[Alike]) -> Alike:
    """Blocks that continue each other as one."""
    import numpy as np

    if len(blocks) == 1:
        return blocks[0]
    columns = np.concatenate([block.rows.T for block in blocks], axis=1)
    return replace(blocks[0], rows=columns.T, times=np.concatenate([block.times for block in blocks]))


def interleaved(blocks: Sequence[Alike]) -> Alike | None:
    """Blocks as one, in the order of time; None where they are not alike, or share an instant."""
    if not all(continues(blocks[0], block) for block in blocks[1:]):
        return None
    import numpy as np

    whole = joined(blocks)
    order = np.argsort(whole.times, kind="stable")
    found = replace(whole, rows=whole.rows.T[:, order].T, times=whole.times[order])
    return found if found.ascends else None


def leaf_values(block: Alike) -> Iterator[tuple[Any, np.ndarray[Any, Any] | None]]:
    """For each place of a number, text, bool or null: a value that stands there, and those of all; None if all equal.

    Integers come as int64, or as uint64 where some are larger.
    """
    import numpy as np

    for at in block.layout.leaves:
        mark = block.first[at]
        if mark in _NUMBERS:
            code = _CODES[mark]
            bytes_of = block.rows[:, at + 1 : at + 1 + _NUMBERS[mark]]
            values = np.ascontiguousarray(bytes_of[:, ::-1]).view(f"<{code}").ravel()
            yield (0.0, values) if code == "f8" else (0, _widened(values))
        elif mark in (_FALSE, _TRUE):
            yield False, block.rows[:, at] == _TRUE
        else:
            yield msgspec.msgpack.decode(block.first[at : _plain_end(block.first, at)]), None


def _widened(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    too_large = values.dtype.str == "<u8" and (values >> 63).any()
    return values if too_large else values.astype("<i8")


def entries_of(columns: bytes, count: int) -> bytes:
    """The msgpack array of the entries of bodies that are alike, from their columns."""
    try:
        import numpy as np
    except ImportError:
        return _entries_one_by_one(Block(count, columns))
    return _as_entries(columns[::count], np.frombuffer(columns, np.uint8).reshape(-1, count).T)


def _as_entries(first: bytes, rows: np.ndarray[Any, Any]) -> bytes:
    import numpy as np

    fields, at = _map_size(first)
    head = _map_head(fields + 1) + _TIMESTAMP
    made = np.empty((len(rows), len(head) + 9 + len(first) - at), np.uint8)
    made[:, : len(head)] = np.frombuffer(head, np.uint8)
    made[:, len(head) : len(head) + 9] = rows[:, 2:_HEAD]
    made[:, len(head) + 9 :] = rows[:, at:]
    return array_head(len(rows)) + made.tobytes()


def _entries_one_by_one(block: Block) -> bytes:
    fields, at = _map_size(block.first)
    head = _map_head(fields + 1) + _TIMESTAMP
    return array_head(block.count) + b"".join(head + body[2:_HEAD] + body[at:] for body in block.bodies())


def of_columns(body: list[Any]) -> Alike | None:
    """The entries of a decoded column body, as if each had come by itself; None where they hold more than floats."""
    _, n, stamps, columns = body
    if n < LEAST or not all(len(one) == 3 and one[0] in _FLOATS and one[2] for one in columns.values()):
        return None
    try:
        import numpy as np

        timestamp, fields = next(expand(body))[0]
        first = encode_body((1, timestamp, fields))
        layout = _layout(first)
    except (ImportError, _Unlike):
        return None
    made = np.repeat(np.frombuffer(first, np.uint8), n).reshape(len(first), n)
    times = np.frombuffer(stamps, "<f8")
    values = [np.frombuffer(data, _FLOATS[code]).reshape(n, -1) for code, _, data in columns.values()]
    numbers = [times, *(column for block in values for column in block.T)]
    for mark, column in zip((2, *layout.leaves), numbers, strict=True):
        made[mark + 1 : mark + 9] = column.astype(">f8").view(np.uint8).reshape(n, 8).T
    return Alike(first, made.T, times, layout)


# ---------------------------------------------------------------- the layout of one body


def _layout(body: bytes) -> Layout:
    """What a body looks like; raises _Unlike, or IndexError where it ends too soon."""
    if body[0] != _ENTRY or body[1] >= 0x80 or body[2] != _FLOAT64:
        raise _Unlike
    mask, leaves = bytearray([_FIXED]) * len(body), list[int]()
    mask[3:_HEAD] = bytes(8)
    size, at = _map_size(body)
    if _map(body, at, size, mask, leaves, MAX_LEVELS) != len(body):
        raise _Unlike
    return Layout(bytes(mask), tuple(leaves))


def _map_size(body: bytes) -> tuple[int, int]:
    """How many fields a body has, and where the first one begins."""
    mark = body[_HEAD]
    if mark & 0xF0 == 0x80:
        return mark & 0x0F, _HEAD + 1
    if mark == 0xDE:
        return int.from_bytes(body[_HEAD + 1 : _HEAD + 3], "big"), _HEAD + 3
    raise _Unlike


def _map(body: bytes, at: int, size: int, mask: bytearray, leaves: list[int], levels: int) -> int:
    names = {_TIMESTAMP}
    for _ in range(size):
        behind = _name_end(body, at)
        name = body[at:behind]
        if name in names:
            raise _Unlike
        names.add(name)
        at = _value(body, behind, mask, leaves, levels)
    return at


def _name_end(body: bytes, at: int) -> int:
    """Where a field's name ends, which is a text, and no very long one."""
    mark = body[at]
    if 0xA0 <= mark < 0xC0:
        return at + 1 + (mark & 0x1F)
    if mark == 0xD9 and body[at + 1] > 31:
        return at + 2 + body[at + 1]
    raise _Unlike


def _value(body: bytes, at: int, mask: bytearray, leaves: list[int], levels: int) -> int:
    """Note what may differ in one value; returns where it ends."""
    mark = body[at]
    end = _plain_end(body, at)
    if end is None:
        return _nested(body, at, mask, leaves, levels - 1)
    leaves.append(at)
    if mark in _NUMBERS:
        mask[at + 1 : end] = bytes([_FREE]) * (end - at - 1)
    elif mark in (_FALSE, _TRUE):
        mask[at] = _BOOL
    return end


def _plain_end(body: bytes, at: int) -> int | None:
    """Where a number, text, bool or null ends; None for all else."""
    mark = body[at]
    if mark in _NUMBERS:
        return at + 1 + _NUMBERS[mark]
    if mark < 0x80 or mark >= 0xE0 or mark in (_NONE, _FALSE, _TRUE):
        return at + 1
    if 0xA0 <= mark < 0xC0:
        return at + 1 + (mark & 0x1F)
    if mark == 0xD9:
        return at + 2 + body[at + 1]
    if mark == 0xDA:
        return at + 3 + int.from_bytes(body[at + 1 : at + 3], "big")
    return None


def _nested(body: bytes, at: int, mask: bytearray, leaves: list[int], levels: int) -> int:
    if levels < 0:
        raise _Unlike
    mark = body[at]
    if mark & 0xF0 == 0x80:
        return _map(body, at + 1, mark & 0x0F, mask, leaves, levels)
    size = mark & 0x0F if mark & 0xF0 == 0x90 else int.from_bytes(body[at + 1 : at + 3], "big")
    if mark & 0xF0 != 0x90 and mark != 0xDC:
        raise _Unlike  # bytes, dates and what else means something different when it is read
    at += 1 if mark & 0xF0 == 0x90 else 3
    for _ in range(size):
        at = _value(body, at, mask, leaves, levels)
    return at


# ---------------------------------------------------------------- msgpack heads


def _map_head(size: int) -> bytes:
    return bytes([0x80 | size]) if size < 16 else struct.pack(">BH", 0xDE, size)


def array_head(size: int) -> bytes:
    """How msgpack announces an array of so many items."""
    if size < 16:
        return bytes([0x90 | size])
    return struct.pack(">BH", 0xDC, size) if size < 1 << 16 else struct.pack(">BI", 0xDD, size)


def array_items(raw: bytes) -> bytes:
    """What stands behind the head of a msgpack array."""
    return raw[{0xDC: 3, 0xDD: 5}.get(raw[0], 1) :]
