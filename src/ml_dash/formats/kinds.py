"""What type a column has: the union of every value that occurs in it, decided in one place.

Kinds form a ladder that only widens, in any order of arrival: equal kinds stay, integers join floats while every
one of them is exact as float64, lists of one length join lists of another, and what no column type holds without
loss is `JSON`, a text column. Parquet export, the columnar sidecar and every analysis use these rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..entry import MAX_EXACT_INT

INT64_MIN, INT64_MAX, UINT64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind without parameters; `name` is one of null, bool, float, str, json."""

    name: str


@dataclass(frozen=True, slots=True)
class Integers:
    """Integers between `low` and `high`, both of which occur."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether float64 holds each of them."""
        return self.low >= -MAX_EXACT_INT and self.high <= MAX_EXACT_INT


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of `size` items each; None when the length varies."""

    item: AnyKind
    size: int | None


@dataclass(frozen=True, slots=True)
class Structs:
    """Dicts that all have the same keys, in the order of the first."""

    fields: tuple[tuple[str, AnyKind], ...]


AnyKind = Kind | Integers | Lists | Structs

NULL, BOOL, FLOAT, TEXT, JSON = Kind("null"), Kind("bool"), Kind("float"), Kind("str"), Kind("json")
_PLAIN = {bool: BOOL, float: FLOAT, str: TEXT}


MAX_LEVELS = 16
"""Lists in lists and dicts in dicts beyond this many become JSON text: readers of deep column types are rare."""


def kind_of(values: Sequence[Any], levels: int = MAX_LEVELS) -> AnyKind:
    """The narrowest kind that holds every value of a column (None fits all of them)."""
    types = set(map(type, values))
    if type(None) in types:
        types.discard(type(None))
        values = [value for value in values if value is not None]
    if not types:
        return NULL
    if len(types) > 1:
        return _mixed(types, values)
    found = types.pop()
    if found is int:
        return _integers(values)
    if found in (list, dict) and not levels:
        return JSON
    if found is list:
        return _lists(values, levels - 1)
    if found is dict:
        return _structs(values, levels - 1)
    return _PLAIN.get(found, JSON)


def is_deep(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether a value has more levels of lists and dicts than a column type may have."""
    if type(value) is list:
        return not levels or any(is_deep(item, levels - 1) for item in value)
    if type(value) is dict:
        return not levels or any(is_deep(item, levels - 1) for item in value.values())
    return False


def _mixed(types: set[type], values: Sequence[Any]) -> AnyKind:
    if types != {int, float}:
        return JSON
    return union(_integers([value for value in values if type(value) is int]), FLOAT)


def _integers(values: Sequence[int]) -> AnyKind:
    return Integers(min(values), max(values))


def _lists(values: Sequence[list[Any]], levels: int) -> AnyKind:
    sizes = set(map(len, values))
    item = kind_of(list(chain.from_iterable(values)), levels)
    return JSON if item is JSON else Lists(item, sizes.pop() if len(sizes) == 1 else None)


def _structs(values: Sequence[dict[str, Any]], levels: int) -> AnyKind:
    names = tuple(values[0])
    if not names or any(value.keys() != values[0].keys() for value in values):
        return JSON
    fields = tuple((name, kind_of([value[name] for value in values], levels)) for name in names)
    return JSON if any(kind is JSON for _, kind in fields) else Structs(fields)


def union(one: AnyKind, other: AnyKind) -> AnyKind:
    """The narrowest kind that holds what either holds."""
    if one == other or other is NULL:
        return one
    if one is NULL:
        return other
    if isinstance(one, Integers) and isinstance(other, Integers):
        return Integers(min(one.low, other.low), max(one.high, other.high))
    if isinstance(one, Lists) and isinstance(other, Lists):
        return _union_lists(one, other)
    if isinstance(one, Structs) and isinstance(other, Structs):
        return _union_structs(one, other)
    if other is FLOAT:
        one, other = other, one
    return FLOAT if one is FLOAT and isinstance(other, Integers) and other.exact else JSON


def _union_lists(one: Lists, other: Lists) -> AnyKind:
    item = union(one.item, other.item)
    return JSON if item is JSON else Lists(item, one.size if one.size == other.size else None)


def _union_structs(one: Structs, other: Structs) -> AnyKind:
    theirs = dict(other.fields)
    if dict(one.fields).keys() != theirs.keys():
        return JSON
    fields = tuple((name, union(kind, theirs[name])) for name, kind in one.fields)
    return JSON if any(kind is JSON for _, kind in fields) else Structs(fields)


def storable(kind: AnyKind) -> AnyKind:
    """The kind itself, or JSON where some integers of it fit neither int64 nor uint64."""
    return kind if _fits(kind) else JSON


def _fits(kind: AnyKind) -> bool:
    if isinstance(kind, Integers):
        return (kind.low >= INT64_MIN and kind.high <= INT64_MAX) or (kind.low >= 0 and kind.high <= UINT64_MAX)
    if isinstance(kind, Lists):
        return _fits(kind.item)
    if isinstance(kind, Structs):
        return all(_fits(field) for _, field in kind.fields)
    return True
