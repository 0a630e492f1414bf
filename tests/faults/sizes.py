"""How much is tested: the sizes of CI, or of the long run (`ML_DASH_LONG=1`), and the seed of every random choice."""

from __future__ import annotations

import os
import random

LONG = os.environ.get("ML_DASH_LONG") == "1"
SEED = int(os.environ.get("ML_DASH_SEED", "1"))


def size(ci: int, long: int) -> int:
    """The first in CI, the second in the long run."""
    return long if LONG else ci


def rng(*name: object) -> random.Random:
    """A generator of random choices for one named purpose, the same in every run with one seed."""
    return random.Random(f"{SEED}/{'/'.join(map(str, name))}")


def seeds(count: int) -> list[int]:
    """Numbers to parametrize by, so that a failing test names its own."""
    return list(range(SEED * 1000, SEED * 1000 + count))
