"""Row 6: index and state are derived. Damaged, swapped, emptied or gone, every answer equals that of a full scan."""

from __future__ import annotations

import json
import os
import random as random_module
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_dash.entry import merge
from ml_dash.errors import StoreCorrupt
from ml_dash.line import from_lines
from ml_dash.store import MERGED, Track, Window
from ml_dash.stores.index import BLOCK, HEADER
from ml_dash.stores.local import LocalStore

from . import figures
from .abandon import Recording, read_all
from .sizes import rng, seeds, size

IN_MEMORY = True
TOPICS = ("sorted", "unsorted", "wide")
ENTRIES = 3000


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of several blocks per track, one of them never compacted; a log and a metric beside them."""
    folder = tmp_path_factory.mktemp("derived") / "run"
    recording = Recording(folder)
    for n in range(ENTRIES):
        recording.tracks("sorted").append(_ts=n / 10, n=n, text="x" * 60)
        recording.tracks("wide").append(_ts=n / 7, n=n, q=[0.5] * 12)
        recording.tracks("unsorted").append(_ts=float(n if n % 5 else n - 400), n=n, text="y" * 60)
        if n % 1000 == 999:
            recording.session.flush()
    for n in range(200):
        recording.metrics("m").log(n=n)
        recording.log("text", n=n)
    recording.session.flush()
    recording.die()  # no compaction
    Recording(folder).die()  # no journal left
    shutil.rmtree(folder / ".journal")
    return folder


@pytest.fixture
def run(master: Path, tmp_path: Path) -> Path:
    """A copy of it, with indices that fit."""
    shutil.copytree(master, tmp_path / "run")
    recording = Recording(tmp_path / "run")  # a copy has other inodes: have the indices made anew
    for topic in TOPICS:
        recording.tracks(topic).append(_ts=1e6, n=-1)
    recording.session.flush()
    recording.die()
    shutil.rmtree(tmp_path / "run" / ".journal")
    assert all((tmp_path / "run" / "tracks" / topic / ".index").exists() for topic in TOPICS)
    return tmp_path / "run"


def _scanned(folder: Path, topic: str) -> list[dict[str, Any]]:
    """A track by reading its whole file, nothing else."""
    return merge(from_lines((folder / "tracks" / topic / "data.jsonl").read_bytes()))


def _windows(random: random_module.Random) -> list[tuple[float | None, float | None]]:
    made: list[tuple[float | None, float | None]] = [
        (None, None),
        (None, 50.0),
        (250.0, None),
        (1e6, 1e6),
        (-1e9, -1e8),
    ]
    for _ in range(4):
        low = random.uniform(-450, ENTRIES)
        made.append((low, low + random.choice([0.0, 0.3, 20.0, 500.0])))
    return made


def _check(folder: Path, random: random_module.Random, label: str) -> None:
    """Windows of every track, read by an instance of its own, equal the scan; so do counts and sequences."""
    for topic in TOPICS:
        whole = _scanned(folder, topic)
        for low, high in _windows(random):
            store = LocalStore(folder, readonly=True)
            found = [entry for block in store.read(Track(MERGED, topic), Window(low, high)) for entry in block]
            store.close()
            bottom, top = (-1e300 if low is None else low), (1e300 if high is None else high)
            wanted = [entry for entry in whole if bottom <= entry["timestamp"] <= top]
            assert found == wanted, f"{label}: {topic} from {low} to {high}: {len(found)}, not {len(wanted)}"
            figures.count("windows read with damaged indices")
    store = LocalStore(folder, readonly=True)
    assert {info.topic: info.count for info in store.tracks()} == {t: len(_scanned(folder, t)) for t in TOPICS}, label
    store.close()
    everything = read_all(folder)
    for name in ("metrics m", "log"):
        assert [entry["n"] for entry in everything[name]] == list(range(200)), f"{label}: {name}"


def _mutations(random: random_module.Random) -> dict[str, Callable[[bytes], bytes]]:
    """Ways to damage a file."""

    def flipped(raw: bytes) -> bytes:
        changed = bytearray(raw)
        for _ in range(random.randrange(1, 4)):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)

    def shuffled(raw: bytes) -> bytes:
        pieces = [raw[at : at + BLOCK.size] for at in range(HEADER.size, len(raw), BLOCK.size)]
        random.shuffle(pieces)
        return raw[: HEADER.size] + b"".join(pieces)

    return {
        "bits flipped": flipped,
        "cut": lambda raw: raw[: random.randrange(len(raw))],
        "longer": lambda raw: raw + random.randbytes(random.randrange(1, 100)),
        "emptied": lambda raw: b"",
        "zeros": lambda raw: bytes(len(raw)),
        "garbage": lambda raw: random.randbytes(len(raw)),
        "part zeroed": lambda raw: raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2),
        "twice": lambda raw: raw + raw,
        "shuffled": shuffled,
    }


@pytest.mark.parametrize("seed", seeds(size(4, 60)))
def test_damaged(run: Path, seed: int) -> None:
    """Index, state and the index of the log, each damaged in every way: answers equal a full scan, also after more."""
    random = rng("derived", seed)
    victims = [
        *(run / "tracks" / topic / ".index" for topic in TOPICS),
        run / ".state",
        run / "logs" / ".logs.jsonl.index",
    ]
    for name, mutate in _mutations(random).items():
        kept = {path: path.read_bytes() for path in victims if path.exists()}
        for path in random.sample(sorted(kept), 2):
            times = path.stat()
            path.write_bytes(mutate(path.read_bytes()))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            _check(run, random, f"{path.name} {name}")
            figures.count("derived files damaged")
        for path, raw in kept.items():
            path.write_bytes(raw)


def test_every_digit_of_the_state(run: Path) -> None:
    """A state whose numbers were changed is no state: no line of a log or metric is hidden."""
    raw = (run / ".state").read_bytes()
    for place in range(9, len(raw)):
        if raw[place : place + 1].isdigit():
            (run / ".state").write_bytes(raw[:place] + str((raw[place] - 49) % 10).encode() + raw[place + 1 :])
            found = read_all(run)
            for name in ("metrics m", "log"):
                assert [entry["n"] for entry in found[name]] == list(range(200)), f"digit at {place}"
            figures.count("derived files damaged")


def test_swapped_between_tracks(run: Path) -> None:
    """Each index in the place of another track's, or the place of its own older self."""
    random = rng("swapped")
    raw = {topic: (run / "tracks" / topic / ".index").read_bytes() for topic in TOPICS}
    for topic in TOPICS:
        for other in TOPICS:
            (run / "tracks" / topic / ".index").write_bytes(raw[other])
            _check(run, random, f"{other}'s index at {topic}")


