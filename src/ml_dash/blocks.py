"""Bodies of one length byte by byte: the first byte of every body, then the second of every body, and so on.

What one call logs differs from time to time in the bytes of its numbers only, and in few of those. Laid out like this a
batch is a quarter smaller when it is compressed, and compressed five times as fast, as one body behind the other. A
server finds out from the columns what all the bodies are, and keeps them as they came (`stores/uniform.py`).

Taking columns apart costs a step for each byte of one body, so a long body (an image) is a block by itself, which costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from .entry import head_bytes, track_number
from .store import Batch, Track

LEAST = 16
"""Fewer bodies are sent one by one."""
MOST_BLOCKS = 255
WIDEST, STEEPEST = 4096, 64
"""Bodies longer than this, or than so many times their number, share no block."""
_LEAST_BYTES = 12
"""An entry without fields."""
_PACE_EVERY = 8


class Block:
    """`count` bodies of one length that begin alike: the kind of body, and the number of its track.

    Args:
        columns: `columns[k * count : (k + 1) * count]` is the byte k of each.

    Raises:
        ValueError: these are no such columns.
    """

    __slots__ = ("_bodies", "columns", "count", "found")

    def __init__(self, count: int, columns: bytes) -> None:
        self.count, self.columns = count, columns
        self._bodies: list[bytes] | None = None
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
        head = _head(self.columns[: _LEAST_BYTES * n : n])
        return all(self.columns.count(byte, k * n, (k + 1) * n) == n for k, byte in enumerate(head))

    def bodies(self) -> list[bytes]:
        """Each body by itself; made once."""
        if self._bodies is None:
            rows, width = rows_of(self.columns, self.count), self.width
            self._bodies = [rows[at : at + width] for at in range(0, len(rows), width)]
        return self._bodies


class Blocks(Sequence[bytes]):
    """The bodies of a batch in blocks; taken apart where somebody asks for one of them.

    Args:
        order: for each body the place of its block; empty where there is one block.

    Raises:
        ValueError: the order is not one of these blocks, or these are none that `blocks_of` makes.
    """

    def __init__(self, order: bytes, blocks: Sequence[Block]) -> None:
        self.order, self.blocks = order, list(blocks)
        self._bodies: list[bytes] | None = None
        single = len(self.blocks) == 1 and not order
        counted = len(order) == len(self) and all(order.count(k) == one.count for k, one in enumerate(self.blocks))
        if not self.blocks or len(self.blocks) > MOST_BLOCKS or not (single or counted):
            raise ValueError("the order does not fit the blocks")
        if not all(_may_share(block.count, block.width) for block in self.blocks):
            raise ValueError("a block of few and long bodies: each of these is one by itself")
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
    if len(set(map(len, bodies))) == 1 and _may_share(len(bodies), len(bodies[0])):
        block = _block(bodies, pace)
        if block.begins_alike():
            return Blocks(b"", [block])
    parts = _parts(bodies, pace)
    if parts is None or len(parts) == len(bodies):
        return None
    order = bytearray(len(bodies))
    for number, places in enumerate(parts):
        for place in places:
            order[place] = number
    blocks = [_block([bodies[place] for place in places], pace) for places in parts]
    return Blocks(bytes(order) if len(blocks) > 1 else b"", blocks)


def _parts(bodies: Sequence[bytes], pace: Callable[[], None]) -> list[list[int]] | None:
    """The places of the bodies of each block; None where these are too many."""
    alike: dict[tuple[bytes, int], list[int]] = {}
    for place, body in enumerate(bodies):
        key = (_head(body), len(body))
        places = alike.get(key)
        if places is None:
            if len(alike) == MOST_BLOCKS:
                return None
            places = alike[key] = []
        places.append(place)
        if not place % (_PACE_EVERY * 8):
            pace()
    parts: list[list[int]] = []
    for (_, width), places in alike.items():
        parts += [places] if _may_share(len(places), width) else [[place] for place in places]
    return parts if len(parts) <= MOST_BLOCKS else None


def _may_share(count: int, width: int) -> bool:
    """Whether bodies are taken apart at a cost in proportion to their bytes."""
    return count == 1 or width <= min(WIDEST, STEEPEST * count)


def _block(bodies: Sequence[bytes], pace: Callable[[], None]) -> Block:
    return Block(len(bodies), columns_of(b"".join(bodies), len(bodies[0]), pace))


def _head(body: bytes) -> bytes:
    """What comes before a body's second element."""
    return body[: head_bytes(body)]


def used_tracks(batch: Batch) -> dict[int, Track]:
    """The tracks of which a batch has entries: one batch is one batch however many tracks its sender has by now."""
    bodies = batch.bodies
    some = (block.first for block in bodies.blocks) if isinstance(bodies, Blocks) else bodies
    heads = {body[:10] if body[1] >= 0x80 else body[:2] for body in some if len(body) > 10}
    used = {track_number(head) for head in heads}
    return {number: track for number, track in batch.tracks.items() if number in used}


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
