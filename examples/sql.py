"""A question in SQL, in which each topic is a table.

python examples/sql.py [PREFIX QUERY] [--root .dash]
python examples/sql.py demo/arm/one 'select count(*) from "robot/state"'

Without arguments it records a simulated arm in a temporary folder, and takes that.
"""

import argparse

import simulated

import ml_dash

QUERY = """
select floor(s.timestamp) as second, count(*) as entries, round(max(f.f[3]), 1) as greatest_force
from "robot/state" s asof join "sensors/force" f using (timestamp)
group by second order by second
"""


def main(prefix: str | None, query: str, root: str) -> None:
    if prefix is None:
        prefix, root = simulated.PREFIX, simulated.record()
    with ml_dash.open(prefix, dash_root=root) as exp:
        print(exp.sql(query).to_pandas().to_string(index=False))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix", nargs="?")
    arguments.add_argument("query", nargs="?", default=QUERY)
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
