"""The processes of a run: databases, bucket, servers; and what each of them uses."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.build import BuildFailed
from tests.servers.java import JavaMongo
from tests.servers.running import MongoServer, NotReady, OtherMongo, S3Server, free_port

from benchmarks.envs import CHECKOUT

START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Dash:
    """`ml-dash serve` in a process of its own, on one port across restarts."""

    def __init__(self, folder: Path, *, mongo_uri: str = "", database: str = "", s3: S3Server | None = None) -> None:
        self.folder, self._s3, self.port = folder, s3, free_port()
        self.mongo_uri, self.database = mongo_uri, database or f"bench_{secrets.token_hex(4)}"
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Dash:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["serve", "-r", str(self.folder / "root"), "--port", str(self.port), "--insecure-local"]
        words += ["--mongo-uri", self.mongo_uri, "--database", self.database] if self.mongo_uri else []
        words += ["--s3-url", self._s3.url] if self._s3 else []
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ml_dash.cli", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=child_environment() | (self._s3.env if self._s3 else {}), start_new_session=True,
            )  # fmt: skip
        wait_for(self._answers, START_S, f"the server of {self.folder}")
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End it as an operator would."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Dash:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Databases:
    """The MongoDB-wire servers of a run by a short name, and why others are not among them."""

    def __init__(self, folder: Path, given_uri: str | None) -> None:
        self.running: dict[str, MongoServer | OtherMongo] = {}
        self.absent: dict[str, str] = {}
        if given_uri:
            self.running["given"] = OtherMongo(given_uri)
        for name, kind in (("ferretdb", MongoServer), ("memory", JavaMongo)):
            server = kind(folder / name)
            try:
                server.start()
            except (BuildFailed, NotReady) as reason:
                self.absent[name] = str(reason).strip().splitlines()[0]
                print(f"without {kind.title}: {self.absent[name]}", file=sys.stderr, flush=True)
            else:
                self.running[name] = server

    def pid(self, name: str) -> int | None:
        """Of the database's process, None where it runs elsewhere."""
        process = getattr(self.running[name], "_process", None)
        return process.pid if process is not None else None

    def stop(self) -> None:
        """End those that were started here."""
        for server in self.running.values():
            if isinstance(server, MongoServer):
                server.stop()


@contextlib.contextmanager
def timing(pids: dict[str, int | None]) -> Any:
    """CPU seconds that processes use inside the block, by name; filled in when it ends."""
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    used: dict[str, float] = {}
    yield used
    used |= {name: cpu_s(pid) - before[name] for name, pid in pids.items()}


def cpu_s(pid: int | None) -> float:
    """CPU seconds of a process so far; 0 where that cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Resident MB of a process; NaN where that cannot be known."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return float("nan")


def child_environment() -> dict[str, str]:
    """The variables of every process: this checkout's modules."""
    paths = [str(CHECKOUT / "src"), str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Poll until it holds; TimeoutError naming what did not come."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {limit_s:.0f} s")
        time.sleep(0.01)
