"""A run's record shows how it was started, and nothing that lets a reader become a writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_dash.redact import without_secrets

TOKEN = "mld_x5sw4ejylq_" + "aB3-_" * 8 + "xyz"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["run.py", TOKEN, "20"], ["run.py", "***", "20"]),
        (["run.py", f"--auth=Bearer {TOKEN}"], ["run.py", "--auth=Bearer ***"]),
        (["run.py", "--token", "abc", "--n", "3"], ["run.py", "--token", "***", "--n", "3"]),
        (["run.py", "--hf-token=abc"], ["run.py", "--hf-token=***"]),
        (["run.py", "-password", "x y"], ["run.py", "-password", "***"]),
        (["run.py", "wandb.api_key=abc", "lr=0.1"], ["run.py", "wandb.api_key=***", "lr=0.1"]),
        (["sh", "-c", "PASSWORD=abc WANDB_API_KEY='d' run"], ["sh", "-c", "PASSWORD=*** WANDB_API_KEY=*** run"]),
        (["run.py", "mongodb://me:pw@host/db"], ["run.py", "mongodb://***@host/db"]),
        (["run.py", "https://h/x?a=1&token=abc&b=2"], ["run.py", "https://h/x?a=1&token=***&b=2"]),
        (["run.py", '{"password": "abc", "n": 1}'], ["run.py", '{"password": ***, "n": 1}']),
        (["run.py", "in-use-elsewhere"], ["run.py", "***"]),
    ],
)
def test_secrets_are_hidden(words: list[str], shown: list[str]) -> None:
    """By their form, by the option they belong to, and those in use wherever they stand."""
    assert without_secrets(words, ["in-use-elsewhere", ""]) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--tokens-per-batch", "512", "--max_tokens", "8"],
        ["train.py", "--tokenizer", "bpe", "--tokenizer=bpe", "tokenizer: x"],
        ["train.py", "me@host:/data", "a=b", "--keyboard", "qwerty", "https://host/a@b"],
        ["train.py", "--token", "--verbose"],
        ["train.py", "--token"],
        [],
    ],
)
def test_all_else_stays(words: list[str]) -> None:
    """What only looks a little like one is what somebody wants to know of a run."""
    assert without_secrets(words) == words


def test_a_run_does_not_keep_the_token_it_was_started_with(tmp_path: Path) -> None:
    """Neither as an argument of the program nor, whatever it is, as the one in use."""
    program = tmp_path / "record.py"
    program.write_text(
        f"from ml_dash import Experiment\nwith Experiment('a/b/c', dash_root={str(tmp_path)!r}).run: pass\n"
    )
    words = [sys.executable, str(program), TOKEN, "--speed", "opaque-token"]
    subprocess.run(words, check=True, env={"ML_DASH_TOKEN": "opaque-token", "PATH": ""}, timeout=60)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != program]
    assert any(b"--speed" in path.read_bytes() for path in files)
    assert not [path for path in files if TOKEN.encode() in path.read_bytes() or b"opaque" in path.read_bytes()]
