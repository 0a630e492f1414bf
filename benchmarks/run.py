"""The one command: build the environments, measure round by round, print one table, write the results.

`python -m benchmarks` or `uv run python benchmarks/run.py`. A round visits every product once, and every round starts
with another one, so that whatever the machine does meanwhile hits them alike; ratios are taken inside a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import envs, report
from benchmarks.catalogue import BASELINE, BY_NAME, OURS, PRODUCTS, Product
from benchmarks.harness import Harness

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Options:
    """Sizes of one run."""

    entries: int = 100_000
    rounds: int = 5
    tick_seconds: float = 2.0
    kill_seconds: float = 8.0
    kill_rounds: int = 5
    long_entries: int = 1_000_000
    short_entries: int = 10_000
    share: bool = True
    everybody: bool = False


SMOKE = Options(1_000, 2, 0.2, 0.2, 1, 4_000, 1_000)
FULL = Options(tick_seconds=8.0, long_entries=10_000_000, share=False, everybody=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 when our own figures could not be taken."""
    chosen = command_line().parse_args(arguments)
    options = sizes(chosen)
    began = time.time()
    environments, refused = prepare(chosen)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.folder) as folder:
        harness = Harness(environments, Path(folder), timeout_s=1800 if chosen.full else 300)
        load = [os.getloadavg()]
        for name, phase in PHASES.items():
            if chosen.measures is None or name in chosen.measures:
                progress(name, began)
                phase(harness, options)
        load.append(os.getloadavg())
    result = {
        "options": asdict(options) | {"command": command(chosen)},
        "machine": machine() | {"load": load, "seconds": time.time() - began, "date": time.strftime("%Y-%m-%d")},
        "products": described(environments, refused),
        "samples": harness.samples,
        "notes": harness.notes,
    }
    publish(result, chosen)
    return 0 if OURS not in chosen.systems or harness.samples.get(OURS) else 1


def command_line() -> argparse.ArgumentParser:
    """The options, with what they default to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [product.name for product in PRODUCTS]
    parser.add_argument("--systems", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--measures", nargs="+", choices=list(PHASES), metavar="NAME", help=", ".join(PHASES))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: checks the harness, measures nothing")
    parser.add_argument("--full", action="store_true", help="10 million entries, 8 s loops, nobody gets fewer entries")
    parser.add_argument("--entries", type=int, help="entries of one recording (default 100,000)")
    parser.add_argument("--rounds", type=int, help="rounds of each measure (default 5)")
    parser.add_argument("--here", action="store_true", help="use this interpreter instead of building environments")
    parser.add_argument("--folder", type=Path, help="where recordings are written (default: the system's folder)")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.json", help="where the samples go")
    parser.add_argument("--docs", action="store_true", help="also write docs/performance.md and its picture")
    return parser


def sizes(chosen: argparse.Namespace) -> Options:
    """The options' sizes with the given ones put in."""
    base = asdict(SMOKE if chosen.smoke else FULL if chosen.full else Options())
    given = {"entries": chosen.entries, "rounds": chosen.rounds}
    return Options(**base | {name: value for name, value in given.items() if value is not None})


def prepare(chosen: argparse.Namespace) -> tuple[dict[str, envs.Environment], dict[str, str]]:
    """Environments of the products that can be installed, and why the others cannot."""
    built, refused = {}, {}
    for name in chosen.systems:
        try:
            built[name] = (envs.here if chosen.here else envs.build)(BY_NAME[name])
        except envs.NotInstallable as reason:
            refused[name] = str(reason)
    return built, refused


# --- phases ----------------------------------------------------------------------------------------------------------


def alternating(harness: Harness, rounds: int) -> list[tuple[int, Product]]:
    """Every product once a round, each round starting with the next one."""
    names = list(harness.environments)
    return [(r, BY_NAME[names[(r + i) % len(names)]]) for r in range(rounds) for i in range(len(names))]


def shared_entries(product: Product, options: Options) -> int:
    """How many entries the product gets in the timed loops."""
    return max(1000, int(options.entries * product.share)) if options.share else options.entries


def imports(harness: Harness, options: Options) -> None:
    """Wall time of a process that imports the product, beyond one that does nothing."""
    for round_, product in alternating(harness, options.rounds):
        environment = harness.environments[product.name]
        took = {"pass": 1e9, product.import_line: 1e9}
        for code in list(took) * 3:
            took[code] = min(took[code], start_ms(environment, code))
        harness.keep(product.name, round_, {"import_ms": took[product.import_line] - took["pass"]})


def start_ms(environment: envs.Environment, code: str) -> float:
    """Milliseconds of one interpreter that runs `code`."""
    began = time.perf_counter()
    subprocess.run([environment.python, "-c", code], env=os.environ | environment.variables, check=True)
    return (time.perf_counter() - began) * 1e3


def recording(harness: Harness, options: Options) -> None:
    """The tight loops, and whole arrays."""
    for measure in ("record", "extend"):
        for round_, product in alternating(harness, options.rounds):
            count = shared_entries(product, options) if measure == "record" else options.entries
            harness.run(product.name, measure, round_, entries=count)


def ticking(harness: Harness, options: Options) -> None:
    """1 kHz on ten topics."""
    for round_, product in alternating(harness, options.rounds):
        if product.timed_loop or options.everybody:
            longer = 2 if product.name in (OURS, BASELINE) else 1  # the pair that a target depends on
            harness.run(product.name, "ticking", round_, seconds=options.tick_seconds * longer)
        else:
            harness.note(product.name, "ticking", "cannot make 10,000 calls a second (only run with --full)")


