"""Compaction: how often entries move, what it holds in memory, and that its quick ways store what the slow one does."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("pyarrow")
pytest.importorskip("pymongo")
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash.entry import encode_body, merge
from ml_dash.errors import StoreCorrupt
from ml_dash.store import MERGED, Batch, Entry, Track, Window
from ml_dash.stores import inputs, parts, undecoded
from ml_dash.stores.compactor import Compactor, Policy, with_small_ones
from ml_dash.stores.gathering import PART_BYTES
from ml_dash.stores.memory import MemoryStore
from ml_dash.stores.merging import current, overlapping
from ml_dash.stores.mongo import MongoStore
from ml_dash.stores.mongo_reader import PLAN_S, Reader
from ml_dash.stores.mongo_tables import Tables
from ml_dash.stores.segments import BLOCKS, MSGPACK, PARQUET, rank
from peak import MIB, peak_growth
from simulation import Database, World

STATE, LOSS = Track(MERGED, "robot/state"), Track("metrics", "loss")
TRACKS = {1: STATE, 2: LOSS}
POLICY = Policy()


def headers_of(counts: list[int], level: int) -> list[dict[str, Any]]:
    """Segments as far as the choice of what to merge looks at them."""
    return [{"n": n, "size": 140 * n, "raw": 225 * n, "lv": level, "s1": 1, "lo": 0.0, "hi": 1.0} for n in counts]


@pytest.mark.parametrize("rate_hz", [1, 10, 100, 1000, 5000])
def test_entries_move_few_times_however_long_a_track_grows(rate_hz: int) -> None:
    """Over a day of passes each entry is written a few times, and the segments stay few."""
    every_s, headers, moved, came = 30, list[dict[str, Any]](), 0, 0
    for _ in range(86_400 // every_s):
        loose = headers_of([rate_hz] * every_s, 0)
        came += rate_hz * every_s
        headers += loose
        first = with_small_ones(headers, len(headers) - len(loose), [], POLICY)
        total = sum(header["n"] for header in headers[first:])
        parts = [min(POLICY.part_entries, total - n) for n in range(0, total, POLICY.part_entries)]
        headers[first:] = headers_of(parts, 1)
        moved += total
    assert moved < 8 * came
    assert len(headers) < 20 + 4 * came / POLICY.part_entries


# ---------------------------------------------------------------- a store whose compactions can be looked at


class Series:
    """A store on a database in memory; what was written is known in its order."""

    def __init__(self, **policy: Any) -> None:
        self.database = Database(World(1))
        count = itertools.count()
        self.time = 0.0
        self.tables = Tables(self.database, monotonic=lambda: self.time, new_id=lambda: f"{next(count):016x}")
        self.tables.create_indexes()
        self.reader, self.policy = Reader(self.tables), Policy(**policy)
        self.store = MongoStore(self.tables, self.reader, "ada/model/run")
        self.compactor = Compactor(self.tables, self.reader, self.policy)
        self.written: list[Entry] = []
        self.losses: list[Entry] = []
        self.batches = 0

    def append(self, entries: list[Entry], losses: list[Entry] | None = None) -> None:
        """One batch."""
        self.batches += 1
        self.written += entries
        self.losses += losses or []
        timed = [(1, entry) for entry in entries] + [(2, entry) for entry in losses or []]
        bodies = [encode_body((track, e["timestamp"], {k: e[k] for k in e if k != "timestamp"})) for track, e in timed]
        self.store.append(Batch("w", self.batches, TRACKS, bodies))

    def remove(self, low: float, high: float) -> None:
        """Delete a window."""
        self.store.remove_window(STATE, low, high)
        self.written = [entry for entry in self.written if not low <= entry["timestamp"] <= high]

    def compact(self, whole: bool = False, *, sweep: bool = True) -> int:
        """Merge what there is; what was merged goes at once, or stays for a later time; how many that are."""
        merged = 0
        for doc in list(self.database["tracks"].docs.values()):
            merged += self.compactor.compact(doc, few=True, whole=whole)
        if sweep:
            self.sweep()
        return merged

    def limit(self, max_inputs: int) -> None:
        """From now on merge so many at once."""
        policy = replace(self.policy, max_inputs=max_inputs)
        self.compactor = Compactor(self.tables, self.reader, policy)

    def sweep(self) -> None:
        """What was merged goes."""
        headers = self.live()
        self.tables.stub([name for header in headers for name in header.get("of", ())], 0.0)
        self.tables.mark_swept([header["_id"] for header in headers if "set" in header])

    def read(self, track: Track = STATE) -> list[Entry]:
        """All entries."""
        return [entry for block in self.store.read(track, Window()) for entry in block]

    def live(self) -> list[dict[str, Any]]:
        """The live headers."""
        return [doc for doc in self.database["segments"].docs.values() if doc["st"] == "live"]

    def in_order(self) -> list[dict[str, Any]]:
        """The live headers by rank."""
        return sorted(self.live(), key=rank)

    def kept(self) -> list[tuple[Any, ...]]:
        """What is stored of each live segment: its header's fields and its body."""
        found = ({k: v for k, v in head.items() if k not in ("size", "crc", "raw", "chunks")} for head in self.live())
        return sorted(((head["_id"], head, repr(self.entries(head))) for head in found), key=lambda one: one[0])

    def entries(self, header: dict[str, Any]) -> list[Entry]:
        """The entries of one segment."""
        whole = self.database["segments"].docs[header["_id"]]
        blocks = Reader(self.tables).entries(whole, -math.inf, math.inf, None)
        return [entry for block in blocks for entry in block]


    def current(self) -> list[dict[str, Any]]:
        """The live headers of the track that hold entries, without those that a compaction replaced."""
        return [header for header in current(self.live()) if "a" not in header and header["n"]]


