"""What tests of the database and the archive share: catalogs of their own, and recordings to fill them with."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ml_dash.entry import encode_body
from ml_dash.mongo_catalog import MongoCatalog
from ml_dash.store import Batch, Entry, Store, Track, Window
from ml_dash.stores.bucket import Bucket, open_bucket
from ml_dash.stores.compactor import Policy
from servers.running import S3Server

AT_ONCE = Policy(grace_s=0.0, stub_s=0.0, gone_s=0.0, min_segments=2, part_entries=1000, archive_after_s=0.0)
"""Nothing waits for anybody: right only where nobody else reads."""

STATE, LOSS = Track("tracks", "robot/state"), Track("metrics", "loss")
TRACKS = {1: STATE, 2: LOSS}


def unique_prefix() -> str:
    """An experiment nobody recorded."""
    return f"ada/archive/{secrets.token_hex(6)}"


@contextmanager
def new_catalog(client: Any, bucket: Bucket | None, policy: Policy = AT_ONCE) -> Iterator[MongoCatalog]:
    """A catalog in a database of its own: the stand-in scans whole collections, so a shared one would slow tests."""
    name = f"test_{secrets.token_hex(6)}"
    yield MongoCatalog(client=client, database=name, bucket=bucket, policy=policy)
    client.drop_database(name)


def bucket_of(server: Any) -> Bucket:
    """A folder of its own in the bucket of a test server."""
    url = f"{server.url}/{secrets.token_hex(6)}"
    if not isinstance(server, S3Server):
        return open_bucket(url)  # the server of `ML_DASH_TEST_S3_URL`: the environment says how to reach it
    return open_bucket(
        url,
        endpoint=server.env["AWS_ENDPOINT_URL"],
        region=server.env["AWS_REGION"],
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True, "timeout": "20s"},
    )


def batch(number: int, entries: int = 100, *, writer: str = "robot", start: float | None = None) -> Batch:
    """Robot state of several types, 100 entries a second, and a tenth as many losses; each number goes on in time."""
    first = number * entries / 100 if start is None else start
    bodies = []
    for k in range(entries):
        time = first + k / 100
        fields: dict[str, Any] = {"q": [math.sin(time + joint) for joint in range(7)], "step": number * entries + k}
        if k % 10 == 0:
            fields |= {"note": f"{number}.{k}", "pose": {"x": time, "frame": None}, "range": math.inf}
            bodies.append(encode_body((2, time, {"loss": 1.0 / (1 + number + k), "epoch": number})))
        bodies.append(encode_body((1, time, fields)))
    return Batch(writer, number, TRACKS, bodies)


def read(store: Store, track: Track = STATE, window: Window = Window()) -> list[Entry]:
    """A whole window."""
    return [entry for block in store.read(track, window) for entry in block]


def archive_all(catalog: MongoCatalog, prefix: str) -> int:
    """Compact, archive and sweep an experiment, with no wait in between; the number of objects stored."""
    catalog.compact(prefix)
    catalog.sweep(prefix)
    stored = catalog.archive(prefix)
    catalog.sweep(prefix)
    return stored
