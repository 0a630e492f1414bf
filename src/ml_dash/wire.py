"""What client and server say to each other: routes, limits, the batch's encoding, error codes. `docs/http-api.md`.

A batch travels as one zstd frame of msgpack:

    {"v": 1, "writer": "0019...", "number": 7, "tracks": {1: ["tracks", "robot/state"]}, "bodies": [body, ...]}
    {"v": 2, "writer": ..., "number": ..., "tracks": ..., "order": bytes, "blocks": [[count, columns], ...]}

The second form is `blocks.py`'s, for many bodies; which of them a batch has follows from its bodies alone.
The same (writer, number) always means the same entries, so a batch may be sent any number of times. The header
`Content-Digest` (RFC 9530, sha-256 of the bytes as sent) tells damage on the way from damage at the source.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from .blocks import MOST_BLOCKS, Block, Blocks, blocks_of
from .errors import InvalidEntry, InvalidWindow, MlDashError, StoreUnavailable
from .store import KINDS, Batch, Track, TrackInfo, Window

VERSION, IN_BLOCKS = 1, 2
"""The forms of a batch."""

EXPERIMENTS, BATCHES, WRITERS = "/v1/experiments", "/v1/batches", "/v1/writers"
TRACKS, ENTRIES, DOCUMENTS, LIVE, ACCESS = "/v1/tracks", "/v1/entries", "/v1/documents", "/v1/live", "/v1/access"
OBJECTS = "/v1/objects"

BATCH = "application/vnd.ml-dash.batch"
JSON, NDJSON = "application/json", "application/x-ndjson"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

FORMATS = {"json": JSON, "ndjson": NDJSON, "arrow": ARROW, "parquet": PARQUET, "mocap": JSON}
"""The formats of a read, and the media type of each."""


class Limits(NamedTuple):
    """What one request may carry. A client cuts its batches to fit; the server refuses what does not."""

    compressed: int = 16 << 20
    raw: int = 64 << 20
    entries: int = 50_000
    document: int = 8 << 20


LIMITS = Limits()

ERRORS: dict[str, int] = {
    "bad_request": 400,
    "bad_digest": 400,
    "bad_body": 400,
    "bad_parameter": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "copied_writer": 409,
    "being_recorded": 409,
    "changed": 412,
    "too_large": 413,
    "unsupported_type": 415,
    "bad_entries": 422,
    "internal": 500,
    "unavailable": 503,
    "too_busy": 503,
    "disk_full": 507,
}
"""Every error code with its status."""


class Fault(msgspec.Struct, omit_defaults=True):
    """One error as the server says it: a code from `ERRORS`, what is wrong, where."""

    code: str
    message: str
    where: str = ""
    entries: list[tuple[int, str]] = []
    """For `bad_entries`: the position of each bad body in the batch, and what is wrong with it."""


class Reply(msgspec.Struct):
    """The body of every error."""

    error: Fault


class Receipt(msgspec.Struct):
    """The answer to a batch of `count` entries: it is durable, and `applied` is the writer's highest number."""

    applied: int
    count: int


# ---------------------------------------------------------------- errors on the client's side


class Unavailable(StoreUnavailable):
    """The server cannot take it now; `retry_after_s` is what it asked for, `status` what it said (0: nothing)."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class InvalidAddress(MlDashError, ValueError):
    """A server's address that is none."""


class TooLarge(MlDashError):
    """A batch that the server, or a proxy before it, does not take at this size; nothing of it was stored."""


class Refused(InvalidEntry):
    """The server refused entries of a batch; `entries` names them by their position, none where it names none.

    Nothing of the batch was stored, or, where it went in parts (`rest_stored`), all the others were.
    """

    def __init__(self, message: str, entries: Sequence[tuple[int, str]], *, rest_stored: bool = False) -> None:
        super().__init__(message)
        self.entries, self.rest_stored = list(entries), rest_stored


# ---------------------------------------------------------------- batches


class Packed(NamedTuple):
    """A batch as it goes over the wire: compressed, with the value of its `Content-Digest`."""

    writer: str
    number: int
    body: bytes
    digest: str


class BadBatch(ValueError):
    """A body that is no batch."""


_TOKEN_TEXT = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    writer: str
    number: int
    tracks: dict[int, tuple[str, str]]
    bodies: list[bytes] | msgspec.UnsetType = msgspec.UNSET
    order: bytes | msgspec.UnsetType = msgspec.UNSET
    blocks: Annotated[list[tuple[int, bytes]], msgspec.Meta(max_length=MOST_BLOCKS)] | msgspec.UnsetType = msgspec.UNSET


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Batch)


