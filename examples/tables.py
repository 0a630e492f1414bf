"""A recording as tables: Arrow, pandas, Polars, NumPy, and a page to look at.

python examples/tables.py [PREFIX TOPIC COLUMN] [--root .dash] [--page track.html]

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse
from pathlib import Path

import polars as pl
import simulated

import ml_dash


def main(prefix: str | None, topic: str, column: str, root: str, page: str | None) -> None:
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
    with ml_dash.open(prefix, dash_root=root) as exp:
        track = exp.tracks(topic)
        print(track.to_arrow().schema.to_string(show_field_metadata=False))

        first = track.to_arrow().column("timestamp")[0].as_py()
        print(track.to_arrow([column], first, first + 1.0).num_rows, "entries in the first second")

        values = track.to_numpy(column)  # (n,) or (n, d), NaN where an entry lacks it
        print(column, values.dtype, values.shape, "mean", values.mean(axis=0).round(4))

        print(track.to_pandas([column], flat=True).describe().loc[["min", "max"]])
        print(pl.DataFrame(track).height, "rows in Polars, without a copy")
        if page is not None:
            Path(page).write_text(track._repr_html_() or "", encoding="utf-8")  # what a notebook shows


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("topic", nargs="?", default="robot/state")
    arguments.add_argument("column", nargs="?", default="q")
    arguments.add_argument("--root", default=".dash")
    arguments.add_argument("--page")
    main(**vars(arguments.parse_args()))
