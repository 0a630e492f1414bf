"""A name that is no experiment's gets an answer that helps; a narrow terminal shows no figure without its digits."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner, Result

from ml_dash import Experiment
from ml_dash.cli.app import cli, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments with a topic of 12,345 entries at 1 kHz, and many parameters."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("one", "two"):
        with Experiment(f"alice/arm/{name}", dash_root=folder).run as exp:
            exp.params.set(**{f"parameter_{i}": i for i in range(12)})
            exp.tracks("sensors/force").extend(_ts=[i / 1000 for i in range(12_345)], fz=[0.5] * 12_345)
    return folder


def ask(root: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "-r", str(root)])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ls", "nope"], "no experiment 'nope' in"),
        (["ls", "x*"], "no experiment 'x*' in"),
        (["info", "lates"], "did you mean 'latest'?"),
        (
            ["info", "alice"],
            "'alice' is not the whole prefix of one experiment; it matches alice/arm/one, alice/arm/two",
        ),
        (["rm", "-y", "alice/*"], "'alice/*' is not the whole prefix of one experiment; it matches"),
        (["info", "alice/arm/onne"], "did you mean 'alice/arm/one'"),
        (["info", "alice//one"], "has an empty part"),
    ],
)
def test_a_name_of_no_experiment_is_answered(
    root: Path, capfd: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    """The error says what is wrong with the name or which ones there are, never how long a prefix must be."""
    assert run([*words, "-r", str(root)]) != 0
    printed = capfd.readouterr()
    assert told in printed.err
    assert "needs at least" not in printed.err
    assert (root / "alice" / "arm" / "one").is_dir()


@pytest.mark.parametrize("width", [30, 50, 80])
def test_narrow_tables_keep_every_figure(root: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Counts and rates are whole, or a reader takes 10,000 entries for 10."""
    monkeypatch.setenv("COLUMNS", str(width))
    line = ask(root, "ls", "alice/arm/one").output.splitlines()[2]
    assert line.split()[:2] == ["sensors/force", "12,345"]
    assert "1000 Hz" in line
    assert "completed" in ask(root, "ls").output


def test_info_folds_parameters(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter is shown, within the terminal's width."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = ask(root, "info", "alice/arm/one").output.splitlines()
    shown = [line for line in lines if "parameter_" in line]
    assert " ".join(shown).split()[1:] == [f"parameter_{i}={i}" for i in range(12)]
    assert max(map(len, shown)) <= 60
