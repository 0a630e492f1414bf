"""The columnar sidecar: a track's columns as a memory-mapped Arrow file, hidden and disposable.

    .columns    Arrow IPC file, uncompressed; its schema's metadata holds the fingerprint of the `data.jsonl` it is of

It is made by the first read that wants columns (that reader pays, about 2 ms for each MB) and used by all that follow:
beside `data.jsonl` by whoever may write there, in the user's cache folder by readers (`derived.py`). One that does not
fit `data.jsonl` to the byte, the nanosecond and the inode is not used but made anew, so edits by hand
cost nothing but that. Deleting it is always safe. `ML_DASH_COLUMNS=off` keeps readers from writing it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import Files
from ..formats.arrow_types import import_pyarrow
from ..formats.blocks import Block, TableBuilder
from ..formats.lines import block_of_lines
from ..store import Entry
from .datafile import Snapshot
from .derived import Derived
from .index import Block as Stretch
from .index import Fingerprint
from .sweep import sweep

if TYPE_CHECKING:
    import pyarrow as pa

NAME = ".columns"
FINGERPRINT = b"ml_dash.fingerprint"
VERSION = 1

CHUNK_BYTES = 16 << 20
"""Lines parsed at a time."""
SPILL_BYTES = 256 << 20
"""Columns kept in memory while a sidecar is made; beyond it they wait in files."""
SETTLED_NS = 20_000_000
"""A file changed this shortly before it was read may change again within the clock's step: it is not kept."""


def sidecar_path(data: Path) -> Path:
    """Where the sidecar of a data file lives."""
    return data.with_name(NAME)


def is_wanted() -> bool:
    """Whether sidecars may be written at all."""
    return os.environ.get("ML_DASH_COLUMNS", "").lower() not in ("off", "0", "no", "false")


class Sidecar:
    """The sidecar of one data file.

    Args:
        keep: where it is kept; reading works without.
    """

    def __init__(self, data: Path, files: Files, *, keep: Derived) -> None:
        self.data, self._files, self._keep = data, files, keep
        self._open: tuple[Fingerprint, pa.Table] | None = None

    def table(self) -> pa.Table | None:
        """The columns where a sidecar fits the file as it is now, else None. Memory-mapped: nothing is read yet."""
        try:
            fingerprint = Fingerprint.of(os.stat(self.data))
        except OSError:
            return None
        if self._open is None or self._open[0] != fingerprint:
            table = self._kept(fingerprint)
            self._open = None if table is None else (fingerprint, table)
        return self._open[1] if self._open is not None else None

    def _kept(self, fingerprint: Fingerprint) -> pa.Table | None:
        for path in self._keep.places(sidecar_path(self.data)):
            table = _mapped(path, fingerprint) if os.path.exists(path) else None
            if table is not None:
                self._keep.used(path)
                return table
        return None

    def make(self, snapshot: Snapshot) -> pa.Table:
        """The columns of the file as it is in the snapshot; kept for the next reader where that is possible.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        import_pyarrow()
        rests = _rests(snapshot)  # judged before reading: what is edited meanwhile then has another stamp
        with _Columns() as columns:
            for block in _blocks(snapshot):
                columns.add(block)
            table = columns.table()
            if rests and is_wanted() and self._save(table, snapshot.fingerprint):
                kept = self.table()
                return table if kept is None else kept
            if rests:
                self._open = snapshot.fingerprint, table
            return table

    def _save(self, table: pa.Table, fingerprint: Fingerprint) -> bool:
        """Complete and on the device before it takes its name; where that fails the next reader makes it again."""
        path = self._keep.target(sidecar_path(self.data), table.nbytes)
        if path is None:
            return False
        unfinished = path.with_name(f"{path.name}.new")
        try:
            fd = self._files.open(unfinished, os.O_RDWR | os.O_CREAT)
        except OSError:
            return False
        try:
            # One writer at a time, and a file that a killed one left is written over.
            if not self._files.lock(fd, wait=False) or not os.path.samestat(os.fstat(fd), os.stat(unfinished)):
                return False
            _write(table, fingerprint, unfinished)
            self._files.sync(fd)
            self._files.replace(unfinished, path)
            self._keep.wrote(path, self._files)
        except OSError:
            self._files.remove(unfinished)
            return False
        finally:
            self._files.close(fd)
        return True


def wait_until_settled(data: Path) -> None:
    """Wait until columns made of a data file just written would be kept (20 ms at most)."""
    age_ns = time.time_ns() - os.stat(data).st_mtime_ns
    if 0 <= age_ns <= SETTLED_NS:
        time.sleep((SETTLED_NS - age_ns + 1_000_000) / 1e9)


def _rests(snapshot: Snapshot) -> bool:
    return time.time_ns() - snapshot.fingerprint.mtime_ns > SETTLED_NS


def _mapped(path: Path, fingerprint: Fingerprint) -> pa.Table | None:
    pa = import_pyarrow()
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = dict(reader.schema.metadata or {})
        if metadata.pop(FINGERPRINT, b"") != _text(fingerprint):
            return None
        return reader.read_all().replace_schema_metadata(metadata or None)
    except (OSError, pa.ArrowException):
        return None


def _text(fingerprint: Fingerprint) -> bytes:
    return " ".join(map(str, (VERSION, *fingerprint))).encode()


def _write(table: pa.Table, fingerprint: Fingerprint, path: Path) -> None:
    pa = import_pyarrow()
    schema = table.schema.with_metadata({**(table.schema.metadata or {}), FINGERPRINT: _text(fingerprint)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))


# ---------------------------------------------------------------- from lines to columns


def _blocks(snapshot: Snapshot) -> Iterator[Block]:
    """The file's merged content as blocks of columns, ascending."""
    if snapshot.is_sorted:
        for offset, length in _spans(snapshot.blocks):
            yield block_of_lines(snapshot.files.read_at(snapshot.fd, length, offset))
        return
    swept = sweep(snapshot.blocks, snapshot.load)
    parts = (snapshot.load(part) if isinstance(part, Stretch) else part for part in swept)
    for entries in _gathered(parts):
        yield Block.of_entries(entries)


