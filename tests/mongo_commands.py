"""Which index serves each command that is sent to MongoDB: the stand-ins scan, so the tests have to look themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pymongo import monitoring

from ml_dash.mongo_catalog import connect
from ml_dash.stores.mongo_tables import INDEXES

Keys = Sequence[tuple[str, int]]

WHOLE = {"tokens": "`ml-dash token list` shows them all; requests look one up by its id"}
"""Collections that may be read from end to end, and why."""

LOOKED_AT = {("documents", "at"): "of one document's last versions, of which there are 32 at most"}
"""Fields that are compared in documents an index found, and why that is cheap; behind an `_id` it always is."""

_RANGES = {"$gt", "$gte", "$lt", "$lte"}
_POINTS = {"$eq", "$in"}


class Question(NamedTuple):
    """What a command asks of a collection: one filter with its order, as values stood in it."""

    collection: str
    verb: str
    filter: Mapping[str, Any]
    sort: tuple[tuple[str, int], ...] = ()

    @property
    def shape(self) -> str:
        """The question without its values, so that each kind of question is looked at once."""
        fields = [f"{name}:{'|'.join(sorted(_operators(wanted)))}" for name, wanted in sorted(self.filter.items())]
        order = "".join(f" {name}{'+' if way > 0 else '-'}" for name, way in self.sort)
        return f"{self.verb} {self.collection} {{{', '.join(fields)}}}{' sorted by' + order if order else ''}"


def _operators(wanted: Any) -> set[str]:
    if isinstance(wanted, Mapping) and wanted and all(name.startswith("$") for name in wanted):
        return set(wanted)
    return {"$eq"}


def questions(name: str, command: Mapping[str, Any]) -> list[Question]:
    """The filters of a command; none for those that have no filter."""
    if name == "find":
        return [Question(command["find"], name, command.get("filter", {}), tuple(command.get("sort", {}).items()))]
    if name in ("update", "delete"):
        return [Question(command[name], name, one["q"]) for one in command[f"{name}s"]]
    if name == "aggregate":
        first = command["pipeline"][0] if command["pipeline"] else {}
        return [Question(command["aggregate"], name, first.get("$match", {}))]
    if name in ("count", "distinct", "findAndModify"):
        return [Question(command[name], name, command.get("query", {}), tuple(command.get("sort", {}).items()))]
    return []


def problem(question: Question, indexes: Mapping[str, Sequence[tuple[Keys, bool]]] = INDEXES) -> str | None:
    """Why no declared index serves a question; None where one does."""
    if question.collection in WHOLE and not question.filter:
        return None
    unknown = {op for wanted in question.filter.values() for op in _operators(wanted)} - _RANGES - _POINTS
    if unknown or any(name.startswith("$") for name in question.filter):
        return f"{question.shape}: the check does not know {sorted(unknown) or 'such filters'}"
    declared = [[("_id", 1)], *(keys for keys, _ in indexes.get(question.collection, []))]
    if any(_serves(keys, question) for keys in declared):
        return None
    return f"{question.shape}: none of {[[name for name, _ in keys] for keys in declared]} serves it"


def _serves(keys: Keys, question: Question) -> bool:
    """Whether the filter pins down a beginning of the index, looks at nothing else, and the order is the index's."""
    names = {name for name, _ in keys}
    elsewhere = [name for name in question.filter if name not in names]
    if "_id" not in names and any((question.collection, name) not in LOOKED_AT for name in elsewhere):
        return False
    pinned = 0
    while pinned < len(keys) and _is_point(question.filter.get(keys[pinned][0])):
        pinned += 1
    ranged = pinned < len(keys) and keys[pinned][0] in question.filter
    if not pinned and not ranged:
        return False
    following = list(keys[pinned : pinned + len(question.sort)])
    turned = [(name, -way) for name, way in following]
    return list(question.sort) in (following, turned)


def _is_point(wanted: Any) -> bool:
    return wanted is not None and _operators(wanted) <= _POINTS


class Recorder(monitoring.CommandListener):
    """Remembers one command of every kind of question."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Question, str, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def started(self, event: Any) -> None:
        """A command is sent."""
        for question in questions(event.command_name, event.command):
            with self._lock:
                self.seen.setdefault(question.shape, (question, event.database_name, dict(event.command)))

    def succeeded(self, event: Any) -> None:
        """Nothing to note."""

    def failed(self, event: Any) -> None:
        """Nothing to note."""

    def problems(self) -> list[str]:
        """The questions that no index serves."""
        found = (problem(question) for question, _, _ in self.seen.values())
        return [text for text in found if text is not None]


@contextmanager
def checked_client(uri: str) -> Iterator[Any]:
    """A connection for the tests of a module; in the end each command that was sent over it has to have an index."""
    recorder = Recorder()
    client = connect(uri, event_listeners=[recorder])
    client.recorder = recorder
    try:
        yield client
    finally:
        client.close()
    assert recorder.seen, "commands were recorded"
    assert not recorder.problems(), "\n".join(recorder.problems())
