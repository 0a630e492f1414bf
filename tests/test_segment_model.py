"""The segment store under crashes, lost answers, delayed retries and readers without snapshots (`simulation.py`).

Every run compares what readers see with the order in which the database took the segments, and demands of each
acknowledged batch that it was stored once. The mutants leave out one of the rules; each of them has to be caught, or
the model proves nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest

from ml_dash.entry import encode_body
from ml_dash.errors import CopiedWriter, MlDashError, StoreUnavailable
from ml_dash.store import Batch, Entry, Track, Window
from ml_dash.stores import compactor, merging, mongo
from ml_dash.stores.archive import Archive
from ml_dash.stores.claims import Claims
from ml_dash.stores.compactor import Compactor, Listed, Policy, settled_sets
from ml_dash.stores.mongo import MongoStore
from ml_dash.stores.mongo_driver import answering, insert_many
from ml_dash.stores.mongo_reader import Reader
from ml_dash.stores.mongo_tables import Tables
from ml_dash.stores.parts import positioned
from ml_dash.stores.segments import rank
from ml_dash.stores.undecoded import Packed, Run, decoded
from ml_dash.stores.upkeep import Upkeep
from simulation import Actor, Bucket, Database, Faults, World

RUNS = 3000 if os.environ.get("ML_DASH_LONG") == "1" else 300
STEPS = 1000
MUTANT_RUNS = 400
STATE, LOSS = Track("tracks", "state"), Track("metrics", "loss")
TRACKS = {1: STATE, 2: LOSS}
PREFIX = "ada/model/run"
POLICY = Policy(
    grace_s=5.0, stub_s=500.0, lease_s=3.0, gone_s=100.0, min_segments=2, idle_s=1.0,

)  # fmt: skip


class PlainCodec:
    """Parts as msgpack: what is tested here is the order of events."""

    def encode(self, blocks: Sequence[Run | Packed]) -> bytes:
        return msgspec.msgpack.encode([entry for block in blocks for entry in decoded(block)])

    def read(
        self, file: bytes, start: float, end: float, columns: Sequence[str] | None, *, first: int | None = None
    ) -> Iterator[list[Entry]]:
        entries = msgspec.msgpack.decode(file)
        yield entries if first is None else positioned(entries, first)

    def runs(self, file: bytes, *, first: int | None = None) -> Iterator[Run]:
        return self.read(file, -math.inf, math.inf, None, first=first)


class Model:
    """One run: its world, its actors, and what must hold."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        *,
        unique: Callable[[Sequence[str]], bool] = lambda keys: True,
        actors: str = "",
        **policy: Any,
    ) -> None:
        self.world = World(seed, faults)
        dice = self.world.random
        drawn = {"part_entries": dice.choice((1, 2, 5, 64)), "archive_after_s": dice.choice((None, 1.0))}
        drawn["max_inputs"] = random.Random(seed).choice((1, 2, 3, 4096))
        self.policy = replace(POLICY, **{**drawn, **policy})
        self.database = Database(self.world, enforce_unique=unique)
        self.bucket = Bucket(self.world)
        self.acknowledged: list[Batch] = []
        self.answers = 0
        self.tables().create_indexes()
        some = "e" * dice.randrange(2) + "d" * dice.randrange(2) + "u" * dice.choice((1, 2, 3))
        self._add_actors(actors or f"ww{some}rr")

    def _add_actors(self, kinds: str) -> None:
        lives = {"w": self.write, "e": self.echo, "d": self.delete, "u": self.keep, "r": self.look}
        for number, kind in enumerate(kinds, start=1):
            self.world.add(f"{kind}{number}", lives[kind])

    # -------------------------------------------------------------- processes

    def tables(self) -> Tables:
        return Tables(self.database, monotonic=self.world.monotonic, new_id=self.new_id)

    def new_id(self) -> str:
        return f"{self.world.random.getrandbits(64):016x}"

    def reader(self, tables: Tables) -> Reader:
        return Reader(tables, self.bucket, plan_s=4.0, codec=PlainCodec())

    def store(self) -> MongoStore:
        tables = self.tables()
        return MongoStore(tables, self.reader(tables), PREFIX)

    def upkeep(self) -> Upkeep:
        tables = self.tables()
        compactor = Compactor(tables, self.reader(tables), self.policy, codec=PlainCodec())
        return Upkeep(tables, compactor, self.policy, Archive(tables, self.bucket))  # type: ignore[arg-type]

    def request(self, actor: Actor, action: Callable[[], Any]) -> Any:
        """One request to a server; None where it failed and may be tried again."""
        actor.busy_since = self.world.time
        try:
            with answering():
                return action()
        except StoreUnavailable:
            return None
        finally:
            actor.busy_since = None

    # -------------------------------------------------------------- lives

    def write(self, actor: Actor) -> None:
        """A client: one batch after the other, each sent until it is acknowledged."""
        store = self.store()
        mine = [batch for batch in self.acknowledged if batch.writer == actor.name]
        for number in itertools.count(len(mine) + 1):
            batch = self.batch(actor.name, number)
            while self.request(actor, lambda batch=batch: store.append(batch) or True) is None:
                self.world.step()
            self.acknowledged.append(batch)
            self.check_stored_once(batch)
            while self.world.random.random() < 0.9:
                self.world.step()

    def batch(self, writer: str, number: int) -> Batch:
        """The same entries for a number, however often it is asked for."""
        made = [(((number * 7 + ord(writer[1]) * k) % 5) / 2.0, "ab"[(number + k) % 2]) for k in range(1 + number % 3)]
        bodies = [encode_body((1, time, {field: f"{writer}.{number}.{k}"})) for k, (time, field) in enumerate(made)]
        if number % 2:
            bodies += [encode_body((2, 1.0, {"who": writer, "number": number, "k": k})) for k in range(number % 3)]
        return Batch(writer, number, TRACKS, bodies)

    def echo(self, actor: Actor) -> None:
        """The network: an old request that arrives once more."""
        store = self.store()
        while True:
            self.world.step()
            if self.acknowledged and self.world.random.random() < 0.3:
                batch = self.world.random.choice(self.acknowledged[-2:])
                with contextlib.suppress(CopiedWriter):  # so old that its key is gone: refused is as good as known
                    self.request(actor, lambda batch=batch: store.append(batch))

    def keep(self, actor: Actor) -> None:
        """A server's upkeep: passes, sometimes a compaction that was asked for, sometimes the janitor."""
        upkeep = self.upkeep()
        while True:
            self.world.step()
            dice = self.world.random.random()
            if dice < 0.4:
                self.request(actor, upkeep.run_once)
            elif dice < 0.6:
                self.request(actor, lambda: self.compact(upkeep))
            elif dice < 0.7:
                self.request(actor, upkeep.janitor)

    def compact(self, upkeep: Upkeep) -> None:
        """Somebody asks for it, whoever else is at it."""
        for doc in list(upkeep._tables.tracks.find({"gone": 0})):
            upkeep._compactor.compact(doc, few=True, whole=self.world.random.random() < 0.3)
            upkeep.sweep(doc)

    def delete(self, actor: Actor) -> None:
        """Somebody deletes windows."""
        store = self.store()
        while True:
            self.world.step()
            if self.world.random.random() < 0.02:
                low, high = self.window()
                self.request(actor, lambda low=low, high=high: store.remove_window(STATE, low, high))

    def window(self) -> tuple[float, float]:
        low, high = sorted(self.world.random.choice([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0]) for _ in range(2))
        return low, high

    def look(self, actor: Actor) -> None:
        """A reader: whole series and windows, each answer checked."""
        store = self.store()
        while True:
            self.world.step()
            if self.world.random.random() < 0.7:
                self.request(actor, lambda: self.check_state(store))
            if self.world.random.random() < 0.2:
                self.request(actor, lambda: self.check_loss(store))

    # -------------------------------------------------------------- what must hold

    def taken(self, track: Track) -> list[dict[str, Any]]:
        """The written segments of a series in the order in which the database took them."""
        ids = {doc["_id"] for doc in self.database["tracks"].docs.values() if doc["kind"] == track.kind}
        return [header for header in self.database["segments"].inserted if header["lv"] == 0 and header["t"] in ids]

    def entries_of(self, header: dict[str, Any], track_id: int) -> list[Entry]:
        """What a segment held when it was written; nothing for a deletion."""
        if header["st"] == "cut":
            return []
        batch = self.batch(header["w"], header["b"])
        bodies = [msgspec.msgpack.decode(body) for body in batch.bodies]
        return [{"timestamp": time, **fields} for number, time, fields in bodies if number == track_id]

    def check_stored_once(self, batch: Batch) -> None:
        """Acknowledged means stored, and stored means once."""
        wanted = {msgspec.msgpack.decode(body)[0] for body in batch.bodies}
        for track_id in wanted:
            stored = [h for h in self.taken(TRACKS[track_id]) if (h["w"], h["b"]) == (batch.writer, batch.number)]
            assert len(stored) == 1, f"batch {batch.writer}.{batch.number} is stored {len(stored)} times"

    def states(self, first: int, last: int) -> list[dict[float, Entry]]:
        """What a track holds after each number of segments from `first` to `last`."""
        state: dict[float, Entry] = {}
        found = []
        for count, header in enumerate([None, *self.taken(STATE)]):
            if header and header["st"] == "cut":
                state = {t: entry for t, entry in state.items() if not header["lo"] <= t <= header["hi"]}
            for entry in self.entries_of(header, 1) if header else ():
                state[entry["timestamp"]] = {**state.get(entry["timestamp"], {}), **entry}
            if first <= count <= last:
                found.append(dict(state))
        return found

    def check_state(self, store: MongoStore) -> None:
        """Each field of each instant reads as it was at some moment of the read; none is missing, none invented.

        Field by field: a read takes no snapshot, so of two appends during it, it may have met the second one only.
        """
        low, high = self.window()
        before = len(self.taken(STATE))
        found = [entry for block in store.read(STATE, Window(low, high)) for entry in block]
        states = self.states(before, len(self.taken(STATE)))
        stamps = [entry["timestamp"] for entry in found]
        assert stamps == sorted(set(stamps)), "a read ascends"
        seen = {entry["timestamp"]: entry for entry in found}
        for stamp in {stamp for state in states for stamp in state if low <= stamp <= high} | set(stamps):
            for field in ("timestamp", "a", "b"):
                possible = {state.get(stamp, {}).get(field) for state in states}
                value = seen.get(stamp, {}).get(field)
                assert value in possible, f"{field} at {stamp}: {value} is none of {possible}"
        self.answers += 1

    def check_loss(self, store: MongoStore) -> None:
        """A sequence reads as a beginning of what was stored, at least as long as when the read began."""
        first = self.world.random.randrange(4)
        before = len(self.taken(LOSS))
        found = [entry for block in store.read(LOSS, Window(first=first)) for entry in block]
        per_segment = [self.entries_of(header, 2) for header in self.taken(LOSS)]
        everything = [entry for entries in per_segment for entry in entries]
        shortest = sum(map(len, per_segment[:before]))
        numbered = [{"index": index, **entry} for index, entry in enumerate(everything)][first:]
        assert found == numbered[: len(found)], f"{found} is no beginning of {numbered}"
        assert len(found) >= shortest - first, f"{shortest - len(found) - first} entries are missing"
        self.answers += 1

    def check_end(self) -> None:
        """Once all is quiet: everything is there, compacted, and nothing is left over."""
        self.world.end()
        upkeep, store = self.upkeep(), self.store()
        for _ in range(12):
            upkeep.run_once()
            upkeep.janitor()
            self.world.time += self.policy.stub_s + 4000.0
        self.check_state(store)
        self.check_loss(store)
        live = [h for h in self.database["segments"].docs.values() if h["st"] == "live"]
        named = {h["obj"]["key"] for h in live if "obj" in h}
        assert set(self.bucket.objects) == named, "the bucket holds exactly what is named"
        kept = {h["bid"] for h in live if h["bid"]}
        assert set(self.database["bodies"].docs) == kept, "no body is left behind"
        assert all(h["lv"] > 0 for h in live), "everything was compacted"


