"""`csv`: one column for each number, lists and dicts taken apart (`q[0]`, `pose.x`), for spreadsheets.

Text is quoted where it must be, booleans are `true` and `false`, NaN and the infinities `nan`, `inf`, `-inf`. A null
and an absent field are both an empty cell; the other formats keep them apart.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from ..store import Entry

Blocks = Iterator[list[Entry]]


def to_csv(topic: str, blocks: Blocks) -> bytes:
    """A head line with the columns and a line for each entry, ascending; the timestamp in seconds comes first."""
    kept = list(blocks)
    return b"".join(csv_chunks(lambda: iter(kept)))


def csv_chunks(read: Callable[[], Iterable[list[Entry]]]) -> Iterator[bytes]:
    """The same a block at a time: `read` is called twice, for the columns and for the values."""
    columns = _columns(read())
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for block in read():
        parts = dict(_parts_of(block))
        writer.writerows(zip(*(parts.get(column) or repeat(None, len(block)) for column in columns), strict=True))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def _columns(blocks: Iterable[list[Entry]]) -> list[str]:
    """Every column that occurs, fields in order of appearance, the parts of a field together."""
    fields: dict[str, dict[str, None]] = {}
    for block in blocks:
        for name, values in _fields(block).items():
            fields.setdefault(name, {}).update((part, None) for part, _ in _parts(name, values))
    return [part for parts in fields.values() for part in parts] or ["timestamp"]


def _fields(block: list[Entry]) -> dict[str, list[Any]]:
    """The block by fields; None where an entry lacks one."""
    names = dict.fromkeys(name for layout in dict.fromkeys(map(tuple, block)) for name in layout)
    return {name: [entry.get(name) for entry in block] for name in names}


def _parts_of(block: list[Entry]) -> Iterator[tuple[str, Sequence[Any]]]:
    for name, values in _fields(block).items():
        yield from _parts(name, values)


def _parts(name: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """A column taken apart until every value of a part fits a cell."""
    kinds = set(map(type, values))
    if not kinds & {list, dict, bool}:
        yield name, values
        return
    plain = [_cell(value) for value in values]
    if any(value is not None for value in plain) or kinds <= {bool, type(None)}:
        yield name, plain
    for number in range(max((len(value) for value in values if type(value) is list), default=0)):
        items = [value[number] if type(value) is list and len(value) > number else None for value in values]
        yield from _parts(f"{name}[{number}]", items)
    for key in dict.fromkeys(key for value in values if type(value) is dict for key in value):
        yield from _parts(f"{name}.{key}", [value.get(key) if type(value) is dict else None for value in values])


def _cell(value: Any) -> Any:
    """What the cell of a value that is no list or dict holds."""
    if type(value) is bool:
        return "true" if value else "false"
    return None if type(value) in (list, dict) else value
