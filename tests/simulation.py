"""A database, a bucket and a clock in memory, and actors that take turns at every call: the segment model's world.

The store's own code runs here, not a copy of it. Each call to the database is a point where another actor may go on,
where the process may die, or where the answer may get lost. A cursor walks its index while others change it, as a
reader without a snapshot sees it. Everything follows from one seed.
"""

from __future__ import annotations

import copy
import datetime
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError

Doc = dict[str, Any]


class Died(BaseException):
    """The process of an actor was killed; nothing below the actor's loop catches this."""


class Actor:
    """One process: a thread that runs only when it has the turn. A life that dies begins anew."""

    def __init__(self, world: World, name: str, life: Callable[[Actor], None]) -> None:
        self.world, self.name, self._life = world, name, life
        self.turn = _taken_lock()
        self.dying = self.over = False
        self.busy_since: float | None = None
        self.asleep = sys.maxsize
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.turn.acquire()
        try:
            while not self.world.ending:
                self.dying, self.busy_since = False, None
                try:
                    self._life(self)
                    break
                except Died:
                    continue
        except BaseException as problem:
            self.world.problem = problem
        self.over = True
        self.world.main.release()


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


BURSTS = ((0,), (0, 0, 1, 2), (0, 0, 1, 2, 8, 150), (0, 30, 60), (0, 1, 200))


@dataclass(frozen=True)
class Faults:
    """How often things happen at a call; each run draws its own, since rare orders need one-sided worlds.

    Args:
        lost_answers: a change took effect, and its answer does not arrive.
        deaths: the calling process dies.
        naps: the calling process stops for a long while.
        pauses: others go on between two documents of a cursor.
        days: a day passes; requests that were under way are cut off.
        bursts: calls that a process of a kind makes in a row before it is another one's turn.
    """

    lost_answers: float = 0.01
    deaths: float = 0.004
    naps: float = 0.05
    pauses: float = 0.3
    days: float = 0.003
    bursts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, dice: random.Random) -> Faults:
        """A world of its own."""
        return cls(
            lost_answers=dice.choice((0.0, 0.01, 0.05)),
            deaths=dice.choice((0.0, 0.002, 0.01)),
            naps=dice.choice((0.0, 0.05, 0.3)),
            pauses=dice.choice((0.1, 0.5, 1.0)),
            days=dice.choice((0.0, 0.002, 0.01)),
            bursts={kind: dice.choice(BURSTS) for kind in "wedur"},
        )


class World:
    """The clock, the turns and the faults.

    Args:
        faults: how often what happens; drawn from the seed where not given.
        longest_request_s: a request that takes longer is cut off by its server.
    """

    def __init__(self, seed: int, faults: Faults | None = None, *, longest_request_s: float = 60.0) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults.drawn(self.random)
        self.time = 1_700_000_000.0
        self.main = _taken_lock()
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.ending = False
        self.steps = self.burst = 0
        self.problem: BaseException | None = None
        self.longest_request_s = longest_request_s

    def add(self, name: str, life: Callable[[Actor], None]) -> None:
        """An actor with a life."""
        actor = Actor(self, name, life)
        self.actors.append(actor)
        actor.thread.start()

    def step(self) -> None:
        """Called by an actor wherever something else may happen: another one's turn, its own death."""
        me = self.current
        if me is None:
            return  # outside of a run: setting up, or looking at the outcome
        if me.dying or self.ending:
            raise Died
        self.steps -= 1
        self._pass_time()
        if self.steps <= 0:
            self.main.release()
            me.turn.acquire()
        elif self.burst > 0:
            self.burst -= 1
        else:
            self._switch(me)
        late = me.busy_since is not None and self.time - me.busy_since > self.longest_request_s
        if me.dying or self.ending or late or self.random.random() < self.faults.deaths:
            me.dying = True
            raise Died

    def _switch(self, me: Actor) -> None:
        """Another actor's turn, for one call or for a whole life's work: rare orders need both."""
        if self.random.random() < self.faults.naps:
            me.asleep = self.steps - self.random.randrange(20, 400)
        awake = [actor for actor in self.actors if actor.asleep >= self.steps]
        self.current = other = self.random.choice(awake or self.actors)
        self.burst = self.random.choice(self.faults.bursts.get(other.name[0], (0, 1, 2)))
        if other is not me:
            other.turn.release()
            me.turn.acquire()

    def lose_answer(self) -> None:
        """Called after a change took effect."""
        if self.current is not None and self.random.random() < self.faults.lost_answers:
            raise AutoReconnect("the answer was lost")

    def _pass_time(self) -> None:
        self.time += 0.005
        dice = self.random.random()
        if dice < 0.005:
            self.time += self.random.uniform(1.0, 15.0)
        elif dice < 0.005 + self.faults.days:
            # A day without power for some: no request is under way that long, but what a process knows may be old.
            self.time += 2_000.0
            for actor in self.actors:
                actor.dying = actor.dying or actor.busy_since is not None

    def run(self, steps: int) -> None:
        """Let the actors go on for so many calls; raises what one of them found wrong."""
        self.steps = steps
        self._give_turn(self.random.choice(self.actors))
        if self.problem is not None:
            raise self.problem

    def _give_turn(self, actor: Actor) -> None:
        self.current = actor
        actor.turn.release()
        self.main.acquire()
        self.current = None

    def end(self) -> None:
        """Let every actor die."""
        self.ending = True
        for actor in self.actors:
            if not actor.over:
                self._give_turn(actor)
            actor.thread.join()

    def monotonic(self) -> float:
        """Seconds for measuring how long something took."""
        return self.time


