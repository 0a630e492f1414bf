"""Foxglove SDK: `foxglove.log(topic, dict)` into an MCAP file; it is read with the `mcap` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foxglove

from benchmarks.systems.mcap_json import FILE, McapReading


class FoxgloveDict(McapReading):
    line = """
    foxglove.log(topic, {"q": q, "qd": qd, "ee_pos": ee_pos, "ee_quat": ee_quat}, log_time=int(t * 1e9))
    """

    def open(self, folder: Path, topics: Sequence[str]) -> dict[str, Any]:
        self.writer = foxglove.open_mcap(folder / FILE)
        return {"foxglove": foxglove}

    def close(self) -> None:
        self.writer.close()


SYSTEM = FoxgloveDict()
