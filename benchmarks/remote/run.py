"""The one command: start the servers, measure phase by phase, print one table, write the samples.

    python -m benchmarks.remote            # every phase, outage of a minute; about ten minutes on two cores
    python -m benchmarks.remote --smoke    # tiny sizes: checks the harness, measures nothing
    python -m benchmarks.remote --full     # outage of ten minutes; about nineteen
    python -m benchmarks.remote --docs     # also writes the figures into docs/scale.md

Needs the extras `all` in this interpreter; the servers are built as for the tests (`python -m tests.servers build`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.servers.build import BuildFailed
from tests.servers.running import NotReady, S3Server

from benchmarks.envs import CHECKOUT
from benchmarks.remote import report
from benchmarks.remote.bench import FULL, SMOKE, Bench, Options
from benchmarks.remote.ingest import ingest, memory
from benchmarks.remote.reading import archived, windows
from benchmarks.remote.recording import append, outage
from benchmarks.remote.served import Databases
from benchmarks.remote.stages import stages
from benchmarks.remote.storage import storage
from benchmarks.run import machine

RESULTS = CHECKOUT / "benchmarks" / "results" / "remote.json"
PAGE = CHECKOUT / "docs" / "scale.md"

PHASES: dict[str, Callable[[Bench], None]] = {
    "append": append,
    "stages": stages,
    "ingest": ingest,
    "storage": storage,
    "windows": windows,
    "archived": archived,
    "memory": memory,
    "outage": outage,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where a phase failed, whatever its figures say."""
    chosen = command_line().parse_args(arguments)
    options = SMOKE if chosen.smoke else FULL if chosen.full else Options()
    began, load = time.time(), [os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="bench-remote-", dir=chosen.folder) as folder:
        result, failed = measure(Path(folder), options, chosen)
    load.append(os.getloadavg())
    result["options"] = asdict(options) | {"command": command(chosen)}
    result["machine"] = machine() | {"load": load, "seconds": time.time() - began, "date": time.strftime("%Y-%m-%d")}
    publish(result, chosen)
    return 1 if failed else 0


def measure(folder: Path, options: Options, chosen: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Every phase on running servers; a phase that fails is named, and the others go on."""
    os.environ["ML_DASH_STATE"] = str(folder / "state")
    databases, began, failed = Databases(folder, chosen.mongo_uri), time.time(), False
    s3 = bucket(folder)
    bench = Bench(options, folder, databases, s3)
    try:
        if not databases.running:
            raise SystemExit("no database: " + "; ".join(databases.absent.values()))
        for name in chosen.measures or PHASES:
            print(f"[{time.time() - began:5.0f} s] {name}", file=sys.stderr, flush=True)
            try:
                PHASES[name](bench)
            except Exception as error:
                failed = True
                bench.note(name, f"failed: {type(error).__name__}: {error}"[:500])
                print(f"  {bench.notes[name]}", file=sys.stderr, flush=True)
    finally:
        databases.stop()
        if s3 is not None:
            s3.stop()
    titles = {name: server.title for name, server in databases.running.items()}
    return bench.result() | {"databases": titles, "absent": databases.absent}, failed


def bucket(folder: Path) -> S3Server | None:
    """The S3 server, with its variables in this process's environment; None where it cannot be had."""
    s3 = S3Server(folder / "s3")
    try:
        s3.start()
    except (BuildFailed, NotReady) as reason:
        print(f"without an S3 server: {reason}", file=sys.stderr, flush=True)
        return None
    os.environ.update(s3.env)
    return s3


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.remote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measures", nargs="+", choices=list(PHASES), metavar="NAME", help=", ".join(PHASES))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: checks the harness, measures nothing")
    parser.add_argument("--full", action="store_true", help="ten minutes of outage")
    parser.add_argument("--mongo-uri", help="also measure this MongoDB")
    parser.add_argument("--folder", type=Path, help="where recordings are written (default: the system's folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the samples go")
    parser.add_argument("--docs", action="store_true", help="also write the figures into docs/scale.md")
    return parser


def command(chosen: argparse.Namespace) -> str:
    """The command that makes this run again."""
    flags = [f"--{name}" for name in ("smoke", "full") if getattr(chosen, name)]
    flags += ["--mongo-uri URI"] if chosen.mongo_uri else []  # the address may hold a password
    flags += ["--measures", *chosen.measures] if chosen.measures else []
    return " ".join(["python -m benchmarks.remote", *flags])


def publish(result: dict[str, Any], chosen: argparse.Namespace) -> None:
    """The table to the terminal, the samples to a file, and on request the figures into the page."""
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1))
    print(report.text(result))
    print(f"samples: {chosen.out}")
    if chosen.docs:
        PAGE.write_text(report.page(PAGE.read_text(), result))


if __name__ == "__main__":
    raise SystemExit(main())