def run(seed: int, faults: Faults | None = None, steps: int = STEPS, **options: Any) -> Model:
    """One run, checked as it goes and at its end."""
    model = Model(seed, faults, **options)
    try:
        model.world.run(steps)
        model.check_end()
    finally:
        model.world.end()
    return model


@pytest.mark.parametrize("part", range(10))
@pytest.mark.timeout(1200)
def test_no_run_loses_doubles_or_reorders_anything(part: int) -> None:
    """Readers, retries and the final state agree with the order of commit, whatever dies or gets lost on the way."""
    models = [run(seed) for seed in range(part, RUNS, 10)]
    assert sum(model.answers for model in models) > len(models), "readers looked"
    assert sum(len(model.acknowledged) for model in models) > 5 * len(models), "writers wrote"
    assert any(model.bucket.objects for model in models), "parts were archived"


# ---------------------------------------------------------------- the rules that the mutants leave out


def no_grace(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a compaction replaced goes at once."""
    return {"grace_s": -1.0}


def no_batch_key(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The database takes a piece of a batch a second time."""
    return {"unique": lambda keys: keys != ("t", "w", "b", "p")}


def stubs_deleted_at_once(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Numbers become free again, and keys forget, while processes remember."""
    delete_orphans = Tables.delete_orphans
    patch.setattr(Tables, "delete_orphans", lambda self, t, before: delete_orphans(self, t, self.now() - 500.0))
    return {"stub_s": -1.0}


def ranked_by_first_number(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A compacted segment counts as old as its oldest input."""
    patch.setattr(merging, "rank", lambda header: (header["s0"], header["lv"]))
    return {}


def header_before_body(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A segment is visible before its entries are there."""
    late: list[Any] = []

    def bodies(tables: Tables, *found: Any) -> None:
        late.append((tables, found))

    def headers(tables: Tables, found: Any) -> Any:
        refused = insert_many(tables.segments, found)
        while late:
            of, waiting = late.pop()
            insert_bodies(of, *waiting)
        return refused

    insert_bodies = Tables.insert_bodies
    patch.setattr(Tables, "insert_bodies", bodies)
    patch.setattr(Tables, "insert_headers", headers)
    return {}


def listed_once(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A compaction trusts one walk of the index to have met every number."""

    def listed(self: Compactor, doc: Any) -> Listed:
        seen = self._tables.live(doc["_id"])
        return Listed(sorted(merging.current(seen), key=rank), settled_sets(seen))

    patch.setattr(Compactor, "_listed", listed)
    return {}


def cuts_between_equal_ranks(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A compaction takes so many segments and no more, wherever that is among the parts of an earlier one."""
    patch.setattr(compactor, "end_of_number", lambda headers, end: end)
    return {}


def replaces_what_others_hold(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A compaction that takes one part of a set along says that it replaces all that the set replaced."""
    patch.setattr(compactor, "complete_sets", lambda headers: [header for header in headers if header.get("of")])
    return {}


def last_batch_not_kept(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The stubs of a writer's last batch go like any other."""
    patch.setattr(Claims, "settle", lambda self, x, writer: None)
    return {}


def archive_removed_unseen(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The database's copy goes without a look at the object, and objects without a second look."""
    patch.setattr(Archive, "is_safe", lambda self, header: True)
    patch.setattr(Tables, "doom", lambda self, key, wait_s: True)
    patch.setattr(Tables, "is_doomed", lambda self, key: False)
    return {}


def remembered_for_ever(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The highest number is asked for once in a process's life."""
    patch.setattr(mongo, "REMEMBER_S", float("inf"))
    return {}


class Hunt(NamedTuple):
    """A rule to leave out, and a kind of world in which that shows soon; every one of them may also be drawn.

    `first` is the seed that the hunt begins with: near one that is known to show it, to save the minute before.
    """

    leave_out: Callable[[pytest.MonkeyPatch], dict[str, Any]]
    faults: Faults | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    steps: int = STEPS
    first: int = 0


QUIET = Faults(0, 0, 0, 0.1, 0, {"u": (0, 1, 20), "w": (0, 5)})
DAYS = Faults(0.02, 0.0, 0.0, 0.1, 0.003, {"u": (80,), "e": (0, 10, 20)})
HUNTS = (
    Hunt(no_grace, Faults(0, 0, 0, 1.0, 0, {"u": (80,), "r": (0, 2, 4), "w": (0, 20, 60)}),
         {"part_entries": 1, "archive_after_s": 1.0, "max_inputs": 4096, "actors": "wurrrr"}, 3000, first=130),
    Hunt(no_batch_key, first=100),
    Hunt(stubs_deleted_at_once, Faults(0.02, 0, 0, 0.1, 0, {"u": (80,), "w": (0, 15)}),
         {"archive_after_s": None, "grace_s": 0.0, "actors": "wwwu"}, 2000),
    Hunt(ranked_by_first_number, Faults(0, 0, 0.1, 0.5, 0, {"u": (0, 1, 20, 60)}), {"actors": "wwuuur"}, 2000),
    Hunt(header_before_body),
    Hunt(listed_once, Faults(0, 0, 0, 1.0, 0, {"u": (0, 0, 0, 30), "w": (15,)}),
         {"actors": "wwuu", "archive_after_s": None, "max_inputs": 4096}, first=80),
    Hunt(cuts_between_equal_ranks, QUIET, {"part_entries": 2, "max_inputs": 2, "actors": "wwuur"}),
    Hunt(replaces_what_others_hold, QUIET,
         {"part_entries": 2, "max_inputs": 1, "archive_after_s": 1.0, "actors": "wwuudr"}, first=40),
    Hunt(last_batch_not_kept, DAYS, {"archive_after_s": None, "actors": "wweu"}, 2000),
    Hunt(archive_removed_unseen, Faults(0, 0.01, 0.3, 0.1, 0, {"u": (0, 1, 2, 60)}),
         {"archive_after_s": 0.0, "actors": "wuuur"}, 2000),
    Hunt(remembered_for_ever, DAYS, {"archive_after_s": None, "actors": "wweu", "part_entries": 64}, 2000, first=200),
)  # fmt: skip


@pytest.mark.parametrize("hunt", HUNTS, ids=lambda hunt: hunt.leave_out.__name__)
def test_every_mutant_is_caught(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that is left out shows as a wrong answer; with the rule, the very same run is clean."""
    for seed in range(hunt.first, hunt.first + MUTANT_RUNS):
        try:
            with monkeypatch.context() as patch:
                run(seed, hunt.faults, hunt.steps, **{**hunt.options, **hunt.leave_out(patch)})
        except (AssertionError, MlDashError):
            run(seed, hunt.faults, hunt.steps, **hunt.options)
            return
    pytest.fail(f"{MUTANT_RUNS} runs without a rule, and nothing was wrong")
