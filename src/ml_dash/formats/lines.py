"""Lines of `data.jsonl` as columns: lines that look alike together, only the odd ones entry by entry."""

from __future__ import annotations

from collections import Counter

from ..line import from_lines
from .arrow_types import import_pyarrow
from .blocks import Block, TableBuilder
from .regular import parse_alike

MIN_ALIKE = 256
"""Fewer lines of one layout are not worth a pass of their own."""
MAX_LAYOUTS = 32

_VALUES = b"0123456789+-.eE"


def block_of_lines(lines: bytes) -> Block:
    """The columns of whole lines, in the lines' order.

    Args:
        lines: strict JSON objects whose timestamps ascend; lines that are no entry are left out.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    import_pyarrow()
    return _alike(lines) or _by_layout(lines) or Block.of_entries(from_lines(lines))


def _alike(lines: bytes) -> Block | None:
    columns = parse_alike(lines) if lines else None
    return None if columns is None else Block.of_columns(columns)


def _by_layout(text: bytes) -> Block | None:
    """The lines parsed in groups that look alike, and put back into their order; None where hardly any do."""
    lines = [line for line in text.split(b"\n") if line.strip()]
    layouts = text.translate(None, _VALUES).split(b"\n")
    layouts = [layout for layout in layouts if layout.strip()]
    common = [name for name, times in Counter(layouts).most_common(MAX_LAYOUTS) if times >= MIN_ALIKE]
    if len(layouts) != len(lines) or not common:
        return None
    groups: dict[bytes | None, list[int]] = {name: [] for name in [*common, None]}
    for number, layout in enumerate(layouts):
        groups[layout if layout in groups else None].append(number)
    found = sorted((numbers for numbers in groups.values() if numbers), key=lambda numbers: numbers[0])
    return _joined(lines, found)


def _joined(lines: list[bytes], groups: list[list[int]]) -> Block | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    builder = TableBuilder()
    for numbers in groups:
        part = b"\n".join([lines[number] for number in numbers]) + b"\n"
        block = _alike(part) or Block.of_entries(from_lines(part))
        if block.count != len(numbers):
            return None  # some line is no entry, and where it stood is not known any more
        builder.add_block(block)
    places = pa.array([number for numbers in groups for number in numbers])
    return Block.of_table(builder.finish().take(pc.sort_indices(places)))