def encode_batch(batch: Batch, pace: Callable[[], None] = lambda: None) -> bytes:
    """The batch before compression.

    Args:
        pace: called every now and then, so that other threads can run.
    """
    bodies = batch.bodies if isinstance(batch.bodies, list) else list(batch.bodies)
    blocks = blocks_of(bodies, pace)
    tracks = {number: (track.kind, track.topic) for number, track in batch.tracks.items()}
    head = (batch.writer, batch.number, tracks)
    if blocks is None:
        return _encoder.encode(_Batch(VERSION, *head, bodies=bodies))
    columns = [(block.count, block.columns) for block in blocks.blocks]
    return _encoder.encode(_Batch(IN_BLOCKS, *head, order=blocks.order, blocks=columns))


def decode_batch(raw: bytes) -> Batch:
    """The batch of an uncompressed body; its entries are not looked at.

    Raises:
        BadBatch: this is no batch, or one of a newer version.
    """
    try:
        found = _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(f"no batch: {error}") from None
    if found.v not in (VERSION, IN_BLOCKS):
        raise BadBatch(f"a batch of version {found.v}; this server knows the versions {VERSION} and {IN_BLOCKS}")
    check_writer(found.writer)
    if not 0 < found.number < 1 << 63:
        raise BadBatch(f"number must be from 1 to 2^63 - 1, got {found.number}")
    tracks = {number: Track(check_kind(kind), topic) for number, (kind, topic) in found.tracks.items()}
    return Batch(found.writer, found.number, tracks, _bodies_of(found))


def _bodies_of(found: _Batch) -> Sequence[bytes]:
    is_plain = found.v == VERSION
    if msgspec.UNSET in (found.bodies,) if is_plain else msgspec.UNSET in (found.order, found.blocks):
        raise BadBatch("no batch: its entries are missing")
    if is_plain:
        return found.bodies  # type: ignore[return-value]
    try:
        return Blocks(found.order, [Block(*one) for one in found.blocks])  # type: ignore[arg-type, union-attr]
    except ValueError as error:
        raise BadBatch(f"no batch: {error}") from None


def check_writer(writer: str) -> str:
    """A writer's id: up to 128 letters, digits and `._~:-`."""
    if not _TOKEN_TEXT.fullmatch(writer):
        raise BadBatch("writer must be 1 to 128 letters, digits or any of ._~:-")
    return writer


def check_kind(kind: str) -> str:
    """The kind of a series."""
    if kind not in KINDS:
        raise BadBatch(f"kind must be one of {', '.join(KINDS)}, got {kind!r:.40}")
    return kind


def digest(data: bytes) -> str:
    """The value of `Content-Digest` for a body as it is sent."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


# ---------------------------------------------------------------- windows as query parameters


def window_query(window: Window) -> list[tuple[str, str]]:
    """A window as query parameters; `column` is repeated."""
    query = [("start", repr(window.start))] if window.start is not None else []
    query += [("end", repr(window.end))] if window.end is not None else []
    if window.columns is not None:
        query += [("column", name) for name in window.columns] or [("columns", "none")]
    query += [("first", str(window.first))] if window.first else []
    query += [("limit", str(window.limit))] if window.limit is not None else []
    return query


def window_of(query: Mapping[str, str], columns: Sequence[str] | None) -> Window:
    """The window of query parameters; `columns` are the values of `column`.

    Raises:
        InvalidWindow: a bound that is no number, a negative count.
    """
    none = query.get("columns") == "none"
    return Window(
        _seconds("start", query.get("start")),
        _seconds("end", query.get("end")),
        () if none else (tuple(columns) if columns else None),
        _count("first", query.get("first")) or 0,
        _count("limit", query.get("limit")),
    )


def _seconds(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or not text.isascii():
        raise InvalidWindow(f"{name} must be a number of seconds, got {text!r:.60}")
    return value


def _count(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidWindow(f"{name} must be an integer of at least 0, got {text!r:.60}")
    return int(text)


# ---------------------------------------------------------------- lists


def info_to_wire(info: TrackInfo) -> dict[str, Any]:
    """A `TrackInfo` as plain values."""
    return {
        "topic": info.topic,
        "count": info.count,
        "first_timestamp": info.first_timestamp,
        "last_timestamp": info.last_timestamp,
        "columns": dict(info.columns),
        "size_bytes": info.size_bytes,
        "late": info.late,
        "repeated": info.repeated,
        "revision": info.revision,
    }


def info_from_wire(found: Mapping[str, Any]) -> TrackInfo:
    """The `TrackInfo` of `info_to_wire`."""
    return TrackInfo(
        found["topic"],
        found["count"],
        found["first_timestamp"],
        found["last_timestamp"],
        found["columns"],
        found["size_bytes"],
        found.get("late"),
        found.get("repeated"),
        found.get("revision", ""),
    )
