"""Errors as the server answers them: JSON with a code, what is wrong and where; nothing of the server's inside."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..errors import (
    CopiedWriter,
    ExperimentNotFound,
    InvalidEntry,
    InvalidPrefix,
    InvalidTopic,
    InvalidWindow,
    MissingExtra,
    NotOpen,
    StoreUnavailable,
    TrackNotFound,
)
from ..wire import ERRORS, JSON, BadBatch, Fault, Reply
from ..zstd import TooLarge
from .outages import trouble

RETRY_AFTER_S = 2

log = logging.getLogger("ml_dash.server")


class Refusal(Exception):
    """An answer other than success."""

    def __init__(
        self,
        code: str,
        message: str,
        where: str = "",
        *,
        entries: Sequence[tuple[int, str]] = (),
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message)
        self.fault = Fault(code, message, where, list(entries))
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return ERRORS[self.fault.code]


def not_found() -> Refusal:
    """The one answer for what does not exist and for what the token does not reach."""
    return Refusal("not_found", "there is no such experiment, or the token does not reach it")


def refusal_for(error: BaseException) -> Refusal:
    """The answer to an error of the store or of the request."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, StoreUnavailable):
        return Refusal("unavailable", trouble(error), retry_after_s=RETRY_AFTER_S)
    if isinstance(error, ExperimentNotFound):  # its text offers names that the token may not reach
        return not_found()
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return Refusal(code, str(error), retry_after_s=RETRY_AFTER_S if ERRORS[code] == 503 else 0)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal("disk_full", "the server's disk is full", retry_after_s=30)
    return Refusal("internal", "the server failed on this request; its log says why")


_CODES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((TooLarge,), "too_large"),
    ((BadBatch,), "bad_body"),
    ((InvalidWindow, InvalidPrefix, InvalidTopic), "bad_parameter"),
    ((InvalidEntry,), "bad_entries"),
    ((CopiedWriter,), "copied_writer"),
    ((TrackNotFound,), "not_found"),
    ((NotOpen,), "unavailable"),
    ((MissingExtra,), "unsupported_type"),
)


def refused(error: BaseException) -> Refusal:
    """As `refusal_for`, with the reason logged where the answer does not say it: of an outage, and the traceback of an
    error that nobody foresaw."""
    refusal = refusal_for(error)
    if isinstance(error, StoreUnavailable):
        log.warning("%s: %s", trouble(error), error)
    if refusal.fault.code == "internal":
        log.error("a request failed", exc_info=error)
    return refusal


def reply(error: BaseException) -> Response:
    """The response to an error."""
    refusal = refused(error)
    headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ml-dash"'
    body = msgspec.json.encode(Reply(refusal.fault))
    return Response(body, refusal.status, headers=headers, media_type=JSON)


async def on_error(request: Request, error: Exception) -> Response:
    """For Starlette's table of exceptions."""
    request.state.code = refusal_for(error).fault.code
    return reply(error)
