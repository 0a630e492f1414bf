"""Warned while recording: a sensor that comes at half its declared rate, and a field that changes its type.

python examples/watch.py [--root .dash] [--prefix alice/bench/watched]
"""

import argparse
import logging
import math

from ml_dash import Experiment


def main(prefix: str, root: str) -> None:
    logging.basicConfig(format="%(name)s: %(message)s")
    with Experiment(prefix, dash_root=root, watch={"sensors/force": 200}).run as exp:
        for number in range(600):
            t = number / 100  # 100 Hz, and 200 were declared
            exp.tracks("sensors/force").append(f=[0.0, 0.0, math.sin(t)], _ts=t)
            exp.tracks("robot/state").append(mode=3 if number < 400 else "three", _ts=t)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--root", default=".dash")
    arguments.add_argument("--prefix", default="alice/bench/watched")
    main(**vars(arguments.parse_args()))
