"""From a request's body to a batch: decompressed within limits, checked as a whole before anything is stored."""

from __future__ import annotations

import array
import math
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ..address import check_topic
from ..blocks import Blocks, used_tracks
from ..columns import is_column
from ..entry import MAX_ENTRY_BYTES, track_number
from ..errors import InvalidEntry, InvalidTopic
from ..store import MERGED, Batch, Track
from ..stores.grouping import is_column_body
from ..stores.uniform import Alike, alike, alike_block
from ..wire import BATCH, LIMITS, NDJSON, Limits, check_writer, decode_batch, digest
from ..zstd import TooLarge, declared_size, decompress, gunzip
from .faults import Refusal
from .lines import body_of

LOGS = "logs"
MAX_NAMED = 1000
"""So many bad entries are named in one answer."""

ENCODINGS: dict[str, Callable[[bytes, int], bytes] | None] = {
    "": None,
    "identity": None,
    "zstd": decompress,
    "gzip": gunzip,
}

Bad = list[tuple[int, str]]


def _extension(code: int, data: memoryview) -> Any:
    """Times are the one extension that entries have, and the decoder's own; others would be stored as their bytes."""
    raise InvalidEntry(f"a value is msgpack's extension {code}, which is no value of an entry")


_decode = msgspec.msgpack.Decoder(ext_hook=_extension).decode
_decode_plain = msgspec.msgpack.Decoder(tuple[int, float, dict[str, Any]], ext_hook=_extension).decode


# ---------------------------------------------------------------- bodies


def raw_size(body: bytes, encoding: str, limits: Limits = LIMITS) -> int:
    """How many bytes a body may become: what it declares, or the limit."""
    if encoding in ("", "identity"):
        return len(body)
    if encoding == "zstd":
        size = declared_size(body)
        return limits.raw if size is None else min(size, limits.raw)
    return limits.raw


def unpack(body: bytes, encoding: str, limits: Limits = LIMITS) -> bytes:
    """The body uncompressed.

    Raises:
        Refusal: too_large, bad_body (damaged).
    """
    known = ENCODINGS[encoding]
    try:
        return body if known is None else known(body, limits.raw)
    except TooLarge as error:
        raise Refusal("too_large", f"{error}; send less at once", "body") from None
    except ValueError as error:
        raise Refusal("bad_body", str(error), "body") from None


def check_head(media_type: str, encoding: str, claimed_digest: str | None) -> None:
    """What the head of a request tells before any of its body has to be read.

    Raises:
        Refusal: unsupported_type, bad_digest.
    """
    if media_type not in (BATCH, NDJSON):
        raise Refusal("unsupported_type", f"unknown type {media_type!r:.60}: {BATCH} or {NDJSON}", "Content-Type")
    if encoding not in ENCODINGS:
        raise Refusal("unsupported_type", f"unknown encoding {encoding!r:.40}: zstd or gzip", "Content-Encoding")
    if media_type == BATCH and claimed_digest is None:
        raise Refusal("bad_digest", "a batch needs its checksum: sha-256=:<base64>:", "Content-Digest")


def check_digest(body: bytes, claimed: str | None) -> None:
    """The body came as it was sent, where its checksum was given."""
    if claimed is not None and digest(body) not in [part.strip() for part in claimed.split(",")]:
        raise Refusal("bad_digest", "the body is not the one of the checksum; send it again", "Content-Digest")


def batch_of(raw: bytes, media_type: str, query: dict[str, str], limits: Limits = LIMITS) -> tuple[Batch, int, bool]:
    """The batch of an uncompressed body, how many entries it has, and whether its writer sends nothing else.

    Raises:
        Refusal: bad_entries naming each bad entry, too_large, bad_body, bad_parameter.
    """
    if media_type == BATCH:
        for name in _OF_LINES & query.keys():
            raise Refusal("bad_parameter", f"a batch says itself what it holds; {name} is for lines", name)
        batch = decode_batch(raw)
        return replace(batch, tracks=used_tracks(batch)), check(batch, limits), False
    batch = _of_lines(raw, query, limits)
    return batch, check(batch, limits), "writer" not in query


