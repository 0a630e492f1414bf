"""Segments: immutable, sorted runs of one series' entries, as MongoDB and S3 keep them.

A segment has a *header*, a small document that readers plan with, and a *body*, the entries.

    header  { _id, t, lv, s0, s1, lo, hi, n, f, w, b, p, st, enc, raw, size, crc, bid, chunks, at }
              t        the series                     lv      0 as written; one more for each time it was rewritten
              s0, s1   the numbers it holds; a series' segments are numbered 1, 2, 3, ... as they are committed
              lo, hi   lowest and highest position: timestamps in a track, indices in a sequence
              n        entries                        f       [field, types, ...] in turns; None when very many
              w, b, p  writer, batch, piece of it     st      "live", "merged" (its entries are in another one), "cut"
              enc      see below                      raw     bytes uncompressed, of a part about
              size     bytes of the body              crc     CRC32 of the body
              bid      the body's id                  at      database time at which it was written
              a, z     sequences only: lowest and highest timestamp
              of, set, part, parts    from the compactor: which segments this set replaces, until they went: swept
              k        deletions up to this number were applied
              got      when its newest entries came; absent in what is as written, where it is `at`
              obj      archived: {key, size, sha256}; the body is an object in S3
    enc     "mp+zstd": a msgpack array of entries; "blocks+zstd": journal bodies that are alike, byte by byte
            (`blocks.py`); "parquet": a part, from the compactor
    body    { _id: bid, body: bytes, crc, at }   further pieces of a body above 12 MiB (a part: 1 MiB) as `bid#1`, ...

Later segments win: the rank of a segment is (s1, lv). Two copies of the same entries merge to the same answer, so a
reader never needs to know whether a compaction has finished; only absence would hurt.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from statistics import median
from typing import Any, NamedTuple

import msgspec

from .. import zstd
from ..blocks import Blocks
from ..columns import expand, is_columns
from ..entry import decode_body, merge, track_number
from ..errors import StoreCorrupt
from ..line import from_line, to_line
from ..schema import observe, summary
from ..store import MERGED, Batch, Entry, Track
from .grouping import grouped, is_column_body
from .uniform import Alike, alike, alike_block, entries_of, of_columns

Header = dict[str, Any]
Entries = list[Entry] | Alike

LIVE, STUB, CUT = "live", "merged", "cut"
MSGPACK, BLOCKS, PARQUET = "mp+zstd", "blocks+zstd", "parquet"

PIECE_BYTES = 8 << 20
"""Entries of one segment, uncompressed; a single larger entry is a segment of its own."""
CHUNK_BYTES = 12 << 20
PART_CHUNK_BYTES = 1 << 20
"""A window reads some row groups of a part: it fetches the documents that hold them, not all of it."""
"""MongoDB's limit for a document is 16 MiB."""
MAX_FIELDS = 200
"""Headers list the fields up to this number; beyond it a reader looks into the body."""
JUMP_S = 60.0
"""A gap longer than this, and far longer than the usual one, cuts a batch: one mixed batch (seconds since the start
beside seconds since 1970) would otherwise make a segment that overlaps every window for ever."""
MAX_PIECES = 64
MAX_POSITION = 1.7976931348623157e308
"""The largest float64: the open end of a window, where an infinity would not travel everywhere."""


class Rank(NamedTuple):
    """Where a segment stands among those of its series; for each field the highest rank wins."""

    last: int
    level: int


def rank(header: Header) -> Rank:
    """The segment's rank."""
    return Rank(header["s1"], header["lv"])


def received(header: Header) -> float:
    """When the newest entries of a segment came, in database time."""
    return float(header["got"] if "got" in header else header["at"])


# ---------------------------------------------------------------- batches to pieces

_0 = None | bool | int | float | str
_1 = None | bool | int | float | str | list[_0] | dict[str, _0]
_2 = None | bool | int | float | str | list[_1] | dict[str, _1]
_3 = None | bool | int | float | str | list[_2] | dict[str, _2]
_plain_body: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tuple[int, float, dict[str, _3]])
"""Takes bodies of values that read as they were written. All else (bytes, dates, keys that are no text, deep nesting)
goes through a line, as in every store."""


def batch_entries(batch: Batch) -> dict[Track, Entries]:
    """The entries of each series as they will read, in the order of the batch; those that look alike as one block."""
    found = dict(_in_blocks(batch, batch.bodies)) if isinstance(batch.bodies, Blocks) else {}
    if found and len(found) == len(set(batch.tracks.values())):
        return found
    return {track: found.get(track) or _entries_of(track, bodies) for track, bodies in grouped(batch).items()}


