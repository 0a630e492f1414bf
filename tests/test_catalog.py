"""Which experiments there are under a root: found, named, opened, removed; types are summed up alike however seen."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_dash import Experiment
from ml_dash.catalog import LocalCatalog, matches
from ml_dash.errors import ExperimentNotFound, InvalidPrefix, MlDashError
from ml_dash.names import nearest
from ml_dash.schema import describe, observe, summary, type_name, types_in
from ml_dash.store import Track


def record(root: Path, *prefixes: str) -> LocalCatalog:
    """A catalog of runs with one entry each."""
    for prefix in prefixes:
        with Experiment(prefix, dash_root=root).run as exp:
            exp.tracks("a/b").append(x=1, _ts=1.0)
    return LocalCatalog(root)


def test_experiments_are_found_with_what_is_known(root: Path) -> None:
    """Status, times, tracks, tags and readme; sorted by prefix, nested prefixes included."""
    catalog = record(root, "b/c/d", "a/b/c/d", "a/b/c")
    with Experiment("a/x/y", dash_root=root, tags=["t"], readme="r").run:
        found = {info.prefix: info for info in catalog.experiments()}
        assert list(found) == ["a/b/c", "a/b/c/d", "a/x/y", "b/c/d"]
        running = found["a/x/y"]
        assert (running.status, running.tracks, running.tags, running.readme) == ("running", 0, ("t",), "r")
        assert running.ended_at is None
    assert catalog.find("a/b/c").to_dict()["status"] == "completed"
    assert json.dumps([info.to_dict() for info in catalog.experiments()])


def test_who_asks_for_one_has_no_other_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server tells a reader how one run stands without a walk through everything that it keeps; what lies below the
    one is found, and a pattern still finds all."""
    catalog = record(root, "a/b/c", "a/b/c/d", "a/b/e", "x/y/z")
    looked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr("ml_dash.catalog.os.scandir", lambda at: (looked.append(str(at)), scandir(at))[1])
    assert catalog.prefixes("a/b/c") == ["a/b/c", "a/b/c/d"]
    assert looked
    assert all(one.startswith(str(root / "a/b/c")) for one in looked)
    assert catalog.prefixes("no/such/one") == []
    assert catalog.prefixes("a/b/[ce]") == ["a/b/c", "a/b/e"]
    assert catalog.prefixes("a/b") == ["a/b/c", "a/b/c/d", "a/b/e"]


def test_folders_of_other_programs_are_experiments(root: Path) -> None:
    """Data put there by hand counts; hidden folders, the layout's own and bad names do not."""
    for folder in (
        "a/b/hand/tracks/t",
        "a/b/.hidden/tracks",
        "a/b/tracks/tracks",
        "a/short/tracks",
        "a/b/bad~name/tracks",
    ):
        (root / folder).mkdir(parents=True)
    (root / "a/b/hand/experiment.json").write_text('{"started_at": 5, "tags": "x", "readme": []}')
    (root / "a/b/broken").mkdir()
    (root / "a/b/broken/experiment.json").write_text("{")
    (root / "a/b/file").write_text("")
    found = LocalCatalog(root).experiments()
    assert [(info.prefix, info.status, info.started_at, info.tags) for info in found] == [
        ("a/b/broken", None, None, ()),
        ("a/b/hand", None, None, ()),
    ]
    assert found[1].tracks == 1


def test_links_that_lead_up_are_not_followed(root: Path) -> None:
    """A link to another disk is, one back to the root is not."""
    catalog = record(root, "a/b/c")
    elsewhere = root.parent / "elsewhere"
    record(elsewhere, "p/q/r")
    os.symlink(elsewhere / "p", root / "p")
    os.symlink(root, root / "a" / "loop")
    assert catalog.prefixes() == ["a/b/c", "p/q/r"]


def test_no_root_has_no_experiments(root: Path) -> None:
    """A root that does not exist, or is a file, is empty; looking creates nothing."""
    assert LocalCatalog(root).experiments() == []
    assert not root.exists()
    root.write_text("")
    assert LocalCatalog(root).experiments() == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", True),
        ("alice", True),
        ("alice/", True),
        ("alice/arm", True),
        ("alice/arm/pick", True),
        ("alice/*", True),
        ("*/pick", True),
        ("alice/?rm/p[hi]ck", True),
        ("ali", False),
        ("alice/ar", False),
        ("ALICE", False),
        ("pick", False),
        ("", False),
    ],
)
def test_patterns(pattern: str, found: bool) -> None:
    """Shell patterns over the whole name, the name, or a part of the path above it."""
    assert matches("alice/arm/pick", pattern) is found


def test_a_name_with_pattern_signs_is_itself() -> None:
    """A topic may be called like a pattern."""
    assert matches("q[0]", "q[0]")
    assert not matches("q0", "q[1]")


