"""A question in SQL, in which each topic is a table.

python examples/sql.py PREFIX 'select count(*) from "robot/state"' [--root .dash]
"""

import argparse

import ml_dash


def main(prefix: str, query: str, root: str) -> None:
    with ml_dash.open(prefix, dash_root=root) as exp:
        print(exp.sql(query).to_pandas().to_string(index=False))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("prefix")
    arguments.add_argument("query")
    arguments.add_argument("--root", default=".dash")
    main(**vars(arguments.parse_args()))
