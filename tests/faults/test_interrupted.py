"""A recovery that is killed between writing a log's lines and committing them, while others have lines to add."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.abandon import Recording, read_all
from ml_dash.drain import Drain
from ml_dash.stores.datafile import Appender
from ml_dash.stores.local import LocalStore
from ml_dash.stores.state import State, StateFile


class Killed(BaseException):
    """Stands for SIGKILL: nothing is tidied up after it."""


def recover(folder: Path) -> None:
    store = LocalStore(folder)
    drain = Drain(folder / ".journal", store, None)
    with drain.exclusively():
        drain.recover()
    store.close()


def test_an_interrupted_batch_is_committed_before_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is there once, although the writer whose recovery was interrupted is not the first to be recovered."""
    first = Recording(tmp_path)
    second = Recording(tmp_path)
    first.log("first")
    second.log("second")
    second.die()

    write = StateFile.write

    def killed_at_commit(self: StateFile, state: State) -> None:
        if state.writers:
            raise Killed
        write(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "write", killed_at_commit)
        patch.setattr(Appender, "abandon", lambda self, *, cut: None)
        with pytest.raises(Killed):
            recover(tmp_path)
    assert b"second" in (tmp_path / "logs" / "logs.jsonl").read_bytes(), "the interruption came too early to matter"

    first.die()
    recover(tmp_path)
    assert sorted(["first", "second"]) == sorted(entry["message"] for entry in read_all(tmp_path)["log"])