def test_nearest_names() -> None:
    """Slips of the pen, and a last part that is right."""
    known = ["alice/arm/pick", "alice/arm/place", "bob/drone/imu"]
    assert nearest("alice/arm/pik", known)[0] == "alice/arm/pick"
    assert nearest("robert/x/imu", known) == ["bob/drone/imu"]
    assert nearest("zzz", known) == []


def test_unknown_experiments_are_told_with_the_nearest(root: Path) -> None:
    """The error names the root and what was probably meant; a name that could be none is another error."""
    catalog = record(root, "alice/arm/pick")
    with pytest.raises(ExperimentNotFound, match=r"no experiment 'alice/arm/pik' in .*did you mean 'alice/arm/pick'\?"):
        catalog.find("alice/arm/pik")
    with pytest.raises(InvalidPrefix):
        catalog.find("../../etc")
    with pytest.raises(ExperimentNotFound):
        catalog.remove("a/b/c")


# ---------------------------------------------------------------- stores


def test_store_reads_journals_too(root: Path, new_experiment: Callable[..., Experiment]) -> None:
    """What a run has not drained yet is read with the store, its topics too."""
    exp = new_experiment("a/b/c").run.start()
    exp.tracks("new").append(x=1, _ts=1.0)
    store = LocalCatalog(root, readonly=True).store("a/b/c")
    assert store.topics() == ["new"]
    assert [info.count for info in store.tracks()] == [1]
    assert list(store.read(Track("tracks", "new"))) == [[{"timestamp": 1.0, "x": 1}]]


def test_store_of_nothing_is_empty_and_creates_nothing(root: Path) -> None:
    """An experiment begins with its first append."""
    store = LocalCatalog(root).store("a/b/c")
    assert (store.tracks(), store.topics(), store.read_document("experiment"), store.applied("w")) == ([], [], None, 0)
    assert not root.exists()


def test_stores_are_shared_while_used_and_closed_after(root: Path, tmp_path: Path) -> None:
    """The same experiment gives the same store; many of them leave no files open."""
    catalog = LocalCatalog(root)
    first = catalog.store("a/b/c")
    assert catalog.store("a/b/c") is first
    first.close()
    assert catalog.store("a/b/c") is not first
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for number in range(300):
        catalog.store(f"a/many/n{number}").update_document("params", lambda known: {"n": 1})
    gc.collect()
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 80


# ---------------------------------------------------------------- removing


def test_remove(root: Path) -> None:
    """The folder goes with everything in it, and parents that are empty then; the root stays."""
    catalog = record(root, "a/b/c", "x/y/z")
    (root / "a/b/c/own notes.txt").write_text("x")
    store = catalog.store("a/b/c")
    catalog.remove("a/b/c")
    assert sorted(path.name for path in root.iterdir()) == ["x"]
    assert store.closed
    catalog.remove("x/y/z")
    assert list(root.iterdir()) == []


def test_remove_leaves_experiments_below(root: Path) -> None:
    """A longer prefix is another experiment."""
    catalog = record(root, "a/b/c", "a/b/c/d/e")
    catalog.remove("a/b/c")
    assert catalog.prefixes() == ["a/b/c/d/e"]
    assert catalog.store("a/b/c/d/e").tracks()[0].count == 1


def test_remove_refuses_a_running_one(root: Path, new_experiment: Callable[..., Experiment]) -> None:
    """Also one whose run begins while it is being removed."""
    exp = new_experiment("a/b/c").run.start()
    catalog = LocalCatalog(root)
    with pytest.raises(MlDashError, match="is being recorded now"):
        catalog.remove("a/b/c")
    with pytest.MonkeyPatch.context() as patch:
        refuse, asked = LocalCatalog._refuse_running, []

        def late(self: LocalCatalog, prefix: str, folder: Path) -> None:
            asked.append(folder)
            if len(asked) > 1:
                refuse(self, prefix, folder)

        patch.setattr(LocalCatalog, "_refuse_running", late)
        with pytest.raises(MlDashError, match="is being recorded now"):
            catalog.remove("a/b/c")
    exp.tracks("a").append(x=1, _ts=1.0)
    exp.run.complete()
    assert catalog.store("a/b/c").tracks()[0].count == 1


# ---------------------------------------------------------------- types in columns

PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=2))
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner), max_leaves=5
)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=3).map(dict), max_size=8), st.data())
def test_types_are_the_same_value_by_value(entries: list[dict[str, Any]], data: Any) -> None:
    """Looking at whole columns finds what looking at each value finds, in one go or in two."""
    expected: dict[str, set[str]] = {}
    for entry in entries:
        for name, value in entry.items():
            expected.setdefault(name, set()).add(type_name(value))
    seen: dict[str, set[str]] = {}
    cut = data.draw(st.integers(0, len(entries)))
    observe(seen, entries[:cut])
    observe(seen, entries[cut:])
    assert seen == expected
    assert describe(entries) == summary(expected)
    for name, names in expected.items():
        assert types_in([entry[name] for entry in entries if name in entry]) == names
