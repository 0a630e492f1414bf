"""What happened between two times, and what was known at one.

python examples/slices.py PREFIX TOPIC START END [--root .dash]
"""

import argparse

import ml_dash


def main(prefix: str, topic: str, start: float, end: float, root: str) -> None:
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
    arguments.add_argument("prefix")
    arguments.add_argument("topic")
    arguments.add_argument("start", type=float)
    arguments.add_argument("end", type=float)
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
