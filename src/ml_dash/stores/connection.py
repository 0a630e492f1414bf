"""One server as one client sees it: requests with their answers or our errors, sent to its address and nowhere else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .. import wire
from ..errors import (
    CopiedWriter,
    ExperimentNotFound,
    InvalidWindow,
    MissingExtra,
    MlDashError,
    NotOpen,
    Unauthorized,
)

CONNECT_S, ANSWER_S = 5.0, 30.0
HOW_TO_GIVE = "give a token that is good for this as token= or in ML_DASH_TOKEN"


class Changed(MlDashError):
    """A document that is not the one it was."""


class Connection:
    """One server, as one client sees it; safe to use from several threads.

    Raises:
        ValueError: an address that is none.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(self, url: str, token: str | None = None, *, answer_s: float = ANSWER_S) -> None:
        self.url = checked_url(url)
        self._token, self._answer_s = token, answer_s
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._client: Any = None
        self._closed = False
        _httpx()

    def _open(self) -> Any:
        if self._process != os.getpid():
            self.after_fork_in_child()
        with self._lock:
            if self._closed:
                raise NotOpen("the store is closed")
            if self._client is None:
                httpx = _httpx()
                headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                timeout = httpx.Timeout(self._answer_s, connect=CONNECT_S)
                self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
            return self._client

    def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The answer to a request, once it is a success; one whose connection broke is sent again at once."""
        options: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
        options |= {"params": list(query), "content": content, "headers": headers}
        for last in (False, True):
            try:
                answer = self._open().request(method, path, **options)
            except Exception as error:
                found = self._translated(error)
                if last or not _is_broken(error):
                    raise found from error
                continue
            if answer.is_success:
                return answer
            raise self._refusal(answer, method)
        raise AssertionError("unreachable")

    def stream(self, path: str, query: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        """The bytes of an answer as they arrive."""
        try:
            with self._open().stream("GET", path, params=list(query)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal(answer, "GET")
                yield from answer.iter_bytes()
        except (MlDashError, GeneratorExit):
            raise
        except Exception as error:
            raise self._translated(error) from error

    def decoded(self, content: bytes) -> Any:
        """The value of a JSON answer."""
        try:
            return msgspec.json.decode(content)
        except ValueError as error:
            raise wire.Unavailable(f"{self.url} did not answer as an ml-dash server does: {error}") from None

    def _translated(self, error: Exception) -> Exception:
        """A failed request as one of our errors."""
        httpx = _httpx()
        if self._closed:
            return NotOpen("the store is closed")
        if isinstance(error, (httpx.TransportError, httpx.StreamError, httpx.DecodingError)):
            return wire.Unavailable(f"{self.url} does not answer: {str(error) or type(error).__name__}")
        return error

    def _refusal(self, answer: Any, method: str) -> Exception:
        """The error of an answer that is no success."""
        error = _refusal(answer, method)
        if not isinstance(error, Unauthorized):
            return error
        if answer.status_code == 401:
            what = "does not know the token, or no longer" if self._token else "wants a token and none was given"
            return Unauthorized(f"{self.url} {what} (401): {HOW_TO_GIVE}")
        return Unauthorized(f"{error}; {HOW_TO_GIVE}")

    def close(self) -> None:
        """Close the sockets; a request that is under way fails."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def after_fork_in_child(self) -> None:
        """Go on with sockets of our own."""
        self._lock, self._client, self._process = threading.Lock(), None, os.getpid()


def checked_url(url: str) -> str:
    """The server's address without a slash at its end.

    Raises:
        ValueError: it is not `http://host` or `https://host`, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise wire.InvalidAddress(f"dash_url is http://host:port or https://host, got {url!r:.100}")
    if "@" in parts.netloc:
        raise wire.InvalidAddress("dash_url holds a password; give the token as token= or ML_DASH_TOKEN")
    return url.rstrip("/")


def _is_broken(error: Exception) -> bool:
    """Whether a connection ended, as one does that was idle for too long; every request may be sent twice."""
    httpx = _httpx()
    return isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))


def _refusal(answer: Any, method: str) -> Exception:
    """The error of an answer that is no success."""
    status, fault = answer.status_code, _fault(answer)
    message = f"{fault.message} ({status})" if fault else f"{answer.url.host} answered {status} {answer.reason_phrase}"
    if status in (401, 403):
        return Unauthorized(message)
    if status == 413:
        return wire.TooLarge(message)
    if fault is not None:
        if fault.code == "bad_entries":
            return wire.Refused(message, fault.entries)
        known = _ERRORS.get(fault.code)
        if known is not None:
            return known(message) if method in ("GET", "DELETE") or status != 404 else Unauthorized(message)
    elif status < 500 and status not in (408, 425, 429):
        message += ": is this an ml-dash server?"
    return wire.Unavailable(message, status=status, retry_after_s=_retry_after(answer))


_ERRORS: dict[str, type[Exception]] = {
    "not_found": ExperimentNotFound,
    "copied_writer": CopiedWriter,
    "changed": Changed,
    "bad_parameter": InvalidWindow,
    "being_recorded": MlDashError,
}


def _fault(answer: Any) -> wire.Fault | None:
    try:
        return msgspec.json.decode(answer.content, type=wire.Reply).error
    except ValueError:
        return None


def _retry_after(answer: Any) -> float | None:
    """The seconds of `Retry-After`; it may also be a date."""
    from email.utils import parsedate_to_datetime

    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), 3600.0)


def _httpx() -> Any:
    try:
        import httpx2
    except ImportError:
        raise MissingExtra("httpx2", "remote") from None
    return httpx2
