"""A proxy in front of a server that loses answers, doubles requests, refuses, delays and cuts."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class FaultyProxy:
    """Forwards to a port; what it does to each request is drawn from `chances`, seeded.

    Args:
        chances: "lose" (forward, then close without an answer), "double" (forward twice, answer once), "refuse" (503,
            not forwarded), "cut" (forward, send half of the answer); the rest goes through.
        only: a text; requests without it in their path go through.
    """

    def __init__(self, port: int, chances: dict[str, float], seed: int = 0, *, only: str = "") -> None:
        self.port, self.chances, self.only, self.done = port, dict(chances), only, Counter[str]()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def draw(self) -> str:
        """What happens to the next request."""
        with self._lock:
            at, fate = self._random.random(), "pass"
            for name, chance in self.chances.items():
                if at < chance:
                    fate = name
                    break
                at -= chance
            self.done[fate] += 1
            return fate

    def _make(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fate = proxy.draw() if proxy.only in self.path else "pass"
                if fate == "refuse":
                    return self.reply(503, {"Retry-After": "0"}, b"")
                try:
                    for _ in range(2 if fate == "double" else 1):
                        status, headers, content = self.forward(body)
                except (OSError, http.client.HTTPException):
                    fate = "lose"
                if fate == "lose":
                    self.close_connection = True
                    return None
                return self.reply(status, headers, content, cut=fate == "cut")

            def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
                try:
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    return answer.status, dict(answer.getheaders()), answer.read()
                finally:
                    connection.close()

            def reply(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "date", "server", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.close_connection = self.close_connection or cut

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *words: object) -> None:
                pass

        return Exchange

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