def test_damaged_while_recording(run: Path) -> None:
    """A recorder that has its index in memory extends no other one: what a later reader finds is right."""
    random = rng("while recording")
    recording = Recording(run)
    raw = {topic: (run / "tracks" / topic / ".index").read_bytes() for topic in TOPICS}
    mutations = list(_mutations(random).values())
    for n in range(30):
        for topic in TOPICS:
            for k in range(150):
                recording.tracks(topic).append(_ts=2e6 + 200.0 * n + k, n=n, text="z" * 60)
        recording.session.flush()
        topic, other = random.sample(TOPICS, 2)
        path = run / "tracks" / topic / ".index"
        if n % 3 == 0:
            path.write_bytes(mutations[n // 3 % len(mutations)](path.read_bytes()))
        elif n % 3 == 1:
            path.write_bytes((run / "tracks" / other / ".index").read_bytes())
        else:
            path.write_bytes(raw[topic])
    _check(run, random, "damaged while recording")
    recording.close()
    _check(run, random, "after the close")


def test_state_lost_while_recording(tmp_path: Path) -> None:
    """Without a state all that journals hold is applied again: tracks merge, and sequences count their lines."""
    recording = Recording(tmp_path)
    for n in range(60):
        recording.tracks("t").append(_ts=float(n % 50), n=n)
        recording.metrics("m").log(n=n)
        recording.log("text", n=n)
        if n % 7 == 0:
            recording.session.flush()
        if n % 11 == 0:
            (tmp_path / ".state").unlink(missing_ok=True)
        if n % 13 == 0 and (tmp_path / ".state").exists():
            (tmp_path / ".state").write_bytes(b"garbage")
    recording.session.flush()
    found = read_all(tmp_path)
    assert [entry["n"] for entry in found["t"]] == [*range(50, 60), *range(10, 50)]
    assert [entry["n"] for entry in found["metrics m"]] == list(range(60))
    assert [entry["n"] for entry in found["log"]] == list(range(60))
    (tmp_path / ".state").unlink()
    recording.die()
    Recording(tmp_path).close()
    assert read_all(tmp_path) == found


def test_newer_versions(run: Path) -> None:
    """Files of a newer version: reading goes on by full scan, recording refuses and changes nothing."""
    raw = (run / ".state").read_bytes()
    document = json.loads(raw.split(b" ", 1)[1])
    body = json.dumps({**document, "version": document["version"] + 1, "more": [1]}).encode()
    (run / ".state").write_bytes(f"{zlib.crc32(body):08x} ".encode() + body + b"\n")
    for topic in TOPICS:
        path = run / "tracks" / topic / ".index"
        path.write_bytes(path.read_bytes()[:4] + b"\xff\x7f" + path.read_bytes()[6:])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    _check(run, rng("newer"), "newer versions")
    with pytest.raises(StoreCorrupt, match=r"newer ml_dash.*upgrade"):
        Recording(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path in before} == before
    assert not any(path.name.endswith(".seg") for path in run.rglob("*"))


def test_newer_state_while_recording(tmp_path: Path) -> None:
    """Another program upgrades the files under our feet: flush and close refuse, the journal keeps every entry."""
    recording = Recording(tmp_path)
    recording.tracks("t").append(_ts=1.0, n=1).flush()
    raw = (tmp_path / ".state").read_bytes()
    body = json.dumps({**json.loads(raw.split(b" ", 1)[1]), "version": 2}).encode()
    (tmp_path / ".state").write_bytes(f"{zlib.crc32(body):08x} ".encode() + body + b"\n")
    recording.tracks("t").append(_ts=2.0, n=2)
    with pytest.raises(StoreCorrupt, match="newer ml_dash"):
        recording.session.flush()
    assert [entry["n"] for entry in recording.tracks("t").list_entries()] == [1, 2]
    with pytest.raises(StoreCorrupt, match="newer ml_dash"):
        recording.close()
    assert [entry["n"] for entry in read_all(tmp_path)["t"]] == [1, 2]
    (tmp_path / ".state").write_bytes(raw)
    Recording(tmp_path).close()
    assert [entry["n"] for entry in read_all(tmp_path)["t"]] == [1, 2]
