"""Runs of entries gathered into parts: so many entries, so many bytes, whatever the runs were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from ..store import MERGED, Entry
from .segments import MAX_FIELDS, Header, encode_entries, field_types, united_types
from .undecoded import Kept, Packed, Run, TableRows, ends, part_of
from .uniform import Alike, array_head, array_items, continues, joined

PART_BYTES = 16 << 20
"""Entries of one part, in msgpack; what was decoded together may go beyond it."""
BLOCK_ENTRIES, BLOCK_BYTES = 8192, 1 << 19
"""Small runs are joined up to here, so that what becomes columns is long."""


def parts_of(kind: str, runs: Iterable[Run], entries: int) -> Iterator[Part]:
    """All entries of some runs, a part at a time.

    Args:
        runs: ascending; those of a sequence under their indices.
        entries: the most entries of a part.
    """
    part = Part(kind)
    for run in runs:
        while len(run):
            taken = part.room(run, entries)
            if not taken:
                yield part
                part = Part(kind)
                continue
            part.add(part_of(run, 0, taken))
            run = part_of(run, taken, len(run))
    if part.count:
        yield part


class Part:
    """Entries that become one body, and what its header says of them."""

    def __init__(self, kind: str) -> None:
        self.count, self.raw = 0, 0
        self._kind, self._blocks, self._pending = kind, list[Kept](), list[Kept]()
        self._ends, self._stamps, self._fields = list[float](), list[float](), list[list[str]]()

    def room(self, run: Run, entries: int) -> int:
        """How many entries of a run this part takes; one at least where it has none."""
        left = PART_BYTES - self.raw
        fitting = len(run) if isinstance(run, list) else left // run.entry_bytes
        found = min(len(run), entries - self.count, fitting) if left > 0 else 0
        return found if self.count else max(found, 1)

    def add(self, run: Run) -> None:
        """Add entries that come after all others."""
        self._ends += ends(run)
        self.count += len(run)
        if isinstance(run, list):
            self._hold(self._packed(run))
        else:
            self._hold(run)

    def _packed(self, run: list[Entry]) -> Packed:
        plain = run if self._kind == MERGED else [entry["entry"] for entry in run]
        self._fields.append(field_types(plain, limit=None) or [])
        if self._kind != MERGED:
            self._stamps += [entry["timestamp"] for entry in plain]
            self._stamps = [min(self._stamps), max(self._stamps)]
        return Packed(len(plain), encode_entries(plain))

    def _hold(self, block: Kept) -> None:
        """Wait for blocks that this one can be joined with."""
        size = _size(block)
        self.raw += size
        if not self._pending or not _follows(self._pending[-1], block) or self._is_long():
            self._settle()
            if not isinstance(block, Packed):
                self._fields.append(field_types(block.part(0, 1).entries(), limit=None) or [])
        self._pending.append(block)

    def _is_long(self) -> bool:
        return sum(map(len, self._pending)) >= BLOCK_ENTRIES or sum(map(_size, self._pending)) >= BLOCK_BYTES

    def _settle(self) -> None:
        if self._pending:
            self._blocks.append(_joined(self._pending))
            self._pending = []

    def blocks(self) -> list[Kept]:
        """The entries, in few blocks."""
        self._settle()
        return self._blocks

    def header(self) -> Header:
        """The header fields that follow from the entries."""
        types = united_types(self._fields)
        fields = None if len(types) > MAX_FIELDS else list(chain.from_iterable(types.items()))
        found: Header = {"n": self.count, "f": fields, "lo": self._ends[0], "hi": self._ends[-1]}
        return found if self._kind == MERGED else {**found, "a": self._stamps[0], "z": self._stamps[-1]}

    def encoded(self) -> bytes:
        """The entries as one msgpack array."""
        return array_head(self.count) + b"".join(array_items(_array(block)) for block in self.blocks())


def _size(block: Kept) -> int:
    return len(block.raw) if isinstance(block, Packed) else len(block) * block.entry_bytes


def _follows(one: Kept, other: Kept) -> bool:
    """Whether two blocks can be joined."""
    if isinstance(one, Alike) and isinstance(other, Alike):
        return continues(one, other)
    return isinstance(one, Packed) and isinstance(other, Packed)


def _joined(blocks: list[Kept]) -> Kept:
    same = [block for block in blocks if isinstance(block, Alike)]
    if same or len(blocks) == 1:
        return joined(same) if same else blocks[0]
    count = sum(map(len, blocks))
    return Packed(count, array_head(count) + b"".join(array_items(_array(block)) for block in blocks))


def _array(block: Kept) -> bytes:
    """The entries as a msgpack array."""
    if isinstance(block, Packed):
        return block.raw
    return encode_entries(block.entries()) if isinstance(block, TableRows) else block.encoded(0, len(block))
