"""Real recordings, of others: they lie beside the checkout, in `../shared/data`, and are no part of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


def recording(name: str) -> Path:
    """A file, or a skip that says what is missing."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real recording missing: ../shared/data/{name}")
    return path
