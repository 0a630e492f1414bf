"""ml_dash: record timestamped robot data from Python in one line, lose nothing, read it back fast."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .entry import from_nanoseconds
    from .errors import (
        ExperimentNotFound,
        InvalidEntry,
        InvalidPrefix,
        InvalidQuery,
        InvalidTopic,
        InvalidWindow,
        MissingExtra,
        MlDashError,
        NotOpen,
        StoreCorrupt,
        StoreUnavailable,
        TrackNotFound,
        Unauthorized,
    )
    from .experiment import Experiment
    from .experiment import open_experiment as open
    from .search import find
    from .store import TrackInfo

__version__ = "1.0.0a1"

__all__ = [
    "Experiment",
    "ExperimentNotFound",
    "InvalidEntry",
    "InvalidPrefix",
    "InvalidQuery",
    "InvalidTopic",
    "InvalidWindow",
    "MissingExtra",
    "MlDashError",
    "NotOpen",
    "StoreCorrupt",
    "StoreUnavailable",
    "TrackInfo",
    "TrackNotFound",
    "Unauthorized",
    "find",
    "from_nanoseconds",
    "open",
]

_HOMES = {
    "Experiment": ("experiment", "Experiment"),
    "open": ("experiment", "open_experiment"),
    "TrackInfo": ("store", "TrackInfo"),
    "find": ("search", "find"),
    "from_nanoseconds": ("entry", "from_nanoseconds"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: `ml-dash --help` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES.get(name, ("errors", name))
    value = globals()[name] = getattr(import_module(f".{module}", __name__), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
