"""Figures that can be copied, metrics and logs wherever tracks are looked at, and what commands say that they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import Ask

import ml_dash
from ml_dash import Experiment

RUN = "ada/arm/exact"
FIRST = 1763900000.1234567
"""Seven digits behind the point: what a float64 has room for today."""


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    """A run whose stamps need all their digits, with metrics and a log."""
    root = tmp_path / "exact"
    with Experiment(RUN, dash_root=root).run as exp:
        exp.tracks("arm").extend(_ts=[FIRST, FIRST + 0.01, FIRST + 0.02], q=[[0.1 + 0.2, 1.0]] * 3)
        exp.tracks("arm").append(q=[0.5, 2.0], _ts=FIRST + 0.03)
        for step in range(20):
            exp.metrics("train").log(loss=1 / (1 + step), note="x")
        exp.log("grasped", force=12.5)
        exp.log("let go", level="warning", force=0.5)
    return root


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("command", ["head", "cat", "tail"])
def test_a_printed_timestamp_selects_its_entry(ask: Ask, exact: Path, command: str) -> None:
    """Whatever is printed as a time can be copied into a window; values are whole where there is room."""
    line = ask(command, RUN, "arm", root=exact).lines[0]
    stamp = line.split()[0]
    assert float(stamp) == FIRST
    assert line.split("  ")[1:] == ["q=[0.30000000000000004 1.0]"]
    found = ask("cat", RUN, "arm", "-s", stamp, "-e", stamp, "--json", root=exact)
    assert [json.loads(one)["timestamp"] for one in found.lines] == [FIRST]


def test_a_narrow_terminal_cuts_values_and_never_times(ask: Ask, exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six digits of a value where the line is full, all of the timestamp."""
    monkeypatch.setenv("COLUMNS", "30")
    first = ask("cat", RUN, "arm", root=exact).lines[0]
    assert first == "1763900000.1234567  q=[0.3 1]"


def test_points_of_short_timestamps_stand_below_each_other(ask: Ask, tmp_path: Path) -> None:
    """Shortest digits, aligned."""
    with Experiment(RUN, dash_root=tmp_path).run as exp:
        exp.tracks("t").extend(_ts=[0.0, 0.1, 12.25], n=[1, 2, 3])
    lines = ask("cat", RUN, root=tmp_path).lines
    assert lines == ["    0.0       n=1", "    0.1       n=2", "   12.25      n=3"]


def test_info_and_find_and_sql_print_times_that_can_be_copied(ask: Ask, exact: Path) -> None:
    """Extents, windows that were found, and answers."""
    assert f"from {FIRST!r} to {FIRST + 0.03!r}" in ask("info", RUN, "arm", root=exact).out
    pytest.importorskip("pyarrow")
    assert repr(FIRST) in ask("find", RUN, "arm.q[0] < 1", root=exact).out
    pytest.importorskip("duckdb")
    assert repr(FIRST) in ask("sql", RUN, "select min(timestamp) from arm", root=exact).out


# ---------------------------------------------------------------- metrics and logs


def test_info_of_metrics(ask: Ask, exact: Path) -> None:
    """Indexes and time of logging, range and course of each column, and no rate: they have none."""
    out = ask("info", RUN, "-k", "metrics", root=exact).out
    assert out.startswith("train  20 entries\n  index 0 to 19\n  logged 20")
    assert "loss" in out
    assert "Hz" not in out
    [found] = ask("info", RUN, "train", "-k", "metrics", "--json", root=exact).json
    assert (found["entries"], found["rate_hz"]) == (20, None)
    assert found["numbers"]["loss"]["high"] == 1.0
    assert set(found["numbers"]) == {"loss"}


def test_info_of_logs(ask: Ask, exact: Path) -> None:
    """The fields beside the text."""
    out = ask("info", RUN, "-k", "logs", root=exact).out
    assert out.startswith("logs  2 entries\n  index 0 to 1\n")
    assert "no numbers: level str, message str" in out


def test_plot_of_metrics(ask: Ask, exact: Path, tmp_path: Path) -> None:
    """Over the index, in the terminal; over the time of logging as a picture. Unknown names offer the nearest."""
    printed = ask("plot", RUN, "-k", "metrics", "train", root=exact)
    assert printed.code == 0
    assert printed.lines[0].strip() == "loss"
    assert printed.lines[-1].split() == ["0", "5", "10", "15"]
    wrong = ask("plot", RUN, "-k", "metrics", "trian", root=exact)
    assert (wrong.code, "did you mean 'train'" in wrong.err) == (2, True)
    pytest.importorskip("matplotlib")
    assert ask("plot", RUN, "-k", "metrics", "train", "-o", str(tmp_path / "loss.svg"), root=exact).code == 0
    assert (tmp_path / "loss.svg").stat().st_size > 1000


