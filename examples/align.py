"""Everything on one 50 Hz clock, ready for training.

python examples/align.py [PREFIX [TRACK...]] [--rate 50] [--root .dash] [--output aligned.parquet]

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse
from pathlib import Path

import simulated

import ml_dash
from ml_dash.analysis.align import rules_of
from ml_dash.formats.parquet import write_parquet


def main(prefix: str | None, tracks: list[str], rate: float, root: str, output: str | None) -> None:
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
    with ml_dash.open(prefix, dash_root=root) as exp:
        table = exp.align(*tracks, rate_hz=rate, tolerance_s=0.5)

    for column, rule in rules_of(table)["rules"].items():  # nothing is interpolated silently
        print(f"{column:30} {rule['rule']:12} {rule['why']}")
    print(f"{table.num_rows} instants of {table.num_columns} columns")
    print(table.to_pandas().head())
    if output:
        Path(output).write_bytes(write_parquet(table))
        print("wrote", output)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("tracks", nargs="*", help="topics, or topic.column; default: every topic")
    arguments.add_argument("--rate", type=float, default=50)
    arguments.add_argument("--root", default=".dash")
    arguments.add_argument("--output")
    main(**vars(arguments.parse_args()))
