"""One virtual environment for each product, built by uv and kept under `.cache/bench/`.

They are apart because the existing `ml-dash` and this project share an import name, and because nobody's dependencies
may slow anybody else's import.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.catalogue import OURS, Product

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".cache" / "bench"


class NotInstallable(Exception):
    """The environment could not be built; the text is the installer's last word."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a product's code runs: an interpreter, its variables, and the versions that were found."""

    python: str
    variables: dict[str, str]
    version: str


def build(product: Product) -> Environment:
    """Build or reuse the product's environment.

    Raises:
        NotInstallable: uv is missing, or refused; the reason is what the table shows.
    """
    folder = CACHE / product.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "built.json"
    wanted = {"requirements": list(product.requirements), "python": sys.version, "source": _source_state(product)}
    if not python.exists() or _read(stamp) != wanted:
        _install(product, folder, python)
        stamp.write_text(json.dumps(wanted))
    return Environment(str(python), _variables(product), installed_version(str(python), product))


def here(product: Product) -> Environment:
    """The running interpreter, for a check of the harness without any installation.

    Raises:
        NotInstallable: the product cannot be imported here.
    """
    variables = _variables(product)
    if product.name == OURS:
        variables["PYTHONPATH"] = str(CHECKOUT / "src")
    tried = subprocess.run(
        [sys.executable, "-c", product.import_line],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise NotInstallable(last_line(tried.stderr))
    return Environment(sys.executable, variables, installed_version(sys.executable, product))


def tool(requirement: str) -> str:
    """Interpreter of an environment with one library the harness itself needs (the picture's)."""
    product = Product(f"tool_{requirement}", requirement, (requirement,), f"import {requirement}", requirement)
    return build(product).python


def installed_version(python: str, product: Product) -> str:
    """Version of the product's distribution in that environment ("" when it is not a distribution)."""
    if product.name == "sqlite":
        code = "import sqlite3; print(sqlite3.sqlite_version)"
    else:
        code = f"import importlib.metadata as m; print(m.version({product.distribution!r}))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def last_line(text: str) -> str:
    """The last line with something on it: where tools put their reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"


def _install(product: Product, folder: Path, python: Path) -> None:
    if shutil.which("uv") is None:
        raise NotInstallable("uv is not installed (pip install uv)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    wanted = [
        requirement.replace(".", str(CHECKOUT), 1) if requirement.startswith(".") else requirement
        for requirement in product.requirements
    ]
    fresh = ["--reinstall-package", "ml-dash", "--refresh-package", "ml-dash"] if product.name == OURS else []
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *fresh, *wanted)


def _uv(*arguments: str) -> None:
    done = subprocess.run(["uv", *arguments], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode:
        raise NotInstallable(last_line(done.stderr))


def _variables(product: Product) -> dict[str, str]:
    return {"PYTHONHASHSEED": "0", **product.environment}


def _source_state(product: Product) -> str:
    """Changes when our own code changes, so that the measured copy is always the checkout's."""
    if product.name != OURS:
        return ""
    digest = hashlib.sha256()
    for path in sorted([CHECKOUT / "pyproject.toml", *CHECKOUT.glob("src/**/*.py")]):
        digest.update(str(path.relative_to(CHECKOUT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _read(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None
