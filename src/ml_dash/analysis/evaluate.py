"""The value of an expression over tracks: whole columns at a time, with "unknown" where a column is absent.

A part that names one topic is computed on that topic's own entries; parts of several topics meet on the union of their
timestamps, each with its last value. What is absent is unknown, as in SQL: a comparison with it is unknown, `or` is
true where one side is, and an unknown instant does not match. A NaN that was recorded is a number like any other: no
comparison with it is true but `!=`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import InvalidQuery, TrackNotFound
from ..formats.arrow import is_json
from ..names import offer
from .expression import Call, Literal, Node, Reference, complaint, parse, references
from .functions import ELEMENTWISE, KNOWN, REDUCING, from_previous
from .places import Mask, last_at
from .tables import Floats, as_numbers, column, columns_of, fit_floats, resolve_name, timestamps

_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.mod,
    "**": np.power,
}
_COMPARISONS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "<": (np.less, pc.less),
    "<=": (np.less_equal, pc.less_equal),
    ">": (np.greater, pc.greater),
    ">=": (np.greater_equal, pc.greater_equal),
    "==": (np.equal, pc.equal),
    "!=": (np.not_equal, pc.not_equal),
}


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time: shape (n,) or (n, d), numbers or truth values, or an Arrow array of text.

    `known` says where there is a value at all; None means everywhere. `at` is the place in the expression.
    """

    times: Floats
    data: Any
    known: Mask | None = None
    at: int = 0


def evaluate(expression: str, tables: Mapping[str, pa.Table], topic: str | None = None) -> tuple[Floats, Mask]:
    """Where an expression is true.

    Args:
        tables: ascending tables by topic; those the expression names are used.
        topic: the topic whose columns may stand without it.

    Returns:
        The instants, ascending, shape (n,), and for each whether the expression is true there.

    Raises:
        InvalidQuery: it cannot be read, or gives no truth values. TrackNotFound, InvalidWindow: unknown names.
    """
    node = parse(expression)
    result = _Evaluator(expression, tables, topic, topics_of(node, tables, topic)).value(node)
    if not isinstance(result, Series):
        raise complaint(expression, 0, "the expression names no column")
    if isinstance(result.data, pa.Array) or result.data.dtype != bool:
        raise complaint(expression, 0, "the expression must be true or false: compare it, as in 'norm(f) > 20'")
    if result.data.ndim > 1:
        size = result.data.shape[1]
        raise complaint(expression, result.at, f"{size} truth values at each instant: say any(...) or all(...)")
    return result.times, result.data if result.known is None else result.data & result.known


def topics_of(node: Node, topics: Mapping[str, Any] | set[str], topic: str | None = None) -> set[str]:
    """The topics that an expression names; raises TrackNotFound with the nearest ones."""
    return {_split(reference, topics, topic)[0] for reference in references(node)}


def _split(reference: Reference, topics: Mapping[str, Any] | set[str], topic: str | None) -> tuple[str, str]:
    """The topic and the column of a reference."""
    steps = reference.steps
    for count in range(len(steps), 0, -1):
        name = ".".join(map(str, steps[:count]))
        if name in topics and (topic is None or count < len(steps)):
            if count == len(steps):
                raise InvalidQuery(f"{name!r} is a topic; name a column of it, as in `{name}`.column")
            rest = steps[count:]
            return name, resolve_name(rest[0], rest[1:])
    if topic is not None:
        return topic, resolve_name(steps[0], steps[1:])
    name = str(steps[0])
    hint = offer(name, sorted(topics))
    raise TrackNotFound(
        f"no topic {name!r}; {hint}; a column is named with its topic, unless topic= (--topic) says whose it is; "
        "a topic with a slash stands in backticks"
    )


