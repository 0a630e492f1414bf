"""Around every endpoint: its errors become answers, its address is text, and who records is heard of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .faults import Refusal, on_error, reply
from .routes import READY, Operation

if TYPE_CHECKING:
    from .app import Api

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(api: Api, endpoint: Endpoint) -> Endpoint:
    """The endpoint with its errors turned into answers; who records is heard of also where it is refused."""

    async def run(request: Request) -> Response:
        try:
            check_text(request)
            answer = await endpoint(request)
        except Exception as error:
            api.outages.failed(error)
            answer = await on_error(request, error)
        if answer.status_code < 300 and _asked_the_database(request):
            api.outages.answered()
        prefix = getattr(request.state, "heard_of", None)
        if prefix is not None and answer.status_code < 500 and api.hearing.is_due(prefix):
            await api.work(api.hearing.note, prefix)
        return answer

    return run


def _asked_the_database(request: Request) -> bool:
    return hasattr(request.state, "prefix") or getattr(request.state, "operation", "") == READY.id


def check_text(request: Request) -> None:
    """The address is UTF-8: what is not would name something else, with U+FFFD in it.

    Raises:
        Refusal: bad_request for the path, bad_parameter for the query.
    """
    for part, code, where in (("raw_path", "bad_request", "path"), ("query_string", "bad_parameter", "query")):
        try:
            unquote_to_bytes(request.scope.get(part) or b"").decode()
        except UnicodeDecodeError as error:
            raise Refusal(code, f"the {where} is not UTF-8: {error.reason} at byte {error.start}", where) from None


def noted(operation: Operation, endpoint: Endpoint) -> Endpoint:
    """The endpoint with its name kept for the log."""

    async def run(request: Request) -> Response:
        request.state.operation = operation.id
        return await endpoint(request)

    return run


async def on_http(request: Request, error: Exception) -> Response:
    """What Starlette says of unknown paths and methods, in our form; the path as it was sent."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("ascii", "replace")
    answer = reply(Refusal(code, f"there is no {request.method} {path}"[:200], "path"))
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update({k: v for k, v in error.headers.items() if k.lower() == "allow"})
    return answer
