"""A window of a series as a stream of bytes, in every format, a few thousand entries in memory at a time."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import anyio
import anyio.to_thread
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..formats.arrow import Typing, batch_from_entries, import_pyarrow
from ..formats.mocap import to_mocap
from ..formats.parquet import ROW_GROUP_ENTRIES, options
from ..line import from_lines, to_lines
from ..store import MERGED, Entry, Store, Track, Window
from ..wire import FORMATS
from ..zstd import module as zstd_module
from .faults import Refusal
from .limits import Patience

CHUNK_BYTES = 256 << 10
IN_MEMORY_BYTES = 4 << 20

log = logging.getLogger("ml_dash.server")

Blocks = Iterator[list[Entry]]
Chunks = Iterator[bytes]


def chunks_of(store: Store, track: Track, window: Window, format: str) -> Chunks:
    """The bytes of a read. Raises InvalidWindow or Refusal before the first of them for what cannot be read."""
    make = _MAKERS.get(format)
    if make is None:
        raise Refusal("bad_parameter", f"unknown format {format!r:.40}; known are {', '.join(FORMATS)}", "format")
    if track.kind != MERGED and format == "mocap":
        raise Refusal("bad_parameter", "format mocap is for tracks", "format")
    blocks = store.read(track, window)
    if track.kind == MERGED and window.limit is not None:
        blocks = first_of(blocks, window.limit)
    return make(track.topic, blocks)


def first_of(blocks: Blocks, limit: int) -> Blocks:
    """So many entries at most; what is behind them is not read."""
    while limit > 0 and (block := next(blocks, None)) is not None:
        yield block[:limit]
        limit -= len(block)


# ---------------------------------------------------------------- formats


def ndjson(topic: str, blocks: Blocks) -> Chunks:
    """One JSON object a line."""
    for block in blocks:
        yield _lines(block)


def _lines(block: list[Entry]) -> bytes:
    return to_lines([(entry["timestamp"], {k: v for k, v in entry.items() if k != "timestamp"}) for entry in block])


def json(topic: str, blocks: Blocks) -> Chunks:
    """`{"entries": [...], "count": n}`."""
    count, joint = 0, b'{"entries":['
    for block in blocks:
        count += len(block)
        yield joint + _lines(block)[:-1].replace(b"\n", b",")
        joint = b","
    yield (b"" if count else joint) + b'],"count":%d}' % count


def mocap(topic: str, blocks: Blocks) -> Chunks:
    """The motion-capture JSON; it begins with the number of frames, so all of them are held."""
    frames = to_mocap(topic, blocks)
    body = _lines([{"timestamp": 0.0, "mocap": frames}])
    yield body[len(b'{"timestamp":0.0,"mocap":') : -2]


def arrow(topic: str, blocks: Blocks) -> Chunks:
    """An Arrow IPC stream."""
    pa = import_pyarrow()
    sink = _Sink()
    with _Spooled(blocks) as spooled:
        schema = spooled.typing.schema()
        with pa.ipc.new_stream(sink, schema) as writer:
            for block in spooled.blocks():
                writer.write_batch(batch_from_entries(block, schema))
                yield from sink.ready()
    yield sink.rest()


def parquet(topic: str, blocks: Blocks) -> Chunks:
    """A Parquet file."""
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    sink = _Sink()
    with _Spooled(blocks) as spooled:
        schema = spooled.typing.schema()
        with pq.ParquetWriter(sink, schema, **options(schema)) as writer:
            for batches in _row_groups(spooled.blocks(), schema):
                writer.write_table(pa.Table.from_batches(batches), row_group_size=ROW_GROUP_ENTRIES)
                yield from sink.ready()
    yield sink.rest()


def _row_groups(blocks: Blocks, schema: Any) -> Iterator[list[Any]]:
    batches: list[Any] = []
    for block in blocks:
        if batches and sum(batch.num_rows for batch in batches) + len(block) > ROW_GROUP_ENTRIES:
            yield batches
            batches = []
        batches.append(batch_from_entries(block, schema))
    if batches:
        yield batches


_MAKERS: dict[str, Callable[[str, Blocks], Chunks]] = {
    "json": json,
    "ndjson": ndjson,
    "arrow": arrow,
    "parquet": parquet,
    "mocap": mocap,
}


class _Sink(io.RawIOBase):
    """A file to write to whose bytes are handed on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = self._position = 0

    def write(self, data: Any) -> int:
        """Take bytes."""
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        self._position += len(part)
        return len(part)

    def ready(self) -> Chunks:
        """What was written, once it is worth sending."""
        if self._size >= CHUNK_BYTES:
            yield self.rest()

    def rest(self) -> bytes:
        """All that was written and not handed on."""
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        return data

    def tell(self) -> int:
        """How much was written."""
        return self._position

    def writable(self) -> bool:
        """Yes."""
        return True


