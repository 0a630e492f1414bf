"""The steps of archiving, each of which can be made to fail, or to kill the process that takes it.

python archive_steps.py        a nursery: reads trials as lines of JSON, gives each to a child of its own
                               and prints how the child ended
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ml_dash.errors import StoreUnavailable
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.stores.bucket import open_bucket
from ml_dash.stores.compactor import Policy

GRACE_S = 1.5
POLICY = Policy(grace_s=GRACE_S, stub_s=0.0, gone_s=0.0, min_segments=2, part_entries=1000, archive_after_s=0.0)


class Step(NamedTuple):
    """A call of archiving, and whether the fault comes before it took effect or after."""

    part: str
    call: str
    when: str

    def __str__(self) -> str:
        return f"{self.part}-{self.when}-{self.call}"


STORING = (
    Step("bucket", "put", "before"),
    Step("bucket", "put", "after"),
    Step("bucket", "size", "before"),
    Step("tables", "insert_headers", "before"),
    Step("tables", "insert_headers", "after"),
)
SWEEPING = (
    Step("bucket", "size", "before"),
    Step("tables", "stub", "before"),
    Step("tables", "_delete_bodies", "before"),
    Step("tables", "mark_swept", "before"),
)
COLLECTING = (
    Step("bucket", "keys", "before"),
    Step("bucket", "delete", "before"),
    Step("bucket", "delete", "after"),
    Step("tables", "undoom", "before"),
)


def fail() -> None:
    """What an unreachable bucket or database looks like."""
    raise StoreUnavailable("this step fails")


def die() -> None:
    """What a power cut looks like."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(catalog: MongoCatalog, step: Step, fault: Callable[[], None]) -> None:
    """Have the next use of a step meet the fault."""
    assert catalog._archive is not None
    target = {"bucket": catalog._archive.bucket, "tables": catalog._tables}[step.part]
    plain = getattr(target, step.call)

    def faulty(*args: Any, **options: Any) -> Any:
        delattr(target, step.call)
        if step.when == "before":
            fault()
        found = plain(*args, **options)
        if step.when == "after":
            fault()
        return found

    setattr(target, step.call, faulty)


def is_armed(catalog: MongoCatalog, step: Step) -> bool:
    """Whether the step was not taken."""
    assert catalog._archive is not None
    target = {"bucket": catalog._archive.bucket, "tables": catalog._tables}[step.part]
    return step.call in vars(target)


def take(catalog: MongoCatalog, work: str, t: str) -> None:
    """One phase of archiving for one series, or the janitor's round."""
    doc = catalog._tables.series_by_id(t)
    assert catalog._archive is not None
    if work == "collect":
        catalog._archive.collect(0.0)
    elif doc is not None:
        catalog._archive.store(doc) if work == "store" else catalog._upkeep.sweep(doc)


# ---------------------------------------------------------------- the nursery


def nursery() -> None:
    """Fork a child for each line; this process never connects to anything, so a fork is clean."""
    import obstore  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pymongo  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                trial(json.loads(line))
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def trial(told: dict[str, Any]) -> None:
    """Be the process that is killed at a step."""
    bucket = open_bucket(told["bucket"])
    catalog = MongoCatalog(told["uri"], told["database"], bucket=bucket, policy=POLICY)
    arm(catalog, Step(*told["step"]), die)
    take(catalog, told["work"], told["t"])


if __name__ == "__main__":
    nursery()
