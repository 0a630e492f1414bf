"""`python -m tests.faults [--long] [--seed N] [pytest's own options]`: the fault tests and the figures they found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run pytest over this folder with the sizes asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long sizes: 1,000 kills and so on, about 12 minutes")
    parser.add_argument("--seed", type=int, default=1, help="what every random choice is derived from (default 1)")
    known, rest = parser.parse_known_args()
    environment = {**os.environ, "ML_DASH_SEED": str(known.seed), "ML_DASH_LONG": "1" if known.long else "0"}
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-rs", *rest]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
