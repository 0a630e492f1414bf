"""The files of a stream: the bytes of a journal, and how its folder and its segments come into being.

    .journal/.birth               held shared while a stream's folder is made
             <writer>/lock        held for the life of the process
                      tracks      one JSON line a track: {"id": 1, "kind": "tracks", "topic": "robot/state"}
                      0000000001.seg
                      boundary    the range of the batch sent last (`drain.py`)

Whatever appears under its final name is complete: folders and segments are made under a hidden one and renamed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .files import Files
from .store import Track

MAGIC = b"MLDJ"
VERSION = 1
SEGMENT_HEADER = struct.Struct("<4sHH16sQI")
"""magic, version, unused, writer (16 bytes), segment number, CRC32 of what precedes."""
FIRST_RECORD = 64
RECORD = struct.Struct("<II")
"""Length of the body, CRC32 of the body; the body follows."""
RECORD_BYTES = RECORD.size
BIRTH = ".birth"
"""Who can hold it alone may remove the folders of processes that died while they made them."""

record_header = RECORD.pack
crc32 = zlib.crc32


class Mark(NamedTuple):
    """A place in one writer's stream: the segment's number and the offset in it."""

    segment: int
    offset: int


class Segment(NamedTuple):
    """A segment that is open for writing; `memory` is its mapping, or None where it is written with write(2)."""

    number: int
    fd: int
    memory: Any


def segment_path(stream: Path, number: int) -> Path:
    """Where a segment lives."""
    return stream / f"{number:010d}.seg"


def segment_header(writer: str, number: int) -> bytes:
    """The first bytes of a segment."""
    head = SEGMENT_HEADER.pack(MAGIC, VERSION, 0, bytes.fromhex(writer[:28]), number, 0)[:-4]
    return head + struct.pack("<I", crc32(head))


def table_line(track: Track, track_id: int) -> bytes:
    """The line that says which track a number stands for."""
    return json.dumps({"id": track_id, "kind": track.kind, "topic": track.topic}).encode() + b"\n"


def create_stream(
    files: Files, folder: Path, tracks: Mapping[Track, int], *, durable: bool, notes: Mapping[str, bytes]
) -> tuple[Path, int, int]:
    """A new stream's folder with its lock, taken before the folder gets its name: nobody ever sees it unlocked.

    `notes` are further small files in it.

    Returns:
        The folder, the descriptor of the lock, the descriptor of the table, which names the tracks given.
    """
    files.make_folder(folder)
    writer = f"{time.time_ns():016x}{os.urandom(6).hex()}"
    hidden, path, fds = folder / f".new-{writer}", folder / writer, list[int]()
    birth = files.open_lock(folder / BIRTH)
    try:
        files.lock(birth, wait=True, shared=True)  # nobody takes the unnamed folder for a dead one's
        files.make_folder(hidden)
        fds.append(files.open_lock(hidden / "lock"))
        files.lock(fds[0], wait=True)
        fds.append(files.open(hidden / "tracks", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        files.write(fds[1], b"".join(map(table_line, tracks, tracks.values())))
        for name, note in notes.items():
            files.write_atomically(hidden / name, note, durable=durable)
        if durable:
            files.sync(fds[1])
        files.replace(hidden, path)
        if durable:
            sync_names(files, path)
    except BaseException:
        for fd, close in zip(fds, (files.close_lock, files.close), strict=False):
            close(fd)
        files.remove_folder(hidden)
        raise
    finally:
        files.close_lock(birth)
    return path, fds[0], fds[1]


def sync_names(files: Files, stream: Path) -> None:
    """The name of a stream, and of what it lies in, is on the device on return."""
    for folder in (stream, stream.parent, stream.parent.parent):
        files.sync_folder(folder)


def create_segment(files: Files, stream: Path, number: int, size: int, *, mapped: bool, durable: bool) -> Segment:
    """A segment, made solid and mapped under a hidden name before it gets its own.

    Raises:
        OSError: the disk is full; nothing is left behind.
    """
    hidden = stream / f".{number:010d}.new"
    fd = files.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        memory = None
        if mapped:
            files.allocate(fd, size)
            memory = mmap.mmap(fd, size)
        files.write_at(fd, segment_header(stream.name, number), 0)
        files.replace(hidden, segment_path(stream, number))
        if durable:
            files.sync_folder(stream)
    except BaseException:
        files.close(fd)
        files.remove(hidden)
        raise
    return Segment(number, fd, memory)


def discard_segment(files: Files, stream: Path, segment: Segment) -> None:
    """Remove a segment that nothing was written to; one that stays is empty, and harms nobody."""
    if segment.memory is not None:
        segment.memory.close()
    files.close(segment.fd)
    try:
        files.remove(segment_path(stream, segment.number))
    except OSError:
        pass