def memory(harness: Harness, options: Options) -> None:
    """Peak memory of one and of three times the entries; it hardly varies, so a round or two are enough."""
    for round_, product in alternating(harness, min(2, options.rounds)):
        for times in (1, 3)[: 2 - round_]:
            harness.run(product.name, "memory", round_, entries=shared_entries(product, options), times=times)


def kills(harness: Harness, options: Options) -> None:
    """SIGKILL in a 500 Hz loop and in a tight one."""
    with ThreadPoolExecutor() as together:  # side by side: what survives is no matter of speed
        for name in harness.environments:
            together.submit(kill_once, harness, name, 0, "paced", 0.002, options.kill_seconds)
    for round_, product in alternating(harness, options.kill_rounds):
        kill_once(harness, product.name, round_, "fast", 0.0, 0.1)
    for name in harness.environments:
        kill_once(harness, name, 0, "long", 0.0, options.kill_seconds / 4)


def kill_once(harness: Harness, name: str, round_: int, kind: str, period_s: float, after_s: float) -> None:
    """One recording that is killed, and the count of what a new process reads."""
    folder = harness.folder / name / f"kill_{kind}_{round_}"
    try:
        count = harness.kill(name, folder, period_s, after_s)
    except RuntimeError as reason:
        return harness.note(name, f"{kind}_survivors", f"failed: {reason}")
    job = {"folder": str(folder), "acknowledged": count, "period_s": period_s}
    harness.run(name, "survivors", round_, prefix=f"{kind}_", **job)
    harness.keep(name, round_, {f"{kind}_acknowledged": count})
    return shutil.rmtree(folder)


def reading(harness: Harness, options: Options) -> None:
    """One recording each, read in every round by a new process."""
    for name in harness.environments:
        harness.run(name, "fixture", 0, entries=options.entries)
    for round_, product in alternating(harness, options.rounds):
        if "fixture" not in harness.notes.get(product.name, {}):
            folder = harness.folder / product.name / "fixture"
            harness.run(product.name, "read", round_, folder=str(folder), entries=options.entries)


def sparse(harness: Harness, options: Options) -> None:
    """100 entries out of a short and out of a long recording."""
    lengths = {"short": options.short_entries, "long": options.long_entries}
    for name in harness.environments:
        if not (BY_NAME[name].long_fixture or options.everybody):
            harness.note(name, "sparse", "making its long recording takes minutes (only run with --full)")
            continue
        for length, count in lengths.items():
            folder = str(harness.folder / name / length)
            harness.run(name, "fixture", 0, prefix=f"{length}_", folder=folder, entries=count, by="quickest")
    jobs = {f"{length}_entries": count for length, count in lengths.items()}
    for round_, product in alternating(harness, options.rounds):
        folders = {length: str(harness.folder / product.name / length) for length in lengths}
        if all(Path(folder).exists() for folder in folders.values()):
            harness.run(product.name, "sparse", round_, **folders, **jobs)
    for name in harness.environments:
        shutil.rmtree(harness.folder / name / "long", ignore_errors=True)


PHASES: dict[str, Callable[[Harness, Options], None]] = {
    "imports": imports,
    "recording": recording,
    "ticking": ticking,
    "memory": memory,
    "kills": kills,
    "reading": reading,
    "sparse": sparse,
}


# --- results ---------------------------------------------------------------------------------------------------------


def progress(phase: str, began: float) -> None:
    """One line on stderr: what runs now, and since when."""
    print(f"[{time.time() - began:5.0f} s] {phase}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What a reader needs to compare the figures with their own."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """The checkout's commit, with a plus where files differ from it; "" outside a repository."""
    asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    said = subprocess.run(asked, cwd=envs.CHECKOUT, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def processor() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def described(environments: dict[str, envs.Environment], refused: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Title, version or reason of refusal, and the measured line of every product."""
    named = [BY_NAME[name] for name in BY_NAME if name in environments or name in refused]
    return {
        product.name: {
            "title": product.title,
            "version": environments[product.name].version if product.name in environments else "",
            "refused": refused.get(product.name, ""),
            "share": product.share,
        }
        for product in named
    }


def command(chosen: argparse.Namespace) -> str:
    """The command that makes this run again."""
    flags = [f"--{name}" for name in ("smoke", "full", "here") if getattr(chosen, name)]
    values = [f"--{name} {getattr(chosen, name)}" for name in ("entries", "rounds") if getattr(chosen, name)]
    lists = ("systems", "measures") if chosen.systems != command_line().get_default("systems") else ("measures",)
    named = [f"--{name} {' '.join(getattr(chosen, name))}" for name in lists if getattr(chosen, name)]
    return " ".join(["python -m benchmarks", *flags, *values, *named])


def publish(result: dict[str, Any], chosen: argparse.Namespace) -> None:
    """The table to the terminal, the samples to a file, and on request the page and its picture."""
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1))
    print(report.text_table(result))
    print(f"samples: {chosen.out}")
    if chosen.docs:
        docs = envs.CHECKOUT / "docs"
        (docs / "performance.md").write_text(report.page(result))
        picture = [envs.tool("matplotlib"), "-m", "benchmarks.picture", str(chosen.out), str(docs / "performance.svg")]
        subprocess.run(picture, cwd=envs.CHECKOUT, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
