"""Row 5: the k-th call to the file system fails, or is the last one of the process. What was acknowledged is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import figures
from .abandon import Recording, read_all
from .checks import check_clean
from .faulty import Died, FaultyFiles
from .sizes import SEED, size

IN_MEMORY = True
SEGMENT_BYTES = 8 << 10
"""So small that a short story fills several."""
BLOB = "x" * 1_100_000
"""More than `extend` writes beside the others' appends."""


class Interrupted(BaseException):
    """What a signal handler raises: Ctrl-C, a timeout."""


class Story:
    """A recording with everything in it that touches files, and the list of what was acknowledged."""

    def __init__(self, folder: Path, files: FaultyFiles, durability: str) -> None:
        self.folder, self.files, self.durability = folder, files, durability
        self.recording: Recording | None = None
        self.wanted: dict[str, Any] = {"log": [], "metrics m": [], "t": {}, "late/t": {}, "blob": {}, "handler": {}}
        self.unsure: list[tuple[str, Any]] = []
        self.errors: list[BaseException] = []

    def tell(self, *, close: bool = True) -> Recording | None:
        """Record it; the errors that were raised are kept in `errors`. None where not even opening worked."""
        with self._noting():
            recording = None
            recording = Recording(
                self.folder, files=self.files, durability=self.durability, segment_bytes=SEGMENT_BYTES
            )
        if recording is None:
            return None
        self.recording = recording
        for chapter in range(3):
            self._chapter(recording, chapter)
        if close:
            self._do(recording.close)
        return recording

    def _chapter(self, recording: Recording, chapter: int) -> None:
        journal, store = recording.session.journal, recording.store
        for n in range(chapter * 12, chapter * 12 + 12):
            self._append(recording, "t", n / 10, n=n, text="y" * 150)
            self._append(recording, "late/t", float(n if n % 3 else n - 20), n=n)
            self._append(recording, "t", n / 10, more=n)
        for n in range(chapter * 3, chapter * 3 + 3):
            self._do(lambda: recording.metrics("m").log(n=n), ("metrics m", n))  # noqa: B023
            self._do(lambda: recording.log("text", n=n), ("log", n))  # noqa: B023
        self._do(journal.prepare)  # type: ignore[union-attr]
        self._do(journal.sync)  # type: ignore[union-attr]
        if chapter == 1:
            self._do(lambda: recording.tracks("blob").extend(_ts=[1.0], blob=[BLOB]), ("blob", None))
        self._do(recording.session.flush)
        if chapter:
            self._do(store.compact_all)
        self._do(lambda: store.update_document("params", lambda known: {**(known or {}), f"p{chapter}": chapter}))

    def _append(self, recording: Recording, topic: str, at: float, **fields: Any) -> None:
        self._do(lambda: recording.tracks(topic).append(_ts=at, **fields), (topic, (at, fields)))

    def _do(self, action: Callable[[], object], what: tuple[str, Any] | None = None) -> None:
        """An action; where it returns, `what` is acknowledged; where the process dies in it, it may be there or not."""
        try:
            with self._noting():
                action()
                if what is not None:
                    self._acknowledge(*what)
        except Died:
            if what is not None:
                self.unsure.append(what)
            raise
        except Interrupted:
            if what is not None:
                self.unsure.append(what)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if "on purpose" not in str(error):
                raise
            self.errors.append(error)

    def _acknowledge(self, series: str, what: Any) -> None:
        if series == "blob":
            self.wanted["blob"] = {1.0: {"blob": BLOB}}
        elif isinstance(self.wanted[series], list):
            self.wanted[series].append(what)
        else:
            known = self.wanted[series].setdefault(what[0], {})
            known.update(what[1])

    def check(self, found: dict[str, list[dict[str, Any]]], label: str) -> None:
        """What was acknowledged is there, once, and nothing else but what was under way when the process died."""
        one = self._differences(found)
        if one and self.unsure:
            self._acknowledge(*self.unsure.pop())
            one = self._differences(found)
        assert not one, f"{label}: {one}"

    def _differences(self, found: dict[str, list[dict[str, Any]]]) -> str:
        for series, wanted in self.wanted.items():
            entries = found.get(series, [])
            if isinstance(wanted, list):
                there: Any = _handler_last([entry["n"] for entry in entries])
                wanted = _handler_last(wanted)
                if [entry["index"] for entry in entries] != list(range(len(entries))):
                    return f"{series}: indices {[entry['index'] for entry in entries]}"
            else:
                there = {one["timestamp"]: {k: v for k, v in one.items() if k != "timestamp"} for one in entries}
                if [one["timestamp"] for one in entries] != sorted(there):
                    return f"{series} does not ascend"
            if there != wanted:
                return f"{series} is {_short(there)}, not {_short(wanted)}"
        return ""


