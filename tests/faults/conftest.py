"""Fixtures of the fault tests, and their figures at the end of the run."""

from __future__ import annotations

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
