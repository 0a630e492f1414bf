"""Looking an experiment's files over: every line, every journal record, every derived file against what it is made of.

Nothing is changed. A *problem* is data that cannot be read, or a derived file that would give a wrong answer; a *note*
is what the next use mends by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .drain import not_applied
from .errors import MissingExtra, StoreCorrupt
from .files import FILES, Files
from .journal_reader import Stream, is_alive, streams
from .line import from_line, from_lines
from .schema import describe
from .spool import JOURNALS
from .store import KINDS, MERGED, Track
from .stores import index as ix
from .stores.datafile import whole_lines
from .stores.index import Fingerprint, Index
from .stores.layout import Layout, index_path
from .stores.local import LocalStore
from .stores.types import types_path

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about one file: `problem` or just a note."""

    path: Path
    text: str
    problem: bool = True


def verify(folder: Path, files: Files = FILES, advance: Callable[[int], None] = lambda size: None) -> Iterator[Finding]:
    """What there is to say of an experiment's folder; nothing where all is well.

    Args:
        advance: called with the number of bytes that were looked at since the last call.
    """
    yield from _documents(folder)
    yield from _state(folder, files)
    for kind in KINDS:
        for topic, path in sorted(Layout(folder, files).topics(kind).items()):
            yield from _series(Track(kind, topic), path, files, advance)
    yield from _journals(folder, files)


def size_to_verify(folder: Path, files: Files = FILES) -> int:
    """The bytes that `verify` will look at: the data files of all series."""
    paths = (path for kind in KINDS for path in Layout(folder, files).topics(kind).values())
    return sum(path.stat().st_size for path in paths if path.exists())


# ---------------------------------------------------------------- documents and state


def _documents(folder: Path) -> Iterator[Finding]:
    store = LocalStore(folder, readonly=True)
    for name in ("experiment", "params"):
        try:
            store.read_document(name)
        except StoreCorrupt as error:
            yield Finding(folder / f"{name}.json", str(error))


def _state(folder: Path, files: Files) -> Iterator[Finding]:
    from .stores.state import State, StateFile

    path = folder / ".state"
    try:
        state = StateFile(path, files).read()
    except StoreCorrupt as error:
        yield Finding(path, str(error))
        return
    if path.exists() and path.stat().st_size and state == State():
        yield Finding(path, "is damaged; what journals still hold is applied again, which changes nothing", False)


# ---------------------------------------------------------------- series


def _series(track: Track, path: Path, files: Files, advance: Callable[[int], None]) -> Iterator[Finding]:
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fingerprint = Fingerprint.of(os.fstat(fd))
        for offset, lines in whole_lines(files, fd, fingerprint.size, CHUNK_BYTES):
            advance(len(lines))
            yield from _lines(path, lines, offset, fingerprint.size)
        found = ix.scan(whole_lines(files, fd, fingerprint.size))
    finally:
        files.close(fd)
    if track.kind == MERGED and not found.is_sorted:
        yield Finding(path, "has late entries at its end; readers merge them, 'ml-dash compact' sorts them in", False)
    yield from _index(path, found, fingerprint, files)
    if track.kind == MERGED and found.is_sorted:
        yield from _derived(track, path, files)


def _lines(path: Path, lines: bytes, offset: int, size: int) -> Iterator[Finding]:
    """The lines that are no entries, named by where they are."""
    if len(from_lines(lines)) == sum(1 for line in lines.split(b"\n") if line.strip()):
        return
    at = offset
    for line in lines.splitlines(keepends=True):
        if line.strip() and from_line(line) is None:
            torn = at + len(line) == size and not line.endswith(b"\n")
            what = "the last line is torn: the next writer cuts it" if torn else "a line is no entry and is passed over"
            yield Finding(path, f"{what} (byte {at}: {line[:40]!r})", not torn)
        at += len(line)


def _index(path: Path, found: Index, fingerprint: Fingerprint, files: Files) -> Iterator[Finding]:
    """The index, where it claims to fit, against the file."""
    try:
        raw = files.read(index_path(path))
    except FileNotFoundError:
        return
    kept = ix.parse(raw, fingerprint)
    if kept is None:
        yield Finding(index_path(path), "does not fit the data; it is made anew when it is needed", False)
    elif (kept.entries, kept.is_sorted, kept.lowest, kept.highest) != (
        found.entries, found.is_sorted, found.lowest, found.highest,
    ):  # fmt: skip
        yield Finding(index_path(path), "says something else than the data: delete it")


def _derived(track: Track, path: Path, files: Files) -> Iterator[Finding]:
    """Types and columns, where they claim to fit, against the entries."""
    store = LocalStore(_root_of(path), readonly=True, files=files)
    info = next((one for one in store.tracks() if one.topic == track.topic), None)
    entries = (entry for block in store.read(track) for entry in block)
    if info is not None and types_path(path).exists() and dict(info.columns) != describe(entries):
        yield Finding(types_path(path), "says something else than the data: delete it")
    try:
        yield from _columns(track, path, store, files)
    except MissingExtra:
        pass  # nobody can read the sidecar here either


def _columns(track: Track, path: Path, store: LocalStore, files: Files) -> Iterator[Finding]:
    from .formats.arrow import table_from_entries
    from .stores.derived import NOTHING
    from .stores.sidecar import Sidecar, sidecar_path

    if not sidecar_path(path).exists():
        return
    table = Sidecar(path, files, keep=NOTHING).table()
    if table is None:
        yield Finding(sidecar_path(path), "does not fit the data; it is made anew when it is needed", False)
    elif not _same(table, table_from_entries(entry for block in store.read(track) for entry in block)):
        yield Finding(sidecar_path(path), "says something else than the data: delete it")


def _root_of(path: Path) -> Path:
    return path.parent.parent.parent


def _same(one: object, other: object) -> bool:
    """Whether two tables hold the same entries, NaN equal to itself."""
    from itertools import zip_longest

    from .formats.arrow import entries_from_table

    pairs = zip_longest(entries_from_table(one), entries_from_table(other))
    return all(a == b or repr(a) == repr(b) for a, b in pairs)


# ---------------------------------------------------------------- journals


def _journals(folder: Path, files: Files) -> Iterator[Finding]:
    store = LocalStore(folder, readonly=True, files=files)
    for stream in streams(folder / JOURNALS, files):
        if is_alive(stream):
            yield Finding(stream.path, "is being recorded now", False)
            continue
        try:
            waiting = _waiting(stream, store)
        except StoreCorrupt as error:
            yield Finding(stream.path, str(error))
            continue
        yield Finding(stream.path, f"{waiting:,} records of a process that is gone wait: 'ml-dash recover'", False)
        for damage in stream.damage:
            yield Finding(stream.path, damage)
    for kept in sorted((folder / JOURNALS).glob(".damaged-*")):
        yield Finding(kept, "a damaged journal that was kept; its sound records are stored, delete it when looked at")


def _waiting(stream: Stream, store: LocalStore) -> int:
    again, start, _ = not_applied(stream, store.applied(stream.writer))
    return sum(1 for _ in stream.bodies(again.start if again else start, living=False))
