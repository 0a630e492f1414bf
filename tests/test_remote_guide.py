"""`docs/guide/remote.md` does what it shows: its Python blocks run against a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from http_server import Server
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create
from test_docs import BLOCK

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "remote.md"


def test_the_guide_runs(tmp_path: Path) -> None:
    """Recorded as shown, with the server in the environment, and read back as shown."""
    tokens = FileTokens(tmp_path / "served" / ".server" / "tokens.json")
    _, token = create(tokens, "robot-7", [Grant("alice", True)])
    blocks = [code for reason, code in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]
    assert len(blocks) == 2
    program = "\n".join(["import os", "ml_dash_url = os.environ['ML_DASH_URL']", *blocks])
    with Server(create_app(LocalCatalog(tmp_path / "served"), tokens=tokens)) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, "ML_DASH_URL": server.url, "ML_DASH_TOKEN": token},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["101 arm completed"]
    assert (tmp_path / ".dash" / "alice").is_dir()