def _spans(blocks: Iterable[Stretch]) -> Iterator[tuple[int, int]]:
    """Neighbouring blocks as stretches of about `CHUNK_BYTES`."""
    start = length = 0
    for block in blocks:
        if length and (block.offset != start + length or length + block.length > CHUNK_BYTES):
            yield start, length
            length = 0
        if not length:
            start = block.offset
        length += block.length
    if length:
        yield start, length


def _gathered(parts: Iterable[list[Entry]], count: int = 1 << 16) -> Iterator[list[Entry]]:
    """The same entries in lists of some size."""
    gathered: list[Entry] = []
    for entries in parts:
        gathered += entries
        if len(gathered) >= count:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


class _Columns:
    """Blocks on their way to one table, in memory up to a limit and in files beyond it."""

    def __init__(self) -> None:
        self._builder, self._size = TableBuilder(), 0
        self._parts: list[Path] = []
        self._place: Path | None = None

    def __enter__(self) -> _Columns:
        return self

    def __exit__(self, *exc: object) -> None:
        # A table that is mapped from these files keeps them until it is gone itself.
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)

    def add(self, block: Block) -> None:
        """Add the next block."""
        self._builder.add_block(block)
        self._size += sum(array.nbytes for array in block.arrays.values())
        if self._size >= SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._place is None:
            self._place = Path(tempfile.mkdtemp(prefix="ml_dash-columns-"))
        path = self._place / str(len(self._parts))
        _write(self._builder.finish(), _OURS, path)
        self._parts.append(path)
        self._builder, self._size = TableBuilder(), 0

    def table(self) -> pa.Table:
        """Everything that was added: one chunk where it fits memory, so that a column is one array without a copy."""
        if not self._parts:
            return self._builder.finish().combine_chunks()
        self._spill()
        builder = TableBuilder()
        for path in self._parts:
            part = _mapped(path, _OURS)
            if part is None:
                raise OSError(f"{path}: cannot read back what was written there")
            builder.add_block(Block.of_table(part))
        return builder.finish()


_OURS = Fingerprint(0, 0, 0, 0)
"""Marks the files of an unfinished sidecar."""
