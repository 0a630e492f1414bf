"""A bucket of S3, or of whatever else obstore reaches: objects under a URL, fetched by range."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from ..errors import MissingExtra, StoreUnavailable

RETRIES = 3
"""A request that fails at once is tried again for about a second; who waits then hears 503 and comes back."""
CONNECT_S = 5.0
STALL_S = 9.0
"""So long nothing may come of an answer; a request that failed is begun again within the same time, so that who waits
for a server that hangs knows within 18 s."""
REQUEST_S = 600.0
"""So long an answer may take that keeps coming."""
SLOWEST = 32 << 10
"""Bytes a second at which an upload still succeeds."""
PART_BYTES = 5 << 20
"""An upload of more goes in parts, the smallest that S3 takes, each a request with a time of its own."""
SMALL_BYTES = 256 << 10
"""What is sent within STALL_S on the slowest link."""
REASON_CHARS = 200
ANSWERS_AGAIN = "%s answers again"

log = logging.getLogger("ml_dash")


class ArchiveUnavailable(StoreUnavailable):
    """The bucket does not answer."""


class Bucket:
    """Objects under a URL: `s3://bucket/folder`, `file:///folder` or `memory:///`.

    For S3, credentials, region and endpoint come from the usual `AWS_*` variables or the machine's role. `sending` is
    the same store with the patience that an upload needs: a client cannot tell one that is slow from one that hangs.
    """

    def __init__(self, store: Any, url: str, sending: Any = None) -> None:
        self._store, self.url = store, url.rstrip("/")
        self._sending = sending or store
        self.failing = False

    def put(self, key: str, body: bytes) -> None:
        """Store an object, replacing one of the same key."""
        import obstore

        if len(body) > SMALL_BYTES:
            self.size(key)  # a server that hangs is found out in seconds, before the minutes that an upload may take
        store = self._sending if len(body) > SMALL_BYTES else self._store
        with reaching(self):
            obstore.put(store, key, body, chunk_size=PART_BYTES, max_concurrency=1)

    def size(self, key: str) -> int | None:
        """The object's bytes, None where there is none."""
        import obstore

        try:
            with reaching(self):
                return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def open(self, key: str, size: int) -> Any:
        """The object as a seekable file that fetches what is read; raises FileNotFoundError where there is none."""
        return RangeFile(partial(self.range, key), size)

    def range(self, key: str, start: int, end: int) -> bytes:
        """Some bytes of an object."""
        import obstore

        with reaching(self):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def keys(self, folder: str = "") -> Iterator[str]:
        """Every key below a folder, which is a whole part of the path: `kind=` finds nothing, `kind=tracks` does."""
        import obstore

        with reaching(self):
            for page in obstore.list(self._store, prefix=folder or None):
                yield from (str(found["path"]) for found in page)

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone is no error."""
        import obstore

        try:
            with reaching(self):
                obstore.delete(self._store, key)
        except FileNotFoundError:
            pass


class reaching:
    """What obstore raises, as this package's errors; a missing object stays FileNotFoundError."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._url = bucket, bucket.url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from obstore.exceptions import BaseError

        if error is None and self._bucket.failing:
            self._bucket.failing = False
            log.info(ANSWERS_AGAIN, "the archive")
        if isinstance(error, BaseError) and not isinstance(error, FileNotFoundError):
            self._bucket.failing = True
            raise ArchiveUnavailable(f"archive {self._url}: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, without the addresses and the pages of detail that obstore adds."""
    first = str(error).partition("\n")[0]
    return first.rpartition(" - ")[2][:REASON_CHARS]


def open_bucket(url: str, *, stall_s: float = STALL_S, **options: Any) -> Bucket:
    """The bucket of a URL.

    Args:
        url: `s3://bucket/folder`, `file:///folder`, `memory:///`; never with credentials in it.
        stall_s: so long a server may say nothing.
        options: as `obstore.store.from_url` takes them (endpoint, region, credentials); default: the environment.
            A folder (`file:///`) is made where it is missing.

    Raises:
        MissingExtra: obstore is not installed.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise MissingExtra("obstore", "s3") from None
    scheme = url.partition("://")[0]
    if scheme in ("file", "memory"):
        made: dict[str, Any] = {"mkdir": True} if scheme == "file" else {}
        return Bucket(from_url(url, **{**made, **options}), url)
    given = options.pop("client_options", {})
    retries = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=stall_s)}
    reading, sending = (
        from_url(url, **{"retry_config": retries, "client_options": {**times, **given}, **options})
        for times in (_times(stall_s), _times(stall_s, PART_BYTES))
    )
    return Bucket(reading, url, sending)


def _times(stall_s: float, sent: int = 0) -> dict[str, Any]:
    """obstore's client options: for what is read, or for requests of so many bytes at the slowest.

    Its `read_timeout` also runs while a request is sent, so that an upload has one for the whole instead.
    """
    # Client options given here hide what obstore reads from the environment.
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    common = {"allow_http": plain, "connect_timeout": timedelta(seconds=min(CONNECT_S, stall_s))}
    if sent:
        return {**common, "timeout": timedelta(seconds=stall_s + sent / SLOWEST)}
    return {**common, "timeout": timedelta(seconds=REQUEST_S), "read_timeout": timedelta(seconds=stall_s)}


class RangeFile(io.RawIOBase):
    """An object as a file for pyarrow: each read is one ranged request, the end of the file is fetched once.

    Args:
        fetch: the bytes between two offsets.
        size: of the whole.
    """

    TAIL = 64 << 10

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch, self._size = fetch, size
        self._place = 0
        self._tail_at = max(0, size - self.TAIL)
        self._tail = fetch(self._tail_at, size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        """The object's bytes."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._place + size)
        start, self._place = self._place, max(self._place, end)
        if start >= end:
            return b""
        if start >= self._tail_at:
            return self._tail[start - self._tail_at : end - self._tail_at]
        return self._fetch(start, end)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