def same(entries: list[Entry]) -> list[bytes]:
    """Entries in a form that is equal for equal ones only: 1 and 1.0 differ, NaN is itself, no order of fields."""
    return [parts._packed(entry) for entry in entries]


# ---------------------------------------------------------------- which segments are merged together


def overriding(seed: int, max_inputs: int) -> None:
    """Entries that others override, deletions and compactions in turns; after each step reads as a plain store does."""
    dice = random.Random(seed)
    entries = dice.choice([1, 3, 8])
    series, plain = Series(part_entries=entries, min_segments=2, max_inputs=max_inputs), MemoryStore()
    for batch in range(1, dice.randrange(4, 12)):
        fields = dice.sample("xyz", dice.choice([1, 1, 2]))
        start, step, count = dice.randrange(12), dice.choice([1, 1, 3]), dice.choice([1, 4, 9])
        stamps = [float(start + step * n) for n in range(count)]
        bodies = [encode_body((1, stamp, dict.fromkeys(fields, batch))) for stamp in stamps]
        for store in (series.store, plain):
            store.append(Batch("w", batch, TRACKS, bodies))
        if dice.random() < 0.3:
            low = float(dice.randrange(20))
            high = low + dice.choice([0.0, 2.0])
            for store in (series.store, plain):
                store.remove_window(STATE, low, high)
        if dice.random() < 0.6:
            series.compact(whole=dice.random() < 0.4, sweep=dice.random() < 0.7)
        assert series.read() == [entry for block in plain.read(STATE, Window()) for entry in block], (seed, batch)
    series.compact(whole=True)
    assert series.read() == [entry for block in plain.read(STATE, Window()) for entry in block], seed
    assert not overlapping(series.current()), seed
    assert series.compact(whole=True) == 0, "nothing is left to do"


@pytest.mark.parametrize("max_inputs", [1, 2, 3, 5, 4096])
def test_however_few_segments_are_merged_at_once_the_newest_value_wins(max_inputs: int) -> None:
    """What a merge takes and what it leaves out turns no order around, and all of it together comes to an end."""
    for seed in range(60):
        overriding(seed, max_inputs)


def override_all(series: Series) -> None:
    """One large part of old entries, and over all of it new ones, in parts that share a number."""
    series.append([{"timestamp": float(n), "x": "old"} for n in range(0, 40, 4)])
    series.compact()
    for first in range(0, 40, 10):
        series.append([{"timestamp": float(n), "x": "new"} for n in range(first, first + 10)])
    series.compact()


@pytest.mark.parametrize("max_inputs", [1, 2, 3, 5])
def test_parts_of_one_number_are_merged_all_or_none(max_inputs: int) -> None:
    """Old entries merged with some of the parts above them would be new among the others."""
    series = Series(part_entries=10, min_segments=2)
    override_all(series)
    assert [header["s1"] for header in series.in_order()] == [1, 5, 5, 5, 5]
    series.limit(max_inputs)
    assert series.compact(whole=True) <= 5 + 5
    assert {entry["x"] for entry in series.read()} == {"new"}
    assert not overlapping(series.live())


