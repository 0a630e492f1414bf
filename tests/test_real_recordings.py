"""Real recordings of others through the public API: poses, a motor, sparse robots, a body, a ROS 2 log.

The files lie beside the checkout (`../shared/data`) and are no part of the project; without them these tests skip, and
the report's end says so.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_dash import Experiment, from_nanoseconds
from ml_dash import open as open_run
from real_recordings import recording


@pytest.fixture
def stored(experiment: Experiment) -> Iterator[Any]:
    """A function that ends the run and opens it again to be read."""
    opened: list[Experiment] = []

    def close_and_open() -> Experiment:
        experiment.run.complete()
        opened.append(open_run(experiment.prefix, dash_root=experiment.root))
        return opened[-1]

    yield close_and_open
    for one in opened:
        one.close()


def table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return head, rows


def test_camera_poses_of_tum(experiment: Experiment, stored: Any) -> None:
    """3,000 poses at 100 Hz, one append each: every number comes back, and the rate is measured."""
    lines = [line.split() for line in recording("freiburg1_xyz-groundtruth.txt").read_text().splitlines()]
    poses = [[float(word) for word in line] for line in lines if line[0] != "#"]
    assert len(poses) == 3000
    for stamp, *numbers in poses:
        experiment.tracks("camera/pose").append(p=numbers[:3], q=numbers[3:], _ts=stamp)
    track = stored().tracks("camera/pose")
    expected = [{"timestamp": stamp, "p": numbers[:3], "q": numbers[3:]} for stamp, *numbers in poses]
    assert track.list_entries() == expected
    start, end = poses[1000][0], poses[1099][0]
    assert track.read(start, end)["entries"] == expected[1000:1100]
    metadata = track.read(format="mocap")["metadata"]
    assert metadata["frameCount"] == 3000
    assert metadata["fps"] == pytest.approx(100, rel=0.02)


def test_a_drone_of_euroc(experiment: Experiment, stored: Any) -> None:
    """16,702 states at 200 Hz with nanosecond stamps, as whole arrays: stamps are the nearest seconds, none join."""
    _, rows = table(recording("euroc_V1_02_groundtruth.csv"))
    stamps = np.array([int(row[0]) for row in rows])
    numbers = np.array([[float(word) for word in row[1:]] for row in rows])
    assert numbers.shape == (16_702, 16)
    fields = {
        "p": numbers[:, 0:3],
        "q": numbers[:, 3:7],
        "v": numbers[:, 7:10],
        "bw": numbers[:, 10:13],
        "ba": numbers[:, 13:],
    }
    with pytest.raises(ValueError, match="from_nanoseconds"):
        experiment.tracks("drone/state").extend(_ts=stamps, **fields)
    experiment.tracks("drone/state").extend(_ts=from_nanoseconds(stamps), **fields)
    opened = stored()
    entries = opened.tracks("drone/state").list_entries()
    assert [entry["timestamp"] for entry in entries] == [float(Decimal(row[0]) / 10**9) for row in rows]
    assert np.array([entry["v"] for entry in entries]).tolist() == fields["v"].tolist()
    (info,) = opened.tracks.list()
    assert (info.count, info.columns["q"]) == (16_702, "list[float; 4]")
    window = opened.tracks("drone/state").read(entries[5000]["timestamp"], entries[5166]["timestamp"], columns=["p"])
    assert window["entries"] == [{"timestamp": e["timestamp"], "p": e["p"]} for e in entries[5000:5167]]


def test_a_drone_in_parquet(experiment: Experiment) -> None:
    """The same recording as a Parquet file, opened by pandas."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    _, rows = table(recording("euroc_V1_02_groundtruth.csv"))
    numbers = np.array([[float(word) for word in row[1:]] for row in rows])
    experiment.tracks("drone").extend(
        _ts=from_nanoseconds([int(row[0]) for row in rows]), p=numbers[:, :3], vx=numbers[:, 7]
    )
    frame = pandas.read_parquet(io.BytesIO(experiment.tracks("drone").read(format="parquet")))
    assert frame["vx"].tolist() == numbers[:, 7].tolist()
    assert np.stack(frame["p"].tolist()).tolist() == numbers[:, :3].tolist()


