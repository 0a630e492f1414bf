"""Bodies of one length byte by byte: the first byte of every body, then the second of every body, and so on.

What one call logs differs from time to time in the bytes of its numbers only, and in few of those. Laid out like this a
batch is a quarter smaller when it is compressed, and compressed five times as fast, as one body behind the other. A
server finds out from the columns what all the bodies are, and keeps them as they came (`stores/uniform.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

LEAST = 16
"""Fewer bodies are sent one by one."""
MOST_BLOCKS = 255
_LEAST_BYTES = 12
"""An entry without fields."""
_PACE_EVERY = 8
_UINT_WIDTH = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


class Block:
    """`count` bodies of one length that begin alike: the kind of body, and the number of its track.

    Args:
        columns: `columns[k * count : (k + 1) * count]` is the byte k of each.

    Raises:
        ValueError: these are no such columns.
    """

    __slots__ = ("columns", "count", "found")

    def __init__(self, count: int, columns: bytes) -> None:
        self.count, self.columns = count, columns
        self.found: Any = ...
        """What the bodies are together, once `uniform.alike_block` has looked."""
        if count < 1 or not columns or len(columns) % count or self.width < _LEAST_BYTES:
            raise ValueError(f"a block of {len(columns)} bytes cannot be {count} bodies")

    @property
    def width(self) -> int:
        """Bytes of each body."""
        return len(self.columns) // self.count

    @property
    def first(self) -> bytes:
        """The first body."""
        return self.columns[:: self.count]

    def begins_alike(self) -> bool:
        """Whether all bodies have the first one's head."""
        n = self.count
        head = _head(self.columns[: 11 * n : n])
        return all(self.columns.count(byte, k * n, (k + 1) * n) == n for k, byte in enumerate(head))

    def bodies(self) -> list[bytes]:
        """Each body by itself."""
        rows = rows_of(self.columns, self.count)
        return [rows[at : at + self.width] for at in range(0, len(rows), self.width)]


class Blocks(Sequence[bytes]):
    """The bodies of a batch in blocks; taken apart where somebody asks for one of them.

    Args:
        order: for each body the place of its block; empty where there is one block.

    Raises:
        ValueError: the order is not one of these blocks.
    """

    def __init__(self, order: bytes, blocks: Sequence[Block]) -> None:
        self.order, self.blocks = order, list(blocks)
        self._bodies: list[bytes] | None = None
        single = len(self.blocks) == 1 and not order
        counted = len(order) == len(self) and all(order.count(k) == one.count for k, one in enumerate(self.blocks))
        if not self.blocks or len(self.blocks) > MOST_BLOCKS or not (single or counted):
            raise ValueError("the order does not fit the blocks")
        if not all(block.begins_alike() for block in self.blocks):
            raise ValueError("a block of several tracks")

    def __len__(self) -> int:
        return sum(block.count for block in self.blocks)

    def _all(self) -> list[bytes]:
        if self._bodies is None:
            if self.order:
                parts = [iter(block.bodies()) for block in self.blocks]
                self._bodies = [next(parts[place]) for place in self.order]
            else:
                self._bodies = self.blocks[0].bodies()
        return self._bodies

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all())

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        return self._all()[place]


def blocks_of(bodies: Sequence[bytes], pace: Callable[[], None] = lambda: None) -> Blocks | None:
    """The bodies in blocks; None where that gains nothing. The same bodies always give the same blocks."""
    if len(bodies) < LEAST or min(map(len, bodies)) < _LEAST_BYTES:
        return None
    if len(set(map(len, bodies))) == 1:
        block = _block(bodies, pace)
        if block.begins_alike():
            return Blocks(b"", [block])
    parts: dict[tuple[bytes, int], list[bytes]] = {}
    places: dict[tuple[bytes, int], int] = {}
    order = bytearray()
    for body in bodies:
        key = (_head(body), len(body))
        part = parts.get(key)
        if part is None:
            if len(parts) == MOST_BLOCKS:
                return None
            part = parts[key] = []
            places[key] = len(places)
        part.append(body)
        order.append(places[key])
        if not len(order) % (_PACE_EVERY * 8):
            pace()
    return Blocks(bytes(order) if len(parts) > 1 else b"", [_block(part, pace) for part in parts.values()])


def _block(bodies: Sequence[bytes], pace: Callable[[], None]) -> Block:
    return Block(len(bodies), columns_of(b"".join(bodies), len(bodies[0]), pace))


def _head(body: bytes) -> bytes:
    """What comes before a body's second element: the array's mark and the track's number."""
    return body[: 2 + _UINT_WIDTH.get(body[1], 0)]


def columns_of(rows: bytes, width: int, pace: Callable[[], None] = lambda: None) -> bytes:
    """The bytes of rows of one width by column. Slices of bytes do this faster than NumPy does."""
    if width >= len(rows):
        return rows
    return b"".join(_paced((rows[k::width] for k in range(width)), pace))


def _paced(slices: Iterable[bytes], pace: Callable[[], None]) -> Iterator[bytes]:
    for place, one in enumerate(slices):
        if not place % _PACE_EVERY:
            pace()
        yield one


def rows_of(columns: bytes, count: int) -> bytes:
    """The other way around: `count` rows, one behind the other."""
    if count == 1:
        return columns
    width = len(columns) // count
    rows = bytearray(len(columns))
    for k in range(width):
        rows[k::width] = columns[k * count : (k + 1) * count]
    return bytes(rows)
