"""`python -m ml_dash.cli`: the command `ml-dash`, where no script is installed."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
