"""A signal handler that flushes while the drain's lock is just being taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults.abandon import Recording
from ml_dash.files import Files


def test_a_flush_inside_taking_the_drain_lock_returns(tmp_path: Path) -> None:
    """The inner flush leaves the work to the pass it interrupted; it does not wait for it."""
    inner: list[str] = []

    class Interrupting(Files):
        def lock(self, fd: int, **how: Any) -> bool:
            taken = super().lock(fd, **how)
            if recording is not None and not inner:
                inner.append("began")
                recording.tracks("t").append(n=1, _ts=1.0).flush()
                inner.append("returned")
            return taken

    recording = None
    recording = Recording(tmp_path, files=Interrupting())
    recording.tracks("t").append(n=0, _ts=0.0).flush()
    assert inner == ["began", "returned"]
    assert len(recording.tracks("t").list_entries()) == 2
    recording.close()
