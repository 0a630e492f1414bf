"""What happened between two times, and what was known at one.

python examples/slices.py [PREFIX TOPIC START END] [--root .dash]

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse

import simulated

import ml_dash


def main(prefix: str | None, topic: str, start: float, end: float, root: str) -> None:
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
    with ml_dash.open(prefix, dash_root=root) as exp:
        window = exp.tracks(topic).slice(start, end)
        print(f"{len(window)} entries of {topic} between {start} and {end} s")
        for number, entry in enumerate(window):  # constant memory, however long the window is
            if number < 3:
                print(entry)

        middle = (start + end) / 2
        print("last before the middle:", window.at(middle))
        print("closest to it:         ", window.nearest(middle, tolerance_s=0.1))

        times = [start + (end - start) * step / 4 for step in range(5)]
        print(window.at(times).to_pandas())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("topic", nargs="?", default="robot/state")
    arguments.add_argument("start", nargs="?", type=float, default=4.0)
    arguments.add_argument("end", nargs="?", type=float, default=6.0)
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
