"""What a compaction reads: whole segments in the order of the merge, some bodies ahead, decoded only where need be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .. import zstd
from ..blocks import Block
from .merging import lowest
from .mongo_reader import BodyGone, Reader
from .mongo_tables import Tables
from .parts import Codec, positioned
from .segments import BLOCKS, PARQUET, Header, check_body, decode_entries
from .undecoded import Run, unpacked
from .uniform import alike_block, array_head

AHEAD_BYTES, AHEAD = 1 << 20, 100
"""Bodies fetched with one request: they wait compressed for their turn."""
SLICE_BYTES = 1 << 18
"""Entries decoded at a time, in msgpack; as Python's dicts they take several times as much."""


class Inputs:
    """Reads the segments of one merge.

    Args:
        headers: what is merged; each is loaded once.
    """

    def __init__(self, tables: Tables, reader: Reader, codec: Codec, headers: Sequence[Header]) -> None:
        self._tables, self._reader, self._codec = tables, reader, codec
        self._waiting = sorted((header for header in headers if _is_small(header)), key=lowest, reverse=True)
        self._ahead: dict[str, bytes] = {}

    def load(self, header: Header) -> Iterator[Run]:
        """A segment's entries; for a sequence under their indices.

        Raises:
            BodyGone: somebody else compacted it.
        """
        first = int(header["lo"]) if "a" in header else None
        if header["enc"] == PARQUET:
            try:
                yield from self._codec.runs(self._reader.file(header, whole=True), first=first)
            except FileNotFoundError:
                raise BodyGone(header) from None
            return
        for run in runs_of(header, self._body(header)):
            yield run if first is None or not isinstance(run, list) else positioned(run, first)
            first = None if first is None else first + len(run)

    def _body(self, header: Header) -> bytes:
        if header["bid"] not in self._ahead:
            self._fetch(header)
        body = self._ahead.pop(header["bid"], None) if _is_small(header) else self._tables.body(header)
        if body is None:
            raise BodyGone(header)
        return body

    def _fetch(self, header: Header) -> None:
        """This body, if it is small, and some that will be asked for after it."""
        wanted, size = list[Header](), 0
        while self._waiting and _is_small(header) and size < AHEAD_BYTES and len(wanted) < AHEAD:
            wanted.append(self._waiting.pop())
            size += wanted[-1]["size"]
        if wanted:
            self._ahead |= self._tables.small_bodies(wanted)


def _is_small(header: Header) -> bool:
    return bool(header["enc"] != PARQUET and header["chunks"] == 1 and header["size"] <= AHEAD_BYTES)


def runs_of(header: Header, body: bytes) -> Iterator[Run]:
    """The entries of a body that is no part: as they are where all are alike, else decoded a few at a time.

    Raises:
        StoreCorrupt: the bytes are not the ones that were written.
    """
    check_body(header, body)
    if header["enc"] == BLOCKS:
        block = alike_block(Block(header["n"], zstd.decompress(body, header["raw"])))
        yield decode_entries(header, body) if block is None else block
        return
    raw = zstd.decompress(body, header["raw"])
    yield from sliced(raw) if len(raw) > SLICE_BYTES else [unpacked(raw)]


_apart = msgspec.msgpack.Decoder(list[msgspec.Raw])


def sliced(raw: bytes) -> Iterator[Run]:
    """The entries of a msgpack array, decoded some at a time."""
    try:
        items = _apart.decode(raw)
    except RecursionError:
        yield unpacked(raw)
        return
    first, size = 0, 0
    for last, item in enumerate(items, start=1):
        size += len(item)
        if size >= SLICE_BYTES or last == len(items):
            yield unpacked(array_head(last - first) + b"".join(items[first:last]))
            first, size = last, 0