class _Evaluator:
    """One expression over one set of tables."""

    def __init__(self, text: str, tables: Mapping[str, pa.Table], topic: str | None, used: set[str]) -> None:
        self._text, self._tables, self._topic = text, tables, topic
        self._times = {name: timestamps(tables[name]) for name in used}
        self._union: Floats | None = None

    def value(self, node: Node) -> Series | float | str | bool:
        """The value of a node; literals stay what they are."""
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Reference):
            return self._column(node)
        arguments = self._together([self.value(argument) for argument in node.arguments])
        try:
            return self._call(node, arguments)
        except ValueError as error:
            if isinstance(error, InvalidQuery):
                raise
            raise complaint(self._text, node.at, f"{node.name!r} does not fit: {error}") from None

    # -------------------------------------------------------------- columns and clocks

    def _column(self, reference: Reference) -> Series:
        topic, name = _split(reference, self._tables, self._topic)
        times = self._times[topic]
        table = self._tables[topic]
        if name == "timestamp" and name not in columns_of(table):
            return Series(times, times, None, reference.at)
        field, array = column(table, name)
        known = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        if pa.types.is_string(array.type) and not is_json(field):
            return Series(times, array, known, reference.at)
        if not fit_floats(array):
            what = f"{name!r} has integers beyond 2**53, which would be rounded: ask with sql"
            raise complaint(self._text, reference.at, what)
        data: Any = as_numbers(field, array)
        return Series(times, data == 1 if pa.types.is_boolean(array.type) else data, known, reference.at)

    def _together(self, values: list[Any]) -> list[Any]:
        """The same values on one clock."""
        clocks = {id(value.times) for value in values if isinstance(value, Series)}
        if len(clocks) <= 1:
            return values
        if self._union is None:
            self._union = np.unique(np.concatenate(list(self._times.values())))
        return [self._held(value, self._union) if isinstance(value, Series) else value for value in values]

    @staticmethod
    def _held(series: Series, clock: Floats) -> Series:
        if series.times is clock:
            return series
        if not len(series.times):
            empty = np.zeros((len(clock), *np.shape(series.data)[1:]), getattr(series.data, "dtype", bool))
            return Series(clock, empty, np.zeros(len(clock), bool), series.at)
        if series.known is not None:
            series = _known_only(series)
            if not len(series.times):
                return _Evaluator._held(series, clock)
        places = last_at(series.times, clock)
        known = places >= 0
        places = np.maximum(places, 0)
        data = series.data.take(pa.array(places)) if isinstance(series.data, pa.Array) else series.data[places]
        return Series(clock, data, None if known.all() else known, series.at)

    # -------------------------------------------------------------- operators and functions

    def _call(self, node: Call, arguments: list[Any]) -> Series | float | str | bool:
        name = node.name
        if name in ("and", "or", "not"):
            return self._logic(name, node, [self._truth(value, node) for value in arguments])
        if name in _COMPARISONS:
            return self._compare(name, node, *arguments)
        numbers = [self._number(value, node) for value in arguments]
        with np.errstate(all="ignore"):
            if name == "negative":
                return _map(np.negative, numbers, node.at)
            if name in _ARITHMETIC:
                return _map(_ARITHMETIC[name], numbers, node.at)
            return self._function(node, numbers)

    def _function(self, node: Call, arguments: list[Any]) -> Series | float | str | bool:
        name, count = node.name, len(arguments)
        if name not in KNOWN:
            raise complaint(self._text, node.at, f"no function {name!r}; {offer(name, KNOWN)}")
        low, high = KNOWN[name]
        if not low <= count <= high:
            takes = str(low) if low == high else f"{low} or more"
            raise complaint(self._text, node.at, f"{name} takes {takes} arguments, got {count}")
        first = arguments[0]
        if name in ("present", "diff", "derivative") and not isinstance(first, Series):
            raise complaint(self._text, node.at, f"{name} needs a column")
        if name == "present":
            return Series(first.times, np.ones(len(first.times), bool) if first.known is None else first.known)
        if name in ("diff", "derivative"):
            return self._from_previous(name, first, node.at)
        if name in REDUCING and count == 1:
            return _map(REDUCING[name], arguments, node.at) if isinstance(first, Series) else first
        if name in ("min", "max"):
            return _map(lambda *all_: reduce(ELEMENTWISE[name], all_), arguments, node.at)
        return _map(ELEMENTWISE[name], arguments, node.at)

    @staticmethod
    def _from_previous(name: str, series: Series, at: int) -> Series:
        """The change from the entry before that has the column; unknown for the first one."""
        part = series if series.known is None else _known_only(series)
        data = np.full(np.shape(series.data), np.nan)
        known = np.zeros(len(series.times), bool) if series.known is None else series.known.copy()
        places = np.arange(len(series.times)) if series.known is None else np.flatnonzero(series.known)
        data[places[1:]] = from_previous(part.times, part.data, per_second=name == "derivative")
        known[places[1:]] = True
        known[places[:1]] = False
        return Series(series.times, data, known, at)

    def _logic(self, name: str, node: Call, values: list[Any]) -> Series | bool:
        if name == "not":
            only = values[0]
            return replace(only, data=~only.data, at=node.at) if isinstance(only, Series) else not only
        one, other = values
        if not isinstance(one, Series) and not isinstance(other, Series):
            return bool(one and other) if name == "and" else bool(one or other)
        deciding = name == "or"  # the value of one side that decides whatever the other is
        (data_one, known_one), (data_other, known_other) = _parts(one), _parts(other)
        data_one, data_other = _broadcast(data_one, data_other)
        data = data_one | data_other if deciding else data_one & data_other
        known = None
        if known_one is not None or known_other is not None:
            known_one, known_other = _filled(known_one, data_one), _filled(known_other, data_other)
            known = known_one & known_other
            if data.ndim == 1:
                known |= known_one & (data_one == deciding) | known_other & (data_other == deciding)
        times = one.times if isinstance(one, Series) else other.times
        return Series(times, data, known, node.at)

    def _compare(self, name: str, node: Call, one: Any, other: Any) -> Series | bool:
        by_numpy, by_arrow = _COMPARISONS[name]
        if _is_text(one) or _is_text(other):
            if not (_is_text(one) and _is_text(other)):
                raise complaint(self._text, node.at, "text is compared with text, numbers with numbers")
            return self._compare_text(by_arrow, node, one, other)
        with np.errstate(invalid="ignore"):
            result = _map(by_numpy, [one, other], node.at)
        return result if isinstance(result, Series) else bool(result)

    @staticmethod
    def _compare_text(by_arrow: Callable[[Any, Any], Any], node: Call, one: Any, other: Any) -> Series | bool:
        result = by_arrow(*(value.data if isinstance(value, Series) else pa.scalar(value) for value in (one, other)))
        if not isinstance(result, pa.Array):
            return bool(result.as_py())
        series = one if isinstance(one, Series) else other
        known = result.is_valid().to_numpy(zero_copy_only=False) if result.null_count else None
        if isinstance(one, Series) and isinstance(other, Series):
            known = _both(known, _both(one.known, other.known))
        else:
            known = _both(known, series.known)
        return Series(series.times, pc.fill_null(result, False).to_numpy(zero_copy_only=False), known, node.at)

    # -------------------------------------------------------------- what arguments must be

    def _truth(self, value: Any, node: Call) -> Any:
        if isinstance(value, Series) and not _is_text(value) and value.data.dtype == bool:
            return value
        if isinstance(value, bool):
            return value
        raise complaint(self._text, node.at, f"{node.name!r} needs true or false on each side, as in 'a > 1 and b'")

    def _number(self, value: Any, node: Call) -> Any:
        if _is_text(value) and node.name != "present":
            raise complaint(self._text, node.at, f"{node.name!r} needs numbers, got text")
        if node.name in ("any", "all", "present"):
            return value
        if isinstance(value, Series) and value.data.dtype == bool:
            return replace(value, data=value.data.astype(np.float64))
        return float(value) if isinstance(value, bool) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Series) and isinstance(value.data, pa.Array))


