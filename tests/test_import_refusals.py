"""A file with one row that cannot be recorded leaves nothing behind, wherever that row stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_dash import Experiment
from ml_dash.errors import InvalidFile
from ml_dash.importing import import_file

SOUND = 12_000
"""More rows than are read at a time: what stands before the bad row would be stored by then."""


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"timestamp": 7.5, "v": 99999999999999999999999}', "timestamp 7.5"),
        ('{"timestamp": 7.5, "v": "\\ud800"}', "surrogate"),
        ('{"timestamp": 7.5, "_ts": 3}', "'_ts'"),
        ('{"timestamp": 7.5, "v": ', f"line {SOUND + 1}"),
        ('{"timestamp": true, "v": 1}', f"line {SOUND + 1} has the timestamp True"),
        ('{"timestamp": 1' + "0" * 400 + ', "v": 1}', f"line {SOUND + 1} has the timestamp"),
    ],
)
def test_nothing_is_stored_of_a_file_with_a_row_that_cannot_be_recorded(tmp_path: Path, row: str, says: str) -> None:
    """The last of many rows is refused: the error says where, and no row of the file is in the experiment."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"timestamp": i / 10, "v": i}) + "\n" for i in range(SOUND)) + row + "\n")
    with Experiment("a/b/refused", dash_root=tmp_path / "dash").run as exp:
        with pytest.raises(InvalidFile, match=says):
            import_file(exp, path)
        exp.tracks.flush()
        assert exp.tracks.topics() == []
