"""What the server gives back: formats, windows, live tail, health, metrics, description."""

from __future__ import annotations

import io
import json
import math
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from http_server import Endless, Server, wait_until
from ml_dash.catalog import LocalCatalog
from ml_dash.errors import StoreUnavailable
from ml_dash.formats.arrow import entries_from_table
from ml_dash.http_catalog import HttpCatalog
from ml_dash.server import app, live
from ml_dash.server.app import create_app
from ml_dash.server.auth import FileTokens, Grant, create, now, revoke
from ml_dash.server.live import newest, stop_following
from ml_dash.server.routes import OPERATIONS
from ml_dash.server.tidy import Tidy
from ml_dash.store import Batch, Entry, Store, Track, Window
from ml_dash.stores.http import HttpStore
from ml_dash.stores.memory import MemoryStore
from store_contract import LOGS, LOSS, STATE, Writer, body, columns, entries, same

PREFIX = "ada/robots/pick"


@pytest.fixture
def catalog(tmp_path: Path) -> LocalCatalog:
    return LocalCatalog(tmp_path)


@pytest.fixture
def server(catalog: LocalCatalog) -> Iterator[Server]:
    """A server without tokens."""
    with Server(create_app(catalog, tokens=None)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


def get(client: httpx2.Client, format: str, topic: str = STATE.topic, **query: Any) -> httpx2.Response:
    answer = client.get("/v1/entries", params={"prefix": PREFIX, "topic": topic, "format": format, **query})
    assert answer.status_code == 200, answer.text
    return answer


def decoded(answer: httpx2.Response, format: str) -> list[Entry]:
    """The entries of an answer, read with the tools of its format."""
    if format == "arrow":
        return list(entries_from_table(pa.ipc.open_stream(answer.content).read_all()))
    if format == "parquet":
        return list(entries_from_table(pq.read_table(io.BytesIO(answer.content))))
    if format == "ndjson":
        return [json.loads(line) for line in answer.content.splitlines()]
    return json.loads(answer.content)["entries"]  # type: ignore[no-any-return]


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("format", ["json", "ndjson", "arrow", "parquet"])
def test_every_format_gives_the_same(catalog: LocalCatalog, client: httpx2.Client, format: str) -> None:
    """Windows and columns too, over blocks whose types differ."""
    values: list[dict[str, Any]] = [{"q": [0.5 * n, 1.0], "n": n, "s": "text"} for n in range(5000)]
    values[4000]["odd"] = {"late": None}
    values[4500] |= {"n": 1.5, "s": None}
    Writer(catalog.store(PREFIX)).send(*(body(float(n), **fields) for n, fields in enumerate(values)))
    expected = [{"timestamp": float(n), **fields} for n, fields in enumerate(values)]
    assert same(decoded(get(client, format), format), expected) or format in ("arrow", "parquet")
    assert decoded(get(client, format), format) == expected
    some = get(client, format, start=3999, end=4001.5, column=["n", "odd.late"])
    assert decoded(some, format) == [
        {"timestamp": 3999.0, "n": 3999}, {"timestamp": 4000.0, "n": 4000, "odd": {"late": None}},
        {"timestamp": 4001.0, "n": 4001},
    ]  # fmt: skip
    assert decoded(get(client, format, topic="nothing/here"), format) == []
    assert decoded(get(client, format, start=1e9), format) == []


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_numbers_stay_numbers(catalog: LocalCatalog, client: httpx2.Client, format: str) -> None:
    """NaN, infinities and large integers come back as they are in columnar formats."""
    Writer(catalog.store(PREFIX)).send(body(1.0, x=math.nan, n=2**63), body(2.0, x=-math.inf, n=1))
    assert same(decoded(get(client, format), format), [
        {"timestamp": 1.0, "x": math.nan, "n": 2**63}, {"timestamp": 2.0, "x": -math.inf, "n": 1},
    ])  # fmt: skip


def test_mocap(catalog: LocalCatalog, client: httpx2.Client) -> None:
    """The motion-capture JSON of the API document."""
    Writer(catalog.store(PREFIX)).send(body(0.0, hip=[0.0, 1.0]), body(0.5, hip=[1.0, 2.0]))
    found = get(client, "mocap").json()
    assert found["metadata"]["fps"] == 2.0
    assert found["frames"][1] == {"time": 0.5, "hip": [1.0, 2.0]}


@pytest.mark.parametrize("format", ["json", "ndjson", "arrow"])
def test_answers_are_compressed_for_those_who_can(
    catalog: LocalCatalog, client: httpx2.Client, server: Server, format: str
) -> None:
    """zstd where it is accepted, plain where not; the same content."""
    Writer(catalog.store(PREFIX)).send(*(body(float(n), q=[1.0] * 7) for n in range(3000)))
    small = get(client, format)
    with httpx2.Client(base_url=server.url, headers={"Accept-Encoding": "gzip"}) as plain:
        large = get(plain, format)
    assert small.headers["content-encoding"] == "zstd"
    assert "content-encoding" not in large.headers
    assert small.content == large.content
    assert small.num_bytes_downloaded * 5 < large.num_bytes_downloaded


@pytest.mark.parametrize("format", ["json", "ndjson", "arrow", "parquet"])
def test_sequences_carry_their_index(catalog: LocalCatalog, client: httpx2.Client, format: str) -> None:
    """From any index on, as many as wanted."""
    Writer(catalog.store(PREFIX), [LOSS]).send(*(body(100.0, loss=n) for n in range(50)))
    answer = get(client, format, topic="train", kind="metrics", first=10, limit=3)
    assert [(one["index"], one["loss"]) for one in decoded(answer, format)] == [(10, 10), (11, 11), (12, 12)]


@pytest.mark.parametrize("format", ["json", "ndjson", "arrow", "parquet"])
@pytest.mark.parametrize("limit", [0, 1, 4097, 9000])
def test_the_first_entries_of_a_window(catalog: LocalCatalog, client: httpx2.Client, format: str, limit: int) -> None:
    """As many as wanted, of a track too; columns are selected before they are counted."""
    writer = Writer(catalog.store(PREFIX))
    writer.send(*(body(float(n), **({"n": n} if n % 2 else {"m": n})) for n in range(9000)))
    found = decoded(get(client, format, start=10, limit=limit), format)
    assert [entry["timestamp"] for entry in found] == [float(n) for n in range(10, min(10 + limit, 9000))]
    odd = decoded(get(client, format, start=10, limit=min(limit, 100), column="n"), format)
    assert [entry["n"] for entry in odd] == list(range(11, 9000, 2))[: min(limit, 100)]


def test_what_is_behind_a_limit_is_not_read(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first entry of a track that never ends is there at once."""
    store = Endless()
    monkeypatch.setattr(catalog, "store", lambda prefix: store)
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        answer = client.get("/v1/entries", params={"prefix": PREFIX, "topic": "t", "limit": 3})
        assert [entry["timestamp"] for entry in answer.json()["entries"]] == [1.0, 2.0, 3.0]
        assert store.closed.wait(10)
    assert store.given == 3


def test_a_failure_in_the_middle_is_no_answer(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails after the first block cuts the connection: a part is never taken for the whole."""

    class Failing:
        def __init__(self, times: int) -> None:
            self.times, self.asked = times, list[Window]()

        def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
            self.asked.append(window)
            start = 0 if window.start is None else int(window.start) + 1
            for first in range(start, 5000, 1000):
                if self.times and first > 3000:
                    raise StoreUnavailable("gone")
                yield [{"timestamp": float(n), "x": "y" * 300} for n in range(first, min(first + 1000, 5000))]
                if self.times:
                    self.times -= 1
                    raise StoreUnavailable("gone")

    store: Any = Failing(3)
    monkeypatch.setattr(catalog, "store", lambda prefix: store)
    with Server(create_app(catalog, tokens=None)) as server:
        client = HttpStore(server.url, PREFIX)
        assert [entry["timestamp"] for entry in entries(client)] == [float(n) for n in range(5000)]
        assert len(store.asked) > 2
        store.times = 10**9
        with pytest.raises(StoreUnavailable):
            entries(client)
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(f"{server.url}/v1/entries", params={"prefix": PREFIX, "topic": "t"})
        client.close()


def test_a_reader_who_leaves_stops_the_work(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reads is not read from the store to its end, and its files are closed."""
    store = Endless()
    monkeypatch.setattr(catalog, "store", lambda prefix: store)
    with Server(create_app(catalog, tokens=None)) as server:
        with httpx2.stream("GET", f"{server.url}/v1/entries", params={"prefix": PREFIX, "topic": "t"}) as answer:
            next(answer.iter_bytes())
        assert store.closed.wait(10)
        assert store.given < 2000


# ---------------------------------------------------------------- lists and removal


def test_a_catalog_over_http(catalog: LocalCatalog, server: Server) -> None:
    """Lists, finds and removes as the catalog behind the server does."""
    for name in ("one", "two"):
        catalog.store(f"ada/x/{name}").update_document(
            "experiment", lambda known: {"status": "completed", "tags": ["a"]}
        )
    there = HttpCatalog(server.url)
    assert there.experiments() == catalog.experiments()
    assert there.prefixes("ada/x/o*") == ["ada/x/one"]
    assert there.find("ada/x/one").tags == ("a",)
    there.remove("ada/x/one")
    assert catalog.prefixes() == ["ada/x/two"]
    with pytest.raises(LookupError, match="did you mean 'ada/x/two'"):
        there.remove("ada/x/tvo")
    assert there.access()["grants"] == [{"owner": "*", "write": True}]
    there.close()


def test_long_lists_in_parts(catalog: LocalCatalog, client: httpx2.Client) -> None:
    """`after` and `limit` go through all of them, none twice."""
    names = [f"ada/x/{n:02d}" for n in range(10)]
    for name in names:
        catalog.store(name).update_document("params", lambda known: {})
    for name in names:
        catalog.store(name).append(Batch("w", 1, {1: STATE}, [body(1.0)]))
    found: list[str] = []
    while True:
        query = {"limit": 3, **({"after": found[-1]} if found else {})}
        part = [one["prefix"] for one in client.get("/v1/experiments", params=query).json()["experiments"]]
        if not part:
            break
        found += part
    assert found == names


def test_an_experiment_that_is_recorded_here_is_not_removed(catalog: LocalCatalog, client: httpx2.Client) -> None:
    """409 while its journal is held; 204 afterwards."""
    from ml_dash import Experiment

    experiment = Experiment(PREFIX, dash_root=catalog.root).run.start()
    experiment.tracks("t").append(x=1, _ts=1.0)
    refused = client.delete("/v1/experiments", params={"prefix": PREFIX})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "being_recorded")
    experiment.run.complete()
    assert client.delete("/v1/experiments", params={"prefix": PREFIX}).status_code == 204
    assert client.delete("/v1/experiments", params={"prefix": PREFIX}).status_code == 404


# ---------------------------------------------------------------- live


class Listener:
    """Collects the entries of a live stream in a thread."""

    def __init__(self, url: str, token: str = "", **query: Any) -> None:
        self.entries: list[Entry] = []
        self.lines: list[str] = []
        self.begun, self.ended = threading.Event(), threading.Event()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._thread = threading.Thread(target=self._listen, args=(url, query, headers), daemon=True)
        self._thread.start()
        assert self.begun.wait(10)

    def _listen(self, url: str, query: Any, headers: dict[str, str]) -> None:
        query = {"prefix": PREFIX, "topic": STATE.topic, **query}
        try:
            with httpx2.stream("GET", f"{url}/v1/live", params=query, headers=headers, timeout=30) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    self.lines.append(line)
                    self.begun.set()
                    if line.startswith("data: ") and "entries" in line:
                        self.entries += json.loads(line[6:])["entries"]
        finally:
            self.ended.set()


def test_live_gives_what_comes(catalog: LocalCatalog, server: Server) -> None:
    """Through this server and from another process, from now on, in order, each once."""
    writer, other = Writer(HttpStore(server.url, PREFIX)), Writer(LocalCatalog(catalog.root).store(PREFIX))
    writer.send(body(1.0, n=1))
    listener = Listener(server.url)
    writer.send(body(2.0, n=2), body(3.0, n=3))
    wait_until(lambda: len(listener.entries) == 2)
    other.send(body(4.0, n=4))
    wait_until(lambda: len(listener.entries) == 3)
    writer.send(body(0.5, n="late"), body(5.0, n=5))
    wait_until(lambda: len(listener.entries) == 4)
    assert [entry["n"] for entry in listener.entries] == [2, 3, 4, 5]
    stop_following()
    assert listener.ended.wait(10)
    writer.store.close()


def test_live_from_a_time_on(server: Server) -> None:
    """What is there already behind it comes first; columns are selected."""
    writer = Writer(HttpStore(server.url, PREFIX))
    writer.send(*(body(float(n), n=n, m=-n) for n in range(3000)))
    listener = Listener(server.url, start=10, column="m")
    wait_until(lambda: len(listener.entries) == 2989)
    assert listener.entries[0] == {"timestamp": 11.0, "m": -11}
    writer.send(body(5000.0, m="now"))
    wait_until(lambda: listener.entries[-1]["m"] == "now")
    stop_following()
    assert listener.ended.wait(10)
    writer.store.close()


def test_live_columns_that_are_rare(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries without the field than an event or a look has do not end it, of a track or of a sequence."""
    monkeypatch.setattr(live, "MAX_LOOK_ENTRIES", 700)
    store = HttpStore(server.url, PREFIX)
    writers = {"tracks": Writer(store), "metrics": Writer(store, [LOSS])}
    listeners: dict[str, Listener] = {}

    def comes(kind: str, *values: int) -> None:
        wait_until(lambda: [entry["rare"] for entry in listeners[kind].entries] == [*values])

    for kind, writer in writers.items():
        writer.send(*(body(float(n), n=n) for n in range(2500)), body(3000.0, rare=1))
        query = {"kind": kind, "topic": writer.tracks[1].topic, "column": "rare"}
        listeners[kind] = Listener(server.url, **query, **({"start": -1} if kind == "tracks" else {"first": 0}))
        comes(kind, 1)
        writer.send(body(4000.0, n=0), body(5000.0, rare=2))
        comes(kind, 1, 2)
    assert listeners["metrics"].entries == [
        {"index": 2500, "timestamp": 3000.0, "rare": 1},
        {"index": 2502, "timestamp": 5000.0, "rare": 2},
    ]
    assert listeners["tracks"].entries == [{"timestamp": 3000.0, "rare": 1}, {"timestamp": 5000.0, "rare": 2}]
    stop_following()
    assert all(listener.ended.wait(10) for listener in listeners.values())
    store.close()


class Starts(MemoryStore):
    """Notes from where each window is read."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []

    def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
        self.starts.append(-math.inf if window.start is None else window.start)
        yield from super().read(track, window)


def test_live_does_not_look_again_at_what_lacks_the_column(
    catalog: LocalCatalog, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look begins ten seconds before a track's newest entry: a field may follow the others of its instant."""
    store = Starts()
    monkeypatch.setattr(catalog, "store", lambda prefix: store)
    sender = HttpStore(server.url, PREFIX)
    writer, slower = Writer(sender), Writer(sender)
    writer.send(*(body(float(n), n=n) for n in range(1, 1001)))
    listener = Listener(server.url, start=0, column="rare")
    wait_until(lambda: len(store.starts) >= 2)
    assert [round(start) for start in store.starts[:2]] == [0, 990]
    slower.send(body(980.0, rare="late"), body(995.0, rare="follows"))
    wait_until(lambda: listener.entries == [{"timestamp": 995.0, "rare": "follows"}])
    stop_following()
    assert listener.ended.wait(10)
    sender.close()


def test_live_sequences(server: Server) -> None:
    """From an index on."""
    writer = Writer(HttpStore(server.url, PREFIX), [LOGS])
    writer.send(body(1.0, message="a"), body(2.0, message="b"))
    listener = Listener(server.url, kind="logs", topic="logs", first=1)
    writer.send(body(3.0, message="c"))
    wait_until(lambda: [entry["message"] for entry in listener.entries] == ["b", "c"])
    stop_following()
    assert listener.ended.wait(10)
    writer.store.close()


@pytest.fixture
def guarded(catalog: LocalCatalog) -> Iterator[tuple[Server, FileTokens, list[str]]]:
    """A server with tokens, and the time it believes."""
    tokens, time = FileTokens(catalog.root / ".server" / "tokens.json"), [now()]
    with Server(create_app(catalog, tokens=tokens, clock=lambda: time[0])) as server:
        yield server, tokens, time


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("is_idle", [True, False])
def test_live_ends_with_its_token(
    catalog: LocalCatalog, guarded: tuple[Server, FileTokens, list[str]], how: str, is_idle: bool
) -> None:
    """Nothing that comes after a token was revoked, or expired, goes to who holds it; an idle stream ends too."""
    server, tokens, time = guarded
    token, text = create(tokens, "reader", [Grant("ada", False)], timedelta(days=1))
    writer = Writer(catalog.store(PREFIX))
    listener = Listener(server.url, text)
    writer.send(body(1.0, n=1))
    wait_until(lambda: len(listener.entries) == 1)
    if how == "revoked":
        revoke(FileTokens(tokens.path), token.id)
    else:
        time[0] = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds")
    if not is_idle:
        writer.send(body(2.0, n=2))
    assert listener.ended.wait(5)
    assert len(listener.entries) == 1
    assert [line for line in listener.lines if line][-2:] == ["event: end", 'data: {"reason":"unauthorized"}']


def test_live_ends_with_a_reason(server: Server, catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails ends the stream as an event, with the code of the error; so does the server that stops."""
    stopped = Listener(server.url)
    stop_following()
    assert stopped.ended.wait(10)
    assert [line for line in stopped.lines if line][-2:] == ["event: end", 'data: {"reason":"stopping"}']

    class Failing:
        def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
            raise StoreUnavailable("gone")

    monkeypatch.setattr(catalog, "store", lambda prefix: Failing())
    with Server(create_app(catalog, tokens=None)) as other:
        failed = Listener(other.url)
        assert failed.ended.wait(10)
        assert [line for line in failed.lines if line] == ["event: end", 'data: {"reason":"unavailable"}']


def test_a_body_that_takes_long_needs_a_good_token_at_its_end(
    catalog: LocalCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is revoked while a slow body comes stores nothing any more."""
    monkeypatch.setattr(app, "ASK_AGAIN_S", 0.0)
    tokens = FileTokens(tmp_path / ".server" / "tokens.json")
    token, text = create(tokens, "writer", [Grant("ada", True)])

    def slowly() -> Iterator[bytes]:
        yield b'{"timestamp": 1}'
        revoke(tokens, token.id)
        yield b"\n"

    with Server(create_app(catalog, tokens=tokens)) as server:
        answer = httpx2.post(
            f"{server.url}/v1/batches", params={"prefix": PREFIX, "topic": "t"}, content=slowly(),
            headers={"Authorization": f"Bearer {text}", "Content-Type": "application/x-ndjson"},
        )  # fmt: skip
    assert answer.status_code == 401
    assert catalog.store(PREFIX).tracks() == []


@pytest.mark.parametrize("count", [0, 1, 2, 100, 20_000])
def test_the_newest_is_found_without_reading_all(catalog: LocalCatalog, count: int) -> None:
    """By some tens of short reads, wherever the timestamps lie."""
    store = catalog.store(PREFIX)
    stamps = sorted({-5e3 + n**1.5 for n in range(count)})
    if count:
        Writer(store).send(columns(stamps, x=[1.0] * len(stamps)))
    reads = [0]

    class Counting:
        def read(self, track: Track, window: Window = Window()) -> Iterator[list[Entry]]:
            reads[0] += 1
            return store.read(track, window)

    counting: Store = Counting()  # type: ignore[assignment]
    assert newest(counting, STATE) == (stamps[-1] if stamps else -math.inf)
    assert reads[0] < 150


# ---------------------------------------------------------------- the server itself


def test_metrics_count(server: Server, client: httpx2.Client) -> None:
    """Requests by operation and status, entries stored, bytes received."""
    writer = Writer(HttpStore(server.url, PREFIX))
    writer.send(body(1.0), columns([2.0, 3.0], x=[1, 2]))
    client.get("/v1/tracks")
    text = client.get("/metrics").text
    assert 'ml_dash_requests_total{operation="append",status="200"} 1.0' in text
    assert 'ml_dash_requests_total{operation="list_tracks",status="400"} 1.0' in text
    assert "ml_dash_entries_stored_total 3.0" in text
    assert PREFIX not in text
    writer.store.close()


def test_a_store_that_fails_is_not_ready(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After where the store behind the server does not answer; alive all the same."""

    def unreachable(prefix: str) -> Store:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(catalog, "store", unreachable)
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/tracks", params={"prefix": PREFIX}).status_code == 503


def test_a_fault_of_the_server_tells_nothing(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with our JSON, nothing of the inside, for an error nobody foresaw."""

    def broken(prefix: str) -> Store:
        raise RuntimeError("password of the database")

    monkeypatch.setattr(catalog, "store", broken)
    app = create_app(catalog, tokens=None)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.get("/v1/tracks", params={"prefix": PREFIX})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert "password" not in answer.text


def test_a_full_disk_is_told(catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """507, which a client takes as a reason to wait."""
    import errno

    def full(prefix: str) -> Store:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")

    monkeypatch.setattr(catalog, "store", full)
    with TestClient(create_app(catalog, tokens=None), base_url="http://localhost") as client:
        answer = client.get("/v1/tracks", params={"prefix": PREFIX})
        assert answer.status_code == 507
        assert "/secret" not in answer.text


def test_files_get_their_form_back(catalog: LocalCatalog) -> None:
    """Late data that came through the server is put in order once nobody writes for a while."""
    store = catalog.store(PREFIX)
    Writer(store).send(body(2.0, x=2))
    Writer(store).send(body(1.0, x=1))
    path = catalog.root / PREFIX / "tracks/robot_state/data.jsonl"
    assert json.loads(path.read_bytes().splitlines()[0])["timestamp"] == 2.0
    tidy = Tidy(catalog, idle_s=0.0)
    tidy.note(PREFIX)
    wait_until(lambda: tidy.due() == [PREFIX])
    tidy.compact(PREFIX)
    assert [json.loads(line)["timestamp"] for line in path.read_bytes().splitlines()] == [1.0, 2.0]
    assert tidy.due() == []


def test_the_description_is_whole(client: httpx2.Client) -> None:
    """Every operation is in it, with its parameters, its answers and its errors."""
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    assert set(found["paths"]["/v1/entries"]["get"]["responses"]) >= {"200", "400", "401", "403", "404", "503"}
    assert {parameter["name"] for parameter in found["paths"]["/v1/entries"]["get"]["parameters"]} >= {
        "prefix",
        "column",
    }
    documented = {(path, method.upper()) for path, methods in found["paths"].items() for method in methods}
    assert documented == {(one.path, one.method) for one in OPERATIONS}


def test_the_page_names_every_parameter() -> None:
    """`docs/http-api.md` has each path with the parameters that its operations take, as errors list them."""
    page = (Path(__file__).parent.parent.parent / "docs" / "http-api.md").read_text(encoding="utf-8")
    page = page.partition("\n## Store")[0]
    told: dict[str, set[str]] = {}
    for cell in re.findall(r"^\| (`(?:GET|POST|PUT|DELETE)[^|]*) \|", page, re.M):
        for path in re.findall(r"(/[\w./]+)", cell):
            told.setdefault(path, set()).update(re.findall(r"[?&](\w+)=", cell))
    taken: dict[str, set[str]] = {"/metrics": set(), "/openapi.json": set()}
    for operation in OPERATIONS:
        taken.setdefault(operation.path, set()).update(param.name for param in operation.params)
    assert told == taken
