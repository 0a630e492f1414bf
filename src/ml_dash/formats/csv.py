"""`csv`: one column for each number, lists and dicts taken apart (`q[0]`, `pose.x`), for spreadsheets.

Text is quoted where it must be, booleans are `true` and `false`, NaN and the infinities `nan`, `inf`, `-inf`. A null
and an absent field are both an empty cell; the other formats keep them apart.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
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
        for entry in block:
            cells = dict(_cells(entry))
            writer.writerow([cells.get(column, "") for column in columns])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def _columns(blocks: Iterable[list[Entry]]) -> list[str]:
    """Every column that occurs, fields in order of appearance, the parts of a field together."""
    fields: dict[str, dict[str, None]] = {"timestamp": {"timestamp": None}}
    for block in blocks:
        for entry in block:
            for name, value in entry.items():
                parts = fields.setdefault(name, {})
                if type(value) not in (list, dict):
                    parts[name] = None
                else:
                    parts.update(dict.fromkeys(part for part, _ in _parts(name, value)))
    return [part for parts in fields.values() for part in parts]


def _cells(entry: Entry) -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        yield from _parts(name, value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) is list and value:
        for number, item in enumerate(value):
            yield from _parts(f"{name}[{number}]", item)
    elif type(value) is dict and value:
        for part, item in value.items():
            yield from _parts(f"{name}.{part}", item)
    else:
        yield name, _cell(value)


def _cell(value: Any) -> Any:
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else value
