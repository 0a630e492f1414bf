"""The command line as a whole: help, exit codes, pipes, terminals, and never a traceback."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from terminal import PICK, Ask, command, program

import ml_dash.cli
from ml_dash.cli import ls_command
from ml_dash.cli.app import cli, run
from ml_dash.cli.commands import COMMANDS

CONTEXT = click.Context(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_is_the_commands_own(name: str) -> None:
    """What `--help` of the whole says of a command is the first sentence of the command's own help."""
    found = cli.get_command(CONTEXT, name)
    assert found is not None
    assert found.name == name
    assert found.help is not None
    first = " ".join(found.help.split("\n\n")[0].split())
    assert first == COMMANDS[name].summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    """No option without a help text."""
    found = cli.get_command(CONTEXT, name)
    options = [one for one in getattr(found, "params", []) if isinstance(one, click.Option)]
    assert [one.opts for one in options if not one.help] == []


def test_help_lists_every_command(ask: Ask) -> None:
    """`ml-dash --help` names them all and fits 80 columns; `-h` is the same."""
    printed = ask("--help")
    assert printed.code == 0
    assert {line.split()[0] for line in printed.lines if line.startswith("  ") and line.split()} >= set(COMMANDS)
    assert max(map(len, printed.lines)) <= 80
    assert ask("-h") == printed


HEAVY = ("rich", "msgspec", "orjson", "numpy", "pyarrow", "asyncio", "ml_dash.experiment")


def test_help_imports_nothing_heavy(recordings: Path) -> None:
    """The start stays fast because help needs nothing but click."""
    code = (
        f"import sys; from ml_dash.cli.app import run; run(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_says_how_to_install_what_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra the command names it and ends with 2."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    assert ml_dash.cli.main() == 2
    assert capsys.readouterr().err == f"ml-dash needs {missing}: pip install 'ml-dash[cli]'\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["lss"], 2, "did you mean 'ls'"),
        (["cat", PICK, "robot/state", "-c", "phse"], 2, "no column 'phse' in robot/state; did you mean 'phase'?"),
        (["head", PICK, "-c", "q[0]"], 2, "did you mean 'q'?"),
        (["tail", PICK, "camera", "-c", "pose.z"], 2, "did you mean 'pose' or 'pose.x'?"),
        (["tail", PICK, "-f", "-c", "qq"], 2, "no column 'qq'"),
        (["cat", PICK, "-k", "logs", "-c", "mesage"], 2, "did you mean 'message'?"),
        (["export", PICK, "robot/state", "-c", "nope"], 2, "no column 'nope' in robot/state; known: 'q', 'phase'"),
        (["cat", PICK, "-c", ","], 2, "names no column"),
        (["ls", "--jsno"], 2, "--json"),
        (["cat"], 2, "Missing argument 'PREFIX'"),
        (["cat", PICK, "robot/stat"], 2, "no topic 'robot/stat' in alice/robotics/pick; did you mean 'robot/state'?"),
        (["cat", "alice/robotics/pik"], 2, "did you mean 'alice/robotics/pick'?"),
        (["cat", "a/../b"], 2, "has a part '.' or '..'"),
        (["cat", PICK, "-s", "1.5x"], 2, "'1.5x' is no time: write seconds (12.5), +5 (after the start)"),
        (["cat", PICK, "-s", "nan"], 2, "is no time"),
        (["plot", PICK, "robot/state", "qq"], 2, "no column 'qq' with numbers in robot/state; known: 'q[0]', 'q[1]'"),
        (["plot", PICK, "robot/state", "phase"], 2, "holds no numbers but text; with numbers: 'q[0]', 'q[1]'"),
        (["head", "robot/state", PICK], 2, f"the prefix comes first: {PICK} robot/state"),
        (["plot", "robot/state", PICK], 2, f"the prefix comes first: {PICK} robot/state"),
        (["find", "x > 1", PICK], 2, f"the prefix comes first: {PICK} x > 1"),
        (
            ["import", __file__, "a/b/c"],
            2,
            "file 'a/b/c' does not exist: the prefix comes first, ml-dash import a/b/c",
        ),
        (["import", "a/b/c", "/no/such.csv"], 2, "file '/no/such.csv' does not exist"),
        (["export", PICK], 2, "4 topics need a folder"),
        (["export", PICK, "-o", "all.parquet"], 2, "4 topics need a folder"),
        (["ls", "-r", "/no/such/place"], 2, "/no/such/place does not exist"),
        (["ls", "-r", __file__], 2, "is a file, not a folder"),
        (["rm", PICK], 2, "nobody to ask"),
        (["head", PICK, "-n", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_wrong_input_is_one_clear_line(ask: Ask, words: list[str], code: int, told: str) -> None:
    """Exit code 2; what is wrong and what there is; nothing on stdout."""
    printed = ask(*words)
    assert printed.code == code
    assert told in " ".join(printed.err.split())
    assert printed.out == ""
    assert "Traceback" not in printed.err


def test_a_fault_of_our_own_is_one_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks inside, the user sees no traceback unless one is asked for."""

    def broken(*args: Any) -> None:
        raise KeyError("inner")

    monkeypatch.setattr(ls_command, "_print_experiments", broken)
    printed = ask("ls")
    assert printed.code == 3
    assert (
        printed.err
        == "Error: a fault of ml-dash itself, KeyError: 'inner' (ML_DASH_DEBUG=1 shows where; please report it)\n"
    )
    monkeypatch.setenv("ML_DASH_DEBUG", "1")
    assert "Traceback" in ask("ls").err


@pytest.mark.parametrize(
    "error", [MemoryError(), PermissionError(13, "Permission denied", "/data/x"), KeyboardInterrupt()]
)
def test_what_the_system_refuses_is_one_line(ask: Ask, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Memory, permissions and Ctrl-C end with a line and a code, never with a traceback."""

    def refused(*args: Any) -> None:
        raise error

    monkeypatch.setattr(ls_command, "_print_experiments", refused)
    printed = ask("ls")
    assert printed.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert len(printed.err.splitlines()) <= 1
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "words", [["cat", PICK, "robot/state"], ["cat", PICK, "--json"], ["ls"], ["export", PICK, "robot/state"]]
)
def test_closed_pipe_is_silent(recordings: Path, words: list[str]) -> None:
    """`| head` ends the command without a word, with the code a shell has for it."""
    process = subprocess.Popen(command(*words, root=recordings), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 141
    process.stderr.close()


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", PICK],
        ["info", PICK],
        ["info", PICK, "robot", "laser"],
        ["plot", PICK, "robot/state"],
        ["cat", PICK, "events"],
        ["cat", PICK, "events", "--json"],
        ["du"],
    ],
)
def test_terminal_without_colour_or_unicode(recordings: Path, words: list[str]) -> None:
    """Everything prints in ASCII where that is all there is, without control sequences, within the width."""
    printed = program(*words, root=recordings, PYTHONIOENCODING="ascii", TERM="dumb", NO_COLOR="1")
    assert printed.code == 0
    assert printed.out
    assert printed.out.isascii()
    assert "\x1b" not in printed.out
    if "--json" not in words:
        assert max(map(len, printed.lines)) <= 80


def test_version(ask: Ask) -> None:
    """`--version` names the program and its version."""
    assert ask("--version").out == f"ml-dash {ml_dash.__version__}\n"


def test_run_never_raises() -> None:
    """Also nonsense ends with a code."""
    assert run(["--nonsense"]) == 2
    assert run(["ls", "\udcff"]) in (1, 2)
