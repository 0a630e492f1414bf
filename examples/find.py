"""Where did it happen, in every run, and what did everything else do then?

python examples/find.py [PREFIX EXPRESSION] [--for 0.05] [--root .dash]
python examples/find.py "demo/*" "`sensors/force`.f[2] > 12"

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse

import simulated

import ml_dash

EXPRESSION = "norm(`sensors/force`.f) > 12"


def main(pattern: str | None, expression: str, for_s: float, root: str) -> None:
    if pattern is None:
        pattern, root = "demo/*", simulated.record()
    moments = ml_dash.find(root, pattern, expression, for_s=for_s)
    for prefix, why in moments.skipped.items():
        print("skipped", prefix, why)
    print(moments.to_pandas())

    for moment in moments[:2]:  # a window cuts every track
        print(f"{moment.prefix} from {moment.start} to {moment.end} s")
        for topic, window in moment.cut(before_s=0.1, after_s=0.1).items():
            print(f"  {topic:20} {len(window)} entries")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pattern", nargs="?")
    arguments.add_argument("expression", nargs="?", default=EXPRESSION)
    arguments.add_argument("--for", dest="for_s", type=float, default=0.0, help="seconds a window lasts at least")
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
