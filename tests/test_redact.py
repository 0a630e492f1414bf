"""A run's record shows how it was started, and nothing that lets a reader become a writer."""

from __future__ import annotations

import random
import re
import runpy
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_dash import redact
from ml_dash.redact import LONGEST, without_secrets

TOKEN = "mld_x5sw4ejylq_" + "aB3-_" * 8 + "xyz"
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["run.py", TOKEN, "20"], ["run.py", "***", "20"]),
        (["run.py", f"--note=Bearer {TOKEN}"], ["run.py", "--note=Bearer ***"]),
        (["run.py", "--token", "abc", "--n", "3"], ["run.py", "--token", "***", "--n", "3"]),
        (["run.py", "--hf-token=abc"], ["run.py", "--hf-token=***"]),
        (["run.py", "-password", "x y"], ["run.py", "-password", "***"]),
        (["run.py", "wandb.api_key=abc", "lr=0.1"], ["run.py", "wandb.api_key=***", "lr=0.1"]),
        (["run.py", "mongodb://me:pw@host/db"], ["run.py", "mongodb://***@host/db"]),
        (["run.py", "in-use-elsewhere"], ["run.py", "***"]),
        (["run.py", "--x=in-use-elsewhere,3"], ["run.py", "--x=***,3"]),
    ],
)
def test_secrets_are_hidden(words: list[str], shown: list[str]) -> None:
    """By their form, by the option they belong to, and those in use wherever they stand."""
    assert without_secrets(words, ["in-use-elsewhere", ""]) == shown


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--password=my secret pass", "--password=***"),
        ("--password=a,b&c;d}e", "--password=***"),
        ("--password='a b' c", "--password=***"),
        ("--password=a=b:c", "--password=***"),
        ("--password==abc", "--password==***"),
        ("--password = abc def", "--password = ***"),
        ("db.password='a b'", "db.password=***"),
        (r"--pg-password=ab\ cd", "--pg-password=***"),
        ("PASSWORD=abc WANDB_API_KEY='d' run", "PASSWORD=***"),
        ("run --lr 3 --password abc def", "run --lr 3 --password ***"),
        ("+env.TOKEN=abc", "+env.TOKEN=***"),
        ("++trainer.hub.authToken=abc", "++trainer.hub.authToken=***"),
        ("model={api_key:abc}", "model={api_key:***"),
        ("env:TOKEN=abc", "env:TOKEN=***"),
        ("env['HF_TOKEN']=abc", "env['HF_TOKEN']=***"),
        ("_password:=abc", "_password:=***"),
        ("/password:abc", "/password:***"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("Proxy-Authorization: Basic abc", "Proxy-Authorization: ***"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("Cookie: session=abc", "Cookie: ***"),
        ("say Bearer abc.def", "say Bearer ***"),
        ('{"api_key": "abc"}', '{"api_key": "***"}'),
        (r'{"password": "a, \"b}", "n": 1}', '{"password": "***", "n": 1}'),
        ("{'password': 'a b', 'token': 'c'}", "{'password': '***', 'token': '***'}"),
        ('{"password": 1234, "n": 1}', '{"password": "***", "n": 1}'),
        ('{"password": "a"b, "n": 1}', '{"password": ***'),
        ('{"tokens": ["a", "b"], "n": 1}', '{"tokens": ***'),
        (r'"{\"token\": \"abc\"}"', r'"{\"token\": ***'),
        ('["--token", "abc", "x"]', '["--token", "***", "x"]'),
        ("https://h/x?a=1&token=abc&b=2", "https://h/x?a=1&token=***&b=2"),
        ("https://x/#access_token=abc123", "https://x/#access_token=***"),
        (
            "https://x/#access_token=abc&token_type=t&id_token=d",
            "https://x/#access_token=***&token_type=t&id_token=***",
        ),
        ("https://h/x?X-Amz-Credential=a&X-Amz-Signature=b", "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("https://user:p/a@ss@host", "https://***@host"),
        ("https://user:p@ss@host/x", "https://***@host/x"),
        ("https://user:p?a@host/x", "https://***@host/x"),
        ("https://user:12/a@host/x", "https://***@host/x"),
        ("https://user:12#a@host/x", "https://***@host/x"),
        ("mongodb://u:p w@h/", "mongodb://***@h/"),
        ("https://abc@github.com/x", "https://***@github.com/x"),
        ("ssh://me:abc@host", "ssh://***@host"),
        ("https://host/x rtsp://me:abc@cam", "https://host/x rtsp://***@cam"),
        ("--key-of-x=a --monkey=b --auth=c", "--key-of-x=a --monkey=b --auth=***"),
    ],
)
def test_secrets_within_a_word_are_hidden(word: str, shown: str) -> None:
    """To the end of the word, unless a query or JSON says where the secret ends."""
    assert without_secrets([word]) == [shown]


NAMES = """
    token hf-token hfToken HF_TOKEN hftoken token2 tokens token-value access_token password PGPASSWORD db.password
    passwd passphrase pass db-pass SSHPASS pwd MYSQL_PWD pw key api-key api_key apikey apiKey OPENAIApiKey x-api-key
    secret-key secret_key s3_secret_key secretkey private-key openai-key wandb_key AccountKey SharedAccessKey
    AWS_ACCESS_KEY_ID aws_secret_access_key api_key_prod secret secrets client-secret-value auth basic-auth oauth
    Authorization credential credentials creds cookie jwt psk otp image.api.key data.token
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_names_of_secrets(name: str) -> None:
    """Every way to write one: before an equals sign or a colon, in JSON, as the option before the secret."""
    assert without_secrets([f"--{name}=abc", f"{name}=abc"]) == [f"--{name}=***", f"{name}=***"]
    assert without_secrets([f"{name}: abc", f'{{"{name}": "abc"}}']) == [f"{name}: ***", f'{{"{name}": "***"}}']
    assert without_secrets([f"--{name}", "abc", "x"]) == [f"--{name}", "***", "x"]
    assert without_secrets([f"-{name}", "--abc", "x"]) == [f"-{name}", "***", "x"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--hf-token", "--abc"], ["--hf-token", "***"]),
        (["--hf-token", "-abc"], ["--hf-token", "***"]),
        (["--token", "--password", "abc", "x"], ["--token", "***", "***", "x"]),
        (["-H", "Authorization: Bearer abc.def"], ["-H", "Authorization: ***"]),
        (["-H", "Authorization:", "Bearer", "abc", "x"], ["-H", "Authorization:", "***", "***", "x"]),
        (["-H", "Bearer", "abc", "x"], ["-H", "Bearer", "***", "x"]),
        (["--password", "=", "abc", "x"], ["--password", "=", "***", "x"]),
        (["--password", ":", "--abc", "x"], ["--password", ":", "***", "x"]),
        (["model.api_key", "=", "abc", "x"], ["model.api_key", "=", "***", "x"]),
        (["model.api_key", "=abc", "x"], ["model.api_key", "***", "x"]),
        (["--header=Authorization:", "abc", "x"], ["--header=Authorization:", "***", "x"]),
        (["--header=Authorization:", "Bearer", "abc", "x"], ["--header=Authorization:", "***", "***", "x"]),
        (["-HX-Api-Key:", "abc", "x"], ["-HX-Api-Key:", "***", "x"]),
        (["env TOKEN=", "abc", "x"], ["env TOKEN=", "***", "x"]),
        (['{"lr": 1, "token":', '"abc"}', "x"], ['{"lr": 1, "token":', "***", "x"]),
    ],
)
def test_the_word_after_a_name_is_hidden(words: list[str], shown: list[str]) -> None:
    """Also when it begins with dashes, looks like an option, or is only the kind or the sign of what comes next."""
    assert without_secrets(words) == shown


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        *(f"gh{kind}_{LETTERS}" for kind in "pousr"),
        f"github_pat_{LETTERS}_{LETTERS}",
        f"glpat-{LETTERS[:20]}",
        f"hf_{LETTERS}",
        f"npm_{LETTERS}",
        f"pypi-{LETTERS}",
        f"sk-{LETTERS}",
        f"sk-proj-{LETTERS}-{LETTERS}",
        f"sk-ant-api03-{LETTERS}",
        "AKIAABCDEFGHIJKLMNOP",
        "ASIAABCDEFGHIJKLMNOP",
        f"xoxb-1234-{LETTERS}",
        f"xapp-1-{LETTERS}",
        f"AIza{LETTERS}{LETTERS[:8]}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJ{LETTERS}.{LETTERS}-_",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
def test_secrets_of_a_known_form_are_hidden(secret: str) -> None:
    """Wherever they stand, with nothing that names them."""
    words = [secret, f"--x={secret}", f"say {secret}", f"a/{secret}"]
    assert without_secrets(words) == ["***", "--x=***", "say ***", "a/***"]


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--lr=0.1", "--seed", "3", "-p", "8080", "--port=8080", "--sigma=0.1", "--design", "a"],
        ["train.py", "--tokens-per-batch", "512", "--max_tokens", "8", "--max-tokens=100", "--num-tokens", "5"],
        ["train.py", "--tokens", "512", "--tokens=512", '{"tokens": 512, "lr": 0.1}', "max_new_tokens=1e6"],
        ["train.py", "--tokenizer", "bpe", "--tokenizer=bpe", "tokenizer: x", "token_type=t", "--detokenize", "x"],
        ["train.py", "--pad-token", "<pad>", "--eos_token=</s>", "eos_token_id=2", "--image-tokens", "all"],
        ["train.py", "--monkey", "a", "--keyboard", "qwerty", "--keyboard=qwerty", "--hotkey=q", "--turkey=x"],
        ["train.py", "--key-frame", "3", "--keyframe", "3", "--keypoints=7", "--key_bindings=wasd", "--keys", "a"],
        ["train.py", "--sort-key", "x", "--sortKey=x", "--obs-key=image", "image_key=rgb", "--stop-key", "q"],
        ["train.py", "--image_1_key=left", "--obs-keys", "a", "b", "--rng-key", "42", "--public-key=x"],
        ["train.py", "--author", "me", "--author=me", "--authored", "x", "--accredited=y", "--cookiecutter=z"],
        ["train.py", "--passes", "3", "--passes=3", "--bypass", "x", "--compass=n", "--low-pass=30", "--lowpass", "3"],
        ["train.py", "--passenger=x", "--num-passes=3", "--encompass", "all", "/path/pass/x", "--map=/a/pass/b"],
        ["train.py", "--no-auth", "x", "--no-password", "x", "--ask-pass", "x", "--use-auth=false", "--token=none"],
        ["train.py", "--secret-file=/run/a", "--password-file", "a", "--password-length=9", "--key-path=x"],
        ["train.py", '{"lr": 0.1, "use_token": true, "auth": null}', "--token", "true", "--token=", "--token", ""],
        ["train.py", "sk-learn-random-forest-classifier", "task-2024-01-01-123456789", "hf_model", "eyJ", "AKIA"],
        ["train.py", "0123456789abcdef0123456789abcdef01234567", "ghp_short", "mld_short", "bearing=3", "bearer"],
        [
            "train.py",
            "me@host:/data",
            "a=b",
            "a:b@c",
            "https://host/a@b",
            "https://a.org:80/a@b",
            "http://[::1]:80/a@b",
        ],
        [
            "train.py",
            "ssh://git@host/x",
            "rsync://me@host/x",
            "file:///a@b",
            "s3://bucket/a@b?c=d",
            "http://localhost:80/a@b",
        ],
        ["ros", "/robot/key:=/keyboard", "/secrets:/secrets", "x:=3", "--auth-less", "--key-of-x=a"],
        [r"C:\pass\key\token", "token", "password", "--token"],
        ["--", "-", "=", ":", "--=x", "https://", "@", "://"],
        ["tokens", "=", "512", "sort_key", "=", "time", "use_auth", "=", "true", "lr", "=", "0.1", "token=", "--lr=1"],
        ["--note=the tokenizer:", "bpe", "--password", "="],
        ["--token"],
        [],
    ],
)
def test_all_else_stays(words: list[str]) -> None:
    """What only looks a little like one is what somebody wants to know of a run."""
    assert without_secrets(words) == words


def test_a_very_long_word_is_hidden_unread() -> None:
    """Of one that is longer than what is looked at only an option's name is shown, and that as of any other word."""
    long = "a" * LONGEST
    assert without_secrets([long, long + "a", "--token", long + "a"]) == [long, "***", "--token", "***"]
    assert without_secrets([f"--data={long}", f"{TOKEN}={long}"]) == ["--data=***", "***=***"]
    assert without_secrets([f"a b={long}", f"https://u:p={long}@h"]) == ["***", "***"]


def _noise(length: int) -> str:
    chance = random.Random(1)
    return "".join(chance.choice(string.ascii_letters + string.digits + "-_") for _ in range(length))


REPEATED = (
    *(
        "-",
        "key ",
        "a:",
        "key:",
        "-key ",
        "&token=1",
        "://a@",
        "://a:1/@",
        "ssh://a@",
        "eyJ-",
        "-eyJa",
        "sk-",
        "bearer ",
    ),
    *('"token":1,', '"token":"', r"'key':'\\", r"x=\"", "key'''", "/key:/", "-----BEGIN PRIVATE KEY"),
)


@pytest.mark.parametrize(
    "text", [_noise(32000), *(part * (32000 // len(part)) for part in REPEATED)], ids=lambda t: t[:12]
)
def test_the_work_grows_with_the_length_of_a_word(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word 16 times as long takes about 16 times as long, not 256 times, also without the limit on what is read."""
    monkeypatch.setattr(redact, "LONGEST", 10**9)

    def seconds(length: int) -> float:
        word = [f"{text[:length]} key"]
        times = []
        for _ in range(5):
            before = time.perf_counter()
            without_secrets(word)
            times.append(time.perf_counter() - before)
        return min(times)

    assert seconds(32000) < 64 * seconds(2000)


def test_patterns_wait_for_a_word_that_hints_at_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither importing the module nor ordinary words pay for compiling them."""

    class Compiled(Exception):
        pass

    def refused(*_: object) -> None:
        raise Compiled

    words = ["train.py", "--lr=0.1", "--height", "pick_up", "me@host:/data", "https://host/x", "env=a b"]
    with monkeypatch.context() as patch:
        for name in ("compile", "sub", "finditer", "findall", "fullmatch", "match", "search"):
            patch.setattr(re, name, refused)
        fresh = runpy.run_path(str(redact.__file__))["without_secrets"]
        assert fresh(words) == words
        with pytest.raises(Compiled):
            fresh(["--token=abc"])


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
