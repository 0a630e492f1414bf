"""Interpreters with packages that cannot be beside ours, each in an environment of its own under `.cache`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def interpreter(name: str) -> str:
    """The interpreter of one of the benchmarks' products, or of `DuckDB` with its extensions for S3.

    Skips, and fails in CI, where it cannot be installed.
    """
    sys.path.insert(0, str(ROOT))
    from benchmarks.catalogue import BY_NAME, Product
    from benchmarks.envs import NotInstallable, build

    duckdb = ("duckdb-extension-httpfs", "duckdb-extension-aws")  # they bring the DuckDB they are made for
    known = {**BY_NAME, "duckdb_s3": Product("tool_duckdb_s3", "DuckDB", duckdb, "import duckdb", "duckdb")}
    try:
        return build(known[name]).python
    except NotInstallable as error:
        reason = f"{name} cannot be installed, so nothing was tried with it: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
