"""Row 3: `data.jsonl` cut or edited by other hands: no crash, no whole line lost, nothing of a person's removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_dash.store import MERGED, Track

from . import figures
from .abandon import Recording, read_all

IN_MEMORY = True
LINES = 30
LAST = 12.0


def _record(folder: Path, first: int, last: int) -> None:
    recording = Recording(folder)
    for n in range(first, last):
        recording.tracks("t").append(_ts=float(n), n=n, text="a\u00e9\u4e2d" * (n % 4))
    recording.close()


def _numbers(folder: Path) -> list[int]:
    return [entry["n"] for entry in read_all(folder).get("t", [])]


def _data(folder: Path) -> Path:
    return folder / "tracks" / "t" / "data.jsonl"


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A finished recording."""
    _record(tmp_path / "run", 0, LINES)
    return tmp_path / "run"


def test_cut_at_every_byte_of_the_last_two_lines(closed: Path) -> None:
    """Every line that is whole is read, before and after more was recorded; what is torn is cut, and only that."""
    raw = _data(closed).read_bytes()
    start = raw.rstrip(b"\n").rfind(b"\n", 0, raw.rstrip(b"\n").rfind(b"\n")) + 1
    for place in range(start, len(raw) + 1):
        _data(closed).write_bytes(raw[:place])
        # A line is whole with or without its newline.
        whole = [line for line in raw[:place].split(b"\n") if line.endswith(b"}")]
        assert _numbers(closed) == list(range(len(whole))), place
        _record(closed, 100, 102)
        assert _numbers(closed) == [*range(len(whole)), 100, 101], place
        lines = _data(closed).read_bytes().splitlines()
        assert [json.loads(line)["n"] for line in lines] == [*range(len(whole)), 100, 101], place
        figures.count("data file cuts")


@pytest.mark.parametrize("tail", [b"\0" * 3, b"\0" * 5000, b'{"timestamp": 30.0, "n": 30\0\0\0\0\0'])
def test_zeros_at_the_end(closed: Path, tail: bytes) -> None:
    """A power cut may leave zeros where lines were being written: they are cut, and compaction goes on working."""
    with _data(closed).open("ab") as file:
        file.write(tail)
    assert _numbers(closed) == list(range(LINES))
    recording = Recording(closed)
    recording.tracks("t").append(_ts=3.5, n=-1)
    recording.close()
    assert _numbers(closed) == [0, 1, 2, 3, -1, *range(4, LINES)]
    assert all(json.loads(line) for line in _data(closed).read_bytes().splitlines())


