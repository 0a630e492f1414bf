"""`ml-dash rm` of topics and of stretches of time, in a folder and on a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from terminal import PICK, Ask
from test_keeping import answered

import ml_dash
from http_server import Server
from ml_dash.catalog import LocalCatalog
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create


def rows(ask: Ask, topic: str, root: Any) -> list[dict[str, Any]]:
    """The entries of a topic."""
    return [json.loads(line) for line in ask("cat", PICK, topic, "--json", "-r", str(root)).lines]


def test_rm_of_topics_of_a_running_experiment_is_refused(own_recordings: Path, ask: Ask) -> None:
    """What its journal holds would come back."""
    with ml_dash.Experiment(PICK, dash_root=own_recordings).run:
        for words in (["robot/*"], ["robot/*", "-s", "+1"]):
            printed = ask("rm", PICK, *words, "-y", root=own_recordings)
            assert (printed.code, printed.out) == (1, "")
            assert "is being recorded now" in printed.err
    assert ask("rm", PICK, "robot/*", "-y", root=own_recordings).code == 0


def test_rm_of_a_stretch_of_time(own_recordings: Path, ask: Ask) -> None:
    """Both ends go with it, of the topics that are named or of all; the times are those of the recording."""
    before = [one["timestamp"] for one in rows(ask, "robot/state", own_recordings)]
    others = ask("cat", PICK, "camera/pose", "--json", root=own_recordings).out
    printed = ask("rm", PICK, "robot/state", "-s", "+1", "-e", "+1.5", "-y", root=own_recordings)
    assert (printed.code, printed.out) == (0, "")
    assert "of 1 topic in" in printed.err
    after = [one["timestamp"] for one in rows(ask, "robot/state", own_recordings)]
    low, high = before[0] + 1, before[0] + 1.5
    assert after == [stamp for stamp in before if not low <= stamp <= high]
    assert len(after) < len(before)
    assert ask("cat", PICK, "camera/pose", "--json", root=own_recordings).out == others
    assert ask("verify", PICK, root=own_recordings).code == 0
    assert ask("rm", PICK, "-e", "-1", "-y", root=own_recordings).code == 0
    assert ask("cat", PICK, "camera/pose", "--json", root=own_recordings).out != others


def test_rm_of_a_stretch_asks_and_refuses(own_recordings: Path, ask: Ask) -> None:
    """Nothing without a yes; metrics and logs are deleted whole; a stretch without entries is said to be none."""
    before = ask("cat", PICK, "--json", root=own_recordings).out
    code, asked = answered(["rm", PICK, "-s", "+1"], own_recordings, "n")
    assert code != 0
    assert "Delete everything from" in asked
    for words, status, said in (
        (["-k", "logs", "-s", "+1"], 2, "would move the indexes"),
        (["-s", "1e15"], 0, "lies there"),
        (["nothing", "-s", "+1"], 2, "no topic 'nothing'"),
        (["-s", "soon"], 2, "is no time"),
    ):
        printed = ask("rm", PICK, *words, "-y", root=own_recordings)
        assert (printed.code, said in printed.err) == (status, True), printed
    assert ask("cat", PICK, "--json", root=own_recordings).out == before


def test_rm_on_a_server(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch, a topic, an experiment; only with a token that writes."""
    root = tmp_path / "served"
    with ml_dash.Experiment(PICK, dash_root=root).run as exp:
        for n in range(10):
            exp.tracks("a").append(n=n, _ts=float(n))
            exp.tracks("b").append(n=n, _ts=float(n))
    tokens = FileTokens(root / ".server" / "tokens.json")
    reads, writes = (create(tokens, "rm", [Grant("alice", write)])[1] for write in (False, True))
    with Server(create_app(LocalCatalog(root), tokens=tokens)) as running:
        monkeypatch.setenv("ML_DASH_TOKEN", reads)
        for words in ([], ["a"], ["-s", "3"]):
            printed = ask("rm", PICK, *words, "-y", "-r", running.url)
            assert printed.code == 1
            assert "may read the experiments of 'alice', not change them" in printed.err
        monkeypatch.setenv("ML_DASH_TOKEN", writes)
        assert ask("rm", PICK, "a", "-s", "3", "-e", "-2", "-y", "-r", running.url).code == 0
        assert [one["n"] for one in rows(ask, "a", running.url)] == [0, 1, 2, 8, 9]
        assert ask("rm", PICK, "b", "-y", "-r", running.url).code == 0
        assert ask("cat", PICK, "b", "-r", running.url).code == 2
        assert ask("rm", PICK, "-y", "-r", running.url).code == 0
        assert ask("ls", "--json", "-r", running.url).json == []
    assert not (root / "alice").exists()
