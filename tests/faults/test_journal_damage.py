"""Row 2: a journal that was cut or damaged gives back exactly the records before the place, and says so."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from ml_dash.errors import StoreCorrupt
from ml_dash.journal import Journal
from ml_dash.journal_files import FIRST_RECORD, RECORD_BYTES, SEGMENT_HEADER, VERSION, Mark, crc32
from ml_dash.journal_reader import Stream, streams
from ml_dash.store import MERGED, Track

from . import figures
from .abandon import Recording, read_all
from .sizes import rng

IN_MEMORY = True
RECORDS = 120
START = Mark(0, 0)


class Written:
    """A journal of a dead process: its folder, its bodies and the offset behind each."""

    def __init__(self, folder: Path, mode: str) -> None:
        random = rng("damage", mode)
        journal = Journal(folder, segment_bytes=1 << 17)
        journal.track_id(Track(MERGED, "t"))
        self.bodies, self.ends = [], [FIRST_RECORD]
        for number in range(RECORDS):
            body = b"\x93\x01\xcb" + number.to_bytes(8, "big") + random.randbytes(random.randrange(0, 90))
            journal.write(body)
            self.bodies.append(body)
            self.ends.append(self.ends[-1] + RECORD_BYTES + len(body))
        journal.release()
        (self.stream,) = (stream.path for stream in streams(folder))
        self.segment = self.stream / "0000000001.seg"
        self.raw = self.segment.read_bytes()

    def before(self, place: int) -> int:
        """How many records lie wholly before a place."""
        return sum(end <= place for end in self.ends[1:])


@pytest.fixture
def written(tmp_path: Path, journal_mode: str) -> Written:
    """A journal in either mode."""
    return Written(tmp_path / "journal", journal_mode)


def _read(written: Written, raw: bytes) -> tuple[list[bytes], list[str]]:
    written.segment.write_bytes(raw)
    stream = Stream(written.stream)
    return list(stream.bodies(START, living=False)), stream.damage


def _cuts(written: Written) -> list[int]:
    """Every byte of the last three records, and every 512 bytes."""
    return [*range(written.ends[-4], written.ends[-1] + 1), *range(FIRST_RECORD, written.ends[-4], 512)]


def test_whole_journal(written: Written) -> None:
    """Untouched, it gives back every record and has nothing to report."""
    assert _read(written, written.raw) == (written.bodies, [])


@pytest.mark.parametrize("tail", ["cut", "zeros", "other"])
def test_cut(written: Written, tail: str) -> None:
    """Cut off, continued with zeros (a power cut) or with garbage: the records before the place, and a report."""
    size, garbage = len(written.raw), rng("garbage").randbytes(len(written.raw))
    for place in _cuts(written):
        rest = {"cut": b"", "zeros": bytes(size - place), "other": garbage[place:]}[tail]
        raw = written.raw[:place] + rest
        bodies, damage = _read(written, raw)
        count = written.before(place)
        assert bodies == written.bodies[:count], place
        torn = raw[written.ends[count] :].strip(b"\0")
        assert bool(damage) == bool(torn), (place, damage)
        figures.count("journal cuts")


def test_every_bit_of_the_last_record(written: Written) -> None:
    """One flipped bit in the last record: all before it, not it, and a report."""
    for bit in range(8 * written.ends[-2], 8 * written.ends[-1]):
        raw = bytearray(written.raw)
        raw[bit // 8] ^= 1 << bit % 8
        bodies, damage = _read(written, bytes(raw))
        assert bodies == written.bodies[:-1], bit
        assert damage, bit
        figures.count("journal bits flipped")


def test_every_bit_of_a_record_in_the_middle(written: Written) -> None:
    """One flipped bit elsewhere costs that record only: what follows it is found again."""
    middle = RECORDS // 2
    for bit in range(8 * written.ends[middle], 8 * written.ends[middle + 1]):
        raw = bytearray(written.raw)
        raw[bit // 8] ^= 1 << bit % 8
        bodies, damage = _read(written, bytes(raw))
        assert bodies == written.bodies[:middle] + written.bodies[middle + 1 :], bit
        assert damage, bit
        figures.count("journal bits flipped")


def test_every_bit_of_the_head(written: Written) -> None:
    """A damaged head is reported, and costs no record."""
    for bit in range(8 * SEGMENT_HEADER.size):
        raw = bytearray(written.raw)
        raw[bit // 8] ^= 1 << bit % 8
        bodies, damage = _read(written, bytes(raw))
        assert bodies == written.bodies, bit
        assert damage, bit
        figures.count("journal bits flipped")


def test_holes(written: Written) -> None:
    """Records that were never copied (killed between claim and copy) cost nobody else's."""
    for first, last in ((0, 1), (5, 9), (50, 51), (RECORDS - 3, RECORDS - 1)):
        raw = bytearray(written.raw)
        raw[written.ends[first] : written.ends[last]] = bytes(written.ends[last] - written.ends[first])
        bodies, damage = _read(written, bytes(raw))
        assert bodies == written.bodies[:first] + written.bodies[last:]
        assert damage


