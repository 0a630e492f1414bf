"""The README and the guides do what they show: every Python block runs, page by page, in one fresh folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```python\n(.*?)```", re.S)


def program(page: Path) -> str:
    """The Python blocks of a page as one program; a block that cannot run says why in a comment before it."""
    text = page.read_text(encoding="utf-8")
    return "\n".join(code for reason, code in BLOCK.findall(text) if not reason)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_runs(page: Path, tmp_path: Path) -> None:
    """The page's blocks, one after the other, end without an error."""
    code = program(page)
    if not code:
        return  # a page of commands only
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{page.name}:\n{done.stderr}"


def test_readme_shows_the_two_commands() -> None:
    """CI runs the lines behind these marks."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark, word in (("demo", "ml-dash demo"), ("test", "pytest")):
        block = re.search(rf"<!-- {mark} command -->\n```bash\n(.+)\n```", readme)
        assert block is not None, f"no {mark} command"
        assert word in block.group(1)
        assert "uv run" in block.group(1)


def test_local_links_lead_somewhere() -> None:
    """Every relative link of README and docs names a file that exists."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
