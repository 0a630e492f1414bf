"""A real server for tests, in a thread or in a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import uvicorn

from ml_dash.server.run import Protocol
from ml_dash.store import Entry, Track, Window


class Endless:
    """A store whose one track does not end before 10 GB, and which knows how many entries were asked of it."""

    def __init__(self) -> None:
        self.closed, self.given = threading.Event(), 0

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        """An entry of 100 kB at a time."""
        try:
            while self.given < 100_000:
                self.given += 1
                yield [{"timestamp": float(self.given), "x": "y" * 100_000}]
        finally:
            self.closed.set()


class Server:
    """Serves an ASGI application while its block runs; `url` is its address."""

    def __init__(self, app: Any, port: int = 0) -> None:
        # With the protocol named, asyncio switches Nagle off: answers come 40 ms earlier.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, http=Protocol, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self.socket])
        # What came in while it stopped: the end of a process would close it.
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0.01)

    def start(self) -> Server:
        """Start, and wait until it answers."""
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Stop, and wait until it has."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"
        self.socket.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class ServerProcess:
    """`ml-dash serve` in a process of its own, with JSON lines as its log."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "ml_dash.cli", "serve", "--port", "0", "--log", "json", *words]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, stdout=file)
        wait_until(lambda: self.url or self.process.poll() is not None, 60)
        wait_until(self._answers, 60)

    @property
    def url(self) -> str:
        """Its address, once it has said it."""
        found = re.search(r"at (http://[^\s\"]+)", self.log.read_text())
        return found[1] if found else ""

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx2.get(f"{self.url}/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


def wait_until(condition: Any, timeout_s: float = 20.0) -> None:
    """Until the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen in time"
        time.sleep(0.005)
