"""What is on disk for a server: which streams go to it, how far they are, what it would not take.

    <experiment>/.journal/<writer>/remote    this stream goes to a server: {"url", "prefix"}
                                   sent      the range of the batch sent last, and under which number
    <experiment>/.outbox/<writer>/           streams whose writer is gone and that are stored here, but not there yet
    <experiment>/.dead-letters/<writer>.jsonl  entries the server refused, with its reason
                              <writer>.dropped  how many there was no room for (`spool_journal.py`)
    <experiment>/.server.json                the server, and the documents as it has them

An experiment that is recorded to a server only lives, as far as it lives here, in the user's state folder.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .entry import decode_body
from .files import FILES, Files
from .journal_files import Mark
from .journal_reader import Stream, is_alive, streams
from .line import from_document, to_line
from .store import Document, Track

JOURNALS, OUTBOX, DEAD_LETTERS, SERVER_NOTE = ".journal", ".outbox", ".dead-letters", ".server.json"
REMOTE, SENT = "remote", "sent"
DROPPED = ".dropped"
RAISE, DROP, WAIT = POLICIES = ("raise", "drop", "wait")
"""What append does when there is no room for more (`spool_journal.py`)."""


# ---------------------------------------------------------------- notes


def read_note(stream: Stream, name: str) -> Any:
    """A small file of a stream with its checksum in front; None where it is missing or damaged."""
    try:
        crc, body = stream.files.read(stream.path / name).split(b" ", 1)
        return json.loads(body) if int(crc, 16) == zlib.crc32(body) else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def note_bytes(value: Any) -> bytes:
    """The bytes of a note."""
    body = json.dumps(value).encode()
    return f"{zlib.crc32(body):08x} ".encode() + body


class Destination(NamedTuple):
    """Where a stream goes."""

    url: str
    prefix: str

    def note(self) -> bytes:
        """The stream's file `remote`."""
        return note_bytes(self._asdict())


def destination(stream: Stream) -> Destination | None:
    """Where a stream goes; None for one that stays here."""
    found = read_note(stream, REMOTE)
    return Destination(str(found["url"]), str(found["prefix"])) if isinstance(found, dict) else None


def is_for_server(stream: Stream) -> bool:
    """Whether a stream goes to a server."""
    return (stream.path / REMOTE).exists()


@dataclass(frozen=True, slots=True)
class Sent:
    """The batch sent last: a range of the stream without some of its bodies, frozen before the first attempt.

    `writer` is the id it was sent under, which is not the stream's own once that turned out to be used twice.
    """

    number: int = 0
    start: Mark = Mark(0, 0)  # noqa: RUF009
    end: Mark = Mark(0, 0)  # noqa: RUF009
    writer: str = ""
    without: tuple[int, ...] = ()


def read_sent(stream: Stream) -> Sent:
    """How far a stream is; nothing sent where the note is missing or damaged."""
    found = read_note(stream, SENT)
    try:
        number, start, end, writer, without = found
        return Sent(int(number), Mark(*start), Mark(*end), str(writer), tuple(without))
    except (TypeError, ValueError):
        return Sent(writer=stream.writer)


def write_sent(stream: Stream, sent: Sent, *, durable: bool) -> None:
    """Freeze a batch."""
    value = (sent.number, sent.start, sent.end, sent.writer, sent.without)
    stream.files.write_atomically(stream.path / SENT, note_bytes(value), durable=durable)


# ---------------------------------------------------------------- the documents as the server has them


@dataclass(slots=True)
class ServerNote:
    """What is known of an experiment's server: its address, and each document as it was delivered last."""

    destination: Destination
    documents: dict[str, Document] = field(default_factory=dict)