EDITS = {
    "windows line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "blank lines": lambda raw: raw.replace(b"\n", b"\n\n \n"),
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "no last newline": lambda raw: raw.rstrip(b"\n"),
    "windows without last newline": lambda raw: raw.replace(b"\n", b"\r\n").rstrip(),
    "spaces": lambda raw: raw.replace(b":", b" :  ").replace(b"\n", b"  \n"),
    "integers for times": lambda raw: raw.replace(b".0,", b","),
    "other order": lambda raw: b"\n".join(reversed(raw.split(b"\n"))),
    "doubled": lambda raw: raw + raw,
    "no final newline, out of order": lambda raw: b"\n".join(reversed(raw.strip().split(b"\n"))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_that_change_no_entry(closed: Path, edit: str) -> None:
    """However a file is laid out by an editor, its entries are the same, before and after more was recorded."""
    _data(closed).write_bytes(EDITS[edit](_data(closed).read_bytes()))
    assert sorted(_numbers(closed)) == list(range(LINES))
    assert _numbers(closed) == list(range(LINES))
    recording = Recording(closed)
    recording.tracks("t").append(_ts=4.5, n=-1).flush()
    assert recording.store.compact(Track(MERGED, "t"))
    recording.close()
    assert _numbers(closed) == [0, 1, 2, 3, 4, -1, *range(5, LINES)]
    figures.count("data file edits")


PERSONS_LINES = [
    b"# a comment",
    b"not json at all",
    b'{"note": "whole JSON, but no entry"}',
    b'{"timestamp": "noon", "n": 5}',
    b'{"timestamp": NaN, "n": 5}',
    b"[1, 2, 3]",
    b'{"timestamp": 99999999999999999999, "n": 5}',
    b"\xff\xfe\x00 no UTF-8",
    b"{" * 3000,
]


@pytest.mark.parametrize("line", PERSONS_LINES, ids=range(len(PERSONS_LINES)))
@pytest.mark.parametrize("place", ["front", "middle", "end", "end without newline"])
def test_lines_that_are_no_entries(closed: Path, line: bytes, place: str) -> None:
    """A line of somebody else's is neither an entry nor in the way of one; it is kept, unless it is a torn end."""
    lines = _data(closed).read_bytes().splitlines()
    at = {"front": 0, "middle": 10}.get(place, len(lines))
    lines.insert(at, line)
    end = b"" if place == "end without newline" else b"\n"
    _data(closed).write_bytes(b"\n".join(lines) + end)
    assert _numbers(closed) == list(range(LINES))
    _record(closed, LINES, LINES + 3)
    recording = Recording(closed)
    recording.tracks("t").append(_ts=LAST + 0.5, n=-1)
    recording.close()
    assert _numbers(closed) == [*range(13), -1, *range(13, LINES + 3)]
    torn = place == "end without newline" and line.startswith(b"{") and not line.endswith(b"}")
    assert (line in _data(closed).read_bytes().split(b"\n")) != torn
    figures.count("data file edits")


def test_edited_while_recording(tmp_path: Path) -> None:
    """A line added, changed or removed by hand between two flushes is taken as it is now; nothing else is lost."""
    recording = Recording(tmp_path)
    track = recording.tracks("t")
    for n in range(10):
        track.append(_ts=float(n), n=n)
    track.flush()
    path = _data(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":33').replace(b'{"timestamp":5.0,"n":5}\n', b""))
    assert [entry["n"] for entry in track.list_entries()] == [0, 1, 2, 33, 4, 6, 7, 8, 9]
    track.append(_ts=5.0, n=55).flush()
    with path.open("ab") as file:
        file.write(b'{"timestamp": 20.0, "n": 20}')
    assert len(track) == 11
    track.append(_ts=21.0, n=21)
    recording.close()
    assert _numbers(tmp_path) == [0, 1, 2, 33, 4, 55, 6, 7, 8, 9, 20, 21]


def test_files_removed_while_recording(tmp_path: Path) -> None:
    """Data, index, state or a whole track removed under the recorder's feet: it goes on, and keeps what comes later."""
    recording = Recording(tmp_path)
    track, number = recording.tracks("t"), 0
    for victim in ("tracks/t/data.jsonl", "tracks/t/.index", ".state", "tracks/t/.topic"):
        for n in range(number, number + 5):
            track.append(_ts=float(n), n=n)
        recording.metrics("m").log(n=number)
        track.flush()
        (tmp_path / victim).unlink()
        number += 5
    for path in sorted((tmp_path / "tracks").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for n in range(number, number + 5):
        track.append(_ts=float(n), n=n)
    recording.close()
    assert _numbers(tmp_path) == list(range(number, number + 5))
    assert [entry["n"] for entry in read_all(tmp_path)["metrics m"]] == [0, 5, 10, 15]


@pytest.mark.parametrize("kind", ["logs", "metrics"])
def test_sequences_cut_and_edited(tmp_path: Path, kind: str) -> None:
    """Logs and metrics: a torn end is cut, a whole line without its newline and a person's line are kept."""
    recording = Recording(tmp_path)
    for n in range(20):
        recording.metrics("m").log(n=n)
        recording.log("text", n=n)
    recording.close()
    path = tmp_path / ("logs/logs.jsonl" if kind == "logs" else "metrics/m/data.jsonl")
    name = "log" if kind == "logs" else "metrics m"
    raw = path.read_bytes()
    last = raw.rstrip(b"\n").rfind(b"\n") + 1
    for place in [*range(last, len(raw) + 1, 7), len(raw) - 1, len(raw)]:
        path.write_bytes(raw[:place])
        count = 19 + (place >= len(raw) - 1)
        assert [entry["n"] for entry in read_all(tmp_path)[name]] == list(range(count)), place
        again = Recording(tmp_path)
        again.metrics("m").log(n=100)
        again.log("text", n=100)
        again.close()
        assert [entry["n"] for entry in read_all(tmp_path)[name]] == [*range(count), 100], place
