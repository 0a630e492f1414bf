"""Type names of columns as `tracks.list()` shows them: "float", "list[float; 7]", "dict", joined by " | "."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .store import Entry

_NAMES = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", type(None): "null"}


def type_name(value: Any) -> str:
    """The name of one value's type; a list names its elements' type and its length."""
    if type(value) is not list:
        return _NAMES.get(type(value), type(value).__name__)
    inner = sorted({type_name(item) for item in value})
    if inner == ["float", "int"]:
        inner = ["float"]
    element = inner[0] if len(inner) == 1 else "any"
    return f"list[{element}; {len(value)}]" if value else "list[; 0]"


def observe(seen: dict[str, set[str]], entries: Iterable[Entry]) -> None:
    """Add the types that occur in the entries to what was seen of each field."""
    for entry in entries:
        for name, value in entry.items():
            names = seen.get(name)
            if names is None:
                names = seen[name] = set()
            names.add(type_name(value))


def summary(seen: dict[str, set[str]], fixed: Sequence[str] = ("timestamp",)) -> dict[str, str]:
    """Each field but the fixed ones with the types it had, lists of several lengths as `list[float; ...]`."""
    return {name: _joined(types) for name, types in seen.items() if name not in fixed}


def _joined(types: set[str]) -> str:
    lists = sorted(name for name in types if name.startswith("list["))
    if len(lists) > 1:
        elements = {name[5:].split(";")[0] for name in lists if name != "list[; 0]"}
        if elements == {"int", "float"}:
            elements = {"float"}
        element = elements.pop() if len(elements) == 1 else "any"
        types = (types - set(lists)) | {f"list[{element}; ...]"}
    return " | ".join(sorted(types))


def describe(entries: Iterable[Entry], fixed: Sequence[str] = ("timestamp",)) -> dict[str, str]:
    """The type name of each field over all entries."""
    seen: dict[str, set[str]] = {}
    observe(seen, entries)
    return summary(seen, fixed)
