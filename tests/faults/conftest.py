"""Fixtures of the fault tests, and their figures at the end of the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import figures
from .sizes import LONG, SEED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was counted."""
    found = figures.lines()
    if found:
        terminalreporter.section(f"faults: {'long' if LONG else 'CI'} sizes, seed {SEED}")
        for line in found:
            terminalreporter.write_line(line)


@pytest.fixture(params=["map", "write"])
def journal_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways a journal is written: through a mapping, and with write(2)."""
    monkeypatch.setenv("ML_DASH_JOURNAL", request.param)
    return str(request.param)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of one's own; in memory for modules that say `IN_MEMORY`, because they make hundreds of recordings."""
    if not getattr(request.module, "IN_MEMORY", False):
        return tmp_path
    return request.getfixturevalue("shared_memory") or tmp_path


@pytest.fixture
def shared_memory() -> Iterator[Path | None]:
    """A folder in memory, or None where the system has none."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK):
        yield None
        return
    with tempfile.TemporaryDirectory(dir=place, prefix="ml_dash-") as folder:
        yield Path(folder)
