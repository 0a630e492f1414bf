"""Columns to topics and vectors: `/arm/q/x` names a topic and a field, and `tx, ty, tz` are one vector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..errors import InvalidFile
from ..names import offer
from .model import ABSENT, Chunk, Frame, Options
from .times import base_name

_AXIS = re.compile(r"(.*?)[_./ ]?([xyzwXYZW])")
_NUMBERED = re.compile(r"(.*?)[_.\[ ]?(\d+)\]?")
_AXES = ({"x", "y", "z"}, {"x", "y"}, {"x", "y", "z", "w"})
_FRAME = re.compile(r"_RS(_[RS])?$")
"""EuRoC names the frames in its columns: `p_RS_R_x` is a position, seen in R."""


@dataclass(frozen=True, slots=True)
class Field:
    """What becomes of some columns: one field of one topic. A single column is taken as it is; several are a vector."""

    topic: str
    path: tuple[str, ...]
    columns: tuple[str, ...]
    is_vector: bool


def plan(names: Sequence[str], time: str, format: str, topic: str, options: Options) -> list[Field]:
    """The fields that the columns become.

    Raises:
        InvalidFile: a group or a column to keep that does not exist, or two fields of one name.
    """
    kept = _kept([name for name in names if name != time], options.columns)
    groups = {vector: tuple(_known(names, one) for one in columns) for vector, columns in options.groups.items()}
    taken = {column for columns in groups.values() for column in columns}
    rest = [name for name in kept if name not in taken]
    wide = options.wide if options.wide is not None else bool(rest) and all("/" in name.strip("/") for name in rest)
    fields = [Field(topic, (vector,), columns, True) for vector, columns in groups.items()]
    for group, column_names in _by_topic(rest, topic, options, wide):
        fields += _fields(group, column_names, format, options, wide)
    return _checked(fields)


def _kept(names: list[str], wanted: Sequence[str] | None) -> list[str]:
    return names if wanted is None else [_known(names, name) for name in wanted]


def _known(names: Sequence[str], wanted: str) -> str:
    for name in names:
        if wanted in (name, name.strip(), base_name(name)[0]):
            return name
    raise InvalidFile(f"no column {wanted!r}; {offer(wanted, names)}")


def _by_topic(
    names: Sequence[str], topic: str, options: Options, wide: bool
) -> Iterator[tuple[str, list[tuple[tuple[str, ...], str]]]]:
    """The columns of each topic, each with the path of its field."""
    found: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name in names:
        parts = [part.strip() for part in name.split("/") if part.strip()] if wide else [_bare(name)]
        depth = min(options.depth or len(parts) - 1, len(parts) - 1)
        above = [options.topic] if wide and options.topic else []
        of_topic = "/".join([*above, *parts[:depth]]) or topic
        found.setdefault(of_topic, []).append((tuple(parts[depth:]), name))
    yield from found.items()


def _bare(name: str) -> str:
    """The name without brackets that say a unit: `p_RS_R_x [m]`."""
    return re.sub(r"\s*\[(?!\d+\])[^\]]*\]$|\s*\([^)]*\)$", "", name.strip()) or name.strip()


def _fields(
    topic: str, columns: Sequence[tuple[tuple[str, ...], str]], format: str, options: Options, wide: bool
) -> list[Field]:
    auto = options.auto_group if options.auto_group is not None else format in ("tum", "euroc")
    if not auto:
        return [Field(topic, path, (name,), False) for path, name in columns]
    fields: list[Field] = []
    for path, group in _vectors([(path, name) for path, name in columns]).items():
        if len(group) > 1:
            fields.append(Field(topic, _renamed(path, format, len(group)), tuple(group), True))
        else:
            fields.append(Field(topic, path, tuple(group), False))
    return fields


def _vectors(columns: Sequence[tuple[tuple[str, ...], str]]) -> dict[tuple[str, ...], list[str]]:
    """Columns whose last name says that they are parts of a vector, in the order x, y, z, w or 0, 1, 2, ..."""
    stems: dict[tuple[str, ...], dict[str, tuple[tuple[str, ...], str]]] = {}
    for path, name in columns:
        found = _AXIS.fullmatch(path[-1]) or _NUMBERED.fullmatch(path[-1])
        if found:
            stems.setdefault((*path[:-1], found[1].rstrip("_./ ")), {})[found[2].lower()] = (path, name)
    grouped: dict[tuple[str, ...], list[str]] = {}
    done: set[str] = set()
    whole = {name: stem for stem, parts in stems.items() if _is_vector(set(parts)) for _, name in parts.values()}
    for path, name in columns:
        if name in done:
            continue
        stem = whole.get(name)
        if stem is None:
            grouped[path] = [name]
            continue
        parts = stems[stem]
        order = sorted(parts, key=lambda part: int(part) if part.isdigit() else "xyzw".index(part))
        named = stem if stem[-1] else (*stem[:-1], "".join(order))
        grouped[named] = [parts[part][1] for part in order]
        done.update(name for _, name in parts.values())
    return grouped


def _is_vector(parts: set[str]) -> bool:
    if parts in _AXES:
        return True
    numbers = sorted(int(part) for part in parts if part.isdigit())
    return (
        len(numbers) == len(parts) > 1 and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[-1] + 1))
    )


def _renamed(path: tuple[str, ...], format: str, size: int) -> tuple[str, ...]:
    """The usual short names of two well-known formats."""
    if format == "tum":
        return ({"t": "p"}.get(path[-1], path[-1]),)
    if format == "euroc":
        return (_FRAME.sub("", path[-1]) or path[-1],)
    return path


def _checked(fields: list[Field]) -> list[Field]:
    seen: dict[tuple[str, tuple[str, ...]], Field] = {}
    for field in fields:
        if field.path[0] == "timestamp":
            raise InvalidFile(f"a field cannot be called 'timestamp' ({field.columns[0]!r}): leave it out (--columns)")
        other = seen.setdefault((field.topic, field.path), field)
        if other is not field:
            raise InvalidFile(f"two fields are called {'.'.join(field.path)!r}: {other.columns} and {field.columns}")
    return fields


# ---------------------------------------------------------------- frames to chunks


def chunks_of(frame: Frame, times: Sequence[float], fields: Sequence[Field], instants: str | None) -> Iterator[Chunk]:
    """The rows of a frame by topic, those with the same fields together.

    Args:
        instants: the topic that keeps rows without any field, as marks of an instant; None leaves such rows out.
    """
    by_topic: dict[str, list[Field]] = {} if instants is None else {instants: []}
    for field in fields:
        by_topic.setdefault(field.topic, []).append(field)
    for topic, own in by_topic.items():
        values = {field: _values(frame, field) for field in own}
        for chunk in _dense(topic, times, values):
            if chunk.fields or topic == instants:
                yield chunk


def _values(frame: Frame, field: Field) -> Sequence[Any]:
    """One value for each row; ABSENT where every column of the field is."""
    columns = [frame.columns.get(name) for name in field.columns]
    if any(column is None for column in columns):
        return [ABSENT] * frame.count
    known = [column for column in columns if column is not None]
    if not field.is_vector:
        return known[0]
    types = {getattr(column, "dtype", None) for column in known}
    if len(types) == 1 and all(getattr(column, "ndim", 0) == 1 for column in known):
        import numpy as np

        return np.stack(known, axis=1)  # type: ignore[return-value]
    rows = map(list, zip(*(_plain(column) for column in known), strict=True))
    if not any(_has_absent(column) for column in known):
        return list(rows)
    return [_vector(row) for row in rows]


def _vector(row: list[Any]) -> Any:
    """A vector with null where a part is missing; ABSENT where all are."""
    if all(value is ABSENT for value in row):
        return ABSENT
    return [None if value is ABSENT else value for value in row]


def _plain(column: Sequence[Any]) -> Sequence[Any]:
    return column.tolist() if hasattr(column, "tolist") else column


def _has_absent(column: Sequence[Any]) -> bool:
    return not hasattr(column, "dtype") and any(value is ABSENT for value in column)


def _dense(topic: str, times: Sequence[float], values: Mapping[Field, Sequence[Any]]) -> Iterator[Chunk]:
    sparse = [field for field, column in values.items() if _has_absent(column)]
    if not sparse:
        yield Chunk(topic, times, _nested(values))
        return
    layouts = [
        tuple(value is not ABSENT for value in row) for row in zip(*(values[field] for field in sparse), strict=True)
    ]
    for there, numbers in _alike(layouts, in_order=len(set(times)) < len(times)):
        absent = {field for field, is_there in zip(sparse, there, strict=True) if not is_there}
        kept = {field: _rows(column, numbers) for field, column in values.items() if field not in absent}
        yield Chunk(topic, _rows(times, numbers), _nested(kept))


def _alike(layouts: Sequence[tuple[bool, ...]], *, in_order: bool) -> Iterator[tuple[tuple[bool, ...], list[int]]]:
    """The numbers of rows with the same fields together; in order, only neighbours: of one timestamp the later wins."""
    if in_order:
        for there, run in groupby(range(len(layouts)), layouts.__getitem__):
            yield there, list(run)
        return
    rows: dict[tuple[bool, ...], list[int]] = {}
    for number, there in enumerate(layouts):
        rows.setdefault(there, []).append(number)
    yield from rows.items()


def _rows(column: Sequence[Any], numbers: list[int]) -> Sequence[Any]:
    return column[numbers] if hasattr(column, "dtype") else [column[number] for number in numbers]  # type: ignore[call-overload]


def _nested(values: Mapping[Field, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Fields of one name; those with a longer path become dictionaries."""
    flat = {field.path[0]: column for field, column in values.items() if len(field.path) == 1}
    deep: dict[str, list[tuple[tuple[str, ...], Sequence[Any]]]] = {}
    for field, column in values.items():
        if len(field.path) > 1:
            deep.setdefault(field.path[0], []).append((field.path[1:], _plain(column)))
    for name, parts in deep.items():
        flat[name] = [_document([path for path, _ in parts], row) for row in zip(*(c for _, c in parts), strict=True)]
    return flat


def _document(paths: Sequence[tuple[str, ...]], row: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in zip(paths, row, strict=True):
        inner = found
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return found
