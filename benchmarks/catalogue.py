"""The products that are compared: what each environment holds and how large a share of the work it gets.

This file imports nothing of theirs: the harness reads it, the environments run `systems/<name>.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Product:
    """One column of the table.

    Args:
        name: module under `benchmarks/systems/`.
        title: heading in the table.
        requirements: what `uv pip install` gets; "." stands for this checkout.
        import_line: what a user's script imports, for the import time.
        distribution: whose installed version is shown; None for what comes with Python.
        share: part of the entries recorded in the timed loops, for products so slow that the whole number would take
            most of the run. Figures are per entry; the table says which products got fewer.
        timed_loop: whether it takes part in the 1 kHz measure by default.
        long_fixture: whether its recording of a million entries is made by default.
        environment: variables its processes get.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    import_line: str
    distribution: str | None
    share: float = 1.0
    timed_loop: bool = True
    long_fixture: bool = True
    environment: dict[str, str] = field(default_factory=dict)


OURS = "ours"
BASELINE = "baseline"

PRODUCTS = (
    Product(OURS, "ml_dash", (".[parquet]", "numpy"), "from ml_dash import Experiment", "ml-dash"),
    Product(
        BASELINE,
        "orjson + write",
        ("orjson", "numpy", "pandas", "pyarrow", "duckdb"),
        "import orjson",
        "orjson",
    ),
    Product(
        "ml_dash_011",
        "ml-dash 0.11",
        ("ml-dash==0.11.*", "numpy", "pyarrow"),
        "from ml_dash import Experiment",
        "ml-dash",
        long_fixture=False,
        # Its import asks the package index for a newer version; that is the network's time, not the product's.
        environment={"ML_DASH_NO_VERSION_CHECK": "1"},
    ),
    Product(
        "rerun_sdk",
        "rerun",
        ("rerun-sdk[catalog]", "numpy"),
        "import rerun",
        "rerun-sdk",
        share=0.2,
        long_fixture=False,
    ),
    Product("mcap_json", "mcap json", ("mcap", "numpy"), "from mcap.writer import Writer", "mcap"),
    Product(
        "foxglove_dict",
        "foxglove",
        ("foxglove-sdk", "mcap", "numpy"),
        "import foxglove",
        "foxglove-sdk",
        long_fixture=False,
    ),
    Product("h5py_rows", "h5py", ("h5py", "numpy"), "import h5py", "h5py", share=0.05, timed_loop=False),
    Product("sqlite", "SQLite", ("numpy",), "import sqlite3", None),
    Product(
        "wandb_offline",
        "wandb offline",
        ("wandb", "numpy"),
        "import wandb",
        "wandb",
        share=0.03,
        timed_loop=False,
        long_fixture=False,
        environment={"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
    ),
)

BY_NAME = {product.name: product for product in PRODUCTS}
