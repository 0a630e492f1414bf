"""Pictures of a recording: everything over time, and a path in space with its orientation.

python examples/plots.py [PREFIX [TRACK...]] [--root .dash] [--folder .]
python examples/plots.py PREFIX robot/state --position ee_pos --orientation ee_quat --order wxyz

Without arguments it records a simulated arm in a temporary folder, and draws that.
"""

import argparse
from pathlib import Path

import simulated

import ml_dash


def main(
    prefix: str | None, tracks: list[str], position: str | None, orientation: str | None, order: str | None,
    root: str, folder: str,
) -> None:  # fmt: skip
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
        tracks, position, orientation, order = ["robot/state"], "ee_pos", "ee_quat", "wxyz"
    with ml_dash.open(prefix, dash_root=root) as exp:
        exp.plot(*tracks, path=Path(folder) / "time.png")
        if position:
            path = Path(folder) / "path.png"
            exp.tracks(tracks[0]).plot_path(position, orientation, order=order, path=path)
    print("wrote", ", ".join(sorted(str(picture) for picture in Path(folder).glob("*.png"))))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("tracks", nargs="*", help="topics, or topic.column; default: every topic")
    arguments.add_argument("--position", help="a column of 3 numbers of the first topic")
    arguments.add_argument("--orientation", help="a column of quaternions")
    arguments.add_argument("--order", choices=("wxyz", "xyzw"))
    arguments.add_argument("--root", default=".dash")
    arguments.add_argument("--folder", default=".")
    main(**vars(arguments.parse_args()))
