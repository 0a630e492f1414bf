"""Files of entries: JSON lines, one object a line, of this recorder or of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..entry import MAX_ENTRY_BYTES
from ..errors import InvalidFile
from ..line import from_document, from_line
from .model import ABSENT, Advance, Frame, Options

LINES = 10_000


class JsonLines:
    """A file with a JSON object in each line; blank lines are passed over.

    NaN and the infinities are taken as this recorder writes them ("NaN") and bare, as others do.
    """

    format = "jsonl"
    units: Mapping[str, str] = {}
    left_out: Sequence[str] = ()

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.names = list(dict.fromkeys(name for frame in self.frames(lambda size: None) for name in frame.columns))
        if not self.names:
            raise InvalidFile(f"{path} has no objects with fields")

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The objects by their fields."""
        with open(self.path, "rb") as file:
            lines = ((number, line) for number, line in enumerate(file, 1))
            while piece := list(islice(lines, LINES)):
                advance(sum(len(line) for _, line in piece))
                piece = [(number, line) for number, line in piece if line.strip()]
                numbers = [number for number, _ in piece]
                objects = [self._object(number, line) for number, line in piece]
                if objects:
                    yield Frame(len(objects), _pivot(objects), lambda row, n=numbers: f"line {n[row]}")  # type: ignore[misc]

    def _object(self, number: int, line: bytes) -> dict[str, Any]:
        if len(line) > 2 * MAX_ENTRY_BYTES:
            raise InvalidFile(f"{self.path}: line {number} is longer than an entry may be")
        found = from_line(line) or from_document(line)
        if not isinstance(found, dict):
            raise InvalidFile(f"{self.path}: line {number} is no JSON object: {line[:40]!r}")
        return found


def _pivot(objects: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for layout in dict.fromkeys(map(tuple, objects)) for name in layout)
    return {name: [one.get(name, ABSENT) for one in objects] for name in names}
