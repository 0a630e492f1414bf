"""A store on MongoDB: each batch becomes a few immutable segments, inserted and never changed.

What makes it safe (`docs/operations.md` has the whole argument):

    exactly once    `writers` remembers each writer's last batch and its checksum before anything is stored, and the
                    unique key (series, writer, batch, piece) refuses what came already
    order           a segment is inserted under the number after the highest; the key of the number refuses a second
                    one, so numbers follow the order of commit
    durability      the body is inserted before the header that makes it visible, both by a majority
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import CopiedWriter, InvalidEntry, NotOpen, TooManyWriters
from ..line import from_document, to_document
from ..store import MERGED, Batch, Document, Entry, Track, TrackInfo, Window, check_removable
from .claims import Claims
from .grouping import checksum
from .mongo_driver import Doc, answering
from .mongo_reader import Reader
from .mongo_tables import Tables
from .segments import CUT, LIVE, MAX_POSITION, MSGPACK, Header, Piece, batch_entries, chunks, pieces

REMEMBER_S = 60.0
"""How long a series' highest number is trusted without asking. Stubs, whose numbers must not be given again, stay a
thousand times longer (`upkeep.py`)."""
ATTEMPTS = 100
MAX_DOCUMENT_BYTES = 15 << 20
FIRST_DUE_S = 60.0


class Head(NamedTuple):
    """The highest number of a series, the position behind its entries, and when this was known."""

    number: int
    end: float
    since: float


class MongoStore:
    """One experiment's series in MongoDB; made by `MongoCatalog.store`.

    Args:
        tables: the database.
        reader: reads segments, wherever their bodies are.
        prefix: the experiment; it comes into being with the first write.
    """

    def __init__(self, tables: Tables, reader: Reader, prefix: str) -> None:
        self._tables, self._reader, self._prefix = tables, reader, prefix
        self._claims = Claims(tables)
        self._known_id = ""
        self._heads: dict[str, Head] = {}
        self._lock = threading.Lock()
        self._closed = False

    # -------------------------------------------------------------- appending

    def append(self, batch: Batch) -> None:
        """Apply a batch once. Its series appear one after the other: `docs/architecture.md` says why.

        Raises:
            StoreUnavailable: the database did not answer; sent again, the batch is applied once.
            CopiedWriter: another batch came under this writer and number.
            OSError: the database's disk is full.
        """
        with self._open():
            check = checksum(batch)
            parts = {track: pieces(track.kind, entries) for track, entries in batch_entries(batch).items()}
            x, docs = self._series(parts)
            todo = {docs[track]["_id"]: found for track, found in parts.items()}
            if self._claims.take(x, batch, check, {t: len(found) for t, found in todo.items()}):
                stamp = {"w": batch.writer, "b": batch.number, "c": check}
                self._store({doc["_id"]: doc for doc in docs.values()}, todo, stamp)

    def _series(self, parts: Mapping[Track, list[Piece]]) -> tuple[str, dict[Track, Doc]]:
        """The experiment and the documents of the series, made where missing.

        Each document is read anew for each batch: a series that was deleted meanwhile gets a successor.
        """
        x = self._known_id or self._experiment_id(create=True)
        docs = self._tables.series(x, list(parts)) if parts else {}
        if len(docs) < len(parts):
            x = self._experiment_id(create=True)
            docs = self._tables.series(x, list(parts))
        self._known_id = x
        for track, found in parts.items():
            span = max(map(_span, found), default=0.0)
            if track not in docs:
                docs[track] = self._tables.create_series(x, track, span)
            if docs[track]["span"] < span:
                self._tables.raise_span(docs[track]["_id"], span)
        return x, docs

    def _store(self, docs: Mapping[str, Doc], todo: dict[str, list[Piece]], stamp: Doc) -> None:
        """Insert every piece of a batch: bodies first, then headers, one for each series at a time."""
        at = self._tables.now()
        self._announce(docs, at)
        waiting: dict[str, list[Piece]] = {}
        bodies: dict[str, bytes] = {}
        for t, found in todo.items():
            for number, (header, body) in enumerate(found):
                bid = f"{t}/{self._tables.new_id()}"
                bodies[bid] = body
                place = {"t": t, "p": number, "bid": bid, "at": at, "lv": 0, "st": LIVE}
                place["chunks"] = chunks(MSGPACK, body)
                waiting.setdefault(t, []).append(Piece({**header, **stamp, **place}, b""))
        self._tables.insert_bodies(bodies)
        for _ in range(ATTEMPTS):
            if not waiting:
                return
            self._insert_round(docs, waiting, stamp)
        raise TooManyWriters(f"{self._prefix}: too many writers at once, batch {stamp['b']} found no number")

    def _announce(self, docs: Mapping[str, Doc], at: float) -> None:
        """Have upkeep look at the series soon; nothing to do in the common case."""
        late = [t for t, doc in docs.items() if doc["due"] > at + FIRST_DUE_S]
        if late:
            self._tables.tracks.update_many({"_id": {"$in": late}}, {"$set": {"due": at + FIRST_DUE_S}})

    def _insert_round(self, docs: Mapping[str, Doc], waiting: dict[str, list[Piece]], stamp: Doc) -> None:
        headers = [self._numbered(docs[t], found[0].header) for t, found in waiting.items()]
        refused = self._tables.insert_headers(headers)
        for place, header in enumerate(headers):
            if place in refused:
                self._forget_head(header["t"])
            else:
                self._remember(header)
                _done(waiting, header["t"])
        if refused:
            self._resolve([headers[place] for place in refused], waiting, stamp)

    def _resolve(self, refused: list[Header], waiting: dict[str, list[Piece]], stamp: Doc) -> None:
        """Was the number taken, or was the piece stored already? Only the key of the batch can tell."""
        known = self._tables.of_batch([header["t"] for header in refused], stamp["w"], stamp["b"])
        for found in known:
            wanted = waiting.get(found.t)
            if not wanted or wanted[0].header["p"] != found.p:
                continue
            if (found.c, found.n) != (stamp["c"], wanted[0].header["n"]):
                raise CopiedWriter(f"batch {stamp['b']} of writer {stamp['w']} came before with other entries")
            _done(waiting, found.t)

    def _numbered(self, doc: Doc, header: Header) -> Header:
        head = self._head(doc["_id"])
        number = head.number + 1
        place = {} if "lo" in header else {"lo": head.end, "hi": head.end + header["n"] - 1}
        return {"_id": f"{doc['_id']}/0/{number}", **header, **place, "s0": number, "s1": number}

    # -------------------------------------------------------------- numbers

    def _head(self, t: str) -> Head:
        """The highest number of a series: remembered for a minute, else asked."""
        with self._lock:
            head = self._heads.get(t)
        if head is None or self._tables.monotonic() - head.since > REMEMBER_S:
            since = self._tables.monotonic()
            found = self._tables.highest(t)
            head = Head(0, 0.0, since) if found is None else Head(found["s1"], found["hi"] + 1, since)
        return head

    def _remember(self, header: Header) -> None:
        with self._lock:
            self._heads[header["t"]] = Head(header["s1"], header["hi"] + 1, self._tables.monotonic())

    def _forget_head(self, t: str) -> None:
        with self._lock:
            self._heads.pop(t, None)

    def applied(self, writer: str) -> int:
        """The highest batch number of this writer that has been applied; 0 if none was."""
        with self._open():
            x = self._experiment_id()
            return self._claims.applied(x, writer) if x else 0

    def forget(self, writer: str) -> None:
        """The writer will never send a batch again."""
        with self._open():
            x = self._experiment_id()
            if x:
                self._claims.forget(x, writer)

    # -------------------------------------------------------------- reading

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """Blocks of entries in order; segments that compaction replaces meanwhile are planned anew.

        Raises:
            StoreUnavailable: the database or the archive did not answer; what came before is right.
        """
        with self._open():
            since = self._tables.monotonic()
            doc = self._find(track)
            if doc is None:
                return
            yield from self._reader.read(doc, window, since)

    def tracks(self, kind: str = MERGED) -> list[TrackInfo]:
        """Every series of a kind, sorted by topic."""
        with self._open():
            x = self._experiment_id()
            docs = self._tables.series_of_kind(x, kind) if x else []
            headers = self._tables.of_series([doc["_id"] for doc in docs])
            infos = [self._reader.info(doc, headers[doc["_id"]]) for doc in docs]
            return sorted((info for info in infos if info is not None), key=lambda info: info.topic)

    def _find(self, track: Track) -> Doc | None:
        x = self._experiment_id()
        return self._tables.series(x, [track]).get(track) if x else None

    # -------------------------------------------------------------- deleting

    def remove(self, track: Track) -> None:
        """Delete a series with all its entries; the space is freed by upkeep, an hour later."""
        with self._open():
            doc = self._find(track)
            if doc is not None:
                now = self._tables.now()
                self._tables.tracks.update_one({"_id": doc["_id"]}, {"$set": {"gone": now, "due": now}})

    def remove_window(self, track: Track, start: float | None = None, end: float | None = None) -> None:
        """Delete the entries of a track within [start, end]; what is appended afterwards stays.

        One insert, so a crash leaves the window deleted or not: a segment without entries takes the next number and
        hides what ranks below it. Compaction rewrites what it hides, objects of the archive too; then it goes.

        Raises:
            InvalidWindow: the series is no track; sequences are deleted as a whole.
        """
        check_removable(track)
        low = -MAX_POSITION if start is None else max(start, -MAX_POSITION)
        high = MAX_POSITION if end is None else min(end, MAX_POSITION)
        with self._open():
            doc = self._find(track)
            if doc is None or low > high:
                return
            now = self._tables.now()
            self._tables.tracks.update_one({"_id": doc["_id"]}, {"$set": {"cuts": True, "due": now}})
            self._cut(doc, {"lo": low, "hi": high, "at": now})

    def _cut(self, doc: Doc, fields: Header) -> None:
        writer = f"cut-{self._tables.new_id()}"
        stamp = {"t": doc["_id"], "lv": 0, "n": 0, "f": [], "w": writer, "b": 0, "p": 0, "st": CUT, "c": ""}
        for _ in range(ATTEMPTS):
            header = self._numbered(doc, {**stamp, **fields})
            if not self._tables.insert_headers([header]):
                self._remember(header)
                return
            self._forget_head(doc["_id"])
        raise TooManyWriters(f"{self._prefix}: too many writers at once, the deletion found no number")

    # -------------------------------------------------------------- documents

    def read_document(self, name: str) -> Document | None:
        """A small document, or None."""
        with self._open():
            x = self._experiment_id()
            found = self._tables.document(f"{x}/{name}") if x else None
            return None if found is None else from_document(bytes(found["body"]))

    def update_document(self, name: str, change: Callable[[Document | None], Document]) -> Document:
        """Replace a small document as a whole by `change` of what it is now.

        Raises:
            InvalidEntry: it is larger than a MongoDB document can be.
            StoreUnavailable: the database does not answer, or others change the document all the time.
        """
        with self._open():
            key = f"{self._experiment_id(create=True)}/{name}"
            for _ in range(ATTEMPTS):
                known = self._tables.document(key)
                body = to_document(change(None if known is None else from_document(bytes(known["body"]))))
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise InvalidEntry(f"document {name!r} has {len(body)} bytes; the limit is {MAX_DOCUMENT_BYTES}")
                if self._tables.replace_document(key, known, body):
                    return from_document(body) or {}
        raise TooManyWriters(f"{self._prefix}: too many writers change the document {name!r} at once")

    # -------------------------------------------------------------- the experiment

    def _experiment_id(self, *, create: bool = False) -> str:
        """The experiment's id now, "" where there is none and none is to be made."""
        doc = self._tables.experiment(self._prefix)
        if doc is None and create:
            doc = self._tables.create_experiment(self._prefix)
        return str(doc["_id"]) if doc else ""

    def close(self) -> None:
        """No further use of this store; the connection is the catalog's."""
        self._closed = True

    @contextmanager
    def _open(self) -> Iterator[None]:
        if self._closed:
            raise NotOpen("the store is closed")
        with answering():
            yield


def _span(piece: Piece) -> float:
    """How far a segment reaches; an index for sequences."""
    header: Any = piece.header
    return float(header["hi"] - header["lo"]) if "lo" in header else float(header["n"] - 1)


def _done(waiting: dict[str, list[Piece]], t: str) -> None:
    """The first waiting piece of a series is stored."""
    waiting[t].pop(0)
    if not waiting[t]:
        del waiting[t]
