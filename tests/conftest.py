"""Shared fixtures and settings. Tests never touch the folder they are started in, nor the user's environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ml_dash import Experiment

pytest.register_assert_rewrite("store_contract")

LONG = os.environ.get("ML_DASH_LONG") == "1"
PREFIX = "alice/robotics/pick"

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100, print_blob=True)
settings.register_profile("long", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile("long" if LONG else "ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long sizes of the fault plan run only where they are asked for."""
    if LONG:
        return
    chosen = [item for item in items if "long" not in item.keywords]
    left_out = [item for item in items if "long" in item.keywords]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's own `ML_DASH_*` variables, state and cache folders do not reach the tests."""
    for name in ("PREFIX", "ROOT", "JOURNAL", "URL", "TOKEN", "COLUMNS", "CACHE_BYTES"):
        monkeypatch.delenv(f"ML_DASH_{name}", raising=False)
    monkeypatch.setenv("ML_DASH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("ML_DASH_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dash root of its own."""
    return tmp_path / "dash"


@pytest.fixture
def folder(root: Path) -> Path:
    """Where `experiment` keeps its files."""
    return root / PREFIX


@pytest.fixture
def new_experiment(root: Path) -> Iterator[Callable[..., Experiment]]:
    """Makes experiments in `root`; what a test leaves open is closed after it."""
    made: list[Experiment] = []

    def make(prefix: str = PREFIX, **options: Any) -> Experiment:
        made.append(Experiment(prefix, **{"dash_root": root, **options}))
        return made[-1]

    yield make
    for experiment in made:
        experiment.close()


@pytest.fixture
def experiment(new_experiment: Callable[..., Experiment]) -> Experiment:
    """An experiment that is recording."""
    return new_experiment().run.start()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, which is the current one."""
    place = tmp_path / "workplace"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """No test is skipped silently: the reasons stand at the end of every report."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] = reasons.get(reason.removeprefix("Skipped: "), 0) + 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"SKIPPED {count}: {reason}", yellow=True)
