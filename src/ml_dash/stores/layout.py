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

from ..address import folder_for, identity
from ..files import Files
from ..store import Track

DATA = "data.jsonl"
TOPIC = ".topic"
LOGS = "logs"


class Layout:
    """Finds and creates the folders of series. What one instance found it remembers; folders never change owner."""

    def __init__(self, root: Path, files: Files) -> None:
        self.root, self._files = root, files
        self._known: dict[Track, Path] = {}

    def find(self, track: Track) -> Path | None:
        """The data file of a series, or None where nobody recorded it."""
        if track.kind == LOGS:
            return self.root / LOGS / f"{track.topic}.jsonl"
        known = self._known.get(track)
        if known is None:
            known = self.topics(track.kind).get(track.topic)
        return known

    def claim(self, track: Track) -> Path:
        """The data file of a series, its folder created. Only under the store's lock."""
        found = self.find(track)
        if found is not None:
            if track.kind == LOGS:
                self._files.make_folder(found.parent)
            return found
        topics = self.topics(track.kind)
        owners = {identity(path.parent.name): topic for topic, path in topics.items()}
        folder = self.root / track.kind / folder_for(track.topic, owners.get)
        self._files.make_folder(folder)
        document = json.dumps({"topic": track.topic, "kind": track.kind}).encode() + b"\n"
        self._files.write_atomically(folder / TOPIC, document)
        self._known[track] = folder / DATA
        return folder / DATA

    def topics(self, kind: str) -> dict[str, Path]:
        """Every series of a kind with its data file."""
        if kind == LOGS:
            path = self.root / LOGS / "logs.jsonl"
            return {"logs": path} if path.exists() else {}
        try:
            folders = sorted(os.scandir(self.root / kind), key=lambda one: one.name)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, Path] = {}
        for folder in folders:
            if folder.is_dir():
                topic = self._topic_of(Path(folder.path))
                if topic is not None:
                    found.setdefault(topic, Path(folder.path) / DATA)
        self._known.update({Track(kind, topic): path for topic, path in found.items()})
        return found

    def _topic_of(self, folder: Path) -> str | None:
        """The topic stored beside the data; a folder that was put there by hand is its own topic."""
        try:
            topic = json.loads(self._files.read(folder / TOPIC))["topic"]
            if isinstance(topic, str):
                return topic
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return folder.name if (folder / DATA).exists() else None

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
            shutil.rmtree(found.parent, ignore_errors=True)


def index_path(data: Path) -> Path:
    """Where the index of a data file lives."""
    return data.with_name(".index" if data.name == DATA else f".{data.name}.index")