def _handler_last(numbers: list[int]) -> list[int]:
    """A handler's entry may come before or behind the one it interrupted."""
    return sorted(numbers, key=lambda n: n == -1)


def _short(value: object) -> str:
    text = repr(value).replace(BLOB, "<blob>").replace("y" * 150, "<y>")
    return text if len(text) < 1500 else text[:700] + " ... " + text[-700:]


def _calls(folder: Path, durability: str, **options: Any) -> int:
    """How many calls the whole story makes; it is told once without a fault, and is right."""
    files = FaultyFiles()
    story = Story(folder, files, durability)
    recording = story.tell(**options)
    if not options.get("close", True) and recording is not None:
        recording.die()
    story.check(read_all(folder), "without a fault")
    shutil.rmtree(folder)
    assert not story.errors
    assert files.calls > 200, files.calls
    return files.calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the story is recorded."""
    return tmp_path / "run"


@pytest.mark.parametrize("durability", ["normal", "strict"])
@pytest.mark.parametrize("ending", ["close", "death"])
def test_call_fails(folder: Path, journal_mode: str, durability: str, ending: str) -> None:
    """Any one call fails: the error is an OSError, or is dealt with; all that was acknowledged is there, nothing else.

    The recording then ends well, or its process dies.
    """
    if durability == "strict" and journal_mode == "map":
        pytest.skip("strict journals are never mapped")
    raised = 0
    every = size(4, 2)
    first = 200 if (journal_mode, durability, ending) == ("map", "normal", "close") else 0
    for k in _places(_calls(folder, durability), every, first):
        story = Story(folder, FaultyFiles(fail_at=k), durability)
        recording = story.tell(close=ending == "close")
        if ending == "death" and recording is not None:
            recording.die()
        label = f"call {k} ({story.files.made[k - 1] if k <= story.files.calls else 'none'}) failed: {story.errors}"
        _check(story, folder, label)
        raised += len(story.errors)
        figures.count("calls failed")
    assert raised > 100 / every


def test_calls_fail_for_good(folder: Path, journal_mode: str) -> None:
    """From call k on everything fails, the close included; what was acknowledged comes with the next open."""
    for k in _places(_calls(folder, "normal"), size(8, 2)):
        story = Story(folder, FaultyFiles(fail_at=k, once=False), "normal")
        story.tell()
        _check(story, folder, f"every call from {k} on failed")
        figures.count("calls failed")


@pytest.mark.parametrize("durability", ["normal", "off"])
def test_dies_in_call(folder: Path, journal_mode: str, durability: str) -> None:
    """The process dies in any one call, its write half done: all that was acknowledged is there, once."""
    for k in _places(_calls(folder, durability), size(3 if (journal_mode, durability) == ("map", "normal") else 6, 1)):
        story = Story(folder, FaultyFiles(die_at=k), durability)
        recording = None
        try:
            recording = story.tell()
        except Died:
            pass
        _let_go()
        _check(story, folder, f"died in call {k} ({story.files.made[k - 1] if recording is None else 'none'})")
        figures.count("deaths in a call")


def test_dies_while_recovering(folder: Path, journal_mode: str) -> None:
    """The process that recovers dies too, at any call, and the next one too: still everything, once."""
    total = 0
    for k in _places(1000, size(2, 1)):
        story = Story(folder, FaultyFiles(), "normal")
        recording = story.tell(close=False)
        assert recording is not None
        for n in range(100, 110):
            story._append(recording, "t", n / 10, n=n)
            story._do(lambda: recording.metrics("m").log(n=n), ("metrics m", n))  # noqa: B023
        recording.die()
        died = 0
        for _ in range(3):
            try:
                Recording(folder, files=FaultyFiles(die_at=k), segment_bytes=SEGMENT_BYTES).close()
            except Died:
                died += 1
            _let_go()
            story.check(read_all(folder), f"died in call {k} of recovery, {died} times")
        total += died
        _check(story, folder, f"died in call {k} of recovery")
        figures.count("deaths in a call", died)
        if not died:
            break
    assert total > 60 / size(2, 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_in_call(folder: Path, journal_mode: str, when: str) -> None:
    """Ctrl-C or a timeout arrives at any call, and recording goes on: all that was acknowledged is there, once."""

    def interrupt() -> None:
        raise Interrupted

    for k in _places(_calls(folder, "normal"), size(6, 1)):
        story = Story(folder, FaultyFiles(interrupt_at=k, **{when: interrupt}), "normal")  # type: ignore[arg-type]
        with contextlib.suppress(Interrupted):  # while it was being opened
            story.tell()
        _let_go()
        _check(story, folder, f"interrupted {when} call {k} ({story.files.made[k - 1]})")
        figures.count("exceptions raised in a call")


@pytest.mark.parametrize("what", ["append", "everything"])
def test_handler_in_call(folder: Path, journal_mode: str, what: str) -> None:
    """A signal handler that appends, and perhaps flushes, extends and fills segments, runs inside any call: its entries
    and those of the call it interrupted are there, once, and nobody waits for himself."""
    for k in _places(_calls(folder, "normal"), size(6, 1)):
        story = Story(folder, FaultyFiles(interrupt_at=k, before=lambda: _handle(story, what)), "normal")  # noqa: B023
        story.tell()
        _check(story, folder, f"a handler in call {k} ({story.files.made[k - 1]})")
        figures.count("handlers run in a call")


def _handle(story: Story, what: str) -> None:
    recording = story.recording
    if recording is None or recording.session.closed:
        return  # there is nobody yet, or no more, to append to
    for n in range(1 if what == "append" else 60):
        story._append(recording, "handler", float(n), n=n, text="h" * 200)
    if what == "everything":
        story._do(lambda: recording.metrics("m").log(n=-1), ("metrics m", -1))
        story._do(recording.session.flush)
        story._do(lambda: recording.tracks("handler").extend(_ts=[100.0], blob=["b" * 1_100_000]))
        story.wanted["handler"][100.0] = {"blob": "b" * 1_100_000}
        story._append(recording, "handler", 101.0, n=101)
        there = len(recording.tracks("t"))
        assert there - len(story.wanted["t"]) in (0, 1)
        story._do(recording.session.flush)
        assert len(recording.tracks("handler").read(start_timestamp=99.0)["entries"]) == 2


def _places(calls: int, every: int, first: int = 0) -> list[int]:
    """Which calls are chosen: the first so many, and of the others every so many, not always the same ones."""
    return [*range(1, first + 1), *range(first + 1 + SEED % every, calls + 1, every)]


def _let_go() -> None:
    """What the kernel does for a dead process."""
    from ml_dash import session
    from ml_dash.files import drop_locks

    drop_locks()
    for one in list(session._sessions):
        one.closed = True
        one.after_fork_in_child()
        session._sessions.discard(one)


def _check(story: Story, folder: Path, label: str) -> None:
    """As a reader sees it, after recovery, and after one more recording."""
    if folder.exists():
        story.check(read_all(folder), f"{label}, read")
        Recording(folder, segment_bytes=SEGMENT_BYTES).close()
    story.check(read_all(folder) if folder.exists() else {}, f"{label}, recovered")
    check_clean(folder)
    left = [one.name for one in folder.rglob("*") if one.name.endswith((".tmp", ".new", ".compact"))]
    assert len(left) <= 1, left
    shutil.rmtree(folder, ignore_errors=True)
