"""ml_dash: record timestamped robot data from Python in one line, lose nothing, read it back fast."""

from .entry import from_nanoseconds
from .errors import (
    ExperimentNotFound,
    InvalidEntry,
    InvalidPrefix,
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
from .store import TrackInfo

__version__ = "1.0.0a1"

__all__ = [
    "Experiment",
    "ExperimentNotFound",
    "InvalidEntry",
    "InvalidPrefix",
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
    "from_nanoseconds",
    "open",
]
