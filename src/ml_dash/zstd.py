"""zstd and gzip, safe against bombs: the declared size is looked at first, then the output is capped while it streams.

Python's bindings ignore an output limit for a frame that declares its size, so a body of some KB could allocate a
gigabyte. zstd itself is part of Python 3.14; before it, `backports.zstd` is the same module.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from .errors import MissingExtra

CHUNK = 1 << 20
WINDOW_LOG = 23
"""Largest window that is accepted, 8 MiB, what RFC 8878 asks every decoder to take: it bounds the decoder's memory."""


class TooLarge(ValueError):
    """The content is larger than the limit."""


def module() -> Any:
    """The zstd module; raises MissingExtra where it is not installed."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise MissingExtra("backports.zstd", "remote") from None
    return zstd


def compress(raw: bytes, level: int = 1) -> bytes:
    """One frame that declares its size; level 1, because sensor floats hardly gain from more."""
    return bytes(module().compress(raw, level))


def declared_size(data: bytes) -> int | None:
    """The size that the first frame declares; None where it declares none.

    Raises:
        ValueError: this is no zstd frame.
    """
    zstd = module()
    try:
        size = zstd.get_frame_info(data).decompressed_size
    except zstd.ZstdError as error:
        raise ValueError(f"no zstd frame: {error}") from None
    return None if size is None else int(size)


def decompress(data: bytes, limit: int) -> bytes:
    """The content of exactly one frame of at most `limit` bytes.

    Raises:
        TooLarge: the content is larger.
        ValueError: the frame is damaged, incomplete, or followed by something.
    """
    zstd = module()
    size = declared_size(data)
    if size is not None and size > limit:
        raise TooLarge(f"{size} bytes uncompressed, the limit is {limit}")
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    try:
        if size is None:  # counted first, so that a bomb never takes more than a chunk of memory
            _measure(zstd.ZstdDecompressor(options=options), data, limit)
        frame = zstd.ZstdDecompressor(options=options)
        raw = frame.decompress(data, max_length=limit + 1 if size is None else size + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"damaged zstd frame: {error}") from None
    _check_end(frame)
    return bytes(raw)


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of exactly one gzip member of at most `limit` bytes; errors as for `decompress`."""
    try:
        total, member = 0, zlib.decompressobj(31)
        rest = data
        while not member.eof:
            part = member.decompress(rest, CHUNK)
            total, rest = total + len(part), member.unconsumed_tail
            if total > limit:
                raise TooLarge(f"more than {limit} bytes uncompressed")
            if not part and not rest and not member.eof:
                raise ValueError("incomplete gzip data")
        if member.unused_data:
            raise ValueError("bytes behind the end of the gzip data")
        return zlib.decompress(data, 31, max(total, 1))
    except zlib.error as error:
        raise ValueError(f"damaged gzip data: {error}") from None


def _measure(frame: Any, data: bytes, limit: int) -> None:
    total, rest = 0, data
    while not frame.eof:
        part = frame.decompress(rest, max_length=CHUNK)
        total, rest = total + len(part), b""
        if total > limit:
            raise TooLarge(f"more than {limit} bytes uncompressed")
        if not part and frame.needs_input:
            raise ValueError("incomplete zstd frame")


def _check_end(frame: Any) -> None:
    if not frame.eof:
        raise ValueError("incomplete zstd frame, or more in it than it declares")
    if frame.unused_data:
        raise ValueError("bytes behind the end of the zstd frame")