# ---------------------------------------------------------------- lines

_OF_LINES = {"kind", "topic", "writer", "number"}


def _of_lines(raw: bytes, query: dict[str, str], limits: Limits) -> Batch:
    """One series as lines of JSON, each with a `timestamp`; the query names the series."""
    if "topic" not in query and query.get("kind") != LOGS:
        raise Refusal("bad_parameter", "lines need the topic they belong to", "topic")
    track = checked_track(query.get("kind", MERGED), query.get("topic", LOGS))
    if ("writer" in query) != ("number" in query):
        where = "number" if "writer" in query else "writer"
        raise Refusal("bad_parameter", "writer and number belong together: give both, or neither", where)
    writer, number = query.get("writer", once()), query.get("number", "1")
    if not (number.isascii() and number.isdigit() and 0 < int(number[:20]) < 1 << 63):
        raise Refusal("bad_parameter", "number must be an integer from 1 on", "number")
    check_writer(writer)
    bodies, bad = list[bytes](), Bad()
    for place, line in enumerate(line for line in raw.split(b"\n") if line.strip()):
        if place >= limits.entries:
            raise _too_many(limits)
        try:
            bodies.append(body_of(line, track.topic))
        except InvalidEntry as error:
            bad.append((place, str(error)))
    if bad:
        raise _bad_entries(bad)
    return Batch(writer, int(number), {1: track}, bodies)


def once() -> str:
    """The name of a writer that sends one batch."""
    return f"once-{secrets.token_hex(12)}"


# ---------------------------------------------------------------- checking


def checked_track(kind: str, topic: str) -> Track:
    """The series of a request's words.

    Raises:
        Refusal: bad_parameter.
    """
    if kind not in (MERGED, "metrics", LOGS):
        raise Refusal("bad_parameter", f"kind must be one of tracks, metrics, logs, got {kind!r:.40}", "kind")
    if kind == LOGS and topic != LOGS:
        raise Refusal("bad_parameter", f"the series of logs is 'logs', got {topic!r:.60}", "topic")
    try:
        return Track(kind, check_topic(topic))
    except InvalidTopic as error:
        raise Refusal("bad_parameter", str(error), "topic") from None


def check(batch: Batch, limits: Limits = LIMITS) -> int:
    """How many entries the batch has; nothing in it can make a store fail.

    Raises:
        Refusal: bad_entries naming each bad body, or too_large.
    """
    problems = {number: _track_problem(track) for number, track in batch.tracks.items()}
    sound = {number for number, track in batch.tracks.items() if track.kind == MERGED and not problems[number]}
    if len(batch.bodies) > limits.entries:
        raise _too_many(limits)
    if _are_plain(batch.bodies, sound):
        return len(batch.bodies)
    count, bad = 0, Bad()
    for place, body in enumerate(batch.bodies):
        if _is_plain(body, sound):
            count += 1
        else:
            try:
                count += _check_body(body, batch, problems)
            except InvalidEntry as error:
                bad.append((place, str(error)))
        if count > limits.entries:
            raise _too_many(limits)
    if bad:
        raise _bad_entries(bad)
    return count


def _too_many(limits: Limits) -> Refusal:
    return Refusal("too_large", f"more than {limits.entries} entries; send less at once", "body")


def _bad_entries(bad: Bad) -> Refusal:
    text = f"{len(bad)} of the entries cannot be stored, so nothing was; the first: {bad[0][1]}"
    return Refusal("bad_entries", text, f"entry {bad[0][0]}", entries=bad[:MAX_NAMED])


def _track_problem(track: Track) -> str:
    try:
        checked_track(track.kind, track.topic)
    except Refusal as error:
        return str(error)
    return ""


