"""A root with a few recordings, and a way to ask the command line about it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from terminal import Ask, Printed, record

from ml_dash.cli.app import run


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root, for tests that change nothing."""
    root = tmp_path_factory.mktemp("recordings")
    record(root)
    return root


@pytest.fixture
def own_recordings(tmp_path: Path) -> Path:
    """The same for a test that changes it."""
    record(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def ask(recordings: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command line in this process, on the shared recordings or another root."""

    def asked(*words: str, root: Path | None = None) -> Printed:
        monkeypatch.setenv("ML_DASH_ROOT", str(root or recordings))
        capfd.readouterr()
        code = run(list(words))
        out, err = capfd.readouterr()
        return Printed(code, out, err)

    monkeypatch.setenv("COLUMNS", "80")
    return asked
