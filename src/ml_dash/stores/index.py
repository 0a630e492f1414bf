"""The block index beside `data.jsonl`: where in the file which timestamps are. Derived; rebuilt when in doubt.

    .index   header (76 bytes), then one record (36 bytes) for each block of whole lines, about 64 KiB each

Within a block the lines ascend strictly, so an unsorted file is a list of sorted blocks. The header holds the file's
size, times of modification and of status change, and inode: an index that does not fit the file is not used. Every
record has its own CRC, because a window reads few of them.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from os import stat_result
from typing import NamedTuple

import msgspec

from ..line import from_line

BLOCK_BYTES = 64 << 10
MAGIC = b"MLDI"
VERSION = 1
HEADER = struct.Struct("<4sHHQqqQQQddI")
"""magic, version, flags, size, mtime_ns, ctime_ns, inode, blocks, entries, lowest and highest timestamp, CRC32."""
BLOCK = struct.Struct("<ddQIII")
"""first and last timestamp, offset, length, entries, CRC32 of what precedes, begun with the block's number."""
SORTED, FOREIGN = 1, 2


class Block(NamedTuple):
    """A stretch of whole lines whose timestamps ascend strictly."""

    first: float
    last: float
    offset: int
    length: int
    entries: int


class Fingerprint(NamedTuple):
    """What tells one state of a file from another.

    An edit whose mtime was put back shows in the ctime (on Windows that is the time of creation, and tells nothing).
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: stat_result) -> Fingerprint:
        """The fingerprint of a file that was looked at."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & 0xFFFF_FFFF_FFFF_FFFF)


class _Stamp(msgspec.Struct):
    timestamp: int | float


_stamps = msgspec.json.Decoder(_Stamp)


@dataclass(slots=True)
class Index:
    """The blocks of one data file, in file order.

    `is_sorted`: every line's timestamp is above the one before, over the whole file. `foreign`: some lines are no
    entries (a person's edit); they are kept and never rewritten. `let_go`: how many blocks in front are on disk only;
    who appends needs the last one, and a day's are many.
    """

    blocks: list[Block] = field(default_factory=list)
    entries: int = 0
    is_sorted: bool = True
    foreign: bool = False
    size: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")
    let_go: int = 0
    _lasts: list[float] | None = None

    def add_line(self, timestamp: float, length: int) -> None:
        """Note one more line at the file's end."""
        self.add_lines(timestamp, timestamp, length, 1)

    def add_lines(self, first: float, last: float, length: int, entries: int) -> None:
        """Note lines at the file's end whose timestamps ascend strictly."""
        known = self.blocks[-1] if self.blocks else None
        if (
            known is not None
            and first > known.last
            and (known.last >= self.highest or last <= self.highest)  # what is late stays apart from what is not
            and known.offset + known.length == self.size
            and known.length + length <= BLOCK_BYTES
        ):
            length_now, entries_now = known.length + length, known.entries + entries
            self.blocks[-1] = Block(known.first, last, known.offset, length_now, entries_now)
            self._grow(first, last, length, entries)
        else:
            self.add_block(Block(first, last, self.size, length, entries))

    def add_text(self, lines: bytes, first: float, last: float, entries: int) -> None:
        """`add_lines`, one by one where some are late and others not: a block of both would overlap all between."""
        if not first <= self.highest < last:
            return self.add_lines(first, last, len(lines), entries)
        for line in lines.splitlines(keepends=True):
            self.add_line(float(_stamps.decode(line).timestamp), len(line))
        return None

    def add_block(self, block: Block) -> None:
        """Note a block at the file's end."""
        if self.blocks and block.first <= self.highest:
            self.is_sorted = False
        self.blocks.append(block)
        self._grow(block.first, block.last, block.length, block.entries)

    def _grow(self, first: float, last: float, length: int, entries: int) -> None:
        self.size += length
        self.entries += entries
        self.lowest = min(self.lowest, first)
        self.highest = max(self.highest, last)
        self._lasts = None

    def keep_last(self) -> None:
        """Let go of all blocks but the last."""
        self.let_go += max(0, len(self.blocks) - 1)
        del self.blocks[:-1]
        self._lasts = None

    def overlapping(self, start: float | None, end: float | None) -> Iterator[Block]:
        """The blocks that may hold timestamps within [start, end], in file order."""
        low = float("-inf") if start is None else start
        high = float("inf") if end is None else end
        if not self.is_sorted:
            yield from (block for block in self.blocks if block.last >= low and block.first <= high)
            return
        if self._lasts is None:
            self._lasts = [block.last for block in self.blocks]
        first = bisect_left(self._lasts, low)
        for position in range(first, min(bisect_right(self._lasts, high) + 1, len(self.blocks))):
            if self.blocks[position].first <= high:
                yield self.blocks[position]

    def to_bytes(self, fingerprint: Fingerprint) -> bytes:
        """The file's content for an index of this state of the data file; needs every block."""
        assert not self.let_go
        flags = (SORTED if self.is_sorted else 0) | (FOREIGN if self.foreign else 0)
        return _header(self, flags, fingerprint) + _records(self.blocks, 0)


def _records(blocks: Iterable[Block], first: int) -> bytes:
    return b"".join(_record(block, number) for number, block in enumerate(blocks, first))


def _record(block: Block, number: int) -> bytes:
    packed = BLOCK.pack(*block, 0)[:-4]
    return packed + struct.pack("<I", zlib.crc32(packed, number & 0xFFFF_FFFF))


