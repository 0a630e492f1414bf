"""Where did it happen, in every run, and what did everything else do then?

python examples/find.py "demo/*" "`sensors/force`.fz > 12" [--for 0.05] [--root .dash]
"""

import argparse

import ml_dash


def main(pattern: str, expression: str, for_s: float, root: str) -> None:
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
    arguments.add_argument("pattern")
    arguments.add_argument("expression")
    arguments.add_argument("--for", dest="for_s", type=float, default=0.0, help="seconds a window lasts at least")
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
