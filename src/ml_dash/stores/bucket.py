"""A bucket of S3, or of whatever else obstore reaches: objects under a URL, fetched by range."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import MissingExtra, StoreUnavailable

RETRIES = {"max_retries": 3}
"""A request that fails is tried again for about a second; who waits for the answer then hears 503 and comes back."""
TIMEOUTS = {"connect_timeout": "5s", "timeout": "60s"}
REASON_CHARS = 200


class Bucket:
    """Objects under a URL: `s3://bucket/folder`, `file:///folder` or `memory:///`.

    For S3, credentials, region and endpoint come from the usual `AWS_*` variables or the machine's role.
    """

    def __init__(self, store: Any, url: str) -> None:
        self._store, self.url = store, url.rstrip("/")

    def put(self, key: str, body: bytes) -> None:
        """Store an object, replacing one of the same key."""
        import obstore

        with reaching(self.url):
            obstore.put(self._store, key, body)

    def size(self, key: str) -> int | None:
        """The object's bytes, None where there is none."""
        import obstore

        try:
            with reaching(self.url):
                return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def open(self, key: str, size: int) -> Any:
        """The object as a seekable file that fetches what is read; raises FileNotFoundError where there is none."""
        return RangeFile(partial(self.range, key), size)

    def range(self, key: str, start: int, end: int) -> bytes:
        """Some bytes of an object."""
        import obstore

        with reaching(self.url):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def keys(self, folder: str = "") -> Iterator[str]:
        """Every key below a folder, which is a whole part of the path: `kind=` finds nothing, `kind=tracks` does."""
        import obstore

        with reaching(self.url):
            for page in obstore.list(self._store, prefix=folder or None):
                yield from (str(found["path"]) for found in page)

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone is no error."""
        import obstore

        try:
            with reaching(self.url):
                obstore.delete(self._store, key)
        except FileNotFoundError:
            pass


class reaching:
    """What obstore raises, as this package's errors; a missing object stays FileNotFoundError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from obstore.exceptions import BaseError

        if isinstance(error, BaseError) and not isinstance(error, FileNotFoundError):
            raise StoreUnavailable(f"archive {self._url}: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, without the addresses and the pages of detail that obstore adds."""
    first = str(error).partition("\n")[0]
    return first.rpartition(" - ")[2][:REASON_CHARS]


def open_bucket(url: str, **options: Any) -> Bucket:
    """The bucket of a URL.

    Args:
        url: `s3://bucket/folder`, `file:///folder`, `memory:///`; never with credentials in it.
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
    if scheme == "file":
        options = {"mkdir": True, **options}
    elif scheme != "memory":
        # Client options given here hide what obstore reads from the environment.
        plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
        options = {"retry_config": RETRIES, "client_options": {**TIMEOUTS, "allow_http": plain}, **options}
    return Bucket(from_url(url, **options), url)


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