def read_server_note(folder: Path, files: Files = FILES) -> ServerNote | None:
    """The note of an experiment's folder; None where it goes to no server."""
    try:
        found = json.loads(files.read(folder / SERVER_NOTE))
        return ServerNote(Destination(found["url"], found["prefix"]), dict(found["documents"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def write_server_note(folder: Path, note: ServerNote, files: Files = FILES) -> None:
    """Keep the note."""
    value = {**note.destination._asdict(), "documents": note.documents}
    files.make_folder(folder)
    files.write_atomically(folder / SERVER_NOTE, json.dumps(value).encode())


def changes(base: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is new or different in `now`, dicts key by key; nothing is ever taken away."""
    found: dict[str, Any] = {}
    for name, value in now.items():
        before = base.get(name)
        if name not in base or json.dumps(before) != json.dumps(value):  # the text: NaN is no change from NaN
            both = isinstance(before, dict) and isinstance(value, dict)
            found[name] = changes(before, value) if both else value  # type: ignore[arg-type]
    return found


# ---------------------------------------------------------------- entries the server would not take


def write_dead_letters(
    folder: Path, stream: Stream, tracks: Mapping[int, Track], bodies: Sequence[bytes], reasons: Sequence[str]
) -> None:
    """Keep refused entries with the reason, durable on return."""
    lines = b"".join(_letter(tracks, body, reason) for body, reason in zip(bodies, reasons, strict=True))
    stream.files.make_folder(folder)
    fd = stream.files.open(folder / f"{stream.writer}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        stream.files.write(fd, lines)
        stream.files.sync(fd)
    finally:
        stream.files.close(fd)
    stream.files.sync_folder(folder)


def _letter(tracks: Mapping[int, Track], body: bytes, reason: str) -> bytes:
    import base64  # these, and those of `spool_root`, are needed where a server is named
    from datetime import UTC, datetime

    letter: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason}
    try:
        decoded = decode_body(body)
        track = tracks.get(decoded[0])
        if track is not None:
            letter |= {"kind": track.kind, "topic": track.topic}
        if len(decoded) == 3:
            letter["entry"] = json.loads(to_line(decoded[1], decoded[2]))
    except Exception as error:
        letter["unreadable"] = str(error)
    letter["body"] = base64.b64encode(body).decode()
    return json.dumps(letter).encode() + b"\n"


def dead_letters(folder: Path) -> list[dict[str, Any]]:
    """Every entry in an experiment's folder that the server refused, oldest first."""
    found: list[dict[str, Any]] = []
    for path in sorted((folder / DEAD_LETTERS).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def dropped(folder: Path) -> int:
    """How many entries of an experiment's folder were dropped, because there was no room for them."""
    total = 0
    for path in (folder / DEAD_LETTERS).glob(f"*{DROPPED}"):
        try:
            total += int(json.loads(path.read_bytes())["entries"])
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return total


# ---------------------------------------------------------------- the user's state folder


def state_folder() -> Path:
    """Where what belongs to no root is kept: `ML_DASH_STATE`, else the system's place for a user's state."""
    chosen = os.environ.get("ML_DASH_STATE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ml-dash"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "ml-dash"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ml-dash"


def spool_root(url: str) -> Path:
    """The folder of what waits for one server and is in no root."""
    from hashlib import sha256
    from urllib.parse import urlsplit

    host = re.sub(r"[^a-z0-9.-]", "_", urlsplit(url).netloc.lower())[:60]
    return state_folder() / "spool" / f"{host}-{sha256(url.encode()).hexdigest()[:8]}"


# ---------------------------------------------------------------- what waits


@dataclass(frozen=True, slots=True)
class Waiting:
    """One experiment's folder with something in it for a server.

    `streams` and `bytes` count what is not known to be delivered, `left` the streams of processes that are gone,
    `dropped` the entries there was no room for; `recording` is whether a process records now.
    """

    folder: Path
    destination: Destination
    streams: int
    left: int
    bytes: int
    recording: bool
    documents: bool
    dead_letters: int
    dropped: int = 0


def waiting(roots: Sequence[Path], files: Files = FILES) -> Iterator[Waiting]:
    """Everything under some folders that goes to a server and is not known to be there."""
    for root in roots:
        for folder in _experiments(root):
            found = _waiting_in(folder, files)
            if found is not None:
                yield found


def _experiments(root: Path) -> Iterator[Path]:
    for at, names, _ in os.walk(root):
        if JOURNALS in names or OUTBOX in names or os.path.exists(os.path.join(at, SERVER_NOTE)):
            yield Path(at)
        names[:] = sorted(name for name in names if not name.startswith("."))


def _waiting_in(folder: Path, files: Files) -> Waiting | None:
    going, left, size, recording = 0, 0, 0, False
    note = read_server_note(folder, files)
    where = note.destination if note is not None else None
    for stream in (*streams(folder / OUTBOX, files), *streams(folder / JOURNALS, files)):
        to = destination(stream)
        if to is None:
            continue
        rest = pending_bytes(stream)
        alive = is_alive(stream)
        recording, left = recording or alive, left + (not alive)
        going, size, where = going + (rest > 0), size + rest, to
    letters, lost = len(dead_letters(folder)), dropped(folder)
    documents = note is not None and bool(_documents_waiting(folder, note, files))
    if where is None or not (going or left or documents or letters or lost or recording):
        return None
    return Waiting(folder, where, going, left, size, recording, documents, letters, lost)


def _documents_waiting(folder: Path, note: ServerNote, files: Files) -> list[str]:
    found = []
    for name in ("experiment", "params"):
        try:
            here = from_document(files.read(folder / f"{name}.json"))
        except FileNotFoundError:
            continue
        if here and changes(note.documents.get(name, {}), here):
            found.append(name)
    return found


def pending_bytes(stream: Stream) -> int:
    """How many bytes of entries a stream holds behind the last batch that is known to have been sent.

    The batch sent last counts: whether it arrived only the server knows.
    """
    sent = read_sent(stream)
    return sum(len(body) for body in stream.bodies(sent.start, living=True))
