"""Every error this package raises on purpose.

    MlDashError
    ├── InvalidEntry      (ValueError)       a timestamp, field or value that cannot be recorded
    ├── InvalidTopic      (ValueError)       a topic that cannot name a track
    ├── InvalidPrefix     (ValueError)       a prefix that cannot name an experiment
    ├── InvalidWindow     (ValueError)       a range, column list or format that cannot be read
    ├── InvalidFile       (ValueError)       a file that cannot be imported
    ├── InvalidQuery      (ValueError)       an expression, rule or option of the analysis that makes no sense
    ├── ExperimentNotFound (LookupError)     a prefix nobody recorded under
    ├── TrackNotFound     (LookupError)      a topic nobody recorded
    ├── NotOpen           (RuntimeError)     used outside an open run
    ├── StoreUnavailable  (ConnectionError)  not reachable now; the only error that is retried
    ├── StoreCorrupt      (OSError)          files that are not ours, damaged, or from a newer version
    ├── CopiedWriter      (RuntimeError)     a batch number came twice with different entries: a copied spool
    ├── Unauthorized      (PermissionError)  the server refused the token
    └── MissingExtra      (ImportError)      an optional dependency is not installed

A message names the topic, the field, the value's type, and what to do instead.
"""

from __future__ import annotations


class MlDashError(Exception):
    """Base of every error raised on purpose by this package."""


class InvalidEntry(MlDashError, ValueError):
    """A timestamp, field name or value that cannot be recorded; nothing was stored."""


class InvalidTopic(MlDashError, ValueError):
    """A topic that cannot name a track."""


class InvalidPrefix(MlDashError, ValueError):
    """A prefix that cannot name an experiment."""


class InvalidWindow(MlDashError, ValueError):
    """A time range, column list or format that cannot be read."""


class InvalidFile(MlDashError, ValueError):
    """A file that cannot be imported; the message names the line and the column, and nothing was stored."""


class InvalidQuery(MlDashError, ValueError):
    """An expression, alignment rule or option of the analysis that cannot be answered."""


class ExperimentNotFound(MlDashError, LookupError):
    """Nobody recorded under this prefix."""


class TrackNotFound(MlDashError, LookupError):
    """Nobody recorded this topic."""


class NotOpen(MlDashError, RuntimeError):
    """The experiment is not open: data is logged inside `with experiment.run:`."""


class StoreUnavailable(MlDashError, ConnectionError):
    """The store cannot be reached now; the only error that is retried."""


class TooManyWriters(StoreUnavailable):
    """Others wrote each time just before; nothing was stored, and a later try finds its place."""


class StoreCorrupt(MlDashError, OSError):
    """Stored files are damaged, foreign, or written by a newer version."""


class CopiedWriter(MlDashError, RuntimeError):
    """A batch number this writer has used came again with other entries: its spool was copied (backup, VM image).

    Nothing was stored; sent again under a new writer id, the batch is accepted (the server answers 409).
    """


class Unauthorized(MlDashError, PermissionError):
    """The server refused the token for this operation."""


class MissingExtra(MlDashError, ImportError):
    """An optional dependency is missing; the message says which extra installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed: pip install 'ml-dash[{extra}]'")


class NotDelivered(UserWarning):
    """Entries are kept here and not on the server yet, or the server would not take them."""
