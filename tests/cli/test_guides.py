"""The pages about the command line: every command is on one, and the commands they show run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import record

from ml_dash.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
FILES = {
    "trajectory.txt": "1.5 1 2 3 0 0 0 1\n2.5 1 2 3 0 0 0 1\n",
    "motor.csv": "t,x,y,z\n0,1,2,3\n",
    "wide.csv": "t,/a/x,/a/y,/b/v\n0,1,2,3\n",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Some page names each command as it is typed."""
    typed = re.compile(rf"ml-dash {name}\b|ml-dash.*`{name}`")
    lines = (line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines())
    assert any(typed.search(line) for line in lines), f"no page has 'ml-dash {name}'"


def commands(page: str) -> list[str]:
    """The lines of a page's bash blocks, comments taken off."""
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [re.sub(r"\s{2,}#.*", "", line) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the recordings in `.dash`, the files to import, and `ml-dash` on the path."""
    place = tmp_path_factory.mktemp("guides")
    record(place / ".dash")
    for name, text in FILES.items():
        (place / name).write_text(text)
    program = place / "bin" / "ml-dash"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ml_dash.cli "$@"\n')
    program.chmod(0o755)
    return place


@pytest.mark.parametrize(
    ("page", "codes"), [("doctor.md", [1, 1]), ("metrics.md", [0, 0, 0, 0]), ("log.md", [0, 0, 0])]
)
def test_commands_run_on_what_the_page_records(page: str, codes: list[int], place: Path, tmp_path: Path) -> None:
    """The page's Python blocks first, then its commands, with the exit codes it tells of."""
    pytest.importorskip("pyarrow")
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S)[:1])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=True)
    path = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])
    for line, wanted in zip(commands(page), codes, strict=True):
        words = [shutil.which("bash") or "sh", "-c", line]
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == wanted, done.stderr


@pytest.mark.parametrize("line", [*commands("cli.md"), *commands("import.md")])
def test_commands_run(place: Path, line: str) -> None:
    """What a page tells to type works as it stands."""
    if "parquet" in line:
        pytest.importorskip("pyarrow")
    path = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", line],
        cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
