"""What the archive holds of an experiment, for engines that read the bucket themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from .. import wire
from ..store import MERGED
from . import routes
from .ingest import checked_track

if TYPE_CHECKING:
    from ..stores.archive import ArchivedSeries
    from .app import Api


async def list_objects(api: Api, request: Request) -> Response:
    """GET /v1/objects"""
    prefix, query = await api.reach(request, routes.LIST_OBJECTS)
    kind, topic = query.get("kind", MERGED), query.get("topic")
    if topic is not None:
        checked_track(kind, topic)
    found = await api.work(_archived, api.catalog, prefix, topic, kind)
    return Response(msgspec.json.encode(found), media_type=wire.JSON, headers={"Cache-Control": "no-store"})


def _archived(catalog: Any, prefix: str, topic: str | None, kind: str) -> dict[str, Any]:
    """The series with their objects; empty where nothing is archived at all, as in a folder."""
    catalog.find(prefix)
    archived = getattr(catalog, "archived", None)
    if archived is None or catalog.bucket_url is None:
        return {"series": []}
    return {"series": [to_wire(one, catalog.bucket_url) for one in archived(prefix, topic, kind)]}


def to_wire(series: ArchivedSeries, bucket_url: str) -> dict[str, Any]:
    """A series with the addresses of its objects."""
    objects = [
        {
            "url": f"{bucket_url}/{found.key}",
            "first": found.first,
            "last": found.last,
            "entries": found.entries,
            "size_bytes": found.size_bytes,
        }
        for found in series.objects
    ]
    return {"topic": series.topic, "exact": series.exact, "objects": objects}