def test_a_motor_at_1_khz(experiment: Experiment, stored: Any) -> None:
    """Ten scalars a millisecond: each column equals the file's."""
    head, rows = table(recording("motor_1khz.csv"))
    for row in rows:
        values = dict(zip(head, map(float, row), strict=True))
        experiment.tracks("motor").append(_ts=values.pop("t"), **values)
    entries = stored().tracks("motor").list_entries()
    assert [entry["timestamp"] for entry in entries] == sorted({float(row[0]) for row in rows})
    last = {float(row[0]): row for row in rows}
    for place, name in enumerate(head[1:], start=1):
        assert [entry[name] for entry in entries] == [float(last[entry["timestamp"]][place]) for entry in entries]


def test_two_turtles_with_gaps(experiment: Experiment, stored: Any) -> None:
    """Sparse rows, appended cell by cell: entries have the fields their row has, and no others."""
    head, rows = table(recording("turtle_sparse.csv"))
    expected: dict[float, dict[str, float]] = {}
    for row in rows:
        for name, cell in zip(head[1:], row[1:], strict=True):
            if cell:
                experiment.tracks("turtles").append(_ts=float(row[0]), **{name: float(cell)})
                expected.setdefault(float(row[0]), {})[name] = float(cell)
    opened = stored()
    found = {entry.pop("timestamp"): entry for entry in opened.tracks("turtles").list_entries()}
    assert found == expected
    assert {len(fields) for fields in expected.values()} == {6}, "each row is of one of the two turtles"
    for name in head[1:]:
        count = sum(name in fields for fields in expected.values())
        assert opened.tracks("turtles").read(columns=[name])["count"] == count


def test_a_walk_in_bvh(experiment: Experiment, stored: Any) -> None:
    """Motion capture, a channel list for each joint: frames, rate and every number in the mocap format."""
    lines = recording("walk01.bvh").read_text().splitlines()
    joints: list[tuple[str, list[str]]] = []
    for words in map(str.split, lines):
        if words[:1] in (["ROOT"], ["JOINT"]):
            joints.append((words[1], []))
        elif words[:1] == ["CHANNELS"]:
            joints[-1] = (joints[-1][0], words[2:])
    motion = lines.index("MOTION")
    frame_time = float(lines[motion + 2].split(":")[1])
    frames = [[float(word) for word in line.split()] for line in lines[motion + 3 :] if line.strip()]
    assert len(frames) == int(lines[motion + 1].split(":")[1])
    for number, values in enumerate(frames):
        feed = iter(values)
        pose = {joint: {channel: next(feed) for channel in channels} for joint, channels in joints}
        experiment.tracks("body/walk").append(_ts=number * frame_time, **pose)
    mocap = stored().tracks("body/walk").read(format="mocap")
    assert mocap["metadata"]["frameCount"] == len(frames)
    assert mocap["metadata"]["fps"] == pytest.approx(1 / frame_time)
    assert mocap["channels"] == [joint for joint, _ in joints]
    found = [[frame[j][channel] for j, channels in joints for channel in channels] for frame in mocap["frames"]]
    assert found == frames


def test_a_ros_2_log(experiment: Experiment, stored: Any) -> None:
    """Every message of every topic of an MCAP file, bytes and all, by its nanosecond log time."""
    reader = pytest.importorskip("mcap.reader", reason="the package mcap is not installed")
    messages: dict[str, dict[float, str]] = {}
    with recording("nav2_turtlebot.mcap").open("rb") as file:
        for schema, channel, message in reader.make_reader(file).iter_messages():
            topic, stamp = channel.topic.strip("/"), from_nanoseconds(message.log_time)
            experiment.tracks(topic).append(
                type=schema.name, data=message.data, published=from_nanoseconds(message.publish_time), _ts=stamp
            )
            messages.setdefault(topic, {})[stamp] = base64.b64encode(message.data).decode()
    assert len(messages) > 3
    opened = stored()
    assert {info.topic: info.count for info in opened.tracks.list()} == {
        topic: len(of) for topic, of in messages.items()
    }
    for topic, expected in messages.items():
        assert {entry["timestamp"]: entry["data"] for entry in opened.tracks(topic).list_entries()} == expected
