"""Start, stop, kill and restart the test servers."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .build import binary

READY_TIMEOUT_S = 60.0


class NotReady(RuntimeError):
    """A server did not come up; the message holds what it wrote."""


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _dies_with_us() -> list[str]:
    """What keeps a server from outliving a test run that is killed, where the system has it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


class _Program:
    """One server process on a loopback port, keeping its data in a folder across restarts."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start and wait until requests are answered."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_dies_with_us(), *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment()}, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NotReady(f"{self.name} did not start on {self.address}:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    def log(self) -> str:
        """Everything the server wrote."""
        return (self.folder / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL: what a power cut of the process looks like."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill, then start again on the same port and data."""
        self.kill()
        self.start()

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class MongoServer(_Program):
    """FerretDB 1.24 on SQLite: MongoDB's wire protocol; it scans where MongoDB would use an index."""

    name = "ferretdb"
    title = "FerretDB 1.24.2 (SQLite), a stand-in for MongoDB"

    @property
    def uri(self) -> str:
        """For PyMongo."""
        return f"mongodb://{self.address}/"

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        return [str(binary("ferretdb")), self.address, str(data)]

    def environment(self) -> dict[str, str]:
        return {"DO_NOT_TRACK": "1"}

    def is_ready(self) -> bool:
        # A ping, not a bare connect: a connect to a free port of the ephemeral range can meet itself.
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        client: MongoClient[Any] = MongoClient(self.uri, serverSelectionTimeoutMS=500, directConnection=True)
        try:
            client.admin.command("ping")
        except PyMongoError:
            return False
        finally:
            client.close()
        return True


class S3Server(_Program):
    """versitygw 1.7 on a folder: the S3 protocol with signatures, multipart and conditional writes."""

    name = "versitygw"
    title = "versitygw 1.7.0"
    bucket = "ml-dash"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.access_key, self.secret_key = "test", secrets.token_hex(12)

    @property
    def url(self) -> str:
        """For `open_bucket` and `ml-dash serve --s3-url`, together with `env`."""
        return f"s3://{self.bucket}"

    @property
    def env(self) -> dict[str, str]:
        """The variables a client needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def command(self) -> list[str]:
        data, attributes = self.folder / "data", self.folder / "attributes"
        (data / self.bucket).mkdir(parents=True, exist_ok=True)
        attributes.mkdir(exist_ok=True)
        # Attributes beside the objects: not every file system of a test machine has extended attributes.
        return [str(binary("versitygw")), "--port", self.address, "posix", "--sidecar", str(attributes), str(data)]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.address}/", timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()  # any HTTP answer, also a refusal without a signature, comes from a running server
        except OSError:
            return False
        return True


class OtherMongo:
    """A server named by `ML_DASH_TEST_MONGO_URI`; it is neither started nor stopped here."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.title = f"the server of ML_DASH_TEST_MONGO_URI ({_version(uri)})"


class OtherS3:
    """A bucket named by `ML_DASH_TEST_S3_URL` and the `AWS_*` variables."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self.title = "the bucket of ML_DASH_TEST_S3_URL"


def _version(uri: str) -> str:
    from pymongo import MongoClient

    client: MongoClient[Any] = MongoClient(uri, serverSelectionTimeoutMS=5000)
    try:
        told = client.server_info()
        stand_in = "FerretDB as " if "ferretdbVersion" in told else ""
        return f"{stand_in}MongoDB {told['version']}"
    finally:
        client.close()