@pytest.mark.parametrize("max_inputs", [1, 2, 3, 5])
def test_parts_of_one_number_and_other_levels_are_merged_all_or_none(max_inputs: int) -> None:
    """A part rewritten for a deletion, as one that was archived, is one level above those that it was made with."""
    series = Series(part_entries=10, min_segments=2)
    override_all(series)
    series.remove(39.0, 39.0)
    series.compact()
    assert [rank(header) for header in series.in_order()] == [(1, 1), (5, 1), (5, 1), (5, 1), (5, 2)]
    series.limit(max_inputs)
    series.compact(whole=True)
    assert {entry["x"] for entry in series.read()} == {"new"}
    assert len(series.read()) == 39


def test_full_parts_stay_where_nothing_reaches_into_them() -> None:
    """Bringing a whole series in order rewrites what is near the entries that came late, and no part far from them."""
    series = Series(part_entries=10, min_segments=2, max_inputs=3)
    for first in range(0, 100, 5):
        series.append([{"timestamp": float(n), "x": n} for n in range(first, first + 5)])
    series.compact(whole=True)
    full = {header["_id"]: header["lo"] for header in series.live()}
    assert len(full) == 10
    series.append([{"timestamp": n + 0.5, "x": -n} for n in range(50, 55)])
    series.append([{"timestamp": float(n), "x": n} for n in range(100, 105)])
    series.compact(whole=True)
    gone = [low for name, low in full.items() if name not in {header["_id"] for header in series.live()}]
    assert gone
    assert min(gone) >= 50
    assert not overlapping(series.live())
    assert series.read() == merge(series.written)


def test_parts_stay_settled_when_one_of_them_was_taken_along() -> None:
    """Until what was replaced goes, a set lacks the part that a later compaction took: the others are not rewritten."""
    series = Series(part_entries=10, min_segments=2)
    series.append([{"timestamp": float(n), "x": n} for n in range(33)])
    series.compact(sweep=False)
    full = {header["_id"] for header in series.current() if header["n"] == 10}
    assert len(full) == 3
    for first in (33, 36, 39):
        series.append([{"timestamp": float(n), "x": n} for n in range(first, first + 3)])
        series.compact(sweep=False)
        assert full <= {header["_id"] for header in series.current()}
    assert series.read() == series.written


# ---------------------------------------------------------------- reading while segments are merged


def before_listing(series: Series, action: Callable[[], None]) -> None:
    """Something happens between a reader's question for the series and its first question for segments."""
    live, done = series.tables.live, list[bool]()

    def after_action(*given: Any) -> Any:
        if not done:
            done.append(True)
            action()
        return live(*given)

    series.tables.live = after_action  # type: ignore[method-assign]


def test_a_window_finds_parts_that_became_longer_while_it_waited() -> None:
    """A part longer than any was when the read began is found, if what it replaced went meanwhile."""
    series = Series(min_segments=2)
    for first in range(4):
        series.append([{"timestamp": float(first), "x": first}])

    def merge_slowly() -> None:
        series.compact()
        series.time += 2 * PLAN_S

    before_listing(series, merge_slowly)
    found = [entry for block in series.store.read(STATE, Window(0.0, 1.0)) for entry in block]
    assert found == series.written[:2]


def test_the_first_deletion_shows_no_older_values() -> None:
    """Where a merge left out what was deleted since a read began, what lies below it is not there either."""
    series = Series(min_segments=2)
    series.append([{"timestamp": float(n), "x": "old"} for n in range(3)])
    series.append([{"timestamp": 1.0, "x": "new"}])
    (doc,) = series.database["tracks"].docs.values()

    def delete() -> None:
        series.remove(1.0, 1.0)
        newest = [header for header in series.live() if header["s1"] == 2]
        assert series.compactor._merge(doc, newest, series.tables.cuts(doc["_id"]))

    before_listing(series, delete)
    assert series.read() == series.written


# ---------------------------------------------------------------- quick and slow


def number(dice: random.Random) -> Any:
    """A number that is awkward somewhere."""
    floats = [dice.uniform(-1e3, 1e3), math.nan, math.inf, -0.0, 5e-324, 1e300]
    return dice.choice([dice.choice(floats), dice.randrange(-5, 300), (1 << 53) + 1, -(1 << 40), (1 << 64) - 1])


