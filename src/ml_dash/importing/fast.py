"""Plain tables of text read by Arrow, about ten times as fast as by Python, where the result is the same.

What is not plain (quotes, comments or blank lines between the rows, numbers written in ways only one of the two knows,
or too large for floats) and what is wrong is left to `text.py`, which knows the exact meaning and names the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..entry import MAX_EXACT_INT
from .model import ABSENT, Advance, Frame

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 << 20
_BOOLS = {"true_values": ["true", "True", "TRUE"], "false_values": ["false", "False", "FALSE"]}
_NOT_PLAIN = (b'"', b"0x", b"0X", b"n(", b"N(", b"\0")
"""Quotes; numbers that Arrow reads (0x1F, nan(7)) and Python does not."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table's cells are: the lines before the first row, the sign between cells, each column's kind."""

    path: Path
    head_lines: int
    separator: str
    kinds: Mapping[str, type]
    missing: tuple[str, ...]


class PlainTable:
    """A table that Arrow can read; made by `plain_table`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.kinds = dict(layout.kinds)
        self.rows = 0

    def learn(self) -> bool:
        """Read the whole table, integers becoming floats where a cell needs it; False where it is not plain."""
        import pyarrow as pa

        self.rows = _rows_if_plain(self._layout)
        for _ in range(1 + sum(kind is int for kind in self.kinds.values())):
            try:
                batches = self._batches()
                counts = [batch.num_rows for batch in batches if self._is_exact(batch)]
                return bool(0 < self.rows == sum(counts))
            except pa.ArrowInvalid as error:
                if not self._widened(str(error)):
                    return False
            except (pa.ArrowException, OSError):
                return False
        return False

    def _widened(self, error: str) -> bool:
        """Whether it was a fraction in a column of integers, which now holds floats."""
        found = re.match(r"In CSV column #(\d+): CSV conversion error to int64: invalid value '(.*)'", error)
        if found is None or re.fullmatch(r"\s*[+-]?\d+\s*", found[2]):
            return False
        self.kinds[list(self.kinds)[int(found[1])]] = float
        return True

    def _is_exact(self, batch: pa.RecordBatch) -> bool:
        """Whether nothing in it needs a second look: no float so large that it may have been an integer."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for array in batch.columns:
            if pa.types.is_floating(array.type):
                finite = array.filter(pc.invert(pc.is_nan(array)))
                bounds = pc.min_max(finite).as_py()
                if bounds["min"] is not None and max(-bounds["min"], bounds["max"]) >= MAX_EXACT_INT:
                    return False
            elif pa.types.is_string(array.type) and pc.any(pc.starts_with(array, "#")).as_py():
                return False
        return True

    def _batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv

        layout = self._layout
        types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
        reader = csv.open_csv(
            layout.path,
            csv.ReadOptions(column_names=list(self.kinds), skip_rows=layout.head_lines, block_size=BLOCK_BYTES),
            csv.ParseOptions(delimiter=layout.separator, quote_char=False, ignore_empty_lines=True),
            csv.ConvertOptions(
                column_types={name: types[kind] for name, kind in self.kinds.items()},
                null_values=["", *layout.missing],
                strings_can_be_null=False,
                **_BOOLS,
            ),
        )
        with reader:
            yield from reader

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The rows, typed, a few megabytes at a time."""
        size, told, first = self._layout.path.stat().st_size, 0, 0
        for batch in self._batches():
            columns = {name: self._values(batch.column(name)) for name in self.kinds}
            start = first + self._layout.head_lines + 1
            yield Frame(batch.num_rows, columns, lambda row, start=start: f"line {start + row}")  # type: ignore[misc]
            first += batch.num_rows
            done = size * first // self.rows
            advance(done - told)
            told = done

    def _values(self, array: pa.Array) -> Sequence[Any]:
        """NumPy where every row has a number, else a list with ABSENT where there is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_string(array.type):
            none = {"", *self._layout.missing}
            return [ABSENT if cell in none else cell for cell in pc.utf8_trim_whitespace(array).to_pylist()]
        if array.null_count:
            return [ABSENT if value is None else value for value in array.to_pylist()]
        return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def plain_table(layout: Layout, advance: Advance) -> PlainTable | None:
    """The table as Arrow reads it; None where pyarrow or NumPy are not installed, or it is not plain."""
    try:
        import numpy  # noqa: F401
        import pyarrow.csv  # noqa: F401
    except ImportError:
        return None
    table = PlainTable(layout)
    if not table.learn():
        return None
    advance(layout.path.stat().st_size)
    return table


def _rows_if_plain(layout: Layout) -> int:
    """The number of lines behind the head; 0 where something in the file is not plain."""
    lines, last, tail = 0, b"\n", b""
    with open(layout.path, "rb") as file:
        for _ in range(layout.head_lines):
            file.readline()
        while piece := file.read(BLOCK_BYTES):
            if any(sign in tail + piece for sign in _NOT_PLAIN):
                return 0
            lines += piece.count(b"\n")
            last, tail = piece[-1:], piece[-2:]
    return lines + (last != b"\n")