@pytest.mark.parametrize("command", ["cat", "export"])
def test_windows_of_time_hold_for_metrics_and_logs(ask: Ask, exact: Path, command: str) -> None:
    """`--start` and `--end` select by the time of logging."""
    with ml_dash.open(RUN, dash_root=exact) as run:
        stamps = [line["timestamp"] for line in run.log.read()]
    words = [command, RUN, *(["logs"] if command == "export" else []), "-k", "logs", "-s", repr(stamps[1])]
    found = ask(*words, *(["--json"] if command == "cat" else []), root=exact)
    assert [json.loads(line)["message"] for line in found.lines] == ["let go"]


# ---------------------------------------------------------------- what was done, and where it cannot be done


def test_compact_says_which_columns_it_made(ask: Ask, exact: Path) -> None:
    """The tracks whose columns were made, with their size; the second time there is nothing to do."""
    pytest.importorskip("pyarrow")
    printed = ask("compact", "--columns", root=exact)
    made = exact / RUN / "tracks" / "arm" / ".columns"
    assert printed.lines[0].split() == ["PREFIX", "TOPIC", "BEFORE", "AFTER", "COLUMNS", "MADE"]
    assert printed.lines[1].split()[:2] == [RUN, "arm"]
    assert made.exists()
    again = ask("compact", "--columns", root=exact)
    assert again.out == ""
    assert "nothing to do: every track of 1 experiment has that form and its columns already" in again.err
    made.unlink()
    [found] = ask("compact", "--columns", "--json", root=exact).json
    assert found == {"prefix": RUN, "topic": "arm", "columns_bytes": made.stat().st_size}


SERVER = "https://dash.example.org"


@pytest.mark.parametrize(
    "words",
    [["find", "x", "a > 1"], ["sql", RUN, "select 1"], ["doctor", RUN], ["verify"], ["du"]],
    ids=lambda words: words[0],
)
def test_what_needs_a_folder_says_how_to_get_one(ask: Ask, words: list[str]) -> None:
    """Commands that read a folder only, given a server, name the command that copies from there."""
    printed = ask(*words, "-r", SERVER)
    assert printed.code == 2
    assert f"ml-dash pull PREFIX --url {SERVER} -r FOLDER" in printed.err


def test_a_folder_is_not_called_like_a_server(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What writes into a folder makes none with the name of an address."""
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "t.csv"
    table.write_text("time,x\n1,2\n")
    printed = ask("import", RUN, str(table), "-r", SERVER)
    assert (printed.code, f"ml-dash push PREFIX --url {SERVER}" in printed.err) == (2, True)
    assert ask("pull", RUN, "-u", SERVER, "-r", SERVER).code == 2
    assert "compacts by itself" in ask("compact", "-r", SERVER).err
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


# ---------------------------------------------------------------- what a stranger types


def test_a_window_that_ends_before_it_starts_is_told(ask: Ask, exact: Path) -> None:
    """Nothing is selected, which is no error, and said."""
    printed = ask("cat", RUN, "arm", "-s", "+0.02", "-e", "+0.01", root=exact)
    assert (printed.code, printed.out) == (0, "")
    assert "nothing is selected: --start, 1763900000.1434567, is after --end, 1763900000.1334567" in printed.err


def test_a_column_without_its_topic_is_told(ask: Ask, exact: Path) -> None:
    """`find` says how a column is named."""
    pytest.importorskip("pyarrow")
    printed = ask("find", RUN, "q[0] > 1", root=exact)
    assert printed.code == 2
    assert "no topic 'q'; known: 'arm'; a column is named with its topic, unless topic= (--topic)" in printed.err


def test_errors_of_metrics_speak_of_metrics(ask: Ask, exact: Path) -> None:
    """A name that no metric has is no topic."""
    assert (
        f"no metrics 'tran' in {RUN}; did you mean 'train'?" in ask("cat", RUN, "-k", "metrics", "tran", root=exact).err
    )


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(ask: Ask, exact: Path, tmp_path: Path) -> None:
    """Not by the name under which it is made."""
    (tmp_path / "file").touch()
    folder = tmp_path / "gone"
    printed = ask("export", RUN, "arm", "-o", str(folder / ("x" * 300 + ".csv")), root=exact)
    assert printed.code == 1
    assert printed.err.startswith(f"Error: {folder}/xxx")