def template(dice: random.Random) -> dict[str, Any]:
    """The fields of a batch: kinds of values by name, few names, so that kinds meet in one column."""
    kinds = {
        "float": lambda: dice.uniform(-9, 9),
        "special": lambda: dice.choice([math.nan, -0.0, math.inf, 0.5]),
        "int": lambda: dice.randrange(1 << 16, 1 << 31),
        "small": lambda: 7,
        "large": lambda: dice.randrange(1 << 62, 1 << 64),
        "negative": lambda: -dice.randrange(1 << 40, 1 << 60),
        "any": lambda: number(dice),
        "bool": lambda: dice.random() < 0.5,
        "none": lambda: None,
        "text": lambda: "grasp",
        "word": lambda: dice.choice(["a", "bb", "\N{SNOWMAN}"]),
        "vector": lambda: [dice.uniform(-9, 9) for _ in range(3)],
        "ints": lambda: [dice.randrange(1 << 16, 1 << 20) for _ in range(2)],
        "mixed": lambda: [1.5, 70_000],
        "matrix": lambda: [[dice.random(), 0.5], [1.0, 2.0]],
        "ragged": lambda: [0.5] * dice.randrange(4),
        "empty": lambda: dice.choice([[], {}]),
        "pose": lambda: {"x": dice.random(), "at": [dice.random()], "ok": True, "none": None},
    }
    names = dice.sample(["q", "x", "timestamp:null", "n", "ml_dash:exact"], dice.randrange(4))
    return {name: kinds[dice.choice(list(kinds))] for name in names}


def batch_of(dice: random.Random, start: float) -> list[Entry]:
    """Entries that may look alike, in any order of time."""
    fields, count = template(dice), dice.choice([1, 5, 20, 40])
    made = [{"timestamp": start + n, **{name: make() for name, make in fields.items()}} for n in range(count)]
    if dice.random() < 0.2:
        made[dice.randrange(count)].update(x=number(dice))
    if dice.random() < 0.1:
        dice.shuffle(made)
    if dice.random() < 0.2:
        made += [{**one, "again": dice.random()} for one in made[:3]]
    return made


def grown(seed: int) -> Series:
    """A series that was written and compacted in turns; late, repeated and deleted entries among its batches."""
    dice = random.Random(seed)
    series, time = Series(part_entries=dice.choice([30, 70, 1000]), min_segments=2), 0.0
    layout = dice.randrange(1 << 30)
    for _ in range(dice.randrange(2, 12)):
        again = random.Random(layout) if dice.random() < 0.5 else dice  # some batches look like each other
        entries = batch_of(again, time + dice.choice([0.0, 0.0, 0.0, -10.0, -30.5]))
        series.append(entries, [{"timestamp": 1.0, "loss": number(dice)} for _ in range(dice.randrange(3))])
        time = max(entry["timestamp"] for entry in entries) + dice.choice([0.0, 1.0])
        if dice.random() < 0.1:
            series.remove(time - 20.0, time - 10.0)
        if dice.random() < 0.3:
            series.compact(whole=dice.random() < 0.3)
    series.compact()
    return series


def slowly(make: Callable[[], Any]) -> Any:
    """The same with every entry decoded and looked at by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "alike_block", lambda block: None)
        patch.setattr(parts, "rows_of", lambda table: None)
        patch.setattr(parts, "_gives_back", lambda array, values: False)
        patch.setattr(parts._Typed, "_is_doubtful", lambda self, field: undecoded.null_of(field) is None)
        return make()


@given(st.integers(0, 1 << 30))
@settings(max_examples=150, deadline=None)
def test_quick_and_slow_store_the_same(seed: int) -> None:
    """Whatever is merged, parts hold what was written, and exactly what decoding each entry would have made of it."""
    quick, slow = grown(seed), slowly(lambda: grown(seed))
    assert same(quick.read()) == same(merge(quick.written))
    assert same(quick.read(LOSS)) == same([{"index": n, **entry} for n, entry in enumerate(quick.losses)])
    assert quick.kept() == slow.kept()
    assert all(header["lv"] > 0 for header in quick.live())


def states(count: int, first: int = 0) -> list[Entry]:
    """A robot's state at 100 Hz."""
    return [
        {"timestamp": n / 100, "q": [math.sin(n + k) for k in range(7)], "grip": n % 2 == 0, "phase": "reach", "n": n}
        for n in range(first, first + count)
    ]


