"""What the server tells its keepers: one JSON line in the log for each request, and metrics for Prometheus.

No token, no query and no content is ever in either. Several worker processes count into files of one folder, which
Prometheus' client reads together: whichever of them is asked gives the sums.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder of several processes; Prometheus' client looks at it when it is imported."""

_together: Any = multiprocess
"""Without types of its own."""

log = logging.getLogger("ml_dash.server.requests")


class Monitor:
    """Counters of one server process, or of all that share its folder."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._folder = os.environ.get(SHARED)
        if self._folder:
            _together.mark_process_dead(os.getpid(), self._folder)  # an earlier process of our number
        self.registry = kept = CollectorRegistry()
        labels = ["operation", "status"]
        self.requests = Counter("ml_dash_requests", "Requests by operation and status", labels, registry=kept)
        self.seconds = Histogram("ml_dash_request_seconds", "Duration", ["operation"], buckets=SECONDS, registry=kept)
        self.running = Gauge(
            "ml_dash_requests_running", "Requests being answered", registry=kept, multiprocess_mode="livesum"
        )
        self.entries = Counter("ml_dash_entries_stored", "Entries stored", registry=kept)
        self.received = Counter("ml_dash_bytes_received", "Bytes of batches as sent", registry=kept)

    def stored(self, entries: int, size: int) -> None:
        """A batch was stored."""
        self.entries.inc(entries)
        self.received.inc(size)

    def exposition(self) -> bytes:
        """What Prometheus reads."""
        if not self._folder:
            return generate_latest(self.registry)
        _forget_dead(Path(self._folder))
        sums = CollectorRegistry()
        _together.MultiProcessCollector(sums, self._folder)
        return generate_latest(sums)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Observes every request."""
        return _Observed(app, self)


def _forget_dead(folder: Path) -> None:
    """What a process that was killed was answering, it answers no more; what it counted stays in the sums."""
    for path in folder.glob("gauge_*.db"):
        number = int(path.stem.rpartition("_")[2])
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            _together.mark_process_dead(number, str(folder))
        except PermissionError:
            pass


class _Observed:
    def __init__(self, app: ASGIApp, monitor: Monitor) -> None:
        self._app, self._monitor = app, monitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        seen = _Seen(send)
        started = time.perf_counter()
        with self._monitor.running.track_inprogress():
            try:
                await self._app(scope, receive, seen)
            finally:
                self._note(scope, seen, time.perf_counter() - started)
        return None

    def _note(self, scope: Scope, seen: _Seen, seconds: float) -> None:
        state = scope.get("state", {})
        operation = state.get("operation", "other")
        self._monitor.requests.labels(operation, str(seen.status)).inc()
        self._monitor.seconds.labels(operation).observe(seconds)
        if log.isEnabledFor(logging.INFO):
            fields = {
                "operation": operation,
                "method": scope["method"],
                "path": scope["path"],
                "status": seen.status,
                "seconds": round(seconds, 6),
                "sent_bytes": seen.size,
                "prefix": state.get("prefix"),
                "token": state.get("token"),
                "error": state.get("code"),
                "client": (scope.get("client") or ("",))[0],
            }
            log.info("request", extra={"fields": {k: v for k, v in fields.items() if v is not None}})


class _Seen:
    def __init__(self, send: Send) -> None:
        self._send, self.status, self.size = send, 0, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, text, and what the record carries as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
