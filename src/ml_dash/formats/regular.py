"""Lines that all look alike, parsed as columns: ten times faster than entry by entry.

A track that is logged by one call has one layout: the same fields in the same order, lists of the same lengths. Cut at
its commas, such a line is a row of cells, each a number (or a word) with the same text around it in every line:

    {"timestamp":1.0,"q":[0.1,0.2]}     ->     {"timestamp": 1.0   |   "q":[ 0.1   |   0.2 ]}

Arrow's CSV reader parses the cells at memory speed. What lies around the values is compared, cell by cell, with the
first line's; so every line is, byte for byte, the first one with other values in it, and means what the JSON parser
would say. Whatever does not fit (a null, a text with a comma, one more field) is no column here: the caller then
takes the way entry by entry. The lines must be known to be JSON; the index of the file says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..entry import MAX_EXACT_INT
from ..line import from_line
from .kinds import BOOL, FLOAT, MAX_LEVELS, NULL, TEXT, AnyKind, Integers, Lists, Structs, is_deep

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLES = 16
"""Lines looked at to tell int columns from float ones, and alike lines from mixed ones."""

_NUMBER = re.compile(rb'(.*?)(-?\d[^\s\]}:",]*)([\s\]}]*)', re.DOTALL)
_WORD = re.compile(rb"(.*?)(true|false)([\s\]}]*)", re.DOTALL)
_TEXT = re.compile(rb'(.*?)"([^"\\]*)"([\s\]}]*)', re.DOTALL)
_PATTERNS = {float: _NUMBER, int: _NUMBER, bool: _WORD, str: _TEXT}


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands between two commas: a value of one type, with the same text before and behind it in every line."""

    type: type
    before: bytes
    behind: bytes

    @property
    def is_bare(self) -> bool:
        """Nothing but the value (and blanks, which number parsers skip)."""
        return self.type is not str and not self.before.strip() and not self.behind.strip()


@dataclass(frozen=True, slots=True)
class Column:
    """One field of the lines: its kind and its values; every line has it, and never as null."""

    kind: AnyKind
    values: pa.Array


def parse_alike(lines: bytes) -> dict[str, Column] | None:
    """The columns of lines that are all alike, `timestamp` among them; None where they are not.

    Args:
        lines: whole lines of strict JSON objects, at least one.

    Needs pyarrow and NumPy; None where one of them is missing.
    """
    try:
        import numpy  # noqa: F401
        import pyarrow as pa
    except ImportError:
        return None
    shape = _layout(lines)
    if shape is None:
        return None
    entry, cells = shape
    try:
        arrays = _parse_cells(lines, cells)
    except (pa.ArrowInvalid, _Unlike):
        return None
    return _columns(entry, cells, arrays)


class _Unlike(Exception):
    """The lines do not all have the layout of the first."""


# ---------------------------------------------------------------- the layout: what the first line looks like


def _layout(lines: bytes) -> tuple[dict[str, Any], list[Cell]] | None:
    """The first line's entry and cells, the cells' types settled by a look at lines all over the block."""
    samples = _samples(lines)
    entry, cells = from_line(samples[0]), _cells(samples[0])
    if entry is None or cells is None:
        return None
    for line in samples[1:]:
        other = _cells(line)
        if other is None or len(other) != len(cells):
            return None
        for number, (known, found) in enumerate(zip(cells, other, strict=True)):
            united = _united(known, found)
            if united is None:
                return None
            cells[number] = united
    return entry, cells


def _united(known: Cell, found: Cell) -> Cell | None:
    if known == found:
        return known
    if (known.before, known.behind) == (found.before, found.behind) and {known.type, found.type} == {int, float}:
        return replace(known, type=float)
    return None