def _known_only(series: Series) -> Series:
    """Only the instants that have a value."""
    known = series.known
    if known is None:
        return series
    data = series.data.filter(pa.array(known)) if isinstance(series.data, pa.Array) else series.data[known]
    return Series(series.times[known], data, None, series.at)


def _map(function: Callable[..., Any], arguments: list[Any], at: int) -> Series | Any:
    """A function of the numbers, known where all its arguments are."""
    series = [argument for argument in arguments if isinstance(argument, Series)]
    if not series:
        return function(*arguments).item() if hasattr(function, "nin") else function(*map(np.asarray, arguments)).item()
    data = [argument.data if isinstance(argument, Series) else argument for argument in arguments]
    known = reduce(_both, (one.known for one in series))
    return Series(series[0].times, function(*_broadcast(*data)), known, at)


def _broadcast(*values: Any) -> list[Any]:
    """(n,) beside (n, d): one number for all items of an instant."""
    most = max(np.ndim(value) for value in values)
    return [
        value.reshape(value.shape + (1,) * (most - value.ndim)) if 0 < np.ndim(value) < most else value
        for value in values
    ]


def _parts(value: Any) -> tuple[Any, Mask | None]:
    return (value.data, value.known) if isinstance(value, Series) else (value, None)


def _filled(known: Mask | None, data: Any) -> Any:
    return known if known is not None else np.ones(np.shape(data)[:1], bool) if np.ndim(data) else np.True_


def _both(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    both: NDArray[np.bool_] = one & other
    return both
