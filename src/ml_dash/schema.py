"""Type names of columns as `tracks.list()` shows them: "float", "list[float; 7]", "dict", joined by " | "."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from .store import Entry

_NAMES = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", type(None): "null"}


MAX_DEPTH = 8
"""Lists inside lists inside lists are named so far down; append takes hundreds of levels."""


def type_name(value: Any, depth: int = 1) -> str:
    """The name of one value's type; a list names its elements' type and its length."""
    if type(value) is not list:
        return _NAMES.get(type(value), type(value).__name__)
    if not value:
        return "list[; 0]"
    if depth > MAX_DEPTH:
        return "list[...]"
    return f"list[{_element({type_name(item, depth + 1) for item in value})}; {len(value)}]"


def observe(seen: dict[str, set[str]], entries: Iterable[Entry]) -> None:
    """Add the types that occur in the entries to what was seen of each field."""
    columns: dict[str, list[Any]] = {}
    for entry in entries:
        for name, value in entry.items():
            values = columns.get(name)
            if values is None:
                values = columns[name] = []
            values.append(value)
    for name, values in columns.items():
        seen.setdefault(name, set()).update(types_in(values))


def types_in(values: Sequence[Any]) -> set[str]:
    """The type names that occur in a column; lists of one plain type without looking at each list alone."""
    kinds = set(map(type, values))
    found = {_NAMES.get(kind, kind.__name__) for kind in kinds if kind is not list}
    if list in kinds:
        found |= _list_types(values if len(kinds) == 1 else [value for value in values if type(value) is list])
    return found


def _list_types(lists: Sequence[list[Any]]) -> set[str]:
    inner = set(map(type, chain.from_iterable(lists)))
    if len(inner) > 1 or list in inner:
        return set(map(type_name, lists))
    element = "".join(_NAMES.get(kind, kind.__name__) for kind in inner)
    return {f"list[{element if size else ''}; {size}]" for size in set(map(len, lists))}


def summary(seen: dict[str, set[str]], fixed: Sequence[str] = ("timestamp",)) -> dict[str, str]:
    """Each field but the fixed ones with the types it had, lists of several lengths as `list[float; ...]`."""
    return {name: _joined(types) for name, types in seen.items() if name not in fixed}


def _joined(types: set[str]) -> str:
    lists = {name for name in types if name.startswith("list[")}
    if len(lists) > 1:
        types = (types - lists) | {_joined_lists(lists)}
    return " | ".join(sorted(types))


def _joined_lists(names: set[str]) -> str:
    """One name for several lists; the length stays where they have the same."""
    parts = [name[5:-1].rpartition("; ") for name in names]
    elements, lengths = {element for element, _, _ in parts if element}, {length for _, _, length in parts}
    return f"list[{_element(elements)}; {lengths.pop() if len(lengths) == 1 else '...'}]"


def _element(types: set[str]) -> str:
    """The one name for all elements of a list, or "any"."""
    joined = "float" if types == {"int", "float"} else _joined(types)
    return "any" if " | " in joined else joined


def describe(entries: Iterable[Entry], fixed: Sequence[str] = ("timestamp",)) -> dict[str, str]:
    """The type name of each field over all entries."""
    seen: dict[str, set[str]] = {}
    observe(seen, entries)
    return summary(seen, fixed)
