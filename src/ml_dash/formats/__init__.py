"""The formats `read(format=...)` knows: one file each, one table here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ..errors import InvalidWindow
from ..store import Entry

Blocks = Iterator[list[Entry]]

FORMATS = {"json": "json", "jsonl": "json", "parquet": "parquet", "mocap": "mocap", "csv": "csv"}
"""From a format's name to the module here with its function `to_<name>`; loaded when it is asked for."""


def check_format(name: object) -> Callable[[str, Blocks], Any]:
    """The function that makes a format of a topic and its blocks of ascending entries.

    Raises:
        InvalidWindow: no known format; the error names those.
    """
    module = FORMATS.get(name) if isinstance(name, str) else None
    if module is None:
        raise InvalidWindow(f"unknown format {name!r}; known are {', '.join(map(repr, FORMATS))}")
    made: Callable[[str, Blocks], Any] = getattr(import_module(f".{module}", __name__), f"to_{name}")
    return made
