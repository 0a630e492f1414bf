"""How a column is carried to another clock: the rules, how they are spelled, and which one a column gets by default.

    linear        between the entries around the instant, item by item; no value outside the recording
    hold          the last entry at or before the instant
    nearest       the closest entry, the earlier one of two
    slerp:wxyz    a unit quaternion along the shorter arc, whatever the signs; also slerp:xyzw
    angle         radians along the shorter way round; angle:deg for degrees

Defaults follow type and name: floats are linear; integers, truth values, text and mixtures are held; yaw, heading and
the like are angles; a quaternion whose name (`quat_wxyz`), keys (`{w, x, y, z}`) or run (the parameter `quaternions`)
tell the order is slerped. The order is never guessed: where nobody tells it the rule is `nearest`, and the reason says
so.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import InvalidQuery
from ..names import offer

NAMES = ("linear", "hold", "nearest", "slerp:wxyz", "slerp:xyzw", "angle", "angle:deg")
ORDERS = ("wxyz", "xyzw")
_QUATERNION = re.compile(r"(^|_)(quat|quaternion|orientation|rotation|rot|attitude)(_|$)")
_ORDER = re.compile(r"(^|_)(wxyz|xyzw)(_|$)")
_ANGLE = re.compile(r"(^|_)(yaw|pitch|roll|heading|bearing|azimuth|course)(_|$)")
_DEGREES = re.compile(r"(^|_)(deg|degrees?)(_|$)")
_RADIANS = re.compile(r"(^|_)(rad|radians?)(_|$)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name as it is spelled, and why the column has it."""

    name: str
    why: str = "asked for"

    @property
    def interpolates(self) -> bool:
        """Whether a value is made from the entries on both sides."""
        return self.name not in ("hold", "nearest")

    @property
    def period(self) -> float:
        """What one turn is, for an angle."""
        return 360.0 if self.name == "angle:deg" else 2 * math.pi


def parse(text: object, column: str) -> Rule:
    """The rule that a caller spelled; raises InvalidQuery naming the column and the rules there are."""
    if text == "slerp":
        raise InvalidQuery(f"how for {column!r}: say the order, 'slerp:wxyz' or 'slerp:xyzw'; it is never guessed")
    if text not in NAMES:
        raise InvalidQuery(f"how for {column!r} is {text!r}; the rules are {', '.join(NAMES)}")
    return Rule(str(text))


def default(column: str, data_type: pa.DataType, largest: float, quaternions: str | None = None) -> Rule:
    """The rule of a column that the caller says nothing about.

    Args:
        column: its name inside the topic, such as `pose.x`.
        largest: the largest magnitude in it (an angle beyond one turn of radians must tell its unit).
        quaternions: the order of all that look like quaternions and do not tell, where somebody named it.
    """
    name = column.rpartition(".")[2].lower()
    if is_quaternion_struct(data_type):
        return Rule("slerp:" + "".join(field.name for field in data_type), "a dict of w, x, y, z")
    size, item = _shape(data_type)
    if not pa.types.is_floating(item):
        return Rule("hold", f"{_plainly(item, data_type)} has no values between")
    if size == 4 and (_QUATERNION.search(name) or _ORDER.search(name)):
        return _of_quaternion(column, name, quaternions)
    if _ANGLE.search(name):
        return _of_angle(column, name, largest)
    return Rule("linear", "floats")


def may_be_angle(column: str, data_type: pa.DataType) -> bool:
    """Whether the default for this column depends on how large its values are."""
    name = column.rpartition(".")[2].lower()
    return pa.types.is_floating(_shape(data_type)[1]) and _ANGLE.search(name) is not None


def _of_quaternion(column: str, name: str, quaternions: str | None) -> Rule:
    order = _ORDER.search(name)
    if order:
        return Rule(f"slerp:{order[2]}", f"its name says {order[2]}")
    if quaternions in ORDERS:
        return Rule(f"slerp:{quaternions}", f"looks like a quaternion, and quaternions are {quaternions} here")
    return Rule("nearest", f"looks like a quaternion of unknown order: how={{{column!r}: 'slerp:wxyz'}} or xyzw")


def _of_angle(column: str, name: str, largest: float) -> Rule:
    if _DEGREES.search(name):
        return Rule("angle:deg", "its name says an angle in degrees")
    if _RADIANS.search(name) or not largest > 2 * math.pi:
        return Rule("angle", "its name says an angle")
    return Rule("nearest", f"looks like an angle of unknown unit: how={{{column!r}: 'angle:deg'}} or 'angle'")


def is_quaternion_struct(data_type: pa.DataType) -> bool:
    """Whether a column holds dicts of exactly w, x, y, z in one of the two orders."""
    if not pa.types.is_struct(data_type):
        return False
    names = "".join(field.name for field in data_type)
    return names in ORDERS and all(pa.types.is_floating(field.type) for field in data_type)


def _shape(data_type: Any) -> tuple[int | None, Any]:
    """The length of a fixed-size list (None for others), and the type of the items or of the value itself."""
    if not pa.types.is_fixed_size_list(data_type):
        return None, data_type
    item = data_type.value_type
    while pa.types.is_fixed_size_list(item):
        item = item.value_type
    return data_type.list_size, item


def _plainly(item: pa.DataType, whole: pa.DataType) -> str:
    if pa.types.is_list(whole):
        return "a list of varying length"
    if pa.types.is_string(item):
        return "text"
    return f"{item}"


def chosen(how: dict[str, str], topic: str, column: str) -> Rule | None:
    """The caller's rule for a column: by `topic.column`, then `column`, then `topic`."""
    for key in (f"{topic}.{column}", column, topic):
        if key in how:
            return parse(how[key], key)
    return None


def check_keys(how: dict[str, str], columns: dict[str, list[str]]) -> None:
    """Raise InvalidQuery for a key of `how` that names no topic and no column."""
    known = set(columns)
    for topic, names in columns.items():
        known.update(names, (f"{topic}.{name}" for name in names))
    for key in how:
        if key not in known:
            hint = offer(key, sorted(known))
            raise InvalidQuery(f"how names {key!r}, which is no topic and no column; {hint}")