class _Spooled:
    """Blocks kept in a temporary file while their types are learned: a schema comes before the first entry, and what
    is read twice could change in between."""

    def __init__(self, blocks: Blocks) -> None:
        self.typing = Typing()
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
        try:
            for block in blocks:
                self.typing.observe(block)
                data = _pack(block)
                self._file.write(len(data).to_bytes(4, "little") + data)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> _Spooled:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def blocks(self) -> Blocks:
        """The blocks again."""
        self._file.seek(0)
        while head := self._file.read(4):
            yield _unpack(self._file.read(int.from_bytes(head, "little")))


def _pack(block: list[Entry]) -> bytes:
    try:
        return b"m" + msgspec.msgpack.encode(block)
    except (OverflowError, RecursionError):  # integers of any size, from files that others wrote
        return b"l" + _lines(block)


def _unpack(data: bytes) -> list[Entry]:
    if data[:1] == b"l":
        return from_lines(data[1:])
    found: list[Entry] = msgspec.msgpack.decode(data[1:])
    return found


# ---------------------------------------------------------------- sending


class Streamed(Response):
    """Sends chunks that a generator makes in worker threads; its first one is made before the status goes out.

    A reader that takes nothing for `patience.send_s` is cut. An error in the middle cuts the connection, so that a
    part is never taken for the whole.
    """

    def __init__(self, chunks: Chunks, media_type: str, patience: Patience, *, zstd: bool, limiter: Any) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self.media_type = media_type
        self._chunks, self._patience, self._limiter = chunks, patience, limiter
        self._first = next(chunks, b"")
        headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
        self._frame = zstd_module().ZstdCompressor(level=1) if zstd else None
        self.init_headers({**headers, "Content-Encoding": "zstd"} if zstd else headers)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or stop when the reader leaves; what ends without its last chunk is cut by the server."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, receive, tasks.cancel_scope)
                await self._send_all(send)
                tasks.cancel_scope.cancel()
        except* TimeoutError:
            log.info("a reader took nothing for %g s and was cut", self._patience.send_s)
        except* Exception as group:
            log.error("a read failed in the middle and was cut: %r", group.exceptions[0])
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._close, limiter=self._limiter)

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        with anyio.fail_after(self._patience.send_s):
            await send(start)
        part: bytes | None = self._first
        while part is not None:
            await self._send(send, self._encoded(part))
            part = await anyio.to_thread.run_sync(next, self._chunks, None, limiter=self._limiter)
        rest = self._frame.flush() if self._frame is not None else b""
        await send({"type": "http.response.body", "body": rest})

    async def _send(self, send: Send, data: bytes) -> None:
        if data:
            with anyio.fail_after(self._patience.send_s):
                await send({"type": "http.response.body", "body": data, "more_body": True})

    def _encoded(self, part: bytes) -> bytes:
        if self._frame is None:
            return part
        return bytes(self._frame.compress(part, self._frame.FLUSH_BLOCK if len(part) > 512 else self._frame.CONTINUE))

    def _close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
