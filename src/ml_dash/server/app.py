"""`create_app`: a catalog of experiments over HTTP. Routes and parameters are in `routes.py`, the wire in `wire.py`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import wire
from ..address import check_prefix
from ..catalog import Catalog
from ..errors import MlDashError
from ..store import MERGED, Store
from . import routes
from .auth import EVERYTHING, Access, Tokens, check, now
from .compat import Compat
from .describe import openapi
from .documents import answer as document_answer
from .documents import document_name, parsed, replaced
from .faults import Refusal, not_found
from .guard import guarded, noted, on_http
from .hearing import Hearing
from .ingest import batch_of, check_digest, check_head, checked_track, raw_size, unpack
from .limits import Budget, Patience, check_local, read_body
from .live import Board, Following
from .monitor import Monitor
from .objects import list_objects
from .outages import Outages
from .reads import Streamed, chunks_of
from .tidy import Tidy

T = TypeVar("T")

WORKERS = 32
ASK_AGAIN_S = 2.0
"""A body that takes longer to come is taken only if its token is still good at its end."""


class Api:
    """The operations on one catalog.

    Args:
        catalog: the experiments.
        tokens: who may come in; None lets everybody do everything, for loopback only.
        limits, patience: of size and of time.
        clock: the time as tokens note it.
    """

    def __init__(
        self,
        catalog: Catalog,
        tokens: Tokens | None,
        *,
        limits: wire.Limits = wire.LIMITS,
        patience: Patience = Patience(),  # noqa: B008
        monitor: Monitor | None = None,
        clock: Callable[[], str] = now,
    ) -> None:
        self.catalog, self.tokens, self.limits, self.patience = catalog, tokens, limits, patience
        self.monitor, self.clock = monitor or Monitor(), clock
        self.board = Board()
        self.tidy = Tidy(catalog)
        self.hearing = Hearing(catalog)
        self.outages = Outages()
        self.on_start: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """While the server runs."""
        self.on_start()
        self.workers = anyio.CapacityLimiter(WORKERS)
        self.budget = Budget(4 * self.limits.raw)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.tidy.run)
            yield
            self.board.stop()
            tasks.cancel_scope.cancel()

    async def work(self, function: Callable[..., T], *args: Any) -> T:
        """Run in a worker thread."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self.workers)

    # -------------------------------------------------------------- who and what

    async def access(self, request: Request) -> Access:
        """What the request's token allows; raises Refusal unauthorized."""
        return await self.work(self.access_now, request)

    def access_now(self, request: Request) -> Access:
        """The same, in a worker thread; a request that takes long asks again."""
        if self.tokens is None:
            check_local(request)
            return EVERYTHING
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        found = check(self.tokens, text.strip(), self.clock()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refusal("unauthorized", "a valid token is needed: Authorization: Bearer <token>", "Authorization")
        request.state.token = found.token_id
        return found

    async def reach(self, request: Request, operation: routes.Operation) -> tuple[str, dict[str, str]]:
        """The experiment and the query of a request, once its token reaches them."""
        access = await self.access(request)
        query = routes.query(request, operation)
        prefix = query["prefix"]
        owner = check_prefix(prefix)[0]
        self.check(access, owner, writes=operation.writes)
        request.state.prefix = prefix
        request.state.heard_of = prefix if operation.tells else None
        return prefix, query

    @staticmethod
    def check(access: Access, owner: str, *, writes: bool) -> None:
        """Whether a token reaches an owner's experiments; raises Refusal."""
        if not access.may_read(owner):
            raise not_found()
        if writes and not access.may_write(owner):
            raise Refusal("forbidden", f"the token may read the experiments of {owner!r}, not change them")

    async def body(self, request: Request, limit: int) -> bytes:
        """The request's body, from somebody whose token is still good when the last of it came."""
        started = time.monotonic()
        body = await read_body(request, limit, self.patience)
        if time.monotonic() - started > ASK_AGAIN_S:
            await self.access(request)
        return body

    def store(self, prefix: str) -> Store:
        """The experiment's store."""
        return self.catalog.store(prefix)

    # -------------------------------------------------------------- experiments

    async def list_experiments(self, request: Request) -> Response:
        """GET /v1/experiments"""
        access = await self.access(request)
        query = routes.query(request, routes.LIST_EXPERIMENTS)
        limit = wire.window_of(query, None).limit
        found = await self.work(self.catalog.experiments, query.get("pattern", "*"))
        after = query.get("after", "")
        seen = [one for one in found if one.prefix > after and access.may_read(one.prefix.split("/")[0])]
        return _json({"experiments": [one.to_dict() for one in seen[:limit]]})

    async def remove_experiment(self, request: Request) -> Response:
        """DELETE /v1/experiments"""
        prefix, _ = await self.reach(request, routes.REMOVE_EXPERIMENT)
        try:
            await self.work(self.catalog.remove, prefix)
        except LookupError:
            raise not_found() from None
        except MlDashError as error:
            if type(error) is MlDashError:
                raise Refusal("being_recorded", str(error), "prefix") from None
            raise
        self.hearing.forget(prefix)
        return Response(status_code=204)

    # -------------------------------------------------------------- writing

    async def append(self, request: Request) -> Response:
        """POST /v1/batches"""
        prefix, query = await self.reach(request, routes.APPEND)
        media_type, digest = _media_type(request), request.headers.get("content-digest")
        encoding = request.headers.get("content-encoding", "").strip().lower()
        check_head(media_type, encoding, digest)
        body = await self.body(request, self.limits.compressed)
        check_digest(body, digest)
        try:
            size = raw_size(body, encoding, self.limits)
        except ValueError as error:
            raise Refusal("bad_body", str(error), "body") from None
        async with self.budget.hold(len(body) + 2 * size):
            receipt = await self.work(self._append, prefix, body, encoding, media_type, query)
        self.stored(prefix, receipt.count, len(body))
        return _json(receipt)

    def stored(self, prefix: str, count: int, size: int) -> None:
        """Entries came: count them, wake those who follow, tidy up later."""
        self.monitor.stored(count, size)
        self.board.notify(prefix)
        self.tidy.note(prefix)

    def _append(self, prefix: str, body: bytes, encoding: str, media_type: str, query: dict[str, str]) -> wire.Receipt:
        raw = unpack(body, encoding, self.limits)
        batch, count, once = batch_of(raw, media_type, query, self.limits)
        store = self.store(prefix)
        store.append(batch)
        if once:
            store.forget(batch.writer)
            return wire.Receipt(batch.number, count)
        return wire.Receipt(max(batch.number, store.applied(batch.writer)), count)

    async def applied(self, request: Request) -> Response:
        """GET /v1/writers"""
        prefix, query = await self.reach(request, routes.APPLIED)
        writer = wire.check_writer(query["writer"])
        return _json({"applied": await self.work(lambda: self.store(prefix).applied(writer))})

    async def still_here(self, request: Request) -> Response:
        """PUT /v1/writers"""
        _, query = await self.reach(request, routes.STILL_HERE)
        wire.check_writer(query["writer"])
        return Response(status_code=204)

    async def forget(self, request: Request) -> Response:
        """DELETE /v1/writers"""
        prefix, query = await self.reach(request, routes.FORGET)
        writer = wire.check_writer(query["writer"])
        await self.work(lambda: self.store(prefix).forget(writer))
        return Response(status_code=204)

    # -------------------------------------------------------------- series

    async def list_tracks(self, request: Request) -> Response:
        """GET /v1/tracks"""
        prefix, query = await self.reach(request, routes.LIST_TRACKS)
        found = await self.work(lambda: self.store(prefix).tracks(query.get("kind", MERGED)))
        return _json({"tracks": [wire.info_to_wire(info) for info in found]})

    async def remove_track(self, request: Request) -> Response:
        """DELETE /v1/tracks"""
        prefix, query = await self.reach(request, routes.REMOVE_TRACK)
        track = checked_track(query.get("kind", MERGED), query["topic"])
        store, window = self.store(prefix), wire.window_of(query, None)
        if {"start", "end"} & set(query):
            await self.work(store.remove_window, track, window.start, window.end)
        else:
            await self.work(store.remove, track)
        return Response(status_code=204)

    async def read(self, request: Request) -> Response:
        """GET /v1/entries"""
        prefix, query = await self.reach(request, routes.READ)
        track = checked_track(query.get("kind", MERGED), query["topic"])
        routes.check_bounds(track.kind, query)
        window = wire.window_of(query, request.query_params.getlist("column"))
        format = query.get("format", "json")
        zstd = format != "parquet" and "zstd" in request.headers.get("accept-encoding", "")

        def first() -> Response:
            chunks = chunks_of(self.store(prefix), track, window, format)
            return Streamed(chunks, wire.FORMATS[format], self.patience, zstd=zstd, limiter=self.workers)

        return await self.work(first)

    async def follow(self, request: Request) -> Response:
        """GET /v1/live"""
        prefix, query = await self.reach(request, routes.FOLLOW)
        track = checked_track(query.get("kind", MERGED), query["topic"])
        routes.check_bounds(track.kind, query)
        window = wire.window_of(query, request.query_params.getlist("column"))

        def allowed() -> None:
            self.check(self.access_now(request), check_prefix(prefix)[0], writes=False)

        store = self.store(prefix)
        return Following(store, prefix, track, window, self.board, self.work, self.patience, allowed)

    # -------------------------------------------------------------- documents

    async def read_document(self, request: Request) -> Response:
        """GET /v1/documents"""
        prefix, query = await self.reach(request, routes.READ_DOCUMENT)
        name = document_name(query["name"])
        found = await self.work(lambda: self.store(prefix).read_document(name))
        if found is None:
            raise not_found()
        return document_answer(found)

    async def write_document(self, request: Request) -> Response:
        """PUT /v1/documents"""
        prefix, query = await self.reach(request, routes.WRITE_DOCUMENT)
        name = document_name(query["name"])
        if _media_type(request) != wire.JSON:
            raise Refusal("unsupported_type", "a document is application/json", "Content-Type")
        new = await self.work(parsed, await self.body(request, self.limits.document))
        change = partial(replaced, new, request.headers.get("if-match"), request.headers.get("if-none-match"))
        return document_answer(await self.work(lambda: self.store(prefix).update_document(name, change)))

    list_objects = list_objects

    # -------------------------------------------------------------- the server itself

    async def who(self, request: Request) -> Response:
        """GET /v1/access"""
        access = await self.access(request)
        grants = [{"owner": grant.owner, "write": grant.write} for grant in access.grants]
        return _json({"token": access.token_id, "grants": grants, "limits": self.limits._asdict()})

    async def alive(self, request: Request) -> Response:
        """GET /healthz"""
        return _json({"ok": "alive"})

    async def ready(self, request: Request) -> Response:
        """GET /readyz"""
        if self.board.stopping:
            raise Refusal("unavailable", "the server is stopping")
        ping = getattr(self.catalog, "ping", None)
        await self.work(ping or (lambda: self.store("ml-dash/health/probe").read_document("experiment")))
        return _json({"ok": "ready"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics"""
        await self.access(request)
        return Response(await self.work(self.monitor.exposition), media_type=self.monitor.media_type)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=wire.JSON, headers={"Cache-Control": "no-store"})


def create_app(
    catalog: Catalog,
    *,
    tokens: Tokens | None,
    limits: wire.Limits = wire.LIMITS,
    patience: Patience = Patience(),  # noqa: B008
    version: str = "",
    clock: Callable[[], str] = now,
) -> Starlette:
    """The ASGI application.

    Args:
        catalog: where the experiments are, a local folder or a database.
        tokens: who may come in; None serves everybody who connects over the loopback interface, everything.
        limits: of size. patience: of time. clock: the time as tokens note it (ISO 8601 in UTC).
    """
    api = Api(catalog, tokens, limits=limits, patience=patience, clock=clock)
    described, guard = msgspec.json.encode(openapi(version)), partial(guarded, api)

    async def description(request: Request) -> Response:
        return Response(described, media_type=wire.JSON)

    found = [
        Route(one.path, noted(one, guard(getattr(api, _METHODS.get(one.id, one.id)))), methods=[one.method])
        for one in routes.OPERATIONS
    ]
    found += [Route("/openapi.json", description), Route("/metrics", guard(api.metrics))]
    found += Compat(api).routes(guard)
    app = Starlette(
        routes=found,
        lifespan=api.lifespan,
        exception_handlers={HTTPException: on_http},
    )
    # A redirect would be built from the request's Host, and be given to whoever asks.
    app.router.redirect_slashes = False
    app.state.api = api
    app.add_middleware(api.monitor.middleware)
    return app


_METHODS = {"access": "who"}
