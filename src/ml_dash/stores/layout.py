"""Which folder holds which series, inside one experiment's folder.

tracks/<folder>/data.jsonl    .topic beside it holds the true topic
metrics/<folder>/data.jsonl
logs/logs.jsonl
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ..address import check_topic, folder_for, identity
from ..errors import InvalidTopic
from ..files import Files
from ..store import Track

DATA = "data.jsonl"
TOPIC = ".topic"
LOGS = "logs"


class Layout:
    """Finds and creates the folders of series. What it found it remembers, and looks whether that still holds: another
    process may have removed a series and given its folder to another one."""

    def __init__(self, root: Path, files: Files) -> None:
        self.root, self._files = root, files
        self._known: dict[Track, Path] = {}
        self._read: dict[Path, tuple[tuple[int, int], str | None]] = {}

    def find(self, track: Track) -> Path | None:
        """The data file of a series, or None where nobody recorded it."""
        if track.kind == LOGS:
            return self.root / LOGS / f"{track.topic}.jsonl"
        known = self._known.get(track)
        if known is not None and self._topic_of(known.parent) == track.topic:
            return known
        return self.topics(track.kind).get(track.topic)

    def claim(self, track: Track) -> Path:
        """The data file of a series, its folder created. Only under the store's lock."""
        found = self.find(track)
        if found is not None:
            if track.kind == LOGS:
                self._files.make_folder(found.parent)
            return found
        folder = self.root / track.kind / folder_for(track.topic, self._owners(track.kind).get)
        self._files.make_folder(folder)
        document = json.dumps({"topic": track.topic, "kind": track.kind}).encode() + b"\n"
        self._files.write_atomically(folder / TOPIC, document)
        self._known[track] = folder / DATA
        return folder / DATA

    def _owners(self, kind: str) -> dict[str, str]:
        """The topic that holds each name, by the name's identity; "" for a file, which is nobody's folder."""
        return {
            identity(one.name): (self._topic_of(Path(one.path)) or "") if one.is_dir() else ""
            for one in self._scan(kind)
            if not one.is_dir() or self._topic_of(Path(one.path)) is not None
        }

    def topics(self, kind: str) -> dict[str, Path]:
        """Every series of a kind with its data file. Of two folders with one topic (a copy), the one named after it."""
        if kind == LOGS:
            path = self.root / LOGS / "logs.jsonl"
            return {"logs": path} if path.is_file() else {}
        found: dict[str, Path] = {}
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
        except (OSError, ValueError, KeyError, TypeError):  # InvalidTopic is a ValueError
            return None

    def _by_hand(self, folder: Path) -> str | None:
        try:
            return check_topic(folder.name) if (folder / DATA).is_file() else None
        except InvalidTopic:
            return None

    def remove(self, track: Track) -> None:
        """Delete a series' files. Only under the store's lock."""
        found = self.find(track)
        self._known.pop(track, None)
        if found is None:
            return
        if track.kind == LOGS:
            self._files.remove(found)
            self._files.remove(index_path(found))
        else:
            shutil.rmtree(found.parent)


def index_path(data: Path) -> Path:
    """Where the index of a data file lives."""
    return data.with_name(".index" if data.name == DATA else f".{data.name}.index")
