"""Running the server: what it serves, one process or several, and how it stops."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from ..catalog import Catalog, LocalCatalog
from ..errors import InvalidQuery
from ..heard import SILENT_AFTER_S
from .app import create_app
from .auth import FileTokens, Tokens
from .live import stop_following
from .monitor import SHARED, JsonLines
from .outages import Once

WAIT_S = 30.0
"""So long a connection may be idle, or take to send the head of a request."""
STOP_S = 20
"""So long a request may go on after the server was told to stop."""
VARIABLE = "ML_DASH_SERVE"


class Settings(msgspec.Struct, kw_only=True):
    """What to serve and how. Without `mongo_uri` it is the folder `root`.

    Raises:
        InvalidQuery: (a ValueError) `insecure_local` on an address that others can reach.
    """

    root: str = ".dash"
    mongo_uri: str | None = None
    database: str = "ml_dash"
    s3_url: str | None = None
    archive_after_s: float | None = 3600.0
    keep_s: float | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    insecure_local: bool = False
    log: str = "text"
    silent_after_s: float = SILENT_AFTER_S

    def __post_init__(self) -> None:
        if self.insecure_local and not _is_loopback(self.host):
            raise InvalidQuery(f"--insecure-local serves this machine only, not {self.host}: use tokens")
        if self.s3_url and not self.mongo_uri:
            raise InvalidQuery("--s3-url archives what is in MongoDB: give --mongo-uri too")
        if self.keep_s is not None and not self.mongo_uri:
            raise InvalidQuery("--keep deletes old entries in MongoDB: give --mongo-uri too")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


# ---------------------------------------------------------------- what is served


def catalog_of(settings: Settings) -> tuple[Catalog, Tokens]:
    """The experiments, and the tokens that are kept beside them."""
    if not settings.mongo_uri:
        root = Path(settings.root).expanduser().resolve()
        catalog = LocalCatalog(root, silent_after_s=settings.silent_after_s)
        return catalog, FileTokens(root / ".server" / "tokens.json")
    from ..mongo_catalog import MongoCatalog, connect, majority
    from ..stores.compactor import Policy
    from .mongo_tokens import MongoTokens

    client = connect(settings.mongo_uri)
    policy = Policy(archive_after_s=settings.archive_after_s, keep_s=settings.keep_s)
    served = MongoCatalog(
        client=client,
        database=settings.database,
        s3_url=settings.s3_url,
        policy=policy,
        silent_after_s=settings.silent_after_s,
    )
    return served, MongoTokens(majority(client, settings.database))


def app_of(settings: Settings) -> Starlette:
    """The application."""
    from importlib.metadata import version

    catalog, tokens = catalog_of(settings)
    return create_app(catalog, tokens=None if settings.insecure_local else tokens, version=version("ml-dash"))


def app_from_environment() -> Starlette:
    """The application of a worker process, with the settings of its parent."""
    settings = msgspec.json.decode(os.environ[VARIABLE], type=Settings)
    set_up_logging(settings.log)
    app = app_of(settings)
    app.state.api.on_start = end_streams_on_exit
    return app


# ---------------------------------------------------------------- running


class Protocol(H11Protocol):
    """HTTP/1.1 whose peers have a time for the head of a request, and not only between requests."""

    _deadline: Any = None

    def connection_made(self, transport: Any) -> None:
        """Somebody connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._deadline is None:
            self._deadline = self.loop.call_later(WAIT_S, self._cut)
        elif not waits and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def end_streams_on_exit() -> None:
    """Have SIGTERM and Ctrl-C also end the streams of those who follow a recording, which never end by themselves."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(number: int, frame: Any, before: Any = before) -> None:
            stop_following()
            if callable(before):
                before(number, frame)

        signal.signal(number, stop)


def config_of(settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    os.environ[VARIABLE] = msgspec.json.encode(settings).decode()
    return uvicorn.Config(
        "ml_dash.server.run:app_from_environment",
        factory=True,
        http=Protocol,
        ws="none",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(WAIT_S),
        timeout_graceful_shutdown=STOP_S,
    )


def bind(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        OSError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle off: each answer is 40 ms earlier.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    listening.set_inheritable(True)
    return listening


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve until told to stop; logging is set up by the caller (`set_up_logging`), whose first line it may have."""
    config = config_of(settings)
    if settings.workers > 1:
        with tempfile.TemporaryDirectory(prefix="ml-dash-metrics-") as folder:
            os.environ[SHARED] = folder
            Multiprocess(config, sockets=[listening]).run()
    else:
        os.environ.pop(SHARED, None)
        uvicorn.Server(config).run(sockets=[listening])


def set_up_logging(form: str) -> None:
    """Lines on stderr, as text or as JSON."""
    lines = logging.StreamHandler()
    lines.addFilter(Once())
    lines.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(levelname)s %(name)s %(message)s"))
    for name, level in (("ml_dash", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [lines], False
        logger.setLevel(level)
    if form != "json":
        logging.getLogger("ml_dash.server.requests").setLevel(logging.WARNING)
