"""A bucket whose server hangs, stalls or is slow: who waits knows within the bound, and a slow upload succeeds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ml_dash.stores.bucket import SMALL_BYTES, STALL_S, ArchiveUnavailable, Bucket, open_bucket

pytest.importorskip("obstore")

STALL = 0.5
HEAD = (
    b'HTTP/1.1 206 Partial Content\r\nETag: "x"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n'
    b"Content-Range: bytes 0-999/1000\r\nContent-Length: 1000\r\n\r\n"
)


class Lines:
    """A socket that accepts; `answer` has each connection."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._socket, self._answer = socket.create_server(("127.0.0.1", 0)), answer
        self.port = self._socket.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                line = self._socket.accept()[0]
            except OSError:
                return
            self._open.append(line)
            threading.Thread(target=self._run, args=(line,), daemon=True).start()

    def _run(self, line: socket.socket) -> None:
        try:
            self._answer(line)
        except OSError:
            pass

    def close(self) -> None:
        """Everybody goes home."""
        for one in (self._socket, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


@pytest.fixture
def bucket_at() -> Iterator[Callable[[Callable[[socket.socket], None]], Bucket]]:
    """Opens a bucket on a server that answers so."""
    made: list[Lines] = []

    def open_at(answer: Callable[[socket.socket], None]) -> Bucket:
        made.append(Lines(answer))
        return open_bucket(
            "s3://bucket/folder", stall_s=STALL, endpoint=f"http://127.0.0.1:{made[-1].port}", region="us-east-1",
            access_key_id="a", secret_access_key="b", client_options={"allow_http": True},
        )  # fmt: skip

    yield open_at
    for one in made:
        one.close()


def never(line: socket.socket) -> None:
    """As a server that is stopped: the kernel accepts, nobody answers."""


def half(line: socket.socket) -> None:
    """Stops in the middle of an answer."""
    line.recv(65536)
    line.sendall(HEAD + b"x" * 500)


def in_drops(line: socket.socket) -> None:
    """Takes three times the bound for an answer, and never stalls."""
    line.recv(65536)
    line.sendall(HEAD)
    for _ in range(20):
        time.sleep(3 * STALL / 20)
        line.sendall(b"x" * 50)


REQUESTS: dict[str, Callable[[Bucket], Any]] = {
    "range": lambda bucket: bucket.range("key", 0, 1000),
    "size": lambda bucket: bucket.size("key"),
    "keys": lambda bucket: list(bucket.keys("kind=tracks")),
    "delete": lambda bucket: bucket.delete("key"),
    "put": lambda bucket: bucket.put("key", b"x"),
    "put much": lambda bucket: bucket.put("key", bytes(SMALL_BYTES + 1)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_server_that_hangs_is_known_within_the_bound(bucket_at: Any, name: str) -> None:
    """Twice the time for a stall at most, tries included, whatever is asked."""
    bucket, started = bucket_at(never), time.monotonic()
    with pytest.raises(ArchiveUnavailable):
        REQUESTS[name](bucket)
    assert time.monotonic() - started < 2 * STALL + 1.0


def test_the_bound_is_twenty_seconds() -> None:
    """What the documents promise."""
    assert 2 * STALL_S <= 20


def test_an_answer_that_stops_in_the_middle(bucket_at: Any) -> None:
    """The same bound holds."""
    bucket, started = bucket_at(half), time.monotonic()
    with pytest.raises(ArchiveUnavailable):
        bucket.range("key", 0, 1000)
    assert time.monotonic() - started < 2 * STALL + 1.0


def test_a_slow_answer_is_read(bucket_at: Any) -> None:
    """What keeps coming is waited for."""
    assert bucket_at(in_drops).range("key", 0, 1000) == b"x" * 1000


def test_a_slow_upload_succeeds(bucket_at: Any) -> None:
    """Far beyond the time for a stall: an upload is answered only when all of it was sent."""
    taken = []

    def slowly(line: socket.socket) -> None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = line.recv(65536)
        while b"\r\n\r\n" not in head:
            head += line.recv(65536)
        if head.startswith(b"HEAD"):
            line.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return line.close()
        fields = dict(one.lower().split(b": ") for one in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        size, got = int(fields[b"content-length"]), len(head.split(b"\r\n\r\n", 1)[1])
        while got < size:
            time.sleep(0.04)
            got += len(line.recv(65536))
        taken.append(got)
        line.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
        return None

    started = time.monotonic()
    bucket_at(slowly).put("key", bytes(4 << 20))
    assert taken == [4 << 20]
    assert time.monotonic() - started > 3 * STALL
