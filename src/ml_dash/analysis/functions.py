"""The functions an expression may call, each over whole columns of shape (n,) or (n, d).

norm sum mean min max any all       over the items of each entry; min and max also over several arguments
abs sqrt exp log sin cos tan sign floor ceil round
atan2                               of two
isnan isfinite                      of recorded numbers
diff derivative                     the change from the entry before, as it is and per second
present                             whether the entry has the column at all
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .tables import Floats


def _norm(values: Any) -> Any:
    if values.ndim == 1:
        return np.abs(values)
    flat = values.reshape(len(values), -1)
    return np.sqrt(np.einsum("ij,ij->i", flat, flat))


def _over_items(function: Callable[..., Any]) -> Callable[[Any], Any]:
    def over_items(values: Any) -> Any:
        return function(values.reshape(len(values), -1), axis=1)

    return over_items


REDUCING: Mapping[str, Callable[[Any], Any]] = {
    "norm": _norm,
    "sum": _over_items(np.sum),
    "mean": _over_items(np.mean),
    "min": _over_items(np.min),
    "max": _over_items(np.max),
    "any": _over_items(np.any),
    "all": _over_items(np.all),
}
ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "isnan": np.isnan,
    "isfinite": np.isfinite,
    "atan2": np.arctan2,
    "min": np.minimum,
    "max": np.maximum,
}
_COUNTS = {"atan2": (2, 2), "min": (1, 100), "max": (1, 100)}
KNOWN: Mapping[str, tuple[int, int]] = {
    name: _COUNTS.get(name, (1, 1)) for name in (*REDUCING, *ELEMENTWISE, "diff", "derivative", "present")
}
"""Every function, and how many arguments it takes at least and at most."""


def from_previous(times: Floats, values: Floats, *, per_second: bool) -> Floats:
    """The change of each value from the one before, shape (n - 1, ...)."""
    change: Floats = np.diff(np.asarray(values, np.float64), axis=0)
    if not per_second:
        return change
    past = np.diff(times)
    return change / past.reshape((-1,) + (1,) * (change.ndim - 1))
