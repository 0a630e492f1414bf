"""Bring old recordings in: a trajectory, a table of a motor, and the columns of both as NumPy.

    python examples/import_csv.py

Writes two small files and imports them into `.dash/alice/import/example`.
"""

from __future__ import annotations

import math
from pathlib import Path

from ml_dash import Experiment
from ml_dash.importing import Options, import_file


def write_files() -> None:
    """What a mocap system and a motor controller might have left."""
    poses = (f"{1_700_000_000 + i / 100:.4f} {math.cos(i / 50)} {math.sin(i / 50)} 1.0 0 0 0 1" for i in range(300))
    Path("trajectory.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(poses) + "\n")
    rows = (f"{i},{math.sin(i / 100)},{math.cos(i / 100)},{i % 2}" for i in range(3000))
    Path("motor.csv").write_text("time_ms,current_0,current_1,fault\n" + "\n".join(rows) + "\n")


def main() -> None:
    """Import both, then read a column of each."""
    write_files()
    experiment = Experiment("alice/import/example")
    with experiment.run as exp:
        for file, options in (
            ("trajectory.txt", Options(topic="camera/pose")),
            ("motor.csv", Options(topic="motor", auto_group=True)),
        ):
            report = import_file(exp, file, options)
            for topic in report.topics:
                print(f"{file}: {topic.rows} rows of {topic.topic}, {topic.fields}, time in {report.time_unit}")
        positions = exp.tracks("camera/pose").to_numpy("p")
        current = exp.tracks("motor").to_numpy("current")
        print("path length", round(float(abs(positions[1:] - positions[:-1]).sum()), 3), "m; current", current.shape)


if __name__ == "__main__":
    main()
