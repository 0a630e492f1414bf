"""Tables as text: CSV with any separator, TUM, EuRoC. Read in pieces, typed by column, errors named by line.

A column is what its first cell is: a number (integers become floats where a later cell needs it), `true` or `false`, or
text. A later cell that is something else is an error, because it is most likely a broken row.
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..entry import MAX_EXACT_INT
from ..errors import InvalidFile
from .fast import Layout, PlainTable, plain_table
from .model import ABSENT, Advance, Frame, Options

ROWS = 20_000
PLAIN_FROM_BYTES = 1 << 20
"""Smaller files are not worth the import of Arrow."""
TUM = ("timestamp", "tx", "ty", "tz", "qx", "qy", "qz", "qw")
SEPARATORS = (",", ";", "\t", "|")
_BOOLS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}

_WHOLE = re.compile(r"\s*[+-]?\d+\s*")

csv.field_size_limit(8 << 20)


class TextTable:
    """A text file of rows.

    Raises:
        InvalidFile: it is empty, no UTF-8 text, or has rows that do not fit the first.
    """

    units: Mapping[str, str] = {}
    left_out: Sequence[str] = ()

    def __init__(self, path: Path, options: Options) -> None:
        self.path, self._options = path, options
        head = list(islice(self._lines(lambda size: None), 200))
        self._comment, first = _first_row(head, path)
        self._separator = _separator(first)
        try:
            cells = self._split([first])[0]
        except csv.Error as error:
            raise InvalidFile(f"{path}: the first line of the table cannot be read: {error}") from None
        self._has_head = any(_number(cell) is None and cell.strip() not in ("", *options.missing) for cell in cells)
        self.names = self._names(cells)
        self.format = options.format or _format_of(self.names, self._separator, self._has_head)
        self._kinds: dict[str, type] = {}
        self._largest: dict[str, int] = {}
        self._settled = False
        self._plain: PlainTable | None = None
        self._head = head

    def _names(self, cells: Sequence[str]) -> list[str]:
        if self._has_head:
            names = [cell.strip() for cell in cells]
        else:
            said = self._said(self._comment)
            usual: Sequence[str] = TUM if len(cells) == len(TUM) and self._separator is None else ()
            names = [name.strip() for name in (said if len(said) == len(cells) else usual)]
            names = names or [f"column_{number}" for number in range(1, len(cells) + 1)]
        names[0] = names[0].lstrip("#").strip()
        names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InvalidFile(f"{self.path}: two columns are called {sorted(twice)[0]!r}")
        return names

    def _said(self, comment: str) -> list[str]:
        """The names in the comment before the table, if it is one of names."""
        try:
            return self._split([comment])[0] if comment else []
        except csv.Error:
            return []

    # -------------------------------------------------------------- lines and cells

    def _lines(self, advance: Advance) -> Iterator[tuple[int, str]]:
        """The lines with their numbers, blank ones left out."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                read = 0
                for number, line in enumerate(file, 1):
                    read += len(line)
                    if number % 4096 == 0:
                        advance(read)
                        read = 0
                    if line.strip():
                        yield number, line
                advance(read)
        except UnicodeDecodeError as error:
            raise InvalidFile(f"{self.path} is no UTF-8 text (byte {error.start})") from None

    def _split(self, lines: Iterable[str]) -> list[list[str]]:
        """Raises csv.Error for quotes that are not closed, or not around the whole cell."""
        if self._separator is None:
            return [line.split() for line in lines]
        return list(csv.reader(lines, delimiter=self._separator, skipinitialspace=True, strict=True))

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The rows, typed; the first time the whole file is read before, to know each column's kind."""
        if not self._settled:
            self._settle(advance)
        if self._plain is not None:
            yield from self._plain.frames(advance)
            return
        for numbers, rows in self._pieces(advance):
            columns = zip(self.names, zip(*rows, strict=True), strict=True)
            typed = {name: self._typed(name, cells) for name, cells in columns}
            yield Frame(len(rows), typed, lambda row, numbers=numbers: f"line {numbers[row]}")  # type: ignore[misc]

    def _settle(self, advance: Advance) -> None:
        layout = self._layout()
        self._plain = None if layout is None else plain_table(layout, advance)
        if self._plain is None:
            for numbers, rows in self._pieces(advance):
                for name, cells in zip(self.names, zip(*rows, strict=True), strict=True):
                    self._learn(name, cells, numbers)
        self._settled = True

    def _layout(self) -> Layout | None:
        """Where the cells are, as far as the first lines tell; None where some column's kind does not show there."""
        place = next(place for place, (_, line) in enumerate(self._head) if not line.startswith("#"))
        place += self._has_head
        lines = [line for _, line in self._head[place:]]
        if self.path.stat().st_size < PLAIN_FROM_BYTES or '"' in "".join(lines):
            return None
        rows = self._split(lines)
        if not rows or set(map(len, rows)) != {len(self.names)}:
            return None
        kinds: dict[str, type] = {}
        for name, cells in zip(self.names, zip(*rows, strict=True), strict=True):
            first = next((cell for cell in cells if not self._missing(cell)), None)
            if first is None:
                return None
            kinds[name] = str if name in self._options.text else self._kind(name, first)
        return Layout(self.path, self._head[place][0] - 1, self._separator or " ", kinds, self._options.missing)

    def _pieces(self, advance: Advance) -> Iterator[tuple[array[int], list[list[str]]]]:
        """Line numbers and cells of some rows at a time."""
        lines = ((number, line) for number, line in self._lines(advance) if not line.startswith("#"))
        if self._has_head:
            next(lines, None)
        while piece := list(islice(lines, ROWS)):
            numbers = array("q", [number for number, _ in piece])
            try:
                rows = self._split([line for _, line in piece])
            except csv.Error as error:
                raise self._unreadable(piece, error) from None
            self._check_widths(rows, numbers)
            yield numbers, rows

    def _unreadable(self, piece: Sequence[tuple[int, str]], error: csv.Error) -> InvalidFile:
        """The line whose quotes are wrong, or whose cell is too long."""
        for number, line in piece:
            try:
                self._split([line])
            except csv.Error as own:
                reason = "a quote is not closed" if "end of data" in str(own) else str(own)
                return InvalidFile(f"{self.path}: line {number}: {reason}")
        return InvalidFile(f"{self.path}: lines {piece[0][0]} to {piece[-1][0]}: {error}")

    def _check_widths(self, rows: list[list[str]], numbers: array[int]) -> None:
        wanted = len(self.names)
        if len(rows) == len(numbers) and set(map(len, rows)) <= {wanted}:
            return
        for row, number in zip(rows, numbers, strict=False):
            if len(row) != wanted:
                raise InvalidFile(f"{self.path}: line {number} has {len(row)} cells, the table has {wanted} columns")
        raise InvalidFile(f"{self.path}: a cell in lines {numbers[0]} to {numbers[-1]} goes over several lines")

    # -------------------------------------------------------------- kinds

    def _missing(self, cell: str) -> bool:
        return not cell.strip() or cell.strip() in self._options.missing

    def _parsed(self, kind: type, cells: Sequence[str]) -> list[Any] | None:
        """The cells' values, ABSENT where one is missing; None where some are of another kind."""
        if kind is str:
            return [ABSENT if self._missing(cell) else cell.strip() for cell in cells]
        if kind is not bool and "_" in "".join(cells):  # Python reads 1_000 as a number
            return None
        parse = _PARSERS[kind]
        try:
            return list(map(parse, cells))
        except ValueError:
            pass
        try:
            return [ABSENT if self._missing(cell) else parse(cell) for cell in cells]
        except ValueError:
            return None

    def _learn(self, name: str, cells: Sequence[str], numbers: array[int]) -> None:
        """Settle or widen the column's kind by some more of its cells."""
        kind = self._kinds.get(name)
        if kind is None:
            first = next((cell for cell in cells if not self._missing(cell)), None)
            if first is None:
                return
            kind = self._kinds[name] = str if name in self._options.text else self._kind(name, first)
        values = self._parsed(kind, cells)
        if kind is int and values is None:
            kind = self._kinds[name] = float
            values = self._parsed(float, cells)
        if values is None:
            raise self._turned(name, kind, cells, numbers)
        self._check_digits(name, kind, cells, values)

    def _kind(self, name: str, cell: str) -> type:
        """What the first cell says; poses are floats also where the first of them are whole."""
        kind = _kind(cell)
        is_pose = self.format in ("tum", "euroc") and name != self.names[0]
        return float if kind is int and is_pose else kind

    def _check_digits(self, name: str, kind: type, cells: Sequence[str], values: Sequence[Any]) -> None:
        """Integers that would lose digits are an error, never rounded."""
        if kind is int:
            whole = [abs(value) for value in values if value is not ABSENT]
            self._largest[name] = max(self._largest.get(name, 0), max(whole, default=0))
            limit, what = 1 << 63, "64 bits"
        elif kind is float:
            if _all_small(values) and self._largest.get(name, 0) < MAX_EXACT_INT:
                return
            large = [c for c, v in zip(cells, values, strict=True) if v is not ABSENT and abs(v) >= MAX_EXACT_INT]
            whole = [MAX_EXACT_INT for cell in large if _WHOLE.fullmatch(cell) or _overflows(cell)]
            self._largest[name] = max(self._largest.get(name, 0), max(whole, default=0))
            limit, what = MAX_EXACT_INT, "what floats hold"
        else:
            return
        if self._largest[name] >= limit:
            raise InvalidFile(f"{self.path}: column {name!r} has integers beyond {what}; keep it as text (--text)")

    def _turned(self, name: str, kind: type, cells: Sequence[str], numbers: array[int]) -> InvalidFile:
        was = "true or false" if kind is bool else "numbers"
        for number, cell in zip(numbers, cells, strict=True):
            if self._parsed(kind, [cell]) is None:
                return InvalidFile(
                    f"{self.path}: column {name!r} holds {was} up to line {number}, which has {cell.strip()!r}; "
                    f"mend the row, or call that cell missing (--missing), or the column text (--text)"
                )
        return InvalidFile(f"{self.path}: column {name!r} holds something else than {was}")

    def _typed(self, name: str, cells: Sequence[str]) -> list[Any]:
        values = self._parsed(self._kinds.get(name, str), cells)
        if values is None:
            raise InvalidFile(f"{self.path} changed while it was read")
        return values


