"""Misspelled names: the nearest ones are offered, or those there are."""

from __future__ import annotations

import pytest

from ml_dash.names import nearest, offer

KNOWN = ["robot/state", "robot/gripper", "q", "pose", "Loss"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("robot/stat", "robot/state"),
        ("arm/gripper", "robot/gripper"),
        ("q[0]", "q"),
        ("pose.z", "pose"),
        ("loss", "Loss"),
        ("LOSS", "Loss"),
        ("psoe", "pose"),
    ],
)
def test_the_nearest_comes_first(name: str, meant: str) -> None:
    """Spelled alike, in the last part, without its case, or the whole of which a part was asked."""
    assert nearest(name, KNOWN)[0] == meant
    assert offer(name, KNOWN).startswith(f"did you mean {meant!r}")


def test_where_nothing_is_alike_the_known_are_listed() -> None:
    """Eight of them at most; and it is said where there are none."""
    assert offer("zzz", ["a", "b"]) == "known: 'a', 'b'"
    assert offer("zzz", [str(n) for n in range(9)]).endswith("'7', ...")
    assert offer("zzz", []) == "there is none"
