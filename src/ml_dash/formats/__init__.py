"""The formats `read(format=...)` knows: one file each, one table here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InvalidWindow
from ..store import Entry
from .csv import to_csv
from .json import to_json, to_jsonl
from .mocap import to_mocap
from .parquet import to_parquet

Blocks = Iterator[list[Entry]]

FORMATS: dict[str, Callable[[str, Blocks], Any]] = {
    "json": to_json,
    "jsonl": to_jsonl,
    "parquet": to_parquet,
    "mocap": to_mocap,
    "csv": to_csv,
}
"""From a format's name to the function that makes it of a topic and its blocks of ascending entries."""


def check_format(name: object) -> Callable[[str, Blocks], Any]:
    """The function of a format; raises InvalidWindow naming the known ones."""
    known = FORMATS.get(name) if isinstance(name, str) else None
    if known is None:
        raise InvalidWindow(f"unknown format {name!r}; known are {', '.join(map(repr, FORMATS))}")
    return known
