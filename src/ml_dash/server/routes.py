"""Every operation of the API in one table: requests are checked against it, the OpenAPI description is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from .. import wire
from ..store import MERGED
from .faults import Refusal

TEXT: dict[str, Any] = {"type": "string"}
SECONDS: dict[str, Any] = {"type": "number"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter; `many` may be given several times, `hint` ends the error about a wrong value."""

    name: str
    about: str
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT)
    required: bool = False
    many: bool = False
    hint: str = ""


PREFIX = Param("prefix", "The experiment: owner/project/.../name.", {**TEXT, "minLength": 5, "maxLength": 4096}, True)
KIND = Param("kind", "The kind of series.", {"enum": ["tracks", "metrics", "logs"], "default": "tracks"})
TOPIC = Param("topic", "The series; the one of logs is `logs`.", {**TEXT, "minLength": 1, "maxLength": 1024}, True)
WRITER = Param("writer", "The writer's id.", {**TEXT, "pattern": r"^[A-Za-z0-9._~:-]{1,128}$"}, True)
NAME = Param("name", "The document.", {**TEXT, "pattern": r"^[a-z][a-z0-9_-]{0,63}$"}, True)
START = Param("start", "Tracks: first timestamp in seconds, inclusive.", SECONDS)
END = Param("end", "Tracks: last timestamp in seconds, inclusive.", SECONDS)
COLUMN = Param("column", "A field, or a part of one (`pose.x`), to keep.", TEXT, many=True)
NO_COLUMNS = Param(
    "columns", "`none`: select no column, so no entry.", {"enum": ["none"]}, hint="; for some fields repeat column=NAME"
)
FIRST = Param("first", "Metrics and logs: index of the first entry.", COUNT)
LIMIT = Param("limit", "How many at most; of a track the first of the window.", COUNT)
FORMAT = Param("format", "The format of the answer.", {"enum": list(wire.FORMATS), "default": "json"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `body` maps media types to schemas; `answer` is the schema of success by media type, `status` its status; `errors`
    are the codes it may answer beside those that every operation may; `tells` is set where only who records asks.
    """

    method: str
    path: str
    id: str
    about: str
    params: Sequence[Param] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    errors: Sequence[str] = ()
    writes: bool = False
    tells: bool = False
    open: bool = False
    headers: Sequence[Param] = ()


def query(request: Request, operation: Operation) -> dict[str, str]:
    """The query's parameters by name, checked against the operation's; those of `many` only by their last value.

    Raises:
        Refusal: bad_parameter naming one that is unknown, missing, given twice or not of its schema.
    """
    known = {param.name: param for param in operation.params}
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        param = known.get(name)
        if param is None:
            raise Refusal("bad_parameter", f"unknown parameter {name!r:.60}; known are {', '.join(known)}", "query")
        if name in found and not param.many:
            raise Refusal("bad_parameter", f"{name} is given more than once", name)
        found[name] = _checked(param, value)
    missing = [param.name for param in operation.params if param.required and param.name not in found]
    if missing:
        raise Refusal("bad_parameter", f"{missing[0]} is missing", missing[0])
    return found


def check_bounds(kind: str, query: Mapping[str, str]) -> None:
    """Bounds that the kind of series has: times for tracks, places for sequences; raises Refusal bad_parameter."""
    for name in ("first",) if kind == MERGED else ("start", "end"):
        if name in query:
            of = "metrics and logs, which have an index" if kind == MERGED else "tracks; metrics and logs take first"
            raise Refusal("bad_parameter", f"{name} is for {of}", name)


def _checked(param: Param, value: str) -> str:
    known = param.schema.get("enum")
    if known is not None and value not in known:
        text = f"{param.name} must be {' or '.join(known)}, got {value!r:.60}{param.hint}"
        raise Refusal("bad_parameter", text, param.name)
    shortest = param.schema.get("minLength", 0)
    if len(value) < shortest or "\0" in value:
        raise Refusal("bad_parameter", f"{param.name} is empty or too short", param.name)
    return value


# ---------------------------------------------------------------- schemas of answers

_NULLABLE_TEXT = {"type": ["string", "null"]}
_NULLABLE_NUMBER = {"type": ["number", "null"]}
_NULLABLE_COUNT = {**COUNT, "type": ["integer", "null"]}

ENTRY = {
    "type": "object",
    "required": ["timestamp"],
    "properties": {"timestamp": SECONDS},
    "description": 'Fields beside the timestamp. NaN and infinities are "NaN", "Infinity", "-Infinity".',
}
ENTRIES = {
    "type": "object",
    "required": ["entries", "count"],
    "properties": {"entries": {"type": "array", "items": ENTRY}, "count": COUNT},
}
TRACK = {
    "type": "object",
    "required": ["topic", "count", "first_timestamp", "last_timestamp", "columns", "size_bytes"],
    "properties": {
        "topic": TEXT,
        "count": COUNT,
        "first_timestamp": _NULLABLE_NUMBER,
        "last_timestamp": _NULLABLE_NUMBER,
        "columns": {"type": "object", "additionalProperties": TEXT},
        "size_bytes": COUNT,
        "late": _NULLABLE_COUNT,
        "repeated": _NULLABLE_COUNT,
        "revision": {
            **TEXT,
            "description": "Opaque: another one after every append, correction and deletion; it may change without"
            " them. Empty where the store does not know.",
        },
    },
}
EXPERIMENT = {
    "type": "object",
    "required": ["prefix", "status"],
    "properties": {
        "prefix": TEXT,
        "status": {
            **_NULLABLE_TEXT,
            "description": "running, silent (running, but not heard of for two minutes), completed, failed, cancelled,"
            " crashed; null where nobody said.",
        },
        "created_at": _NULLABLE_TEXT,
        "started_at": _NULLABLE_TEXT,
        "ended_at": _NULLABLE_TEXT,
        "tracks": COUNT,
        "tags": {"type": "array", "items": TEXT},
        "readme": _NULLABLE_TEXT,
        "last_heard": {**_NULLABLE_TEXT, "description": "When who records it was last heard of, ISO 8601 in UTC."},
    },
}
FAULT = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"enum": sorted(wire.ERRORS)},
                "message": TEXT,
                "where": TEXT,
                "entries": {"type": "array", "items": {"type": "array"}},
            },
        }
    },
}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
RECEIPT = {"type": "object", "required": ["applied", "count"], "properties": {"applied": NUMBER, "count": COUNT}}
DOCUMENT = {"type": "object"}
BYTES = {"type": "string", "format": "binary"}
EVENT = {"type": "object", "properties": {"data": TEXT, "event": {"enum": ["end"]}}, "required": ["data"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(name: str, item: Any) -> dict[str, Any]:
    return _object(**{name: {"type": "array", "items": item}})


GRANT = _object(owner=TEXT, write={"type": "boolean"})

# ---------------------------------------------------------------- the table

_IF_MATCH = Param("If-Match", "The ETag of the document that is replaced.")
_IF_NONE = Param("If-None-Match", "`*`: only where there is none yet.", {"enum": ["*"]})

LIST_EXPERIMENTS = Operation(
    "GET",
    wire.EXPERIMENTS,
    "list_experiments",
    "The experiments that the token reaches, sorted by prefix.",
    (
        Param("pattern", "As in a shell; `*` also passes `/`. Default: all.", {**TEXT, "minLength": 1}),
        Param("after", "Only prefixes behind this one.", {**TEXT, "minLength": 1}),
        Param("limit", "How many at most.", COUNT),
    ),
    answer={wire.JSON: _list("experiments", EXPERIMENT)},
)
REMOVE_EXPERIMENT = Operation(
    "DELETE",
    wire.EXPERIMENTS,
    "remove_experiment",
    "Delete an experiment with everything in it.",
    (PREFIX,),
    status=204,
    errors=("being_recorded",),
    writes=True,
)
APPEND = Operation(
    "POST",
    wire.BATCHES,
    "append",
    "Store a batch once: durable on success, and the same (writer, number) sent again changes nothing. Lines of JSON"
    " belong to one topic; without writer and number they are stored as often as they are sent.",
    (
        PREFIX,
        Param("kind", "For lines: the kind of series.", KIND.schema),
        Param("topic", "For lines: the series.", TOPIC.schema),
        Param("writer", "For lines: the sender's id.", WRITER.schema),
        Param("number", "For lines: the batch's number.", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}),
    ),
    body={wire.BATCH: BYTES, wire.NDJSON: BYTES},
    answer={wire.JSON: RECEIPT},
    errors=("bad_body", "bad_digest", "too_large", "unsupported_type", "bad_entries", "copied_writer", "timeout"),
    writes=True,
    tells=True,
)
APPLIED = Operation(
    "GET",
    wire.WRITERS,
    "applied",
    "The highest batch number of a writer that is stored; 0 for none.",
    (PREFIX, WRITER),
    answer={wire.JSON: _object(applied=NUMBER)},
)
STILL_HERE = Operation(
    "PUT",
    wire.WRITERS,
    "still_here",
    "The writer records and has nothing to send. Who sends nothing for two minutes and does not say this is shown as"
    " silent, until it is heard again.",
    (PREFIX, WRITER),
    status=204,
    writes=True,
    tells=True,
)
FORGET = Operation(
    "DELETE",
    wire.WRITERS,
    "forget",
    "The writer is finished and never sends again.",
    (PREFIX, WRITER),
    status=204,
    writes=True,
)
LIST_TRACKS = Operation(
    "GET",
    wire.TRACKS,
    "list_tracks",
    "Every series of a kind, sorted by topic.",
    (PREFIX, KIND),
    answer={wire.JSON: _list("tracks", TRACK)},
)
REMOVE_TRACK = Operation(
    "DELETE",
    wire.TRACKS,
    "remove_track",
    "Delete a series, or the entries of a track between two timestamps; an unknown one is no error.",
    (PREFIX, KIND, TOPIC, START, END),
    status=204,
    writes=True,
)
READ = Operation(
    "GET",
    wire.ENTRIES,
    "read",
    "A window of a series: ascending, one entry for each timestamp; sequences carry their `index`.",
    (PREFIX, KIND, TOPIC, START, END, COLUMN, NO_COLUMNS, FIRST, LIMIT, FORMAT),
    answer={wire.JSON: {"type": "object"}, wire.NDJSON: BYTES, wire.ARROW: BYTES, wire.PARQUET: BYTES},
    errors=("unsupported_type",),
)
FOLLOW = Operation(
    "GET",
    wire.LIVE,
    "follow",
    "Server-sent events with the entries that come behind the newest one, while they come.",
    (PREFIX, KIND, TOPIC, Param("start", "Behind this timestamp. Default: the newest.", SECONDS), FIRST, COLUMN),
    answer={"text/event-stream": EVENT},
)
READ_DOCUMENT = Operation(
    "GET",
    wire.DOCUMENTS,
    "read_document",
    "A small document (`experiment`, `params`) with its ETag.",
    (PREFIX, NAME),
    answer={wire.JSON: DOCUMENT},
)
WRITE_DOCUMENT = Operation(
    "PUT",
    wire.DOCUMENTS,
    "write_document",
    "Replace a document as a whole, if it is still the one of the ETag.",
    (PREFIX, NAME),
    body={wire.JSON: DOCUMENT},
    answer={wire.JSON: DOCUMENT},
    errors=("bad_body", "changed", "too_large", "unsupported_type", "timeout"),
    writes=True,
    tells=True,
    headers=(_IF_MATCH, _IF_NONE),
)
OBJECT = _object(url=TEXT, first=SECONDS, last=SECONDS, entries=COUNT, size_bytes=COUNT)
ARCHIVED = _object(topic=TEXT, exact={"type": "boolean"}, objects={"type": "array", "items": OBJECT})
LIST_OBJECTS = Operation(
    "GET",
    wire.OBJECTS,
    "list_objects",
    "The archive's objects that count now, for engines that read the bucket themselves. `exact`: they hold the whole"
    " series, each instant once.",
    (PREFIX, KIND, Param("topic", "One series. Default: all.", TOPIC.schema)),
    answer={wire.JSON: _list("series", ARCHIVED)},
)
WHO = Operation(
    "GET",
    wire.ACCESS,
    "access",
    "What the token may do.",
    answer={wire.JSON: _object(token=TEXT, grants={"type": "array", "items": GRANT}, limits={"type": "object"})},
)
ALIVE = Operation("GET", "/healthz", "alive", "The process answers.", answer={wire.JSON: _object(ok=TEXT)}, open=True)
READY = Operation(
    "GET", "/readyz", "ready", "The store behind it answers too.", answer={wire.JSON: _object(ok=TEXT)}, open=True
)

OPERATIONS: tuple[Operation, ...] = (
    LIST_EXPERIMENTS,
    REMOVE_EXPERIMENT,
    APPEND,
    APPLIED,
    STILL_HERE,
    FORGET,
    LIST_TRACKS,
    REMOVE_TRACK,
    READ,
    FOLLOW,
    READ_DOCUMENT,
    WRITE_DOCUMENT,
    LIST_OBJECTS,
    WHO,
    ALIVE,
    READY,
)
