"""The command `ml-dash`. Commands are listed in `commands.py` and imported when they are called."""

from __future__ import annotations

import sys

_NEEDED = ("click", "rich")


def main() -> int:
    """Run the command line; returns its exit code: 0 fine, 1 not found or problems found, 2 wrong usage."""
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(f"ml-dash needs {' and '.join(missing)}: pip install 'ml-dash[cli]'", file=sys.stderr)
        return 2
    from .app import run

    return run()
