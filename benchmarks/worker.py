"""Runs one job of one product in its own environment: `python -m benchmarks.worker PRODUCT JOB.json RESULT.json`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.gauges import Report
from benchmarks.measures import MEASURES


def main(name: str, job_file: str, result_file: str) -> int:
    """Products print what they like: only the result file is read."""
    os.dup2(2, 1)
    job = json.loads(Path(job_file).read_text())
    system = importlib.import_module(f"benchmarks.systems.{name}").SYSTEM
    report = Report()
    MEASURES[job["measure"]](system, job, report)
    Path(result_file).write_text(json.dumps({"values": report.values, "notes": report.notes}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
