"""The commands that look at recordings say the same of a server as of the folder behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import PICK, Ask

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

from http_server import Server
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create


@pytest.fixture(scope="module")
def server(recordings: Path) -> Iterator[tuple[str, str]]:
    """A server on the shared recordings: its address and a token that reads."""
    tokens = FileTokens(recordings / ".server" / "tokens.json")
    _, token = create(tokens, "cli", [Grant("alice", False), Grant("bob", False)])
    with Server(create_app(LocalCatalog(recordings, readonly=True), tokens=tokens)) as running:
        yield running.url, token


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "--json"],
        ["ls", PICK],
        ["info", PICK, "robot/state"],
        ["head", PICK, "-n", "2"],
        ["tail", PICK, "robot/state", "-n", "3", "--json"],
        ["tail", PICK, "-k", "logs"],
        ["cat", PICK, "robot/*", "-s", "+1", "-e", "+1.1", "--json"],
        ["cat", PICK, "camera/pose", "-c", "pose.x"],
        ["plot", PICK, "robot/state", "q"],
        ["export", PICK, "camera/pose", "-f", "csv"],
        ["tail", "-f", PICK, "events"],
    ],
)
def test_the_same_from_a_server(
    ask: Ask, server: tuple[str, str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """With its address as the root, and the token in the environment."""
    here = ask(*words)
    monkeypatch.setenv("ML_DASH_TOKEN", server[1])
    there = ask(*words, "-r", server[0])
    assert there.code == here.code == 0
    assert without_sizes(there.out) == without_sizes(here.out)


def without_sizes(text: str) -> str:
    """The output without what a server measures in its own way."""
    return "\n".join(line for line in text.splitlines() if "kB" not in line and " B " not in line)


@pytest.mark.parametrize("words", [["verify"], ["du"], ["compact"], ["recover"]])
def test_looking_after_needs_a_folder(ask: Ask, server: tuple[str, str], words: list[str]) -> None:
    """What works on files says so."""
    printed = ask(*words, "-r", server[0])
    assert printed.code == 2
    assert "works on a folder" in printed.err


def test_refused_and_unreachable_servers_are_one_line(ask: Ask, server: tuple[str, str]) -> None:
    """No token, and nobody there."""
    for root in (server[0], "http://127.0.0.1:9"):
        printed = ask("ls", "-r", root)
        assert printed.code == 1
        assert len(printed.err.splitlines()) == 1
        assert "Traceback" not in printed.err
