"""Without an optional library each function that needs it says which extra installs it; the others work."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ml_dash import Experiment

PROGRAM = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import ml_dash

def tried(call):
    try:
        call()
    except ml_dash.MissingExtra as error:
        return str(error)
    return None

with ml_dash.open("a/b/c", dash_root=sys.argv[2]) as exp:
    track = exp.tracks("arm")
    calls = {
        "read": track.read,
        "csv": lambda: track.read(format="csv"),
        "count": track.count,
        "list": exp.tracks.list,
        "at one time": lambda: track.slice().at(0.5),
        "html": track._repr_html_,
        "parquet": lambda: track.read(format="parquet"),
        "arrow": track.to_arrow,
        "stream": track.__arrow_c_stream__,
        "pandas": track.to_pandas,
        "polars": track.to_polars,
        "numpy": lambda: track.to_numpy("q"),
        "at many": lambda: track.slice().at([0.5]),
        "align": lambda: exp.align("arm", rate_hz=10),
        "find": lambda: exp.find("arm.q[0] > 0"),
        "doctor": exp.doctor,
        "sql": lambda: exp.sql("select 1"),
        "plot": track.plot,
        "path": lambda: track.plot_path("q"),
        "together": exp.plot,
    }
    print(json.dumps({name: tried(call) for name, call in calls.items()}))
"""

PLOTS = {"plot", "path", "together"}
VECTORISED = {"numpy", "at many", "align", "find", "doctor", *PLOTS}
WITHOUT = {
    "pandas": {"pandas"},
    "polars": {"polars"},
    "duckdb": {"sql"},
    "matplotlib": PLOTS,
    "numpy": {"pandas", *VECTORISED},
    "pyarrow": {"arrow", "stream", "parquet", "pandas", "polars", "sql", *VECTORISED},
}
"""What cannot be done without each library."""


@pytest.mark.parametrize("library", WITHOUT)
def test_what_is_missing_is_named(library: str, tmp_path: Path) -> None:
    """Exactly the functions that need it refuse, and name an extra that this package has."""
    for name in WITHOUT:
        pytest.importorskip(name)
    with Experiment("a/b/c", dash_root=tmp_path).run as exp:
        exp.tracks("arm").extend(_ts=[n / 10 for n in range(30)], q=[[float(n), 1.0, 2.0] for n in range(30)])
    words = [sys.executable, "-c", PROGRAM, library, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = {name: text for name, text in json.loads(done.stdout).items() if text is not None}
    assert set(told) == WITHOUT[library]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in told.values():
        extra = text.partition("pip install 'ml-dash[")[2].removesuffix("]'")
        assert extra in project["optional-dependencies"], text