def _in_blocks(batch: Batch, bodies: Blocks) -> Iterator[tuple[Track, Entries]]:
    """The tracks of which all entries came in one block and are fit to stay in it."""
    tracks = [batch.tracks[track_number(block.first)] for block in bodies.blocks]
    for track, block in zip(tracks, bodies.blocks, strict=True):
        if tracks.count(track) == 1 and track.kind == MERGED:
            found = _fit(alike_block(block))
            if found is not None:
                yield track, found


def _fit(block: Alike | None) -> Alike | None:
    """Entries that ascend and have no long pause."""
    return block if block is not None and block.ascends and block.longest_gap <= JUMP_S else None


def _block_of(bodies: list[bytes]) -> Alike | None:
    """Entries that look alike, if they are fit."""
    whole = len(bodies) == 1 and is_column_body(bodies[0])
    return _fit(of_columns(decode_body(bodies[0])) if whole else alike(bodies))


def _entries_of(track: Track, bodies: list[bytes]) -> Entries:
    block = _block_of(bodies) if track.kind == MERGED else None
    if block is not None:
        return block
    found: list[Entry] = []
    for raw in bodies:
        try:
            _, timestamp, fields = _plain_body.decode(raw)
        except (msgspec.ValidationError, RecursionError):
            found += _any_body(raw)
        else:
            found.append({"timestamp": timestamp, **fields})
    return found


def _any_body(raw: bytes) -> list[Entry]:
    body = decode_body(raw)
    if not is_columns(body):
        return [_as_read(body[1], body[2])]
    plain = all(len(column) == 3 for column in body[3].values())
    rows = chain.from_iterable(expand(body))
    return [{"timestamp": t, **fields} if plain else _as_read(t, fields) for t, fields in rows]


def _as_read(timestamp: float, fields: Mapping[str, Any]) -> Entry:
    entry = from_line(to_line(timestamp, fields))
    if entry is None:
        raise StoreCorrupt("a journal body is no entry")
    return entry


class Piece(NamedTuple):
    """What becomes one segment: header fields and body; number and position are given when it is inserted."""

    header: Header
    body: bytes


def pieces(kind: str, entries: Entries) -> list[Piece]:
    """The entries of one series in one batch, merged, cut at jumps of time and at the size limit."""
    if isinstance(entries, Alike):
        return list(_alike_pieces(entries))
    if kind != MERGED:
        return [_piece(kind, part, raw) for part, raw in _sized(entries)]
    parts = at_jumps(merge(entries))
    return [_piece(kind, part, raw) for run in parts for part, raw in _sized(run)]


