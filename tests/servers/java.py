"""mongo-java-server 1.47.0: a second stand-in for MongoDB, in memory and faster, for benchmarks only.

It needs a JDK and Maven on the PATH, which fetches it from Maven Central. Nothing that has to hold is tested on it: it
takes what a MongoDB would refuse, and forgets everything when it ends.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .build import CACHE, HERE, BuildFailed, _fingerprint, _locked, run
from .running import MongoServer


def classes() -> str:
    """The class path, built first where the cache has none of the present sources.

    Raises:
        BuildFailed: no JDK or no Maven, or the build failed.
    """
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise BuildFailed(f"mongo-java-server needs {' and '.join(missing)} on the PATH")
    source = HERE / "javamongo"
    target = CACHE / f"javamongo-{_fingerprint(source)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / ".javamongo.lock"):
        if not target.exists():
            _build(source, target)
    return f"{target}/classes:{target}/jars/*"


def _build(source: Path, target: Path) -> None:
    print("building mongo-java-server (once, some seconds) ...", file=sys.stderr, flush=True)
    work = target.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    run(["mvn", "-q", "-B", "compile", "dependency:copy-dependencies", "-DoutputDirectory=target/jars"], cwd=work)
    (work / "target").rename(target)
    shutil.rmtree(work)


class JavaMongo(MongoServer):
    """mongo-java-server in a process of its own; what it holds is gone when it ends."""

    name = "mongo-java-server"
    title = "mongo-java-server 1.47.0 (in memory), a stand-in for MongoDB"

    def command(self) -> list[str]:
        return ["java", "-Xmx4g", "-cp", classes(), "Main", str(self.port)]
