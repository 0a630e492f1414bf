"""The routes that the existing `ml-dash` package (0.11) asks for, so that it can record here and read back.

Ids are the prefix in base64 and mean nothing else. Batches of that client carry no number: where an answer is lost it
sends again, and what does not merge is stored again.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import run_record, wire
from ..address import check_prefix
from ..params import merged
from ..store import MERGED, Batch, Document, Track, Window
from .auth import EVERY_OWNER
from .compat_entries import Body, flat, free_of_names, logged, nested, timed
from .faults import Refusal, not_found
from .ingest import check, checked_track, once
from .lines import encoded
from .reads import Streamed, chunks_of

if TYPE_CHECKING:
    from .app import Api

WRITER = "existing-client"
FORMATS = {"json": "json", "jsonl": "ndjson", "parquet": "parquet", "mocap": "mocap"}
_STATUSES = {
    "RUNNING": run_record.RUNNING,
    "COMPLETED": run_record.COMPLETED,
    "FAILED": run_record.FAILED,
    "CANCELLED": run_record.CANCELLED,
}

Endpoint = Callable[[Request], Awaitable[Response]]


# ---------------------------------------------------------------- ids


def id_of(path: str) -> str:
    """The id of an experiment, a project or a folder."""
    return base64.urlsafe_b64encode(path.encode()).decode().rstrip("=")


def path_of(node_id: str) -> str:
    """What an id stands for; raises Refusal not_found for one that we never gave."""
    try:
        return base64.urlsafe_b64decode(node_id + "=" * (-len(node_id) % 4)).decode()
    except ValueError:
        raise not_found() from None


class Compat:
    """The operations of the existing client on our API's catalog."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def routes(self, guarded: Callable[[Endpoint], Endpoint]) -> list[Route]:
        """Every route; `guarded` turns errors into answers."""
        one = "/api/experiments/{id}"
        table: list[tuple[str, str, Endpoint]] = [
            ("POST", "/graphql", self.graphql),
            ("POST", "/api/namespaces/{owner}/nodes", self.open),
            ("PATCH", "/api/nodes/{id}", self.set_status),
            ("POST", f"{one}/tracks", self.create_track),
            ("GET", f"{one}/tracks", self.list_tracks),
            ("POST", f"{one}/tracks/{{topic:path}}/append_batch", self.append_batch),
            ("POST", f"{one}/tracks/{{topic:path}}/append", self.append),
            ("GET", f"{one}/tracks/{{topic:path}}/data", self.data),
            ("POST", f"{one}/metrics/{{topic:path}}/append-batch", self.append_metrics),
            ("POST", f"{one}/metrics/{{topic:path}}/append", self.append_metric),
            ("POST", f"{one}/parameters", self.set_parameters),
            ("GET", f"{one}/parameters", self.parameters),
            ("POST", f"{one}/logs", self.append_logs),
        ]
        return [Route(path, guarded(endpoint), methods=[method]) for method, path, endpoint in table]

    # -------------------------------------------------------------- what is asked of whom

    async def _reach(self, request: Request, *, writes: bool) -> str:
        """The prefix of a request's experiment, once its token reaches it."""
        access = await self._api.access(request)
        prefix = path_of(request.path_params["id"])
        self._api.check(access, check_prefix(prefix)[0], writes=writes)
        request.state.prefix = prefix
        request.state.heard_of = prefix if writes else None
        return prefix

    async def _body(self, request: Request) -> Body:
        raw = await self._api.body(request, self._api.limits.compressed)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refusal("bad_body", "the body is no JSON object", "body")
        return found

    # -------------------------------------------------------------- opening and closing

    async def graphql(self, request: Request) -> Response:
        """The three questions that opening and closing ask."""
        access = await self._api.access(request)
        body = await self._body(request)
        query, variables = str(body.get("query", "")), body.get("variables")
        if "projects" in query:
            return _json({"data": {"namespace": {"projects": []}}})
        if "experimentNode" in query:
            found = variables.get("experimentId") if isinstance(variables, dict) else None
            return _json({"data": {"experimentNode": {"id": found}}})
        if "me {" in query:
            owner = next((grant.owner for grant in access.grants if grant.owner != EVERY_OWNER), "local")
            return _json({"data": {"me": {"id": owner, "username": owner}}})
        return _json(
            {"data": None, "errors": [{"message": "this server answers no GraphQL but that of the client 0.11"}]}
        )

    async def open(self, request: Request) -> Response:
        """A project, a folder, or an experiment, which begins to run."""
        access = await self._api.access(request)
        owner = request.path_params["owner"]
        self._api.check(access, owner, writes=True)
        body = await self._body(request)
        kind, above = body.get("type"), self._above(owner, body)
        if kind == "PROJECT":
            path = f"{owner}/{_text(body, 'slug')}"
            return _json({"project": {"id": id_of(path)}, "node": {"id": id_of(path)}})
        path = f"{above}/{_text(body, 'name')}"
        project = {"id": id_of("/".join(path.split("/")[:2]))}
        if kind == "FOLDER":
            return _json({"node": {"id": id_of(path)}, "project": project})
        if kind != "EXPERIMENT":
            raise Refusal("bad_body", "type is PROJECT, FOLDER or EXPERIMENT", "type")
        check_prefix(path)
        request.state.prefix = request.state.heard_of = path
        await self._api.work(self._begin, path, body)
        return _json({"experiment": {"id": id_of(path)}, "node": {"id": id_of(path)}, "project": project})

    def _above(self, owner: str, body: Body) -> str:
        """The path of the parent that a body names."""
        parent, project = body.get("parentId", "ROOT"), body.get("projectId")
        if parent not in (None, "ROOT"):
            path = path_of(str(parent))
        elif project is not None:
            path = path_of(str(project))
        else:
            path = f"{owner}/{body.get('projectSlug') or ''}"
        if path.split("/")[0] != owner:
            raise not_found()
        return path

    def _begin(self, prefix: str, body: Body) -> None:
        now = run_record.now()
        described = {"readme": body.get("description"), "tags": body.get("tags"), "metadata": body.get("metadata")}

        def change(known: Document | None) -> Document:
            process = {"writer": WRITER, "status": run_record.RUNNING, "started_at": now, run_record.SENT: True}
            others = [one for one in (known or {}).get("processes", []) if one.get("writer") != WRITER]
            return {
                **(known or {}),
                **{name: value for name, value in described.items() if value is not None},
                "prefix": prefix,
                "status": run_record.RUNNING,
                "created_at": (known or {}).get("created_at") or now,
                "started_at": now,
                "ended_at": None,
                "processes": [*others, process],
            }

        self._api.store(prefix).update_document(run_record.DOCUMENT, change)

    async def set_status(self, request: Request) -> Response:
        """The run ends."""
        prefix = await self._reach(request, writes=True)
        status = _STATUSES.get(str((await self._body(request)).get("status")))
        if status is None:
            raise Refusal("bad_body", f"status is one of {', '.join(_STATUSES)}", "status")

        def change(known: Document | None) -> Document:
            ended = None if status == run_record.RUNNING else run_record.now()
            processes = [
                {**one, "status": status, "ended_at": ended} if one.get("writer") == WRITER else one
                for one in (known or {}).get("processes", [])
            ]
            return {**(known or {}), "status": status, "ended_at": ended, "processes": processes}

        await self._api.work(lambda: self._api.store(prefix).update_document(run_record.DOCUMENT, change))
        return _json({"node": {"id": id_of(prefix), "status": status.upper()}})

    # -------------------------------------------------------------- tracks

    async def create_track(self, request: Request) -> Response:
        """A track comes into being with its first entry; there is nothing to do."""
        await self._reach(request, writes=True)
        topic = _text(await self._body(request), "topic")
        checked_track(MERGED, topic)
        return _json({"id": topic, "topic": topic})

    async def append_batch(self, request: Request) -> Response:
        """Entries of one track."""
        prefix = await self._reach(request, writes=True)
        entries = _list(await self._body(request), "entries")
        count = await self._store(prefix, MERGED, request.path_params["topic"], [timed(one) for one in entries])
        return _json({"count": count})

    async def append(self, request: Request) -> Response:
        """One entry of a track."""
        prefix = await self._reach(request, writes=True)
        body = await self._body(request)
        data = body.get("data") or {}
        entry = timed({**data, "timestamp": body.get("timestamp")} if isinstance(data, dict) else None)
        await self._store(prefix, MERGED, request.path_params["topic"], [entry])
        return _json({"timestamp": body["timestamp"], "data": data})

    async def _store(self, prefix: str, kind: str, topic: str, entries: list[tuple[float, Body]]) -> int:
        """Store entries of one series; checked as a whole before any of it is stored."""
        track = checked_track(kind, topic)

        def run() -> int:
            batch = Batch(once(), 1, {1: track}, [encoded(topic, *one) for one in entries])
            count = check(batch, self._api.limits)
            store = self._api.store(prefix)
            store.append(batch)
            store.forget(batch.writer)
            return count

        count = await self._api.work(run)
        self._api.stored(prefix, count, 0)
        return count

    async def data(self, request: Request) -> Response:
        """A window of a track."""
        prefix = await self._reach(request, writes=False)
        track = checked_track(MERGED, request.path_params["topic"])
        query = request.query_params
        format = FORMATS.get(query.get("format", "json"))
        if format is None:
            raise Refusal("bad_parameter", f"unknown format; known are {', '.join(FORMATS)}", "format")
        bounds = {name: query[f"{name}_timestamp"] for name in ("start", "end") if query.get(f"{name}_timestamp")}
        columns = [name for name in query.get("columns", "").split(",") if name]
        window = wire.window_of(bounds, columns)

        def first() -> Response:
            chunks = chunks_of(self._api.store(prefix), track, window, format)
            return Streamed(chunks, wire.FORMATS[format], self._api.patience, zstd=False, limiter=self._api.workers)

        return await self._api.work(first)

    async def list_tracks(self, request: Request) -> Response:
        """Every track, or those of a pattern."""
        prefix = await self._reach(request, writes=False)
        pattern = request.query_params.get("topic", "*")
        found = await self._api.work(lambda: self._api.store(prefix).tracks())
        tracks = [
            {
                "id": info.topic,
                "topic": info.topic,
                "totalEntries": info.count,
                "firstTimestamp": info.first_timestamp,
                "lastTimestamp": info.last_timestamp,
                "columns": sorted(info.columns),
                "createdAt": None,
            }
            for info in found
            if fnmatchcase(info.topic, pattern)
        ]
        return _json({"tracks": tracks})

    # -------------------------------------------------------------- metrics, parameters, logs

    async def append_metrics(self, request: Request) -> Response:
        """Entries of a metric."""
        return await self._append_metrics(request, _list(await self._body(request), "dataPoints"))

    async def append_metric(self, request: Request) -> Response:
        """One entry of a metric."""
        return await self._append_metrics(request, [(await self._body(request)).get("data")])

    async def _append_metrics(self, request: Request, values: list[Any]) -> Response:
        prefix, name = await self._reach(request, writes=True), request.path_params["topic"]
        now = time.time()
        entries = [(now, free_of_names(one)) for one in values]
        track = Track("metrics", name)
        count = await self._store(prefix, "metrics", name, entries)
        end = await self._api.work(lambda: _length(self._api.store(prefix).read(track, Window())))
        return _json({"metricId": name, "count": count, "startIndex": str(end - count), "endIndex": str(end - 1)})

    async def set_parameters(self, request: Request) -> Response:
        """Parameters, merged into those that are there."""
        prefix = await self._reach(request, writes=True)
        data = (await self._body(request)).get("data")
        if not isinstance(data, dict):
            raise Refusal("bad_body", "data is an object", "data")
        new = nested(data)
        store = self._api.store(prefix)
        found = await self._api.work(lambda: store.update_document("params", lambda known: merged(known or {}, new)))
        return _json({"experimentId": id_of(prefix), "data": flat(found)})

    async def parameters(self, request: Request) -> Response:
        """The parameters, flat."""
        prefix = await self._reach(request, writes=False)
        found = await self._api.work(lambda: self._api.store(prefix).read_document("params"))
        if found is None:
            raise not_found()
        return _json({"experimentId": id_of(prefix), "data": flat(found)})

    async def append_logs(self, request: Request) -> Response:
        """Lines of the log."""
        prefix = await self._reach(request, writes=True)
        entries = [logged(one) for one in _list(await self._body(request), "logs")]
        count = await self._store(prefix, "logs", "logs", entries)
        return _json({"created": count, "experimentId": id_of(prefix)})


def _list(body: Body, name: str) -> list[Any]:
    found = body.get(name)
    if not isinstance(found, list):
        raise Refusal("bad_body", f"{name} is a list", name)
    return found


def _text(body: Body, name: str) -> str:
    found = body.get(name)
    if not isinstance(found, str) or not found:
        raise Refusal("bad_body", f"{name} is a text", name)
    return found


def _length(blocks: Any) -> int:
    return sum(len(block) for block in blocks)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=wire.JSON, headers={"Cache-Control": "no-store"})