def _overflows(cell: str) -> bool:
    """Whether a number was written that only infinity is left of: 1e400."""
    return math.isinf(float(cell)) and "n" not in cell.lower()


def _all_small(values: Sequence[Any]) -> bool:
    """Whether it takes no look at each number to know that none is large."""
    try:
        return bool(min(values) > -MAX_EXACT_INT and max(values) < MAX_EXACT_INT)
    except TypeError:  # some are absent
        return False


def _first_row(lines: list[tuple[int, str]], path: Path) -> tuple[str, str]:
    """The last comment before the table (without its sign) and the first line of the table."""
    comment = ""
    for _, line in lines:
        if not line.startswith("#"):
            return comment, line
        comment = line.lstrip("#").strip()
    raise InvalidFile(f"{path} has no rows")


def _separator(line: str) -> str | None:
    """What separates the cells: the commonest of the usual signs, or white space (None)."""
    counts = {sign: line.count(sign) for sign in SEPARATORS}
    best = max(counts, key=lambda sign: counts[sign])
    return best if counts[best] else None


def _format_of(names: list[str], separator: str | None, has_head: bool) -> str:
    if separator is None and not has_head and len(names) == len(TUM) and tuple(names)[1:] == TUM[1:]:
        return "tum"
    if separator == "," and re.match(r"timestamp\s*(\[ns\])?$", names[0]) and any("_RS" in name for name in names):
        return "euroc"
    return "csv"


def _bool(cell: str) -> bool:
    try:
        return _BOOLS[cell.strip()]
    except KeyError:
        raise ValueError(cell) from None


_PARSERS: dict[type, Any] = {int: int, float: float, bool: _bool}


def _number(cell: str) -> float | None:
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _kind(cell: str) -> type:
    if cell.strip() in _BOOLS:
        return bool
    if _number(cell) is None:
        return str
    return int if _WHOLE.fullmatch(cell) else float