def _samples(lines: bytes) -> list[bytes]:
    """The first line and others from all over the block."""
    found = []
    for number in range(SAMPLES):
        start = lines.rfind(b"\n", 0, len(lines) * number // SAMPLES) + 1
        end = lines.find(b"\n", start)
        found.append(lines[start : end if end >= 0 else len(lines)].rstrip(b"\r"))
    return list(dict.fromkeys(line for line in found if line)) or [b""]


def _cells(line: bytes) -> list[Cell] | None:
    """The cells of a line, or None where some value is no plain one, or has a comma in it."""
    entry = from_line(line)
    if entry is None or is_deep(entry, MAX_LEVELS + 1):
        return None
    leaves = _leaves(entry)
    texts = line.split(b",")
    if leaves is None or len(leaves) != len(texts):
        return None
    cells = [_cell(leaf, text) for leaf, text in zip(leaves, texts, strict=True)]
    return None if any(cell is None for cell in cells) else cells  # type: ignore[return-value]


def _leaves(value: Any) -> list[Any] | None:
    """The plain values inside a value, in the order of its text; None where there is an empty list or dict, or null."""
    if type(value) in _PATTERNS:
        return [value]
    if type(value) not in (list, dict) or not value:
        return None
    found: list[Any] = []
    for item in value.values() if type(value) is dict else value:
        leaves = _leaves(item)
        if leaves is None:
            return None
        found += leaves
    return found


def _cell(leaf: Any, text: bytes) -> Cell | None:
    """The cell with this value in it; None where the text does not say the value in so many characters."""
    match = _PATTERNS[type(leaf)].fullmatch(text)
    if match is None:
        return None
    before, said, behind = match.groups()
    kind = int if type(leaf) is float and said.lstrip(b"-").isdigit() else type(leaf)  # the timestamp may be an int
    return Cell(kind, before, behind) if _says(leaf, said) else None


def _says(leaf: Any, said: bytes) -> bool:
    if type(leaf) is str:
        return said == leaf.encode()
    return said == {True: b"true", False: b"false"}[leaf] if type(leaf) is bool else float(said) == leaf


# ---------------------------------------------------------------- cells to arrays


def _parse_cells(lines: bytes, cells: Sequence[Cell]) -> list[pa.Array]:
    """One array for each cell; raises ArrowInvalid or _Unlike where a line has another layout."""
    import pyarrow as pa

    names = [str(number) for number in range(len(cells))]
    types = [_arrow_type(cell.type) if cell.is_bare else pa.binary() for cell in cells]
    table = _read_csv(lines, names, types)
    arrays = [table.column(name).combine_chunks() for name in names]
    return [array if cell.is_bare else _take_out(array, cell) for cell, array in zip(cells, arrays, strict=True)]


def _arrow_type(kind: type) -> pa.DataType:
    import pyarrow as pa

    return {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}[kind]


def _read_csv(text: bytes, names: list[str], types: list[pa.DataType]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    return csv.read_csv(
        pa.BufferReader(text),
        # One thread: as fast on two cores that others use too, and never in the way of a control loop.
        csv.ReadOptions(column_names=names, block_size=1 << 20, use_threads=False),
        csv.ParseOptions(quote_char=False),
        csv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            null_values=[],
            true_values=["true"],
            false_values=["false"],
            check_utf8=False,
        ),
    )


def _take_out(texts: pa.Array, cell: Cell) -> pa.Array:
    """The values of cells that have the same text around them in every line."""
    import pyarrow as pa
    import pyarrow.compute as pc

    quote = b'"' if cell.type is str else b""
    before, behind = cell.before + quote, quote + cell.behind
    if not (_all(pc.starts_with(texts, before)) and _all(pc.ends_with(texts, behind))):
        raise _Unlike
    if pc.min(pc.binary_length(texts)).as_py() < len(before) + len(behind):
        raise _Unlike
    values = pc.binary_replace_slice(texts, 0, len(before), b"") if before else texts
    values = pc.binary_replace_slice(values, -len(behind), 1 << 30, b"") if behind else values
    values = values.cast(pa.string())
    if cell.type is str:
        return _unescaped(values)
    return _as_bools(values) if cell.type is bool else values.cast(_arrow_type(cell.type))


def _unescaped(values: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(values, r'["\\]')).as_py():
        raise _Unlike
    return values


def _as_bools(values: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    found = pc.equal(values, "true")
    if not _all(pc.or_(found, pc.equal(values, "false"))):
        raise _Unlike
    return found


def _all(flags: pa.Array) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(flags).as_py())


# ---------------------------------------------------------------- arrays to columns


def _columns(entry: dict[str, Any], cells: Sequence[Cell], arrays: list[pa.Array]) -> dict[str, Column] | None:
    """The fields of the first line's entry, filled with the values of all lines."""
    if not all(_is_exact(cell, array) for cell, array in zip(cells, arrays, strict=True)):
        return None
    found = assemble(entry, zip((cell.type for cell in cells), arrays, strict=True))
    if found is None:
        return None
    stamps = found["timestamp"]
    if stamps.kind is not FLOAT:
        import pyarrow as pa

        found["timestamp"] = Column(FLOAT, stamps.values.cast(pa.float64()))
    return found


Leaf = tuple[type, Any]
"""The type of one plain value inside an entry, and the array of its values over all entries."""


def assemble(entry: dict[str, Any], leaves: Iterable[Leaf]) -> dict[str, Column] | None:
    """The fields of an entry that stands for all, filled with the values of all.

    Args:
        entry: no list of it is empty, nor any dict.
        leaves: one for each of its plain values, in their order; None is one only outside of lists.

    Returns:
        None where a list holds anything but numbers, or is no regular array of them.
    """
    feed = iter(leaves)
    found: dict[str, Column] = {}
    for name, value in entry.items():
        column = _assemble(value, feed)
        if column is None:
            return None
        found[name] = column
    return found


def _is_exact(cell: Cell, array: pa.Array) -> bool:
    """Whether no integer may have lost digits, and no number was too large."""
    if cell.type is not float:
        return True
    import pyarrow.compute as pc

    bounds = pc.min_max(array)
    return bool(bounds["min"].as_py() > -MAX_EXACT_INT and bounds["max"].as_py() < MAX_EXACT_INT)


def _assemble(value: Any, feed: Iterator[Leaf]) -> Column | None:
    if type(value) is list:
        return _assemble_list(value, feed)
    if type(value) is dict:
        return _assemble_struct(value, feed)
    leaf, array = next(feed)
    return Column(_kind(leaf, array), array)


def _kind(leaf: type, array: pa.Array) -> AnyKind:
    if leaf is not int:
        return {float: FLOAT, bool: BOOL, str: TEXT, type(None): NULL}[leaf]
    import pyarrow.compute as pc

    bounds = pc.min_max(array).as_py()
    return Integers(bounds["min"], bounds["max"])


def _assemble_struct(value: dict[str, Any], feed: Iterator[Leaf]) -> Column | None:
    import pyarrow as pa

    parts = [_assemble(item, feed) for item in value.values()]
    if any(part is None for part in parts):
        return None
    sound = [part for part in parts if part is not None]
    fields = tuple((name, part.kind) for name, part in zip(value, sound, strict=True))
    return Column(Structs(fields), pa.StructArray.from_arrays([part.values for part in sound], names=list(value)))


def _assemble_list(value: list[Any], feed: Iterator[Leaf]) -> Column | None:
    """A list of numbers, also nested, as fixed-size lists; None for lists of anything else."""
    import numpy as np
    import pyarrow as pa

    shape = _shape(value)
    if shape is None:
        return None
    parts = [next(feed) for _ in range(int(np.prod(shape)))]
    types = {leaf for leaf, _ in parts}
    if not types <= {int, float}:
        return None
    kind = FLOAT if float in types else _widest(parts)
    numbers = np.empty((len(parts[0][1]), len(parts)), np.float64 if kind is FLOAT else np.int64)
    for number, (_, array) in enumerate(parts):
        numbers[:, number] = array.to_numpy()
    if kind is FLOAT and int in types and float(np.max(np.abs(numbers))) >= MAX_EXACT_INT:
        return None
    values = pa.array(numbers.reshape(-1))
    for size in reversed(shape):
        kind, values = Lists(kind, size), pa.FixedSizeListArray.from_arrays(values, size)
    return Column(kind, values)


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a nested list; None where its parts differ in shape, or hold dicts."""
    if type(value) is not list:
        return None if type(value) is dict else ()
    shapes = {_shape(item) for item in value}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(value), *inner)


def _widest(parts: list[Leaf]) -> AnyKind:
    bounds = [_kind(leaf, array) for leaf, array in parts]
    integers = [kind for kind in bounds if isinstance(kind, Integers)]
    return Integers(min(kind.low for kind in integers), max(kind.high for kind in integers))