# ---------------------------------------------------------------- the database


class Database:
    """Collections by name, as far as the store uses PyMongo's."""

    def __init__(self, world: World, *, enforce_unique: Callable[[Sequence[str]], bool] = lambda keys: True) -> None:
        self.world, self._enforce = world, enforce_unique
        self._collections: dict[str, Collection] = {}

    def __getitem__(self, name: str) -> Collection:
        if name not in self._collections:
            self._collections[name] = Collection(self.world, self._enforce)
        return self._collections[name]

    def command(self, name: str) -> Doc:
        """`hello`, which tells the time."""
        assert name == "hello"
        return {"localTime": datetime.datetime.fromtimestamp(self.world.time, datetime.UTC)}


class Collection:
    """Documents by id, unique keys, and cursors that see what changes while they walk."""

    def __init__(self, world: World, enforce: Callable[[Sequence[str]], bool]) -> None:
        self.world, self._enforce = world, enforce
        self.docs: dict[Any, Doc] = {}
        self._unique: list[tuple[tuple[str, ...], dict[tuple[Any, ...], Any]]] = []
        self.inserted: list[Doc] = []

    def create_index(self, keys: Sequence[tuple[str, int]], *, unique: bool) -> None:
        """Remember a unique key; others only make queries fast."""
        names = tuple(name for name, _ in keys)
        if unique and self._enforce(names) and names not in [known for known, _ in self._unique]:
            self._unique.append((names, {}))

    # -------------------------------------------------------------- changes

    def insert_one(self, doc: Doc) -> None:
        """Insert or raise DuplicateKeyError."""
        self.world.step()
        if not self._put(doc):
            raise DuplicateKeyError("E11000", 11000)
        self.world.lose_answer()

    def insert_many(self, docs: Sequence[Doc], ordered: bool) -> None:
        """Insert what can be, one at a time: a death in between leaves the first ones."""
        assert not ordered
        errors = []
        for index, doc in enumerate(docs):
            self.world.step()
            if not self._put(doc):
                errors.append({"index": index, "code": 11000, "errmsg": "E11000"})
        if errors:
            raise BulkWriteError({"writeErrors": errors, "writeConcernErrors": []})
        self.world.lose_answer()

    def _put(self, doc: Doc) -> bool:
        keys = [(known, tuple(doc.get(name) for name in names)) for names, known in self._unique]
        if doc["_id"] in self.docs or any(key in known for known, key in keys):
            return False
        self.docs[doc["_id"]] = copy.deepcopy(doc)
        self.inserted.append(self.docs[doc["_id"]] | {"inserted": self.world.time})
        for known, key in keys:
            known[key] = doc["_id"]
        return True

    def update_one(self, query: Doc, change: Doc) -> Any:
        """Change the first that fits, at once."""
        self.world.step()
        count = next((self._change(doc, change) for doc in self.docs.values() if fits(doc, query)), 0)
        self.world.lose_answer()
        return Result(count)

    def update_many(self, query: Doc, change: Doc) -> Any:
        """Change all that fit, one after the other."""
        count = 0
        for key in list(self.docs):
            if key in self.docs and fits(self.docs[key], query):
                self.world.step()
                if key in self.docs and fits(self.docs[key], query):
                    count += self._change(self.docs[key], change)
        self.world.lose_answer()
        return Result(count)

    def _change(self, doc: Doc, change: Doc) -> int:
        old = [tuple(doc.get(name) for name in names) for names, _ in self._unique]
        doc.update(copy.deepcopy(change.get("$set", {})))
        for name in change.get("$unset", {}):
            doc.pop(name, None)
        for (names, known), key in zip(self._unique, old, strict=True):
            known.pop(key, None)
            known[tuple(doc.get(name) for name in names)] = doc["_id"]
        return 1

    def delete_one(self, query: Doc) -> Any:
        """Delete the first that fits."""
        self.world.step()
        found = next((key for key, doc in self.docs.items() if fits(doc, query)), None)
        return Result(0 if found is None else self._delete(found))

    def delete_many(self, query: Doc) -> Any:
        """Delete all that fit, one after the other."""
        count = 0
        for key in list(self.docs):
            if key in self.docs and fits(self.docs[key], query):
                self.world.step()
                count += self._delete(key)
        return Result(count)

    def _delete(self, key: Any) -> int:
        doc = self.docs.pop(key, None)
        if doc is None:
            return 0
        for names, known in self._unique:
            known.pop(tuple(doc.get(name) for name in names), None)
        return 1

    # -------------------------------------------------------------- questions

    def find_one(self, query: Doc) -> Doc | None:
        """The first that fits."""
        self.world.step()
        if isinstance(query.get("_id"), str):
            doc = self.docs.get(query["_id"])
            return copy.deepcopy(doc) if doc is not None and fits(doc, query) else None
        return next((copy.deepcopy(doc) for doc in self.docs.values() if fits(doc, query)), None)

    def find(self, query: Doc, projection: Doc | None = None) -> Cursor:
        """A cursor in the order of the index that serves the query."""
        self.world.step()
        return Cursor(self, query)

    def count_documents(self, query: Doc) -> int:
        """How many fit."""
        self.world.step()
        return sum(fits(doc, query) for doc in self.docs.values())


