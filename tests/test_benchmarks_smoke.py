"""The benchmarks' harness at tiny sizes: it measures what it says, and never turns a failure into a figure."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import envs, report, run
from benchmarks.catalogue import BY_NAME
from benchmarks.gauges import Report, check_rows, median_lap
from benchmarks.percentiles import percentile
from benchmarks.systems import Absent
from benchmarks.workload import START_S, entries, loops

NOT_OFFERED = {"long_salvage", "build_columns_ms"}
"""Figures that a product may lack by nature; every other one must be there."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One smoke run of ours and the baseline in this interpreter."""
    folder = tmp_path_factory.mktemp("bench")
    out = folder / "result.json"
    asked = ["--smoke", "--here", "--rounds", "1", "--systems", "ours", "baseline", "--folder", str(folder)]
    assert run.main([*asked, "--out", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("product", ["ours", "baseline"])
def test_every_figure_is_taken(result: dict[str, Any], product: str) -> None:
    """Each row of the table has a finite figure of both products, or its reason is that the product lacks it."""
    missing = {row.key for row in report.ROWS if report.median(result, product, row.key) is None}
    assert missing <= NOT_OFFERED, result["notes"]
    assert all(math.isfinite(report.median(result, product, row.key) or 0.0) for row in report.ROWS)


def test_percentiles_of_a_run_ascend(result: dict[str, Any]) -> None:
    """p50 is at most p99, which is at most p99.9, which is at most the maximum."""
    found = [report.median(result, "baseline", f"append_{name}_us") for name in ("p50", "p99", "p999", "max")]
    assert found == sorted(found)


def test_a_killed_writer_of_ours_loses_nothing(result: dict[str, Any]) -> None:
    """The kill measure really kills while entries are being acknowledged, and all of ours are read back."""
    for kind in ("paced", "fast", "long"):
        assert report.median(result, "ours", f"{kind}_acknowledged") > 0
        assert report.median(result, "ours", f"{kind}_survive") == 100


def test_the_page_shows_every_row_and_target(result: dict[str, Any]) -> None:
    """`docs/performance.md` is made from the result alone and leaves out no measure and no target."""
    page = report.page(result)
    assert [row.title for row in report.ROWS if row.title not in page] == []
    assert [target.title for target in report.TARGETS if target.title not in page] == []


def synthetic(**samples: dict[str, dict[int, float]]) -> dict[str, Any]:
    """A result with nothing but samples."""
    products = {name: {"title": name, "version": "", "refused": "", "share": 1.0} for name in samples}
    return {"products": products, "samples": samples, "notes": {}}


def test_ratios_are_paired_by_round() -> None:
    """A round that was slow for both counts as equal; a round that only one has is left out."""
    made = synthetic(ours={"loop_us": {0: 2.0, 1: 20.0, 2: 5.0}}, baseline={"loop_us": {0: 1.0, 1: 10.0}})
    assert report.paired(made, "loop_us", "ours", ("baseline", "loop_us")) == [2.0, 2.0]


def test_a_target_is_judged_by_its_limit() -> None:
    """A ratio above its limit is shown as missed, one below as met, and a share by its worst round."""
    made = synthetic(
        ours={"loop_us": {0: 3.0}, "import_ms": {0: 50.0}, "fast_survive": {0: 100.0, 1: 99.9}, "durable_us": {0: 2.0}},
        baseline={"loop_us": {0: 1.0}},
    )
    states = {title: state for title, _, _, state in report.judged(made)}
    assert states["whole recording loop / baseline"] == "MISSED"
    assert states["import, ms"] == "met"
    assert states["left after SIGKILL at full speed, %"] == "MISSED"
    assert states["append until durable / baseline"] == "not measured"


def test_peers_that_are_ahead_are_named() -> None:
    """A peer with a better median appears with both figures; one that is behind does not."""
    made = synthetic(ours={"window_ms": {0: 2.0}}, sqlite={"window_ms": {0: 1.0}}, mcap={"window_ms": {0: 9.0}})
    ahead = report._ahead(made)
    assert "sqlite (best 1.00 ms, ours 2.00)" in ahead
    assert "mcap" not in ahead


def test_a_share_just_below_all_is_not_rounded_up() -> None:
    """99.9999 % must not look like 100 %."""
    assert report.number(99.99996) == "99.9999"
    assert report.number(100.0) == "100"


def test_a_wrong_answer_has_no_time() -> None:
    """Too few entries, or other values, raise; a failed measure is noted and gives no figure."""
    t, q, *_ = entries(1, 5)[0]
    check_rows([{"timestamp": t, "q": q}], 5, 1)
    with pytest.raises(ValueError, match="read 0 entries where 1 were recorded"):
        check_rows([], 5, 1)
    kept = Report()
    kept.take("window_ms", lambda: check_rows([{"timestamp": t, "q": q}], 6, 1))
    assert kept.values == {}
    assert "entry 6 is not what was recorded" in kept.notes["window_ms"]


def test_an_absent_operation_is_noted() -> None:
    """A product without an operation gets its reason, not a failure."""
    kept = Report()

    def measure() -> float:
        raise Absent("no Parquet export")

    kept.take("parquet_warm_ms", measure)
    assert (kept.values, kept.notes) == ({}, {"parquet_warm_ms": "no Parquet export"})


def test_a_product_that_cannot_be_installed_is_shown_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uv nothing is installed; the table says why in place of figures."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(envs, "CACHE", Path("nowhere"))
    with pytest.raises(envs.NotInstallable, match="uv is not installed"):
        envs.build(BY_NAME["mcap_json"])
    shown = run.described({}, {"mcap_json": "uv is not installed"})
    made = {"products": shown, "samples": {}, "notes": {}}
    assert report._missing_lines(made) == ["mcap json: everything: uv is not installed"]


def test_the_line_is_what_the_loop_runs() -> None:
    """Every entry reaches the product's line once, with its timestamp and lists."""
    kept: list[tuple[float, int]] = []
    loops("kept.append((t, len(q) + len(qd) + len(ee_pos) + len(ee_quat)))", {"kept": kept})["plain"](entries(3), "x")
    assert kept == [(START_S, 21), (START_S + 0.001, 21), (START_S + 0.002, 21)]


def test_percentile_is_the_nearest_rank() -> None:
    """Of 1,000 values, 999 are at most the p99.9; no values have no percentile."""
    assert percentile(range(1, 1001), 0.999) == 999
    assert percentile([7.0], 0.5) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_repeats_stop_at_the_limit() -> None:
    """The median of at most the asked number of runs, in the order they come."""
    found = iter([3.0, 1.0, 2.0, 9.0])
    assert median_lap(lambda: next(found), most=3, limit_s=60) == 2.0


@pytest.mark.parametrize("words", [
    [], ["--smoke", "--here", "--systems", "ml_dash", "--measures", "append"], ["--entries", "50", "--rounds", "2"],
])  # fmt: skip
def test_the_printed_command_makes_the_same_run(words: list[str]) -> None:
    """Systems and measures that were chosen are part of it: without them it would print other figures."""
    words = [next(iter(run.PHASES)) if word == "append" else word for word in words]
    words = [next(iter(BY_NAME)) if word == "ml_dash" else word for word in words]
    printed = run.command(run.command_line().parse_args(words)).split()
    assert printed[:3] == ["python", "-m", "benchmarks"]
    assert run.command_line().parse_args(printed[3:]) == run.command_line().parse_args(words)