def _header(index: Index, flags: int, fingerprint: Fingerprint) -> bytes:
    lowest, highest = (index.lowest, index.highest) if index.blocks else (0.0, 0.0)
    blocks = index.let_go + len(index.blocks)
    packed = HEADER.pack(MAGIC, VERSION, flags, *fingerprint, blocks, index.entries, lowest, highest, 0)[:-4]
    return packed + struct.pack("<I", zlib.crc32(packed))


def tail_bytes(index: Index, since: int, fingerprint: Fingerprint) -> tuple[int, bytes, bytes]:
    """What to write after blocks from number `since` on changed: the offset, the records, the new header."""
    flags = (SORTED if index.is_sorted else 0) | (FOREIGN if index.foreign else 0)
    records = _records(index.blocks[since - index.let_go :], since)
    return HEADER.size + since * BLOCK.size, records, _header(index, flags, fingerprint)


class Header(NamedTuple):
    """A checked header."""

    flags: int
    blocks: int
    entries: int
    lowest: float
    highest: float


def read_header(raw: bytes, fingerprint: Fingerprint) -> Header | None:
    """The header where it is whole and fits the file, else None."""
    if len(raw) < HEADER.size:
        return None
    magic, version, flags, *found, blocks, entries, lowest, highest, crc = HEADER.unpack(raw[: HEADER.size])
    fits = magic == MAGIC and version == VERSION and tuple(found) == fingerprint
    if not fits or crc != zlib.crc32(raw[: HEADER.size - 4]):
        return None
    return Header(flags, blocks, entries, lowest, highest)


def read_block(raw: bytes, number: int) -> Block | None:
    """The record of a block, or None where it does not check; one in another's place does not either."""
    if len(raw) < BLOCK.size or zlib.crc32(raw[: BLOCK.size - 4], number & 0xFFFF_FFFF) != BLOCK.unpack(raw)[5]:
        return None
    return Block(*BLOCK.unpack(raw)[:5])


def parse(raw: bytes, fingerprint: Fingerprint) -> Index | None:
    """The index from its file's bytes, or None where anything in it does not fit."""
    header = read_header(raw, fingerprint)
    if header is None or len(raw) < HEADER.size + header.blocks * BLOCK.size:
        return None
    blocks = []
    for number in range(header.blocks):
        block = read_block(raw[HEADER.size + number * BLOCK.size : HEADER.size + (number + 1) * BLOCK.size], number)
        if block is None:
            return None
        blocks.append(block)
    return Index(
        blocks, header.entries, bool(header.flags & SORTED), bool(header.flags & FOREIGN), fingerprint.size,
        header.lowest if blocks else float("inf"), header.highest if blocks else float("-inf"),
    )  # fmt: skip


def window_blocks(
    read_at: Callable[[int, int], bytes], fingerprint: Fingerprint, start: float | None, end: float | None
) -> list[Block] | None:
    """The blocks of a sorted file that overlap [start, end], by bisection in the index file: no full read of it.

    None where the index does not fit, a record does not check, or the file is not sorted: load or rebuild it then.
    """
    header = read_header(read_at(HEADER.size, 0), fingerprint)
    if header is None or not header.flags & SORTED:
        return None

    def block(number: int) -> Block | None:
        return read_block(read_at(BLOCK.size, HEADER.size + number * BLOCK.size), number)

    low, high = 0, header.blocks if start is not None else 0
    while start is not None and low < high:
        middle = (low + high) // 2
        found = block(middle)
        if found is None:
            return None
        low, high = (middle + 1, high) if found.last < start else (low, middle)
    blocks: list[Block] = []
    for number in range(low, header.blocks):
        found = block(number)
        if found is None:
            return None
        if end is not None and found.first > end:
            break
        blocks.append(found)
    return blocks


def scan(chunks: Iterator[tuple[int, bytes]], pace: Callable[[], None] = lambda: None) -> Index:
    """The index of a file from its content: chunks of whole lines with their offset."""
    index = Index()
    for offset, chunk in chunks:
        pace()
        if not _scan_fast(index, offset, chunk):
            _scan_lines(index, offset, chunk)
        index.size = offset + len(chunk)
    return index


def _scan_fast(index: Index, offset: int, chunk: bytes) -> bool:
    """Take the chunk as one block where its lines are entries in ascending order."""
    try:
        stamps = [stamp.timestamp for stamp in _stamps.decode_lines(chunk)]
    except (msgspec.MsgspecError, RecursionError):
        return False
    # An integer may be one that no timestamp can be: such a line is no entry.
    if set(map(type, stamps)) != {float} or len(stamps) != chunk.count(b"\n"):
        return False
    if stamps[0] <= index.highest < stamps[-1] or not all(a < b for a, b in itertools.pairwise(stamps)):
        return False
    index.size = offset
    index.add_block(Block(stamps[0], stamps[-1], offset, len(chunk), len(stamps)))
    return True


def _scan_lines(index: Index, offset: int, chunk: bytes) -> None:
    start_new = True
    for line in _lines(chunk):
        entry = from_line(line)
        if entry is None:
            index.foreign = index.foreign or bool(line.strip())
            start_new = True
        elif start_new:
            index.size = offset
            index.add_block(Block(entry["timestamp"], entry["timestamp"], offset, len(line), 1))
            start_new = False
        else:
            index.add_line(entry["timestamp"], len(line))
        offset += len(line)


def _lines(chunk: bytes) -> list[bytes]:
    parts = chunk.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
