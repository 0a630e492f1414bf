"""What is known of a transfer of one experiment, on disk in the user's state folder, from one call to the next."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any

from .files import FILES, Files
from .spool import state_folder
from .store import Track

REASONS = 20
"""Of so many refused entries of a series it is kept why; of all, how many."""


@dataclass(slots=True)
class Place:
    """How far one series is, and how to know it again at the target.

    Attributes:
        behind, index: what was brought of a track ends with this timestamp, of a sequence before this index.
        brought: how many entries the target has of it at least, of a sequence exactly; -1 where nobody knows.
        seen: what was known of it here when it was begun. whole: it was brought to its end since.
        ends: the first and the last timestamp of what was brought of a sequence.
        there: the target's revision of a sequence when it was left; "" where that was not asked since.
        left_out: what the target does not have of a sequence, as ranges `[index, index behind]`.
        refused, reasons: how many entries it refused, and why the first of them, until somebody is told.
        check: of the bodies of what was brought of a sequence, as they are here.
    """

    behind: float | None = None
    index: int = 0
    brought: int = 0
    seen: list[Any] | None = None
    whole: bool = False
    ends: list[float] | None = None
    there: str = ""
    left_out: list[list[int]] = field(default_factory=list)
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    check: int = 0

    def reach(self, timestamps: Sequence[float]) -> None:
        """Entries of a sequence arrived."""
        known = [*(self.ends or []), *timestamps]
        self.ends = [min(known), max(known)] if known else None

    def leave_out(self, index: int) -> None:
        """The target does not have this entry of a sequence; called with ascending indexes."""
        if self.left_out and self.left_out[-1][1] == index:
            self.left_out[-1][1] += 1
        else:
            self.left_out.append([index, index + 1])

    def refuse(self, reasons: Sequence[str]) -> None:
        """Entries were refused."""
        self.refused += len(reasons)
        self.reasons = [*self.reasons, *reasons][:REASONS]


_values = attrgetter(*(one.name for one in fields(Place)))


@dataclass(slots=True)
class Frozen:
    """The batch that is under way.

    Attributes:
        start, end: the timestamps of its first and last entry; of a sequence, the first index and the one behind.
        check: of its bodies. refused: what is not in it, `[timestamp or index, why]`, ascending.
    """

    kind: str
    topic: str
    start: float
    end: float
    check: int
    refused: list[list[Any]]


@dataclass(slots=True)
class Ledger:
    """What is known of one transfer, on disk.

    Attributes:
        writer: under which name batches are sent until all is there. number: the last one that was given;
            arrived: the last one that is known to be there; frozen: the one between, if any.
        proof: the last batch of the last whole transfer, `[writer, number]`; the target keeps the number.
        origin: when the recording here was made: one that was made anew under its name is another.
    """

    path: Path
    writer: str = ""
    number: int = 0
    arrived: int = 0
    frozen: Frozen | None = None
    proof: list[Any] | None = None
    origin: Any = None
    places: dict[str, Place] = field(default_factory=dict)
    files: Files = FILES

    def place(self, track: Track) -> Place:
        """How far a series is."""
        return self.places.setdefault(f"{track.kind}/{track.topic}", Place())

    def begin(self, track: Track) -> Place:
        """A series from its beginning."""
        place = self.places[f"{track.kind}/{track.topic}"] = Place()
        return place

    def begin_writer(self) -> None:
        """Send under a new name."""
        self.writer, self.number, self.arrived = f"move-{secrets.token_hex(12)}", 0, 0

    def void(self) -> None:
        """Nothing is known of the target; what was refused is known of the entries here, and stays so."""
        refused = {name: place for name, place in self.places.items() if place.left_out}
        self._forget()
        for name, place in refused.items():
            self.places[name] = Place(brought=-1, left_out=place.left_out, refused=place.refused, reasons=place.reasons)

    def _forget(self) -> None:
        self.writer, self.number, self.arrived, self.frozen, self.proof, self.places = "", 0, 0, None, None, {}

    def write(self) -> None:
        """Keep it, durably."""
        value = {
            "batches": [self.writer, self.number, self.arrived, self.proof],
            "frozen": self.frozen and asdict(self.frozen),
            "origin": self.origin,
            "series": {name: _values(place) for name, place in self.places.items()},
        }
        self.files.make_folder(self.path.parent)
        self.files.write_atomically(self.path, json.dumps(value).encode())

    def load(self) -> None:
        """What is on disk; nothing where that is damaged, or was written by a version that kept other things."""
        self._forget()
        try:
            found = json.loads(self.path.read_bytes())
            places = {name: Place(*place) for name, place in found["series"].items()}
            self.frozen = found["frozen"] and Frozen(**found["frozen"])
            self.writer, self.number, self.arrived, self.proof = found["batches"]
            self.origin, self.places = found["origin"], places
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self._forget()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the block runs no other process moves the same: sequences would be there twice. Waits for one."""
        self.files.make_folder(self.path.parent)
        lock = self.files.open_lock(self.path.with_suffix(".lock"))
        try:
            self.files.lock(lock, wait=True)
            self.load()
            yield
        finally:
            self.files.close_lock(lock)


def ledger_of(*names: str) -> Ledger:
    """The ledger of one transfer, named by all that makes it one: from where, to where, what."""
    name = sha256("\0".join(names).encode()).hexdigest()[:24]
    return Ledger(state_folder() / "transfers" / f"{name}.json")


def identity(folder: Path) -> str:
    """What a folder is in a ledger's name."""
    return os.path.realpath(folder)
