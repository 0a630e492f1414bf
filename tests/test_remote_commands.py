"""`ml-dash serve`, `token`, `push`, `pull`, `sync`, `status` on a real server process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

import ml_dash
from http_server import ServerProcess
from ml_dash import Experiment
from ml_dash.cli.app import cli, run
from ml_dash.delivery import Delivery


class Serving(ServerProcess):
    """`ml-dash serve` on a folder."""

    def __init__(self, root: Path, log: Path, *words: str) -> None:
        self.root = root
        super().__init__(log, "-r", str(root), *words)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server with tokens."""
    serving = Serving(tmp_path / "served", tmp_path / "log")
    yield serving
    serving.stop(signal.SIGKILL)


@pytest.fixture
def call() -> Callable[..., Any]:
    """Runs a command; its result with exit code and output."""

    def run_command(*words: str, code: int = 0, **environment: str) -> str:
        result = CliRunner(env=environment).invoke(cli, words, standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.return_value or 0) == code, result.output
        return result.output

    return run_command


def record(root: Path, prefix: str, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Experiment(prefix, dash_root=root, **options).run as experiment:
            experiment.params.set(a=1)
            for number in range(2500):
                experiment.tracks("robot/state").append(n=number, _ts=number * 0.01)
            experiment.metrics("train").log(loss=1.0)


def token_for(call: Callable[..., Any], serving: Serving, *words: str) -> str:
    found = re.search(r"mld_\S{50,}", call("token", "create", "-r", str(serving.root), *words))
    assert found is not None
    return found[0]


def test_push_and_pull(serving: Serving, call: Callable[..., Any], tmp_path: Path) -> None:
    """Experiments go to a server and come back as they were; again, there is nothing to do."""
    token = token_for(call, serving, "--write", "ada", "--name", "laptop")
    mine, copy = tmp_path / "mine", tmp_path / "copy"
    record(mine, "ada/x/one")
    record(mine, "ada/x/two")
    options = {"ML_DASH_URL": serving.url, "ML_DASH_TOKEN": token}
    assert call("push", "-r", str(mine), "ada/x/*", **options).count("2,501 entries to") == 2
    assert "0 entries" in call("push", "-r", str(mine), "ada/x/one", **options)
    assert call("pull", "-r", str(copy), "ada/x/*", **options).count("2,501 entries from") == 2
    for prefix in ("ada/x/one", "ada/x/two"):
        with ml_dash.open(prefix, dash_root=mine) as before, ml_dash.open(prefix, dash_root=copy) as after:
            assert before.tracks("robot/state").list_entries() == after.tracks("robot/state").list_entries()
            assert before.metrics("train").read() == after.metrics("train").read()
            assert (after.params.get(), after.status) == ({"a": 1}, "completed")


def test_nothing_waits_once_all_has_arrived(serving: Serving, call: Callable[..., Any], tmp_path: Path) -> None:
    """A parameter that is NaN, which equals nothing, is no reason to say that something waits. Where only the run's
    status and parameters do, they are named, and not 0 bytes."""
    token = token_for(call, serving, "--write", "ada")
    mine = tmp_path / "mine"
    record(mine, "ada/x/one", dash_url=serving.url, token=token)
    with Experiment("ada/x/one", dash_root=mine, dash_url=serving.url, token=token).run as experiment:
        experiment.params.set(gain=float("nan"), limits=[1, float("nan")])
    assert "nothing waits" in call("status", "-r", str(mine))
    assert call("status", "-r", str(mine), "--json").strip() == "[]"
    with Experiment("ada/x/one", dash_root=mine, dash_url="").run as experiment:
        experiment.params.set(gain=2.0)
    assert "run, parameters" in call("status", "-r", str(mine), code=1)
    assert "0 entries delivered" in call("sync", "-r", str(mine), "--token", token)
    assert "nothing waits" in call("status", "-r", str(mine))


def test_sync_and_status(serving: Serving, call: Callable[..., Any], tmp_path: Path) -> None:
    """What an outage kept here is shown, and delivered by hand, also of a run that keeps no copy here."""
    token = token_for(call, serving, "--write", "ada")
    url, served = serving.url, serving.root
    serving.stop()
    mine = tmp_path / "mine"
    record(mine, "ada/x/one", dash_url=url, token=token)
    record(None, "ada/x/two", dash_url=url, token=token)  # type: ignore[arg-type]
    shown = json.loads(call("status", "-r", str(mine), "--json", code=1))
    assert [(one["prefix"], one["recording"], one["streams"]) for one in shown] == [
        ("ada/x/one", False, 1), ("ada/x/two", False, 1),
    ]  # fmt: skip
    assert "does not answer" in call("sync", "-r", str(mine), "--token", token, code=1)
    again = Serving(served, tmp_path / "log2", "--port", url.rpartition(":")[2])
    try:
        told = call("sync", "-r", str(mine), "--token", token)
        assert told.count("2,501 entries delivered") == 2
        assert "nothing waits" in call("status", "-r", str(mine))
        for prefix in ("ada/x/one", "ada/x/two"):
            with ml_dash.open(prefix, dash_root=served) as there:
                assert len(there.tracks("robot/state")) == 2500
                assert there.status == "completed"
    finally:
        again.stop()


def test_a_copy_that_is_delivered_as_well(
    serving: Serving, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder that was copied in an outage the second copy is noticed, and what that means is said: the track is
    the same, the metric's line is there twice."""
    token = token_for(call, serving, "--write", "ada")
    served, url, mine, twin = serving.root, serving.url, tmp_path / "mine", tmp_path / "twin"
    serving.stop()
    record(mine, "ada/x/one", dash_url=url, token=token)
    shutil.copytree(mine, twin)
    again = Serving(served, tmp_path / "log2", "--port", url.rpartition(":")[2])
    try:
        with monkeypatch.context() as dies:  # before it tells the server that it is finished
            dies.setattr(Delivery, "_forget", lambda self, writer: None)
            assert "a copy of" not in call("sync", "-r", str(mine), "--token", token)
        assert "what both hold is twice in metrics and logs" in call("sync", "-r", str(twin), "--token", token)
    finally:
        again.stop()
    with ml_dash.open("ada/x/one", dash_root=served) as there:
        assert (len(there.tracks("robot/state")), len(there.metrics("train").read()["entries"])) == (2500, 2)


def test_tokens_by_hand(serving: Serving, call: Callable[..., Any]) -> None:
    """Created, listed without the secret, revoked while the server runs."""
    root = str(serving.root)
    text = token_for(call, serving, "--read", "ada", "--name", "viewer", "--expires", "12h")
    headers = {"Authorization": f"Bearer {text}"}
    assert httpx2.get(f"{serving.url}/v1/access", headers=headers).status_code == 200
    listed = call("token", "list", "-r", root)
    assert "viewer" in listed
    assert "read ada" in listed
    assert text[15:] not in listed
    assert "digest" not in call("token", "list", "-r", root, "--json")
    call("token", "revoke", "-r", root, text)
    assert httpx2.get(f"{serving.url}/v1/access", headers=headers).status_code == 401
    assert "revoked" in call("token", "list", "-r", root)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["push", "ada/x/one"], "Which server"),
        (["pull", "ada/x/one"], "Which server"),
        (["push", "-u", "nonsense", "ada/x/one"], "http"),
        (["token", "create"], "--write"),
        (["token", "create", "--write", "a/b"], "owner"),
        (["token", "create", "--write", "ada", "--expires", "soon"], "90d"),
        (["token", "revoke", "nobody"], "no token"),
        (["serve", "--host", "0.0.0.0", "--insecure-local"], "tokens"),
        (["serve", "--s3-url", "s3://b"], "--mongo-uri"),
        (["serve", "--host", "203.0.113.7"], "cannot listen"),
        (["pull", "-u", "http://127.0.0.1:9", "ada/x/one"], "does not answer"),
    ],
)
def test_wrong_use_is_told(words: list[str], told: str, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, a code other than 0, no traceback."""
    assert run(words) in (1, 2)
    output = capfd.readouterr()
    assert told in output.err
    assert "Traceback" not in output.err


def test_workers_share_one_address(tmp_path: Path, call: Callable[..., Any]) -> None:
    """Several processes answer at one port, store into one folder, and stop together."""
    serving = Serving(tmp_path / "served", tmp_path / "log", "--workers", "2", "--insecure-local")
    try:
        record(tmp_path / "mine", "ada/x/one", dash_url=serving.url)
        with ml_dash.open("ada/x/one", dash_url=serving.url) as there:
            assert len(there.tracks("robot/state")) == 2500
    finally:
        serving.stop()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{serving.url}/healthz")


def test_stopping_answers_what_runs(serving: Serving, call: Callable[..., Any]) -> None:
    """SIGTERM ends those who follow within seconds, and the log is JSON without secrets."""
    token = token_for(call, serving, "--write", "ada")
    headers = {"Authorization": f"Bearer {token}"}
    query = {"prefix": "ada/x/one", "topic": "t"}
    with httpx2.stream("GET", f"{serving.url}/v1/live", params=query, headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        assert os.path.exists(serving.log)
        serving.stop()
        assert "event: end" in list(lines)
    logged = [json.loads(line) for line in serving.log.read_text().splitlines() if line.startswith("{")]
    assert {line["operation"] for line in logged if "operation" in line} >= {"follow"}
    assert token not in serving.log.read_text()
