"""The benchmark of remote mode at tiny sizes: it measures what it says, and its page leaves out nothing."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("pyarrow")
pytest.importorskip("pymongo")
pytest.importorskip("obstore")
pytest.importorskip("httpx2")
pytest.importorskip("uvicorn")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.catalogue import OURS
from benchmarks.remote import report, run

FIGURES = {
    "append_both_tight_p50_us",
    "append_alone_paced_p99_us",
    "ingest_ferretdb_append_per_s",
    "ingest_ferretdb_upsert_per_s",
    "stage_check_us",
    "storage_noisy_1khz",
    "window_ferretdb_100000_ms",
    "window_ferretdb_100000_documents",
    "place_archived_full_s",
    "memory_last_mb",
    "outage_during_p99_us",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One smoke run; every phase ended well."""
    folder = tmp_path_factory.mktemp("remote")
    out = folder / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP"):
            patch.setenv(name, "")  # the run sets them for its own bucket, and they go back after it
        patch.setenv("ML_DASH_STATE", "")
        assert run.main(["--smoke", "--folder", str(folder), "--out", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.mark.timeout(300)
def test_every_figure_is_taken(result: dict[str, Any]) -> None:
    """What the issue's targets need is measured and finite."""
    found = result["samples"][OURS]
    assert set(found) >= FIGURES, result["notes"]
    assert all(math.isfinite(value) for rounds in found.values() for value in rounds.values())


def test_the_outage_lost_and_doubled_nothing(result: dict[str, Any]) -> None:
    """The server really was away while entries came, and all of them arrived once."""
    found = result["samples"][OURS]
    assert found["outage_ticks"]["0"] > 2_000
    assert found["outage_wrong"]["0"] == 0


def test_a_window_fetches_what_it_needs(result: dict[str, Any]) -> None:
    """Three documents and one object, however many segments the track has."""
    found = result["samples"][OURS]
    for size in result["options"]["sizes"]:
        assert set(found[f"window_ferretdb_{size}_documents"].values()) == {3.0}


def test_the_page_shows_every_group_and_target(result: dict[str, Any]) -> None:
    """`docs/scale.md` has a place for each group of figures, and a run fills them all."""
    page = (Path(run.PAGE)).read_text(encoding="utf-8")
    names = {found[2] for found in report.MARKS.finditer(page)}
    assert names >= {*report.groups(result), "conditions", "targets", "arithmetic"}
    made = report.page(page, result)
    assert "Not measured" not in re.sub(r"MISSED|met", "", made).replace("not measured", "")
    for title, *_ in report.judged(result):
        assert title in made


def test_a_target_is_judged_by_its_limit() -> None:
    """A ratio is taken inside a round; above its limit it is missed, below a lower one too, unmeasured is neither."""
    samples = {
        "append_alone_tight_p50_us": {0: 1.0, 1: 20.0},
        "append_local_tight_p50_us": {0: 1.0, 1: 10.0},
        "ingest_x_append_per_s": {0: 50.0},
        "ingest_x_insert_many_per_s": {0: 5.0},
        "outage_wrong": {0: 1.0},
    }
    made = {"samples": {OURS: samples}, "databases": {"x": "X"}, "options": {"sizes": [100_000]}, "notes": {}}
    states = {title: state for title, _, _, state in report.judged(made)}
    assert states["append p50, tight loop, server only / on disk"] == "MISSED"
    assert states["ingest, append / insert_many, x"] == "met"
    assert states["entries wrong after the outage"] == "MISSED"
    assert states["bytes stored an entry, full mantissas"] == "not measured"


@pytest.mark.parametrize("words", [
    [], ["--full"], ["--smoke", "--measures", "ingest", "stages"], ["--measures", "outage"],
])  # fmt: skip
def test_the_printed_command_makes_the_same_run(words: list[str]) -> None:
    """Measures that were chosen are part of it: without them it would print other figures."""
    printed = run.command(run.command_line().parse_args(words)).split()
    assert printed[:3] == ["python", "-m", "benchmarks.remote"]
    assert run.command_line().parse_args(printed[3:]) == run.command_line().parse_args(words)
