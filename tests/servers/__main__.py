"""`python -m tests.servers build|start`."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from .build import PACKAGES, BuildFailed, binary
from .running import MongoServer, NotReady, S3Server


def main(arguments: list[str]) -> int:
    """Build or run the servers; 1 where something failed, 2 for a wrong call."""
    if arguments not in (["build"], ["start"]):
        print("usage: python -m tests.servers build|start", file=sys.stderr)
        return 2
    try:
        for name in PACKAGES:
            # To stderr when starting: what is on stdout then is for `eval`.
            print(f"{name}: {binary(name)}", flush=True, file=sys.stderr if arguments == ["start"] else sys.stdout)
        if arguments == ["start"]:
            _serve()
    except (BuildFailed, NotReady) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve() -> None:
    """Run both until SIGINT or SIGTERM, their data in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ml-dash-servers-") as folder:
        mongo, s3 = MongoServer(Path(folder) / "mongo"), S3Server(Path(folder) / "s3")
        try:
            mongo.start()
            s3.start()
            print(f"export ML_DASH_TEST_MONGO_URI={mongo.uri}")
            print(f"export ML_DASH_TEST_S3_URL={s3.url}")
            for name, value in s3.env.items():
                print(f"export {name}={value}")
            print("# running until Ctrl-C", flush=True)
            # Blocked only now: a child inherits the mask, and a server that cannot see SIGTERM cannot stop.
            waiting = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
            signal.sigwait(waiting)
        finally:
            mongo.stop()
            s3.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