def _are_plain(bodies: Sequence[bytes], sound: set[int]) -> bool:
    """Whether all bodies are the common ones; of those that look alike (`stores/uniform.py`) one is decoded."""
    if isinstance(bodies, Blocks):
        return all(_block_is_plain(alike_block(block), block.bodies, sound) for block in bodies.blocks)
    groups: dict[tuple[bytes, int], list[bytes]] = {}
    for body in bodies:
        groups.setdefault((body[:2], len(body)), []).append(body)
    return all(_block_is_plain(alike(group), group.copy, sound) for group in groups.values())


def _block_is_plain(block: Alike | None, bodies: Callable[[], list[bytes]], sound: set[int]) -> bool:
    if block is None:
        return all(_is_plain(body, sound) for body in bodies())
    return block.is_finite and _is_plain(block.first, sound)


def _is_plain(raw: bytes, sound: set[int]) -> bool:
    """Whether a body is the common one, an entry of a track; four times faster than finding out what else it is."""
    try:
        number, timestamp, fields = _decode_plain(raw)
    except Exception:
        return False
    return (
        raw[0] == 0x93
        and raw[1] == number
        and raw[2] == 0xCB
        and number in sound
        and timestamp - timestamp == 0.0
        and "timestamp" not in fields
        and len(raw) <= MAX_ENTRY_BYTES
    )


def _check_body(raw: bytes, batch: Batch, problems: dict[int, str]) -> int:
    """The number of entries in one body; raises InvalidEntry."""
    try:
        body = _decode(raw)
    except RecursionError:
        raise InvalidEntry("nested too deeply") from None
    except InvalidEntry:
        raise
    except Exception as error:
        raise InvalidEntry(f"no msgpack: {error}") from None
    if type(body) is not list or len(body) not in (3, 4) or type(body[0]) is not int:
        raise InvalidEntry("a body is [track, timestamp, fields] or [track, n, times, columns]")
    # Stores tell bodies apart by their first bytes, so these have to be the plain ones.
    if raw[0] not in (0x93, 0x94) or track_number(raw) != body[0]:
        raise InvalidEntry("a body begins with a short array and the number of its track")
    problem = problems.get(body[0])
    if problem is None:
        raise InvalidEntry(f"track {body[0]} is not among the batch's tracks")
    if problem:
        raise InvalidEntry(problem)
    names = body[-1]
    if type(names) is not dict or not all(type(name) is str for name in names):
        raise InvalidEntry("fields are a map with text as names")
    if "timestamp" in names or (batch.tracks[body[0]].kind != MERGED and "index" in names):
        raise InvalidEntry("the field names 'timestamp' (and 'index' in a sequence) are taken")
    return _check_columns(body, raw) if is_column_body(raw) else _check_entry(body, raw)


def _check_entry(body: list[Any], raw: bytes) -> int:
    if type(body[1]) is not float or not math.isfinite(body[1]):
        raise InvalidEntry("a timestamp is a finite float64")
    if len(raw) > MAX_ENTRY_BYTES:
        raise InvalidEntry(f"an entry of {len(raw)} bytes; the limit is {MAX_ENTRY_BYTES} (8 MiB)")
    return 1


def _check_columns(body: list[Any], raw: bytes) -> int:
    _, n, times, columns = body
    if type(n) is not int or n < 1 or type(times) is not bytes or len(times) != 8 * n:
        raise InvalidEntry("columns need n float64 timestamps")
    if len(raw) > n * MAX_ENTRY_BYTES:
        raise InvalidEntry(f"entries of {len(raw) // n} bytes; the limit is {MAX_ENTRY_BYTES} (8 MiB)")
    stamps = array.array("d", times)
    if sys.byteorder == "big":
        stamps.byteswap()
    for place, stamp in enumerate(() if math.isfinite(sum(stamps)) else stamps):
        if not math.isfinite(stamp):
            raise InvalidEntry(f"timestamp {place} of the columns is not finite")
    for name, column in columns.items():
        if not is_column(column, n):
            raise InvalidEntry(f"column {name!r:.60} does not hold {n} values")
    return n


def tracks_of(batch: Batch) -> Iterator[Track]:
    """The series that a batch adds to."""
    return iter(set(batch.tracks.values()))
