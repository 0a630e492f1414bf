"""Names that nobody recorded under: a clear error with the nearest ones, and no error for what may still come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ml_dash import Experiment, ExperimentNotFound, TrackNotFound
from ml_dash import open as open_run
from ml_dash.stores.local import LocalStore

PREFIX = "alice/robotics/pick"


@pytest.fixture
def finished(new_experiment: Callable[..., Experiment]) -> Experiment:
    """A run that is over, with two tracks and a metric."""
    experiment = new_experiment()
    with experiment.run:
        experiment.tracks("robot/state").extend(_ts=[1.0, 2.0], q=[[1.0], [2.0]])
        experiment.tracks("camera").append(frame=1, _ts=1.0)
        experiment.metrics("train").log(loss=0.1)
    return experiment


READS: dict[str, Callable[[Any], Any]] = {
    "read": lambda track: track.read(),
    "window": lambda track: track.read(0.5, 1.5, columns=["q"]),
    "jsonl": lambda track: track.read(format="jsonl"),
    "csv": lambda track: track.read(format="csv"),
    "parquet": lambda track: track.read(format="parquet"),
    "mocap": lambda track: track.read(format="mocap"),
    "list_entries": lambda track: track.list_entries(),
    "len": len,
    "blocks": lambda track: list(track.blocks()),
    "count": lambda track: track.count(),
    "numpy": lambda track: track.numpy("q"),
    "to_arrow": lambda track: track.to_arrow(),
    "slice": lambda track: list(track.slice(0.5, 1.5)),
    "at": lambda track: track.slice().at(1.5),
    "length of a slice": lambda track: len(track.slice()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_mistyped_topic_of_a_run_that_is_over(finished: Experiment, read: Callable[[Any], Any]) -> None:
    """However it is read, the error names the nearest topic."""
    with (
        open_run(PREFIX, dash_root=finished.root) as run,
        pytest.raises(TrackNotFound, match=r"no topic 'robot/stat'; did you mean 'robot/state'\?"),
    ):
        read(run.tracks("robot/stat"))


def test_a_notebook_shows_what_is_wrong(finished: Experiment) -> None:
    """A mistyped topic at the end of a cell is text, not a traceback."""
    with open_run(PREFIX, dash_root=finished.root) as run:
        assert "did you mean &#x27;robot/state&#x27;?" in str(run.tracks("robot/stat")._repr_html_())


def test_an_empty_window_of_a_topic_is_empty(finished: Experiment) -> None:
    """A topic that exists stays an empty answer where the window has none of it."""
    with open_run(PREFIX, dash_root=finished.root) as run:
        track = run.tracks("robot/state")
        assert track.read(5.0, 6.0) == {"entries": [], "count": 0}
        assert track.read(columns=["nothing"])["entries"] == []
        assert track.to_arrow(start=5.0).num_rows == 0
        assert list(run.tracks("camera").slice(5.0)) == []
        assert len(track) == 2


def test_a_topic_of_which_everything_was_deleted_is_empty(finished: Experiment) -> None:
    """A track without entries is there as long as its file is."""
    path = finished.folder / "tracks" / "robot_state" / "data.jsonl"
    path.write_bytes(b"")
    with open_run(PREFIX, dash_root=finished.root) as run:
        assert run.tracks("robot/state").list_entries() == []
        assert np.size(run.tracks("robot/state").to_arrow()["timestamp"]) == 0


def test_metrics_likewise(finished: Experiment) -> None:
    """A name nobody logged under is an error; a part beyond the end of one that is there is empty."""
    with open_run(PREFIX, dash_root=finished.root) as run:
        for read in (lambda: run.metrics("trian").read(), lambda: len(run.metrics("trian"))):
            with pytest.raises(TrackNotFound, match="no metrics 'trian'; did you mean 'train'"):
                read()
        assert run.metrics("train").read(start_index=5)["entries"] == []
        assert run.log.read() == []


def test_what_is_being_recorded_may_still_come(experiment: Experiment) -> None:
    """Who records, and who follows a live run, reads an empty topic until its first entry, and then sees it."""
    assert experiment.tracks("robot/state").list_entries() == []
    assert experiment.metrics("train").read()["entries"] == []
    with open_run(PREFIX, dash_root=experiment.root) as follower:
        track = follower.tracks("robot/state")
        assert track.list_entries() == []
        assert len(track) == 0
        assert follower.metrics("train").read()["entries"] == []
        experiment.tracks("robot/state").append(q=1, _ts=1.0)
        assert track.list_entries() == [{"timestamp": 1.0, "q": 1}]
        experiment.run.complete()
        with pytest.raises(TrackNotFound):
            follower.tracks("robot/stat").list_entries()


def test_a_crashed_run_is_over(finished: Experiment) -> None:
    """A document that still says running, of a process that is gone, keeps no mistyped topic from being an error."""
    path = finished.folder / "experiment.json"
    document = json.loads(path.read_bytes())
    document["status"] = document["processes"][0]["status"] = "running"
    path.write_text(json.dumps(document))
    with open_run(PREFIX, dash_root=finished.root) as run, pytest.raises(TrackNotFound):
        run.tracks("robot/stat").read()


def test_names_are_listed_only_where_nothing_was_found(finished: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of topics, reading those that exist lists none; empty windows list them once for each builder."""
    listed: list[str] = []
    topics = LocalStore.topics

    def counting(store: LocalStore, kind: str = "tracks") -> list[str]:
        listed.append(kind)
        return topics(store, kind)

    monkeypatch.setattr(LocalStore, "topics", counting)
    with open_run(PREFIX, dash_root=finished.root) as run:
        track = run.tracks("robot/state")
        assert track.read(5.0, 6.0)["count"] == 0
        assert track.read(5.0, 6.0)["count"] == 0
        assert len(listed) == 1
        assert run.tracks("camera").read()["count"] == 1
        assert run.tracks("camera").read(5.0)["count"] == 0
        assert len(listed) == 1


def test_unknown_prefixes_name_the_nearest(finished: Experiment) -> None:
    """`ml_dash.open` says where it looked, and what the name may have been."""
    expected = rf"no experiment 'alice/robotics/pck' in {re.escape(str(finished.root))}; did you mean '{PREFIX}'\?"
    with pytest.raises(ExperimentNotFound, match=expected):
        open_run("alice/robotics/pck", dash_root=finished.root)
    with pytest.raises(ExperimentNotFound, match="there is none"):
        open_run(PREFIX, dash_root=finished.root / "elsewhere")
    assert not (finished.root / "elsewhere").exists()
