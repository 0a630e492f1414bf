"""One `data.jsonl` with its index: appending lines, reading windows, healing tails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ..files import Files
from ..line import from_document, from_line, from_lines
from ..store import Entry
from . import index as ix
from .index import Block, Fingerprint, Index
from .layout import index_path

READ_BYTES = 1 << 20

Settled = Callable[[], AbstractContextManager[None]]
"""While it is entered, no append is under way."""


class Snapshot:
    """A data file opened for reading, with the blocks of the part that is wanted; stays valid whatever happens to the
    name, because it holds the file and not the name."""

    def __init__(self, fd: int, files: Files) -> None:
        self.fd, self.files = fd, files
        self.fingerprint = Fingerprint.of(os.fstat(fd))
        self.blocks: list[Block] = []
        self.is_sorted = True
        self.index = Index()

    def load(self, block: Block) -> list[Entry]:
        """The entries of one block."""
        return from_lines(self.files.read_at(self.fd, block.length, block.offset))

    @property
    def end(self) -> int:
        """Where the last of the blocks ends."""
        return max((block.offset + block.length for block in self.blocks), default=0)

    def load_together(self) -> Iterator[list[Entry]]:
        """All blocks in file order, neighbours read with one call."""
        for offset, length in _spans(self.blocks):
            yield from_lines(self.files.read_at(self.fd, length, offset))


def _spans(blocks: list[Block]) -> Iterator[tuple[int, int]]:
    start = end = -1
    for block in blocks:
        if block.offset == end and end - start < READ_BYTES:
            end += block.length
            continue
        if end > start:
            yield start, end - start
        start, end = block.offset, block.offset + block.length
    if end > start:
        yield start, end - start


class DataFile:
    """One data file and its index. Writing happens under the store's lock, reading at any time."""

    def __init__(self, path: Path, files: Files, *, readonly: bool = False) -> None:
        self.path, self._files, self._readonly = path, files, readonly
        self._index_path = index_path(path)
        self._written: tuple[Fingerprint, Index] | None = None
        self._read: tuple[Fingerprint, Index] | None = None
        self._persisted, self._header = 0, b""

    # -------------------------------------------------------------- writing (under the store's lock)

    def open_for_append(self) -> Appender:
        """Open at the end of the file, its torn tail healed and its index current."""
        fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            stat = os.fstat(fd)
            index = self._current(fd, Fingerprint.of(stat))
            if index is None:
                self._heal(fd, stat.st_size)
                fingerprint = Fingerprint.of(os.fstat(fd))
                index = self._load(fingerprint) or self._scan(fd, fingerprint.size)
                self._persisted = 0
            return Appender(self, fd, index, self._files)
        except BaseException:
            self._files.close(fd)
            raise

    def _current(self, fd: int, fingerprint: Fingerprint) -> Index | None:
        return self._written[1] if self._written is not None and self._written[0] == fingerprint else None

    def _load(self, fingerprint: Fingerprint) -> Index | None:
        try:
            return ix.parse(self._files.read(self._index_path), fingerprint)
        except OSError:
            return None

    def _heal(self, fd: int, size: int) -> None:
        """Cut a last line that is torn and no JSON; end one that is whole, or a person's, but lacks its newline."""
        if size == 0 or self._files.read_at(fd, 1, size - 1) == b"\n":
            return
        start = self._last_line(fd, size)
        tail = self._files.read_at(fd, size - start, start)
        if _is_torn(tail):
            self._files.truncate(fd, start)
        else:
            self._files.write(fd, b"\n")

    def size(self) -> int:
        """The file's length; 0 where there is none."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two places, as far as the file goes."""
        if end <= start:
            return b""
        fd = self._files.open(self.path, os.O_RDONLY)
        try:
            return self._files.read_at(fd, end - start, start)
        finally:
            self._files.close(fd)

    def cut(self, start: int, end: int) -> None:
        """Take out what lies between two places; what is behind them stays."""
        behind = self.read(end, self.size())
        if behind:
            return self._files.write_atomically(self.path, self.read(0, start) + behind)
        fd = self._files.open(self.path, os.O_RDWR)
        try:
            self._files.truncate(fd, start)
        finally:
            self._files.close(fd)

    def heal(self) -> None:
        """See to it that the file ends with a whole line."""
        try:
            fd = self._files.open(self.path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return
        try:
            self._heal(fd, self._files.size(fd))
        finally:
            self._files.close(fd)

    def _last_line(self, fd: int, size: int) -> int:
        position = size
        while position > 0:
            start = max(0, position - ix.BLOCK_BYTES)
            found = self._files.read_at(fd, position - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
        return 0

    def _scan(self, fd: int, size: int, pace: Callable[[], None] = lambda: None) -> Index:
        return ix.scan(whole_lines(self._files, fd, size), pace)

    def saved(self, fingerprint: Fingerprint, index: Index, *, whole: bool = False) -> None:
        """Remember and store the index that belongs to the file as it is now. Derived data: a failure is no loss."""
        since = 0 if whole else max(0, self._persisted - 1)
        self._written = (fingerprint, index)
        try:
            if since == 0 or not self._extend_index(index, since, fingerprint):
                if index.let_go:
                    return self.forget()  # somebody replaced the index: the next append makes it anew
                raw = index.to_bytes(fingerprint)
                self._files.write_atomically(self._index_path, raw, durable=False)
                self._header = raw[: ix.HEADER.size]
            self._persisted = index.let_go + len(index.blocks)
            index.keep_last()
        except OSError:
            self.forget()  # left as it is, the index no longer fits the file, so nobody uses it
        return None

    def _extend_index(self, index: Index, since: int, fingerprint: Fingerprint) -> bool:
        """Write what was added; False where the index is not the one that was written last."""
        offset, records, header = ix.tail_bytes(index, since, fingerprint)
        try:
            fd = self._files.open(self._index_path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if self._files.read_at(fd, ix.HEADER.size, 0) != self._header:
                return False
            self._files.write_at(fd, records, offset)
            self._files.write_at(fd, header, 0)
            self._header = header
        finally:
            self._files.close(fd)
        return True

    def forget(self) -> None:
        """Drop what is remembered of the file."""
        self._written = self._read = None
        self._persisted = 0

    # -------------------------------------------------------------- reading

    @contextmanager
    def snapshot(
        self, start: float | None = None, end: float | None = None, *, settled: Settled = nullcontext
    ) -> Iterator[Snapshot | None]:
        """The file opened, with the blocks that overlap [start, end]; None where there is no file.

        `settled` keeps appends out: entered where the index does not fit, so that no half of a batch is scanned.
        """
        snapshot = self._open_to_read(start, end, scan=False)
        if snapshot is None and self.path.exists():
            with settled():
                snapshot = self._open_to_read(start, end, scan=True)
        try:
            yield snapshot
        finally:
            if snapshot is not None:
                self._files.close(snapshot.fd)

    def _open_to_read(self, start: float | None, end: float | None, *, scan: bool) -> Snapshot | None:
        """The snapshot; None where there is no file, or no index that fits it and no leave to scan."""
        try:
            fd = self._files.open(self.path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            snapshot = Snapshot(fd, self._files)
            if self._fill(snapshot, start, end, scan=scan):
                return snapshot
        except BaseException:
            self._files.close(fd)
            raise
        self._files.close(fd)
        return None

    def _fill(self, snapshot: Snapshot, start: float | None, end: float | None, *, scan: bool) -> bool:
        cached = self._read
        if cached is not None and cached[0] == snapshot.fingerprint:
            index: Index | None = cached[1]
        else:
            blocks = self._bisect(snapshot.fingerprint, start, end)
            if blocks is not None:
                snapshot.blocks = blocks
                return True
            index = self._load(snapshot.fingerprint)
            if index is None and scan:
                index = self._scan(snapshot.fd, snapshot.fingerprint.size)
            if index is None:
                return False
            self._read = (snapshot.fingerprint, index)
        assert index is not None
        snapshot.index = index
        snapshot.blocks, snapshot.is_sorted = list(index.overlapping(start, end)), index.is_sorted
        return True

    def _bisect(self, fingerprint: Fingerprint, start: float | None, end: float | None) -> list[Block] | None:
        if start is None and end is None:
            return None
        try:
            fd = self._files.open(self._index_path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return ix.window_blocks(lambda size, at: self._files.read_at(fd, size, at), fingerprint, start, end)
        finally:
            self._files.close(fd)

    def summary(self, settled: Settled = nullcontext) -> Index:
        """The index of the whole file; empty where there is no file."""
        with self.snapshot(settled=settled) as snapshot:
            return Index() if snapshot is None else snapshot.index


class Appender:
    """A data file open at its end: `write`, then `sync`, which closes it, then `finish` or `abandon`."""

    def __init__(self, file: DataFile, fd: int, index: Index, files: Files) -> None:
        self._file, self._fd, self._files = file, fd, files
        self._fingerprint: Fingerprint | None = None
        self.index, self.start = index, files.size(fd)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        if index.size != self.start:  # foreign lines at the end belong to no block
            index.size = self.start

    def write(self, lines: bytes, first: float, last: float, entries: int) -> None:
        """Append lines whose timestamps ascend strictly from `first` to `last`; collected into few calls."""
        self._waiting.append(lines)
        self._waiting_bytes += len(lines)
        if self._waiting_bytes >= READ_BYTES:
            self._put()
        self.index.add_text(lines, first, last, entries)

    def _put(self) -> None:
        self._files.write(self._fd, b"".join(self._waiting))
        self._waiting, self._waiting_bytes = [], 0

    def sync(self) -> None:
        """The lines are on the device on return, and the file is closed: a batch may be of more series than files may
        be open."""
        self._put()
        self._files.sync(self._fd)
        self._fingerprint = Fingerprint.of(os.fstat(self._fd))
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._files.close(fd)

    def finish(self) -> None:
        """The lines are committed: store the index that fits them."""
        assert self._fingerprint is not None
        self._file.saved(self._fingerprint, self.index)

    def abandon(self, *, cut: bool) -> None:
        """The batch failed: cut the file back to where it was, unless its lines may be committed.

        Where that fails, the lines merge with their twins later.
        """
        self._file.forget()
        try:
            if cut and self._fd < 0:
                self._fd = self._files.open(self._file.path, os.O_WRONLY)
            if cut:
                self._files.truncate(self._fd, self.start)
        except OSError:
            pass
        if self._fd >= 0:
            self._close()


def _is_torn(line: bytes) -> bool:
    """Whether a line without its newline is the front of one of ours (or of zeros, after a power cut)."""
    ours = line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"\0"))
    return ours and from_line(line) is None and from_document(line) is None


def whole_lines(files: Files, fd: int, size: int, chunk_bytes: int = ix.BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """The file in chunks that end with a line; the last one may lack its newline."""
    offset, rest = 0, b""
    while offset + len(rest) < size:
        data = rest + files.read_at(fd, min(chunk_bytes, size - offset - len(rest)), offset + len(rest))
        if len(data) == len(rest):
            break
        cut = data.rfind(b"\n") + 1
        if cut:
            yield offset, data[:cut]
        offset, rest = offset + cut, data[cut:]
    if rest:
        yield offset, rest
