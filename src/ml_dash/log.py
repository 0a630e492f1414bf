"""`experiment.log("text")`: lines of text with a level, kept with the run and passed to `logging`."""

from __future__ import annotations

import logging
from typing import Any

from .entry import taken
from .errors import InvalidEntry
from .metrics import part
from .session import RunPart
from .store import Entry, Track

TRACK = Track("logs", "logs")
LEVELS = ("debug", "info", "warning", "error", "critical")

_log = logging.getLogger("ml_dash.run")


class Log(RunPart):
    """The log of one experiment: `experiment.log("grasped", level="info", force=12.5)`."""

    def __call__(self, message: str, /, level: str = "info", **fields: Any) -> Log:
        """Log a line into `logs/logs.jsonl` and to the standard logger `ml_dash.run`.

        Args:
            message: the text.
            level: "debug", "info", "warning", "error" or "critical", or a number of the `logging` module: the level at
                or below it.
            **fields: anything `TrackBuilder.append` takes, kept beside the text; `message` and `timestamp` are taken.

        Raises:
            InvalidEntry: (a ValueError) an unknown level, or a field that cannot be recorded.
            NotOpen: outside an open run.
        """
        name = _level_name(level)
        if "message" in fields:
            raise taken(TRACK.topic, "message")
        self.session().put(TRACK, {"level": name, "message": str(message), **fields})
        _log.log(logging.getLevelName(name.upper()), "%s", message, extra={"fields": fields})
        return self

    def read(self, start_index: int = 0, limit: int | None = None) -> list[Entry]:
        """The lines as `{"index", "timestamp", "level", "message", ...}`, in the order of logging.

        Args:
            start_index: index of the first line, at least 0.
            limit: how many at most; None for all.

        Raises:
            InvalidWindow: (a ValueError) a start or limit that is no integer of at least 0.
        """
        return [entry for block in self.session().read(TRACK, part(start_index, limit)) for entry in block]


def _level_name(level: Any) -> str:
    if isinstance(level, int) and not isinstance(level, bool):
        return LEVELS[min(max(level // 10 - 1, 0), len(LEVELS) - 1)]  # 10 is debug, 20 info, ...: names may be changed
    name = level.lower() if isinstance(level, str) else ""
    name = {"warn": "warning", "fatal": "critical"}.get(name, name)
    if name not in LEVELS:
        raise InvalidEntry(f"unknown level {level!r}; known are {', '.join(LEVELS)}")
    return name
