"""Where an experiment is sent to, and its small documents: what changed in them is merged into the server's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import StoreCorrupt
from .files import Files
from .spool import Destination, ServerNote, changes, read_server_note, write_server_note
from .store import Document, Store

Combine = Callable[[Document | None, Document], Document]
"""Makes the server's document of what it is there and of what is new here."""

log = logging.getLogger("ml_dash")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where an experiment is sent to, and how.

    Args:
        store: the experiment on the server.
        destination: its address, for the notes on disk.
        alone: nothing but the server keeps the series; else they are stored here first.
        documents: how each small document meets the server's.
        strict: a flush that does not reach the server is an error.
    """

    store: Store
    destination: Destination
    alone: bool
    documents: Mapping[str, Combine] = field(default_factory=dict)
    strict: bool = False


class Outgoing:
    """The documents of one experiment on their way; `version` rises when one is written here, `sent` follows.

    Args:
        folder: the experiment's folder. local: where documents are written; None: there are none.
    """

    def __init__(self, folder: Path, remote: Remote, local: Store | None, files: Files) -> None:
        self._folder, self._remote, self._local, self._files = folder, remote, local, files
        self.version, self.sent = 1, 0

    def are_delivered(self, version: int) -> bool:
        """Whether the server has what was written up to a version."""
        return self._local is None or self.sent >= version

    def server_note(self) -> ServerNote:
        """What is known of the server; written down before anything is sent, for whoever has to go on."""
        note = read_server_note(self._folder, self._files)
        if note is None or note.destination != self._remote.destination:
            note = ServerNote(self._remote.destination)
            write_server_note(self._folder, note, self._files)
        return note

    def send(self, note: ServerNote, version: int) -> None:
        """Send what changed; raises what the server's store raises."""
        if self.are_delivered(version) or self._local is None:
            return
        for name, combine in self._remote.documents.items():
            self._send(self._local, name, combine, note)
        self.sent = version

    def _send(self, local: Store, name: str, combine: Combine, note: ServerNote) -> None:
        try:
            here = local.read_document(name)
        except StoreCorrupt as error:
            log.warning("not sent: %s", error)
            return
        new = changes(note.documents.get(name, {}), here or {})
        if here is None or not new:
            return
        self._remote.store.update_document(name, lambda known: combine(known, new))
        note.documents[name] = here
        write_server_note(self._folder, note, self._files)