def _alike_pieces(block: Alike) -> Iterator[Piece]:
    """The same without looking at each entry."""
    _, timestamp, fields = _plain_body.decode(block.first)
    described = describe_part(MERGED, [{"timestamp": timestamp, **fields}])
    count = max(1, PIECE_BYTES // (len(block.first) + 16))
    for first in range(0, len(block.times), count):
        times = block.times[first : first + count]
        ends = {"n": len(times), "lo": float(times[0]), "hi": float(times[-1])}
        yield _packed({**described, **ends}, block.columns(first, first + count), BLOCKS)


def _piece(kind: str, entries: Sequence[Entry], raw: bytes) -> Piece:
    return _packed(describe_part(kind, entries), raw)


def _packed(header: Header, raw: bytes, enc: str = MSGPACK) -> Piece:
    body = zstd.compress(raw)
    return Piece({**header, "enc": enc, "raw": len(raw), "size": len(body), "crc": zlib.crc32(body)}, body)


def describe_part(kind: str, entries: Sequence[Entry]) -> Header:
    """The header fields that follow from the entries."""
    header: Header = {"n": len(entries), "f": field_types(entries)}
    if kind == MERGED:
        return {**header, "lo": entries[0]["timestamp"], "hi": entries[-1]["timestamp"]}
    stamps = [entry["timestamp"] for entry in entries]
    return {**header, "a": min(stamps), "z": max(stamps)}


def at_jumps(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """Ascending entries, cut where time jumps; at most MAX_PIECES parts."""
    stamps = [entry["timestamp"] for entry in entries]
    gaps = [late - early for early, late in pairwise(stamps)]
    if not gaps or max(gaps) <= JUMP_S:
        return [entries]
    limit = max(JUMP_S, 50.0 * median(gaps))
    longest = sorted((gap, place) for place, gap in enumerate(gaps, start=1) if gap > limit)[-(MAX_PIECES - 1) :]
    places = [0, *sorted(place for _, place in longest), len(entries)]
    return [entries[first:last] for first, last in pairwise(places)]


def _sized(entries: Sequence[Entry]) -> Iterator[tuple[Sequence[Entry], bytes]]:
    """The entries with their encoding, halved until each part fits a segment."""
    raw = encode_entries(entries)
    if len(raw) <= PIECE_BYTES or len(entries) == 1:
        yield entries, raw
        return
    middle = len(entries) // 2
    yield from _sized(entries[:middle])
    yield from _sized(entries[middle:])


# ---------------------------------------------------------------- types of fields


def field_types(entries: Sequence[Entry], limit: int | None = MAX_FIELDS) -> list[str] | None:
    """`[field, types, field, types, ...]` as `schema.describe` names them; None where there are more than `limit`.

    Flat, because some servers of MongoDB's protocol take no arrays inside arrays.
    """
    columns: dict[str, list[Any]] = {}
    for entry in entries:
        for name, value in entry.items():
            columns.setdefault(name, []).append(value)
    columns.pop("timestamp", None)
    if limit is not None and len(columns) > limit:
        return None
    return list(chain.from_iterable(summary({name: _types(values) for name, values in columns.items()}).items()))


_SCALARS = {bool: "bool", int: "int", float: "float", str: "str"}


def _types(values: list[Any]) -> set[str]:
    """The names of the types of one column's values; columns of plain lists without looking at each list alone."""
    if set(map(type, values)) == {list} and all(values):
        inner = set(map(type, chain.from_iterable(values)))
        if len(inner) == 1 and (only := inner.pop()) in _SCALARS:
            return {f"list[{_SCALARS[only]}; {size}]" for size in set(map(len, values))}
    seen: dict[str, set[str]] = {}
    observe(seen, ({"v": value} for value in values))
    return seen.get("v", set())


def united_types(lists: Iterable[list[str]]) -> dict[str, str]:
    """The columns of several segments together."""
    seen: dict[str, set[str]] = {}
    for fields in lists:
        for name, types in zip(fields[::2], fields[1::2], strict=True):
            seen.setdefault(name, set()).update(types.split(" | "))
    return summary(seen)


def may_hold(header: Header, columns: Sequence[str] | None) -> bool:
    """Whether a read of these columns needs the segment."""
    if columns is None or "timestamp" in columns or header["f"] is None:
        return True
    wanted = {name for column in columns for name in (column, column.split(".")[0])}
    return not wanted.isdisjoint(header["f"][::2])


# ---------------------------------------------------------------- bodies


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Entries as msgpack."""
    return msgspec.msgpack.encode(entries)


def decode_entries(header: Header, body: bytes) -> list[Entry]:
    """The entries of a body that is no part.

    Raises:
        StoreCorrupt: the bytes are not the ones that were written.
    """
    check_body(header, body)
    raw = zstd.decompress(body, header["raw"])
    if header["enc"] == BLOCKS:
        raw = entries_of(raw, header["n"])
    try:
        return msgspec.msgpack.decode(raw)  # type: ignore[no-any-return]
    except RecursionError:
        return decode_body(raw)


def check_body(header: Header, body: bytes) -> None:
    """The body is the one the header was written for."""
    if len(body) != header["size"] or zlib.crc32(body) != header["crc"]:
        raise StoreCorrupt(f"the body of segment {header['_id']} is damaged")


def chunk_bytes(enc: str) -> int:
    """How much of a body is kept in one document."""
    return PART_CHUNK_BYTES if enc == PARQUET else CHUNK_BYTES


def chunked(bid: str, enc: str, body: bytes, at: float) -> list[dict[str, Any]]:
    """The documents that hold a body."""
    size = chunk_bytes(enc)
    parts = (body[k * size : (k + 1) * size] for k in range(chunks(enc, body)))
    return [{"_id": chunk_id(bid, k), "body": part, "crc": zlib.crc32(part), "at": at} for k, part in enumerate(parts)]


def chunks(enc: str, body: bytes) -> int:
    """In how many documents a body is kept."""
    return max(1, -(-len(body) // chunk_bytes(enc)))


def chunk_id(bid: str, number: int) -> str:
    """The id of one document of a body."""
    return f"{bid}#{number}" if number else bid


def chunk_ids(header: Header) -> list[str]:
    """The ids of all documents of a segment's body."""
    return [chunk_id(header["bid"], number) for number in range(header.get("chunks", 0))]


# ---------------------------------------------------------------- positions


def following(position: float) -> float:
    """The next float64."""
    return math.nextafter(position, math.inf)
