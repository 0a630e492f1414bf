"""Parameters: one nested object, merged key by key, replaced as a file."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_dash import Experiment, InvalidEntry, StoreCorrupt
from ml_dash import open as open_run


def test_set_and_get(experiment: Experiment) -> None:
    """By name, by dotted path, all of them, and the default where there is none; set can be chained."""
    params = experiment.params
    assert params.get() == {}
    assert params.get("lr") is None
    assert params.set(lr=0.1, arm={"dof": 7, "gripper": {"force": 40.0}}).set(seed=None) is params
    assert params.get() == {"lr": 0.1, "arm": {"dof": 7, "gripper": {"force": 40.0}}, "seed": None}
    assert params.get("arm") == {"dof": 7, "gripper": {"force": 40.0}}
    assert params.get("arm.gripper.force") == 40.0
    assert [params.get(name, "none") for name in ("arm.x", "arm.dof.x", "x", "x.y", "", ".", "arm.")] == ["none"] * 7
    assert params.get("seed", 1) is None


def test_what_argparse_parsed(experiment: Experiment) -> None:
    """A namespace is as good as a mapping; what is neither is refused by its type."""
    experiment.params.set(Namespace(lr=0.1, seed=3), seed=4)
    assert experiment.params.get() == {"lr": 0.1, "seed": 4}
    with pytest.raises(InvalidEntry, match="takes a mapping or names, got list"):
        experiment.params.set([1])  # type: ignore[arg-type]


def test_dicts_merge_and_all_else_is_replaced(experiment: Experiment) -> None:
    """Key by key, at every depth; lists and scalars give way whole, in either direction."""
    experiment.params.set(a={"x": 1, "deep": {"p": 1, "q": [1, 2]}}, b=1, c={"x": 1})
    experiment.params.set(a={"y": 2, "deep": {"q": [3]}}, b={"now": "a dict"}, c="now text")
    assert experiment.params.get() == {
        "a": {"x": 1, "deep": {"p": 1, "q": [3]}, "y": 2}, "b": {"now": "a dict"}, "c": "now text",
    }  # fmt: skip


def test_names_that_are_no_python_names(experiment: Experiment) -> None:
    """A mapping takes any name; names given beside it win; a dotted name is a name, found before a path."""
    experiment.params.set({"learning-rate": 1, "a.b": 2, "self": 3, "mapping": 4}, mapping=5, a={"b": 6})
    assert experiment.params.get("learning-rate") == 1
    assert experiment.params.get("a.b") == 2
    assert experiment.params.get("self") == 3
    assert experiment.params.get("mapping") == 5
    assert experiment.params.get("a") == {"b": 6}


def test_values_are_converted_like_entries(experiment: Experiment) -> None:
    """NumPy values, tuples, keys that are no text, NaN and infinities; and what was read is a copy."""
    experiment.params.set(
        a=np.float32(0.5), b=np.arange(3), c=(1, 2), d={1: "one", 2: "two"}, e=math.nan, f=[-math.inf]
    )
    experiment.params.set(d={"2": "zwei", 3: "three"}, g="NaN")
    found = experiment.params.get()
    assert math.isnan(found.pop("e"))
    assert found == {
        "a": 0.5, "b": [0, 1, 2], "c": [1, 2], "d": {"1": "one", "2": "zwei", "3": "three"},
        "f": [-math.inf], "g": "NaN",
    }  # fmt: skip
    found["b"].append(99)
    assert experiment.params.get("b") == [0, 1, 2]


def test_the_file_is_readable_json(experiment: Experiment, folder: Path) -> None:
    """`params.json` is strict JSON that a person can read, complete as soon as set returns."""
    experiment.params.set(lr=0.1, bad=math.nan, name="Infinity", arm={"dof": 7})
    raw = (folder / "params.json").read_text()
    assert raw.splitlines()[0] == "{"
    assert '"dof": 7' in raw
    strict = json.loads(raw, parse_constant=lambda token: pytest.fail(f"{token} is no strict JSON"))
    assert strict == {"lr": 0.1, "bad": "NaN", "name": "Infinity", "arm": {"dof": 7}}
    assert [name for name in os.listdir(folder) if "tmp" in name] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), r"^field 'bad' on topic 'params' \(object\) cannot be recorded"),
        ({"deep": [1j]}, r"^field 'bad' on topic 'params' \(dict\) cannot be recorded: builtins.complex"),
        (2**64, r"an integer beyond 64 bits"),
        ("\ud800", r"lone surrogate"),
    ],
)
def test_values_that_are_refused(experiment: Experiment, value: Any, text: str) -> None:
    """One bad value refuses the whole call; nothing changes."""
    experiment.params.set(a=1)
    with pytest.raises(InvalidEntry, match=text):
        experiment.params.set(a=2, bad=value, b=3)
    assert experiment.params.get() == {"a": 1}


@pytest.mark.parametrize("mapping", [[("a", 1)], "a=1", 1, {"a"}], ids=repr)
def test_what_is_no_mapping_is_refused(experiment: Experiment, mapping: Any) -> None:
    """Pairs, text and the like are told apart from a mapping."""
    with pytest.raises(InvalidEntry, match=r"^params\.set takes a mapping or names, got "):
        experiment.params.set(mapping)


def test_parameters_stay(new_experiment: Callable[..., Experiment], root: Path) -> None:
    """A later run merges into what is there, and a reader finds it."""
    with new_experiment().run as exp:
        exp.params.set(a={"x": 1})
    with new_experiment().run as exp:
        exp.params.set(a={"y": 2})
    with open_run(exp.prefix, dash_root=root) as opened:
        assert opened.params.get() == {"a": {"x": 1, "y": 2}}


def test_setting_at_once_loses_nothing(new_experiment: Callable[..., Experiment]) -> None:
    """Threads of two experiment objects on one prefix set different names at the same time: all are there."""
    with new_experiment().run as first, new_experiment().run as second:

        def setting(number: int) -> None:
            for step in range(5):
                (first if number % 2 else second).params.set({f"n{number}": {f"s{step}": step}})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(setting, range(4)))
        assert first.params.get() == {f"n{n}": {f"s{s}": s for s in range(5)} for n in range(4)}


def test_a_broken_file_is_told(experiment: Experiment, folder: Path) -> None:
    """Somebody's edit that is no JSON object is named and kept; mended, it is used again."""
    experiment.params.set(a=1)
    (folder / "params.json").write_text('{"a": 1,,}')
    for use in (lambda: experiment.params.get(), lambda: experiment.params.set(b=2)):
        with pytest.raises(StoreCorrupt, match=r"params\.json is no JSON object; move it away or mend it"):
            use()
    assert (folder / "params.json").read_text() == '{"a": 1,,}'
    (folder / "params.json").write_text('{"a": 5, "huge": 123456789012345678901234567890}')
    assert experiment.params.get("a") == 5


def test_a_number_too_large_for_us_in_an_edited_file(experiment: Experiment, folder: Path) -> None:
    """An integer beyond 64 bits that a person wrote can be read; a change beside it is refused, not the file harmed."""
    raw = '{"huge": 123456789012345678901234567890}'
    (folder / "params.json").write_text(raw)
    assert experiment.params.get("huge") == 123456789012345678901234567890
    with pytest.raises(ValueError, match="64 bits"):
        experiment.params.set(b=2)
    assert (folder / "params.json").read_text() == raw
