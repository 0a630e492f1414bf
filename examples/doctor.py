"""Is this recording sound? The exit code says so too.

python examples/doctor.py [PREFIX] [--root .dash]

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse
import sys

import simulated

import ml_dash


def main(prefix: str | None, root: str) -> int:
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
    with ml_dash.open(prefix, dash_root=root) as exp:
        report = exp.doctor()
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("--root", default=".dash")
    sys.exit(main(**vars(arguments.parse_args())))