def test_damage_is_kept_and_told(tmp_path: Path, journal_mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """Through the recorder: a damaged record of a dead process is reported, its journal kept aside, the rest stored."""
    folder = tmp_path / "run"
    recording = Recording(folder)
    for n in range(50):
        recording.tracks("t").append(_ts=float(n), n=n)
    recording.die()
    (segment,) = (folder / ".journal").glob("*/*.seg")
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"\xa1n\x14") + 2] ^= 0xFF  # the number 20
    segment.write_bytes(raw)
    with caplog.at_level(logging.WARNING, "ml_dash"):
        Recording(folder).close()
    assert "incomplete or damaged" in caplog.text
    kept = [one.name for one in (folder / ".journal").iterdir() if one.name.startswith(".damaged-")]
    assert len(kept) == 1
    assert kept[0] in caplog.text
    assert len(read_all(folder)["t"]) == 49


def test_every_cut_through_the_recorder(tmp_path: Path, journal_mode: str) -> None:
    """Cut anywhere in its last records, a dead journal is read and recovered alike: a prefix, never a crash."""
    master = tmp_path / "master"
    recording = Recording(master)
    for n in range(40):
        recording.tracks("t").append(_ts=float(n), n=n)
        recording.metrics("m").log(n=n)
    recording.die()
    (segment,) = (master / ".journal").glob("*/*.seg")
    raw = segment.read_bytes()
    end = len(raw.rstrip(b"\0")) + 8
    for place in range(end - 130, end, 5):
        folder = tmp_path / f"cut {place}"
        shutil.copytree(master, folder)
        (folder / segment.relative_to(master)).write_bytes(raw[:place])
        before = read_all(folder)
        Recording(folder).close()
        after = read_all(folder)
        assert before == after, place
        tracks, metrics = ([entry["n"] for entry in after[name]] for name in ("t", "metrics m"))
        assert tracks == list(range(len(tracks)))
        assert metrics == list(range(len(metrics)))
        assert 36 <= len(metrics) <= len(tracks) <= 40
        shutil.rmtree(folder)


def test_newer_journal(tmp_path: Path) -> None:
    """A journal of a newer version: reading goes on without it, recording refuses, and nothing of it is touched."""
    folder = tmp_path / "run"
    recording = Recording(folder)
    recording.tracks("t").append(_ts=1.0, n=1).flush()
    recording.tracks("t").append(_ts=2.0, n=2)
    recording.die()
    (segment,) = (folder / ".journal").glob("*/*.seg")
    raw = bytearray(segment.read_bytes())
    raw[4] = VERSION + 1
    raw[SEGMENT_HEADER.size - 4 : SEGMENT_HEADER.size] = crc32(bytes(raw[: SEGMENT_HEADER.size - 4])).to_bytes(
        4, "little"
    )
    segment.write_bytes(raw)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert read_all(folder)["t"] == [{"timestamp": 1.0, "n": 1}]
    with pytest.raises(StoreCorrupt, match="newer ml_dash"):
        Recording(folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path: raw for path, raw in after.items() if path in before} == before
    assert len(streams(folder / ".journal")) == 1
