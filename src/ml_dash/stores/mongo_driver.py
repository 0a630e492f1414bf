"""PyMongo as the MongoDB store uses it: its errors as this package's, database time, inserts that keys may refuse."""

from __future__ import annotations

import datetime
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtra, StoreUnavailable

Doc = dict[str, Any]

DUPLICATE_KEY = 11000
_DISK_FULL = 14031
_CLOCK_S = 30.0


def import_pymongo() -> Any:
    """The pymongo module; raises MissingExtra where it is not installed."""
    try:
        import pymongo
    except ImportError:
        raise MissingExtra("pymongo", "mongo") from None
    return pymongo


@contextmanager
def answering() -> Iterator[None]:
    """What the driver raises, as this package's errors."""
    from pymongo import errors

    try:
        yield
    except errors.BulkWriteError as error:
        raise _bulk_failure(error.details) from error
    except (errors.WriteError, errors.OperationFailure) as error:
        raise _failure(error.code, str(error)) from error
    except errors.PyMongoError as error:
        raise StoreUnavailable(f"MongoDB: {type(error).__name__}: {error}") from error


def _bulk_failure(details: Mapping[str, Any] | None) -> OSError:
    first: Mapping[str, Any] = next(iter((details or {}).get("writeErrors", [])), {})
    return _failure(first.get("code"), str(first.get("errmsg", details)))


def _failure(code: int | None, text: str) -> OSError:
    if code == _DISK_FULL:
        return OSError(errno.ENOSPC, f"MongoDB: {text}")
    return StoreUnavailable(f"MongoDB: {text}")


class Clock:
    """Database time, in seconds since 1970, from `hello`; two servers' own clocks are never compared."""

    def __init__(self, database: Any, monotonic: Callable[[], float]) -> None:
        self._database, self._monotonic = database, monotonic
        self._offset, self._since = 0.0, float("-inf")

    def now(self) -> float:
        """The time now; asked of the database every half minute."""
        elapsed = self._monotonic()
        if elapsed - self._since > _CLOCK_S:
            told = self._database.command("hello")["localTime"]
            if told.tzinfo is None:
                told = told.replace(tzinfo=datetime.UTC)
            self._offset, self._since = told.timestamp() - elapsed, elapsed
        return self._offset + elapsed


def insert(collection: Any, doc: Doc) -> bool:
    """Insert a document; False where a unique key refused it."""
    from pymongo.errors import DuplicateKeyError

    try:
        collection.insert_one(doc)
    except DuplicateKeyError:
        return False
    return True


def insert_many(collection: Any, docs: Sequence[Doc]) -> set[int]:
    """Insert all that can be; the places of those that a unique key refused."""
    from pymongo.errors import BulkWriteError

    if not docs:
        return set()
    try:
        collection.insert_many(docs, ordered=False)
    except BulkWriteError as error:
        failures = error.details.get("writeErrors", [])
        if error.details.get("writeConcernErrors") or any(one["code"] != DUPLICATE_KEY for one in failures):
            raise
        return {one["index"] for one in failures}
    return set()
