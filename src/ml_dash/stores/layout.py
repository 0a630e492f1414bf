"""Which folder holds which series, inside one experiment's folder.

tracks/<folder>/data.jsonl    .topic beside it holds the true topic
metrics/<folder>/data.jsonl
logs/logs.jsonl
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..address import check_topic, folder_for, identity
from ..errors import InvalidTopic
from ..files import Files
from ..spool import JOURNALS
from ..store import KINDS, Track

DATA = "data.jsonl"
TOPIC = ".topic"
LOGS = "logs"
MARKS = frozenset({"experiment.json", ".state", JOURNALS, *KINDS})
"""What only an experiment's folder holds; the folders above experiments hold none of it."""


def is_experiment(folder: Path) -> bool:
    """Whether something was recorded in a folder."""
    try:
        with os.scandir(folder) as found:  # closed here: any() leaves before its end
            return any(one.name in MARKS for one in found)
    except OSError:
        return False


class Layout:
    """Finds and creates the folders of series. What it found it remembers, and looks whether that still holds: another
    process may have removed a series and given its folder to another one."""

    def __init__(self, root: Path, files: Files) -> None:
        self.root, self._files = root, files
        self._known: dict[Track, Path] = {}
        self._read: dict[Path, tuple[tuple[int, int], str | None]] = {}
        self._names: dict[str, _Names] = {}
        self._looked: dict[str, int | None] = {}

    def find(self, track: Track) -> Path | None:
        """The data file of a series, or None where nobody recorded it."""
        if track.kind == LOGS:
            return self.root / LOGS / f"{track.topic}.jsonl"
        known = self._known.get(track)
        if known is not None and self._topic_of(known.parent) == track.topic:
            return known
        return None if self._is_missing(track) else self.topics(track.kind).get(track.topic)

    def _is_missing(self, track: Track) -> bool:
        """Whether the last look at all folders still tells that there is no such series."""
        if self._looked.get(track.kind, -1) != _changed(self.root / track.kind):
            return False
        own, beside = (folder_for(track.topic, lambda _, taken=taken: taken) for taken in (None, ""))  # type: ignore[misc]
        return not any(os.path.lexists(self.root / track.kind / name) for name in (own, beside))

    def claim(self, track: Track) -> Path:
        """The data file of a series, its folder created. Only under the store's lock."""
        if track.kind == LOGS:
            self._files.make_folder(self.root / LOGS)
            return self.root / LOGS / f"{track.topic}.jsonl"
        known = self._known.get(track)
        if known is not None and self._topic_of(known.parent) == track.topic:
            return known
        names = self._names_of(track.kind)
        folder = names.folder_of(track.topic)
        if self._topic_of(folder) not in (None, track.topic):  # taken since the names were read
            del self._names[track.kind]
            names = self._names_of(track.kind)
            folder = names.folder_of(track.topic)
        if self._topic_of(folder) is None:
            self._found(folder, track)
            names.note(folder, track.topic)
            names.look()
        self._known[track] = folder / DATA
        return folder / DATA

    def _found(self, folder: Path, track: Track) -> None:
        """Create a series' folder with its true topic in it."""
        self._files.make_folder(folder)
        document = json.dumps({"topic": track.topic, "kind": track.kind}).encode() + b"\n"
        self._files.write_atomically(folder / TOPIC, document)

    def _names_of(self, kind: str) -> _Names:
        """The names in use, read again only where the kind's folder changed: hundreds of topics may begin at once."""
        names = self._names.get(kind)
        if names is None or not names.is_current():
            names = self._names[kind] = _Names(self.root / kind)
            for one in self._scan(kind):
                # "" stands for a file, which is nobody's folder
                topic = self._topic_of(Path(one.path)) if one.is_dir() else ""
                if topic is not None:
                    names.note(Path(one.path), topic)
        return names

    def topics(self, kind: str) -> dict[str, Path]:
        """Every series of a kind with its data file. Of two folders with one topic (a copy), the one named after it."""
        if kind == LOGS:
            path = self.root / LOGS / "logs.jsonl"
            return {"logs": path} if path.is_file() else {}
        found: dict[str, Path] = {}
        self._looked[kind] = _changed(self.root / kind)
        for folder in self._scan(kind):
            topic = self._topic_of(Path(folder.path)) if folder.is_dir() else None
            if topic is not None and (topic not in found or folder.name == topic.replace("/", "_")):
                found[topic] = Path(folder.path) / DATA
        self._known.update({Track(kind, topic): path for topic, path in found.items()})
        return found

    def _scan(self, kind: str) -> list[os.DirEntry[str]]:
        try:
            return sorted(os.scandir(self.root / kind), key=lambda one: one.name)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _topic_of(self, folder: Path) -> str | None:
        """The topic stored beside the data; a folder that was put there by hand is its own topic."""
        try:
            stat = os.stat(folder / TOPIC)
        except OSError:
            return self._by_hand(folder)
        seen = (stat.st_ino, stat.st_mtime_ns)
        known = self._read.get(folder)
        if known is None or known[0] != seen:
            known = self._read[folder] = (seen, self._stored_topic(folder) or self._by_hand(folder))
        return known[1]

    def _stored_topic(self, folder: Path) -> str | None:
        try:
            return check_topic(json.loads(self._files.read(folder / TOPIC))["topic"])
        except (FileNotFoundError, IsADirectoryError, PermissionError, ValueError, KeyError, TypeError):
            return None  # InvalidTopic is a ValueError; a failing disk raises: the track would get a second folder

    def _by_hand(self, folder: Path) -> str | None:
        try:
            return check_topic(folder.name) if (folder / DATA).is_file() else None
        except InvalidTopic:
            return None

    def remove(self, track: Track) -> None:
        """Delete a series' files. Only under the store's lock."""
        found = self.find(track)
        self._known.pop(track, None)
        self._names.pop(track.kind, None)
        if found is None:
            return
        if track.kind == LOGS:
            self._files.remove(found)
            self._files.remove(index_path(found))
        else:
            import shutil

            shutil.rmtree(found.parent)


class _Names:
    """The names in the folder of a kind and the topics that hold them."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._owners: dict[str, str] = {}
        self._folders: dict[str, Path] = {}
        self.look()

    def look(self) -> None:
        """What is noted is all there is now."""
        self._changed = _changed(self._parent)

    def is_current(self) -> bool:
        """Whether no name came or went since."""
        return self._changed is not None and self._changed == _changed(self._parent)

    def note(self, path: Path, topic: str) -> None:
        """A name that is there, and the topic that holds it."""
        self._owners[identity(path.name)] = topic
        if topic not in self._folders or path.name == topic.replace("/", "_"):
            self._folders[topic] = path

    def folder_of(self, topic: str) -> Path:
        """The folder that a topic has, or is to get."""
        return self._folders.get(topic) or self._parent / folder_for(topic, self._owners.get)


def _changed(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def index_path(data: Path) -> Path:
    """Where the index of a data file lives."""
    return data.with_name(".index" if data.name == DATA else f".{data.name}.index")
