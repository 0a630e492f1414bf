"""`.state`: what has been committed. Replaced by rename; that rename is the commit of a batch."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreCorrupt
from ..files import Files

VERSION = 1


@dataclass(slots=True)
class State:
    """The highest batch number applied of each writer, and the committed length of each sequence's file."""

    generation: int = 0
    writers: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file's content: a line of JSON, its CRC32 in front."""
        body = json.dumps(
            {
                "version": VERSION,
                "generation": self.generation,
                "writers": self.writers,
                "sequences": self.sequences,
            },
            separators=(",", ":"),
        ).encode()
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
        return State(document["generation"], dict(document["writers"]), dict(document["sequences"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return State()