class Result:
    """What PyMongo says of a change."""

    def __init__(self, count: int) -> None:
        self.matched_count = self.modified_count = self.deleted_count = count


class Cursor:
    """Walks an index; what is inserted behind it is missed, what is inserted ahead is met."""

    def __init__(self, collection: Collection, query: Doc) -> None:
        self._collection, self._query = collection, query
        self._order: list[tuple[str, int]] = [("hi", 1), ("lo", 1)] if "st" in query else []
        self._limit: int | None = None

    def sort(self, order: list[tuple[str, int]]) -> Cursor:
        """Walk in this order."""
        self._order = order
        return self

    def limit(self, limit: int) -> Cursor:
        """End after so many."""
        self._limit = limit
        return self

    def __iter__(self) -> Iterator[Doc]:
        world, given, last = self._collection.world, 0, None
        while self._limit is None or given < self._limit:
            ahead = [
                (self._key(doc), doc)
                for doc in self._collection.docs.values()
                if (last is None or self._key(doc) > last) and fits(doc, self._query)
            ]
            if not ahead:
                return
            last, doc = min(ahead, key=lambda pair: pair[0])
            given += 1
            yield copy.deepcopy(doc)
            if len(ahead) > 1 and world.random.random() < world.faults.pauses:
                world.step()

    def _key(self, doc: Doc) -> tuple[Any, ...]:
        return (*(direction * (doc.get(name) or 0) for name, direction in self._order), doc["_id"])


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$in": lambda value, operand: value in operand,
    "$gte": lambda value, operand: value is not None and value >= operand,
    "$gt": lambda value, operand: value is not None and value > operand,
    "$lte": lambda value, operand: value is not None and value <= operand,
    "$lt": lambda value, operand: value is not None and value < operand,
}


def fits(doc: Doc, query: Doc) -> bool:
    """Whether a document is meant by a query."""
    for name, wanted in query.items():
        value = doc.get(name)
        if isinstance(wanted, dict):
            if not all(_COMPARE[operator](value, operand) for operator, operand in wanted.items()):
                return False
        elif value != wanted:
            return False
    return True


# ---------------------------------------------------------------- the bucket


class Bucket:
    """Objects by key; every request is a turn, and may fail."""

    url = "memory://"

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        self.world.step()
        self.objects[key] = body

    def size(self, key: str) -> int | None:
        """The object's bytes, None where there is none."""
        self.world.step()
        return len(self.objects[key]) if key in self.objects else None

    def open(self, key: str, size: int) -> bytes:
        """The object; raises FileNotFoundError."""
        self.world.step()
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key]

    def keys(self, folder: str = "") -> Iterator[str]:
        """The keys below a folder, which is a whole part of the path, as obstore lists."""
        self.world.step()
        yield from [key for key in self.objects if not folder or key.startswith(f"{folder}/")]

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.world.step()
        self.objects.pop(key, None)
