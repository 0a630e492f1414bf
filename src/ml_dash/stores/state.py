"""`.state`: what has been committed. Replaced by rename; that rename is the commit of a batch."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import StoreCorrupt
from ..files import Files

VERSION = 1


class Attempt(NamedTuple):
    """Where a batch's lines of one sequence are to be, and the CRC32 of up to 256 bytes before them."""

    start: int
    end: int
    crc: int


@dataclass(frozen=True, slots=True)
class State:
    """What has been committed, and what is being tried.

    Args:
        writers: the highest batch number applied of each writer.
        sequences: the committed length of each sequence's file.
        attempt: for each sequence of the batch that is being applied, where its lines are to be (`sequences.py`).
        unsure: sequences that had lines when the state did not know them (it was lost, or somebody put the file
            there), and up to where: lines of batches that come again may be among them.
        checks: where copies of writers are to be told, the checksum of each writer's last batch (`grouping.checksum`).
        order: for each track whose entries did not all come in order, how many came late and how many repeated one.
    """

    generation: int = 0
    writers: Mapping[str, int] = field(default_factory=dict)
    sequences: Mapping[str, int] = field(default_factory=dict)
    attempt: Mapping[str, Attempt] = field(default_factory=dict)
    unsure: Mapping[str, int] = field(default_factory=dict)
    order: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)

    def next(self, **changes: Any) -> State:
        """The state that follows this one."""
        return replace(self, generation=self.generation + 1, **changes)

    def without(self, name: str) -> State:
        """The state that follows when a series is deleted."""
        kept = {
            part: {known: value for known, value in getattr(self, part).items() if known != name}
            for part in ("sequences", "attempt", "unsure", "order")
        }
        return self.next(**kept)

    def to_bytes(self) -> bytes:
        """The file's content: a line of JSON, its CRC32 in front."""
        document: dict[str, object] = {
            "version": VERSION,
            "generation": self.generation,
            "writers": self.writers,
            "sequences": self.sequences,
        }
        rare = {"attempt": self.attempt, "unsure": self.unsure, "order": self.order, "checks": self.checks}
        document |= {name: value for name, value in rare.items() if value}
        body = json.dumps(document, separators=(",", ":")).encode()
        return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"


class StateFile:
    """The state on disk; read each time, because another process may have replaced it."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path, self._files = path, files

    def read(self) -> State:
        """The state; an empty one where the file is lost or damaged: all that journals still hold is applied again,
        which changes nothing.

        Raises:
            StoreCorrupt: it was written by a newer version.
        """
        try:
            return _parse(self.path, self._files.read(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return State()

    def write(self, state: State) -> None:
        """Commit: durable on return."""
        self._files.write_atomically(self.path, state.to_bytes())


def _parse(path: Path, raw: bytes) -> State:
    try:
        crc, body = raw.rstrip(b"\n").split(b" ", 1)
        if int(crc, 16) != zlib.crc32(body):
            return State()
        document = json.loads(body)
        if document["version"] > VERSION:
            raise StoreCorrupt(f"{path} was written by a newer ml_dash (state version {document['version']}): upgrade")
        attempt = {name: Attempt(*map(int, place)) for name, place in document.get("attempt", {}).items()}
        unsure = dict(document.get("unsure", {}))
        order = {name: (int(late), int(repeated)) for name, (late, repeated) in document.get("order", {}).items()}
        writers, sequences = dict(document["writers"]), dict(document["sequences"])
        checks = {name: check for name, check in document.get("checks", {}).items() if isinstance(check, str)}
        return State(document["generation"], writers, sequences, attempt, unsure, order, checks)
    except (ValueError, KeyError, TypeError, AttributeError):
        return State()