def alike_series() -> Series:
    """Batches of alike entries, twice compacted."""
    series = Series(part_entries=2_000, min_segments=2)
    for first in range(0, 3_000, 100):
        series.append(states(100, 70_000 + first))
        if first == 900:
            series.compact()
    return series


def test_alike_entries_are_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of alike entries, and parts of them, become parts as columns: nothing else here would show it."""
    series = alike_series()
    assert {header["enc"] for header in series.live()} == {BLOCKS, PARQUET}

    def refuse(*given: Any) -> Any:
        raise AssertionError("entries were decoded")

    with monkeypatch.context() as patch:
        for module, name in ((parts, "decoded"), (undecoded, "decoded"), (parts, "_entries"), (inputs, "unpacked")):
            patch.setattr(module, name, refuse)
        series.compact(whole=True)
    assert [header["n"] for header in series.live()] == [2_000, 1_000]
    assert series.read() == series.written


def test_parts_are_the_bytes_that_decoding_would_have_given() -> None:
    """The quick way writes the very file: not one byte more."""
    quick, slow = alike_series(), slowly(alike_series)
    quick.compact(whole=True)
    slowly(lambda: slow.compact(whole=True))
    assert quick.database["bodies"].docs == slow.database["bodies"].docs


def test_bodies_of_one_length_are_joined_only_where_they_are_alike() -> None:
    """Batches that differ in a text, a small integer, a name or a type, and in no length, stay what they are."""
    series = Series(min_segments=2)
    layouts = ({"s": "reach"}, {"s": "place"}, {"n": [5, 6]}, {"n": [5, 7]}, {"m": [5, 7]}, {"m": [5, None]})
    for place, fields in enumerate((*layouts, {"x": 1.5}, {"x": 1 << 63}, {"x": -(1 << 50)}, {"x": 2.5})):
        series.append([{"timestamp": place * 100.0 + n, **fields} for n in range(20)])
    assert {header["enc"] for header in series.live()} == {BLOCKS}
    series.compact()
    assert [header["enc"] for header in series.live()] == [PARQUET]
    assert same(series.read()) == same(series.written)


# ---------------------------------------------------------------- bounds


def large_ones() -> Iterator[list[Entry]]:
    """Batches of entries of 100 kB."""
    for first in range(0, 800, 20):
        yield [{"timestamp": n * 1.0, "image": [n * 0.5] * 11_000, "n": n} for n in range(first, first + 20)]


def test_memory_is_bounded_whatever_the_entries_are() -> None:
    """80 MB of large entries, which would be one part, become several, and only some of them are in memory at once."""
    series = Series()
    for entries in large_ones():
        series.append(entries)
        series.written.clear()
    series.compact()  # once before it counts: what is imported stays
    with peak_growth() as grown:
        for doc in list(series.database["tracks"].docs.values()):
            series.compactor._merge(doc, series.tables.live(doc["_id"]), [])
    assert grown.size < 96 * MIB
    assert all(header["raw"] < PART_BYTES + 4 * MIB for header in series.live() if header["lv"])
    expected = (entry for entries in large_ones() for entry in entries)
    assert all(found == wanted for found, wanted in zip(series.read(), expected, strict=True))


def test_what_no_parquet_file_holds_stays_msgpack() -> None:
    """Entries nested too deeply for any column are kept as they were, bodies that are alike among them."""
    deep: Any = 1.0
    for _ in range(400):
        deep = {"a": deep}
    series = Series()
    series.append([{"timestamp": n * 1.0, "x": 0.5} for n in range(20)])
    series.append([{"timestamp": 100.0, **{f"{n}": deep for n in range(3)}}, {"timestamp": 101.0, "x": 1}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "stream_parquet", lambda *given: (_ for _ in ()).throw(ValueError("no part")))
        series.compact()
    assert [header["enc"] for header in series.live()] == [MSGPACK]
    assert series.read() == series.written


def test_a_damaged_body_is_never_compacted() -> None:
    """What was changed in the database stops the compaction; nothing is replaced by it."""
    series = alike_series()
    header = next(header for header in series.live() if header["enc"] == BLOCKS)
    series.database["bodies"].docs[header["bid"]]["body"] += b"\0"
    with pytest.raises(StoreCorrupt, match="damaged"):
        series.compact()
    assert any(one["_id"] == header["_id"] for one in series.live())
