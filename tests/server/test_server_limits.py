"""Hostile bodies: a precise 4xx, nothing stored, the server stays up, memory stays flat."""

from __future__ import annotations

import gzip
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from http_server import Server
from ml_dash import wire
from ml_dash.catalog import LocalCatalog
from ml_dash.entry import MAX_ENTRY_BYTES, decode_body, encode_body
from ml_dash.line import from_line
from ml_dash.server import lines
from ml_dash.server.app import create_app
from ml_dash.server.limits import Patience
from ml_dash.store import Batch, Track
from ml_dash.stores.http import HttpStore
from ml_dash.zstd import compress, module
from peak import MIB, no_collection, peak_growth, soon
from store_contract import STATE, body, columns, entries

PREFIX = "ada/hostile/bodies"
LIMITS = wire.Limits(compressed=1 << 20, raw=4 << 20, entries=1000, document=10_000)
PATIENCE = Patience(stall_s=0.6, grace_s=1.0, min_bytes_per_s=2000.0)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with small limits."""
    catalog = LocalCatalog(tmp_path_factory.mktemp("served"))
    with Server(create_app(catalog, tokens=None, limits=LIMITS, patience=PATIENCE)) as server:
        yield server.url


@pytest.fixture
def store(url: str) -> Iterator[HttpStore]:
    """An experiment on it that nobody else uses."""
    store = HttpStore(url, f"{PREFIX}/{time.monotonic_ns()}")
    yield store
    store.close()


@pytest.fixture
def post(url: str, store: HttpStore) -> Iterator[Callable[..., Any]]:
    """Posts a body to the experiment as it is. What is refused is refused within a second, takes less than 64 MiB
    meanwhile (of server and client together) and leaves nothing stored."""
    import httpx2

    client = httpx2.Client(base_url=url, timeout=30)

    def send(content: Any, *, query: dict[str, str] | None = None, **headers: str) -> Any:
        sent = {"Content-Type": wire.BATCH, **{name.replace("_", "-"): text for name, text in headers.items()}}
        if isinstance(content, bytes) and "Content-Digest" not in sent:
            sent["Content-Digest"] = wire.digest(content)
        used, started = time.process_time(), time.monotonic()
        with peak_growth() as grown, no_collection():
            answer = client.post(
                wire.BATCHES, params={"prefix": store.prefix, **(query or {})}, content=content, headers=sent
            )
        if answer.status_code != 200:
            assert time.process_time() - used < 1.0
            assert time.monotonic() - started < 10.0
            assert grown.size < 64 * MIB
            assert entries(store) == []
            assert set(answer.json()["error"]) >= {"code", "message"}
        return answer

    yield send
    client.close()


def raw(*bodies: bytes, tracks: Any = None, number: Any = 1, writer: Any = "w", v: Any = 1) -> bytes:
    """A batch as msgpack, with whatever is asked for in it."""
    tracks = {1: ("tracks", STATE.topic)} if tracks is None else tracks
    return msgspec.msgpack.encode(
        {"v": v, "writer": writer, "number": number, "tracks": tracks, "bodies": list(bodies)}
    )


def refused(answer: Any, status: int, code: str) -> str:
    """The message of a refusal of this kind."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    return str(answer.json()["error"]["message"])


# ---------------------------------------------------------------- sizes


def test_the_limits_themselves_are_served(post: Callable[..., Any]) -> None:
    """A body of exactly the limit is stored."""
    assert post(raw(*(body(float(n), n=n) for n in range(LIMITS.entries)))).json() == {"applied": 1, "count": 1000}
    fill = LIMITS.compressed - len(raw(body(1.0, x="")))
    content = raw(body(1.0, x="a" * (fill - 20)), number=2)
    content = raw(body(1.0, x="a" * (fill - 20 + LIMITS.compressed - len(content))), number=2)
    assert len(content) == LIMITS.compressed
    assert post(content).status_code == 200


def test_one_byte_too_many(post: Callable[..., Any]) -> None:
    """Refused by the declared length, before the body is read; and without one, once it is passed."""
    content = bytes(LIMITS.compressed + 1)
    refused(post(content), 413, "too_large")
    refused(post(iter([content[:1000], content[1000:]]), Content_Digest="sha-256=:x:"), 413, "too_large")


def test_one_entry_too_many(post: Callable[..., Any]) -> None:
    """Single entries and those inside columns count alike."""
    assert "1000 entries" in refused(post(raw(*(body(float(n)) for n in range(1001)))), 413, "too_large")
    refused(post(raw(columns([float(n) for n in range(1001)], x=[1.0] * 1001))), 413, "too_large")


def test_one_byte_too_many_inside(post: Callable[..., Any]) -> None:
    """The limit of what a body becomes counts, declared or not."""
    content = bytes(LIMITS.raw + 1)
    refused(post(compress(content), Content_Encoding="zstd"), 413, "too_large")
    frame = module().ZstdCompressor()
    refused(post(frame.compress(content) + frame.flush(), Content_Encoding="zstd"), 413, "too_large")
    refused(post(gzip.compress(content), Content_Encoding="gzip"), 413, "too_large")


def test_an_entry_too_large(tmp_path: Path) -> None:
    """The limit of one entry is the one that append has."""
    app = create_app(LocalCatalog(tmp_path), tokens=None)
    with Server(app) as server:
        store = HttpStore(server.url, PREFIX)
        with pytest.raises(wire.Refused, match="8 MiB"):
            store.append(Batch("w", 1, {1: STATE}, [body(1.0, x="a" * MAX_ENTRY_BYTES)]))
        store.append(Batch("w", 1, {1: STATE}, [body(1.0, x="a" * (MAX_ENTRY_BYTES - 100))]))
        assert len(entries(store)[0]["x"]) == MAX_ENTRY_BYTES - 100
        store.close()


BOMBS = ["zstd", "zstd undeclared", "zstd lying", "gzip", "zstd of zstd"]


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """Bodies of some KB that become gigabytes, or that say so."""
    chunk, zstd = bytes(1 << 20), module()
    squeezer = __import__("zlib").compressobj(9, 8, 31)
    found = {"gzip": b"".join(squeezer.compress(chunk) for _ in range(600)) + squeezer.flush()}
    for kind in ("zstd", "zstd undeclared"):
        frame = zstd.ZstdCompressor(
            options={} if kind == "zstd undeclared" else {zstd.CompressionParameter.content_size_flag: 1}
        )
        if kind == "zstd":
            frame.set_pledged_input_size(2000 << 20)
        found[kind] = b"".join(frame.compress(chunk) for _ in range(2000)) + frame.flush()
    found["zstd lying"] = compress(bytes(1000)).replace(bytes([0x60, 0xE8, 0x02]), bytes([0x60, 0x01, 0x00]))
    found["zstd of zstd"] = compress(found["zstd"])
    return found


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs(post: Callable[..., Any], bombs: dict[str, bytes], kind: str) -> None:
    """A small body that becomes gigabytes is refused within a second, and takes no memory."""
    assert post(bombs[kind], Content_Encoding=kind.split()[0]).status_code in (400, 413)


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_under_the_real_limits(tmp_path: Path, bombs: dict[str, bytes], kind: str) -> None:
    """The same holds where 64 MiB are allowed: what is refused is counted, not kept."""
    import httpx2

    with Server(create_app(LocalCatalog(tmp_path), tokens=None)) as server:
        content = bombs[kind]
        headers = {"Content-Type": wire.BATCH, "Content-Encoding": kind.split()[0]}
        with soon(), peak_growth() as grown:
            answer = httpx2.post(
                f"{server.url}{wire.BATCHES}",
                params={"prefix": PREFIX},
                content=content,
                headers={**headers, "Content-Digest": wire.digest(content)},
            )
        assert answer.status_code in (400, 413)
        assert grown.size < 64 * MIB, f"{grown.size >> 20} MiB"


def test_many_bombs_at_once(tmp_path: Path, bombs: dict[str, bytes]) -> None:
    """Thirty-two of them together stay within what requests may hold together."""
    import httpx2

    content = bombs["zstd undeclared"]
    headers = {"Content-Type": wire.BATCH, "Content-Encoding": "zstd", "Content-Digest": wire.digest(content)}
    with (
        Server(create_app(LocalCatalog(tmp_path), tokens=None)) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(32) as pool,
    ):

        def send(number: int) -> int:
            return client.post(wire.BATCHES, params={"prefix": PREFIX}, content=content, headers=headers).status_code

        with peak_growth() as grown:
            statuses = set(pool.map(send, range(32)))
        assert statuses <= {413, 503}
        assert 413 in statuses
        assert grown.size < 4 * wire.LIMITS.raw, f"{grown.size >> 20} MiB"


# ---------------------------------------------------------------- what is no batch


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"\xc0", b"\x90", b"\xff" * 100, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        raw(v=2), raw(v="1"), raw(writer=1), raw(writer=""), raw(writer="a/b"), raw(writer="x" * 129), raw(writer="ä"),
        raw(number=0), raw(number=-1), raw(number=1 << 63), raw(number=1.0), raw(number="1"), raw(number=None),
        raw(tracks=[]), raw(tracks={"1": ("tracks", "t")}), raw(tracks={1: ("tracks",)}), raw(tracks={1: "tracks"}),
        raw(tracks={1: ("files", "t")}), raw() + b"\x00", raw()[:-1],
        msgspec.msgpack.encode({"v": 1, "writer": "w", "number": 1, "tracks": {}, "bodies": [], "more": 1}),
        msgspec.msgpack.encode({"v": 1, "writer": "w", "number": 1, "tracks": {}, "bodies": ["text"]}),
    ],
)  # fmt: skip
def test_what_is_no_batch(post: Callable[..., Any], content: bytes) -> None:
    """A 400 that says what is wrong, within a second."""
    refused(post(content), 400, "bad_body")


@pytest.mark.parametrize("name", ["kind", "topic", "writer", "number"])
def test_a_batch_says_itself_what_it_holds(post: Callable[..., Any], name: str) -> None:
    """What belongs to lines is not passed over in silence beside a batch."""
    assert name in refused(post(raw(body(1.0, x=1)), query={name: "1"}), 400, "bad_parameter")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content_Type": "text/plain"}, 415, "unsupported_type"),
        ({"Content_Type": "application/json"}, 415, "unsupported_type"),
        ({"Content_Encoding": "br"}, 415, "unsupported_type"),
        ({"Content_Encoding": "zstd, gzip"}, 415, "unsupported_type"),
        ({"Content_Encoding": "zstd"}, 400, "bad_body"),
        ({"Content_Encoding": "gzip"}, 400, "bad_body"),
        ({"Content_Digest": "sha-256=:AAAA:"}, 400, "bad_digest"),
        ({"Content_Digest": "nonsense"}, 400, "bad_digest"),
        ({"Content_Digest": ""}, 400, "bad_digest"),
    ],
)
def test_wrong_headers(post: Callable[..., Any], headers: dict[str, str], status: int, code: str) -> None:
    """Unknown types and encodings, and checksums of another body, are refused by name."""
    refused(post(raw(body(1.0, x=1)), **headers), status, code)


def test_a_damaged_body_is_noticed(post: Callable[..., Any]) -> None:
    """One bit flipped on the way does not become an entry."""
    content = bytearray(raw(body(1.0, x=1.0)))
    fine = wire.digest(bytes(content))
    content[-1] ^= 1
    assert "again" in refused(post(bytes(content), Content_Digest=fine), 400, "bad_digest")


HEADS: dict[str, tuple[dict[str, str], int]] = {
    "too long": ({"Content-Length": str(LIMITS.compressed + 1)}, 413),
    "length no number": ({"Content-Length": "ten"}, 400),
    "unknown type": ({"Content-Type": "text/plain"}, 415),
    "unknown encoding": ({"Content-Encoding": "br"}, 415),
    "no checksum": ({"Content-Digest": ""}, 400),
    "another host": ({"Host": "evil.example"}, 403),
}


@pytest.mark.parametrize("kind", HEADS)
def test_what_the_head_tells_needs_no_body(url: str, store: HttpStore, kind: str) -> None:
    """The answer is there within a second of the head, though not one byte of the body comes."""
    changed, status = HEADS[kind]
    known = {"Host": "localhost", "Content-Type": wire.BATCH, "Content-Digest": "sha-256=:x:", "Content-Length": "1000"}
    fields = {name: text for name, text in {**known, **changed}.items() if text}
    head = f"POST {wire.BATCHES}?prefix={store.prefix} HTTP/1.1\r\n"
    head += "".join(f"{name}: {text}\r\n" for name, text in fields.items()) + "\r\n"
    host, port = url.removeprefix("http://").split(":")
    with soon(), socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(head.encode())
        answer = line.recv(65536)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_limit_is_noticed_where_it_is_passed(url: str, store: HttpStore) -> None:
    """A body of unknown length is refused with the byte that is too many: the rest is not waited for."""
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST {wire.BATCHES}?prefix={store.prefix} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {wire.BATCH}\r\n"
        "Content-Digest: sha-256=:x:\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with soon(), socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(head.encode())
        line.sendall(f"{LIMITS.compressed + 1:x}\r\n".encode() + bytes(LIMITS.compressed + 1) + b"\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_no_checksum(post: Callable[..., Any]) -> None:
    """A batch without one is refused."""
    refused(post(iter([raw(body(1.0))])), 400, "bad_digest")


# ---------------------------------------------------------------- entries

_nested: Any = 1.0
for _ in range(2000):
    _nested = [_nested]


def _deep(depth: int) -> bytes:
    return b"\x93\x01\xcb" + struct.pack(">d", 1.0) + b"\x81\xa1x" + b"\x91" * depth + b"\xc0"


def _packed(*parts: Any) -> bytes:
    return msgspec.msgpack.encode(parts)


BAD_ENTRIES = {
    "not msgpack": b"\xc1",
    "cut": body(1.0, x=1)[:-1],
    "two": body(1.0, x=1) * 2,
    "empty": b"",
    "a number": b"\x01",
    "a map": b"\x80",
    "too short": _packed(1, 1.0),
    "too long": _packed(1, 1.0, {}, {}, {}),
    "deep": _deep(100_000),
    "NaN": _packed(1, math.nan, {}),
    "inf": _packed(1, math.inf, {}),
    "integer time": _packed(1, 1 << 60, {}),
    "text time": _packed(1, "1.0", {}),
    "no time": _packed(1, None, {}),
    "unknown track": _packed(7, 1.0, {}),
    "negative track": _packed(-1, 1.0, {}),
    "fields no map": _packed(1, 1.0, [1]),
    "field names no text": _packed(1, 1.0, {1: 2}),
    "a field named timestamp": _packed(1, 1.0, {"timestamp": 2.0}),
    "a long array": b"\xdc\x00\x03" + _packed(1, 1.0, {})[1:],
    "a wide track number": b"\x93\xd1\x00\x01" + _packed(1, 1.0, {})[2:],
    "bad text": b"\x93\x01\xcb" + struct.pack(">d", 1.0) + b"\x81\xa1x\xa1\xff",
    "huge array": b"\x93\x01\xcb" + struct.pack(">d", 1.0) + b"\x81\xa1x\xdd\xff\xff\xff\xff",
    "columns without times": _packed(1, 2, b"", {}),
    "columns of nothing": _packed(1, 0, b"", {}),
    "columns with NaN times": _packed(1, 1, struct.pack("<d", math.nan), {}),
    "columns too short": _packed(1, 2, bytes(16), {"x": ["d", [], bytes(8)]}),
    "columns of an unknown kind": _packed(1, 1, bytes(8), {"x": ["Z", [], bytes(8)]}),
    "columns of a negative shape": _packed(1, 1, bytes(8), {"x": ["d", [-1, -1], bytes(8)]}),
    "columns of an empty shape": _packed(1, 1, bytes(8), {"x": ["d", [0], b""]}),
    "columns of a huge shape": _packed(1, 1, bytes(8), {"x": ["d", [1 << 31, 1 << 31], b""]}),
    "columns of many dimensions": _packed(1, 1, bytes(8), {"x": ["b", [1] * 60, b"a"]}),
    "columns with a list too long": _packed(1, 1, bytes(8), {"x": [[1, 2]]}),
    "columns that are none": _packed(1, 1, bytes(8), {"x": 1}),
    "columns n is text": _packed(1, "1", bytes(8), {}),
    "columns n is huge": _packed(1, 1 << 62, bytes(8), {}),
    "an extension": _packed(1, 1.0, {"x": [msgspec.msgpack.Ext(5, b"abc")]}),
    "an extension in columns": _packed(1, 1, bytes(8), {"x": [[msgspec.msgpack.Ext(5, b"abc")]]}),
    "a time that is none": _packed(1, 1.0, {"x": msgspec.msgpack.Ext(-1, b"abc")}),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_bad_entries_are_named(post: Callable[..., Any], name: str) -> None:
    """Each is found by its place, its neighbours are not named, nothing of the batch is stored, in under a second."""
    content = raw(body(1.0, x=1), BAD_ENTRIES[name], body(2.0, x=2), BAD_ENTRIES[name])
    answer = post(content)
    refused(answer, 422, "bad_entries")
    assert [place for place, _ in answer.json()["error"]["entries"]] == [1, 3]


@pytest.mark.parametrize(
    "topic", ["", " ", "/a", "a/", "a//b", ".", "..", "a/../b", "../../etc/passwd", "a\x00b", "a\nb", "x" * 1025]
)
def test_hostile_topics(post: Callable[..., Any], topic: str) -> None:
    """A topic that could name no track refuses its entries, and leaves no file."""
    refused(post(raw(body(1.0), tracks={1: ("tracks", topic)})), 422, "bad_entries")


@pytest.mark.parametrize("topic", ["x", "../x", "logs/../../x"])
def test_logs_have_one_series(post: Callable[..., Any], topic: str) -> None:
    """The kind whose topic is a file's name takes only its own."""
    refused(post(raw(body(1.0, message="m"), tracks={1: ("logs", topic)})), 422, "bad_entries")


def test_what_append_takes_is_taken(post: Callable[..., Any], store: HttpStore) -> None:
    """Nested as deep as a recording may be, odd keys, dates and bytes: stored as locally."""
    import datetime

    odd = {
        "deep": _nested_to(600),
        "keys": {1: "a", None: "b", 2.5: "c"},
        "raw": b"\x00\xff",
        "when": datetime.date(2026, 1, 2),
        "at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    }
    assert post(raw(body(1.0, **odd), columns([2.0, 3.0], s=["a", None]))).status_code == 200
    (first, *others) = entries(store)
    assert (first["keys"], first["raw"], first["when"]) == ({"1": "a", "null": "b", "2.5": "c"}, "AP8=", "2026-01-02")
    assert first["at"] == "2026-01-02T00:00:00Z"
    assert others == [{"timestamp": 2.0, "s": "a"}, {"timestamp": 3.0, "s": None}]


def _nested_to(depth: int) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


# ---------------------------------------------------------------- lines


def test_lines_for_people(post: Callable[..., Any], store: HttpStore) -> None:
    """NDJSON of one topic, gzipped or not, with or without a number."""
    lines = b'{"timestamp": 1, "x": 1.5}\n\n{"timestamp": 2.0, "x": "NaN"}\n'
    assert post(lines, query={"topic": "robot/state"}, Content_Type="application/x-ndjson").json()["count"] == 2
    packed = gzip.compress(b'{"timestamp": 3, "x": 1}')
    query = {"topic": "robot/state", "writer": "me", "number": "1"}
    for _ in range(2):
        answer = post(packed, query=query, Content_Type="application/x-ndjson; charset=utf-8", Content_Encoding="gzip")
        assert answer.json() == {"applied": 1, "count": 1}
    assert [entry["timestamp"] for entry in entries(store)] == [1.0, 2.0, 3.0]
    assert math.isnan(entries(store)[1]["x"])


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[]",
        b"{}",
        b'{"timestamp": "1"}',
        b'{"timestamp": NaN}',
        b'{"timestamp": 1e999}',
        b"\xff",
        b'{"timestamp": 1, "x": %d}' % (1 << 70),
        b'{"timestamp":1,"x":' + b"[" * 100_000,
    ],
)
def test_bad_lines_are_named(post: Callable[..., Any], line: bytes) -> None:
    """By their place; nothing is stored."""
    content = b'{"timestamp": 1}\n' + line + b'\n{"timestamp": 2}\n'
    answer = post(content, query={"topic": "robot/state"}, Content_Type="application/x-ndjson")
    refused(answer, 422, "bad_entries")
    assert answer.json()["error"]["entries"][0][0] == 1


UNSOUND_LINES = {
    b'{"timestamp": 6, "a": 1e400}': "field 'a' has a number beyond float64",
    b'{"timestamp": 6, "a": {"b": [1, -1E+0400]}}': "field 'a' has a number beyond float64",
    b'{"timestamp": 6, "a": 1%s.0e5}' % (b"0" * 310): "field 'a' has a number beyond float64",
    b'{"timestamp": 7, "timestamp": 8}': "field 'timestamp' is there twice",
    b'{"timestamp": 7, "a": {"b": 1, "c": ":", "b": 2}}': "field 'b' is there twice",
    b'{"timestamp": 7, "a": [1, {"b": 1, "b": 2}]}': "field 'b' is there twice",
    rb'{"timestamp": 7, "a": "\u003a", "b": 1, "b": 2}': "field 'b' is there twice",
    b'{"timestamp": 6, "a": "Infinity", "b": 1e400}': "field 'b' has a number beyond float64",
    b'{"timestamp": 6, "Infinity": 1e400}': "field 'Infinity' has a number beyond float64",
    rb'{"timestamp": 6, "a": "\"Infinity", "b": 1e400}': "field 'b' has a number beyond float64",
    b'{"timestamp": 7, "b": 1, "n": %d}' % (1 << 70): "field 'n' on topic 'robot/state' (int) cannot be recorded",
}


@pytest.mark.parametrize("line", UNSOUND_LINES)
def test_lines_that_would_become_something_else(post: Callable[..., Any], line: bytes) -> None:
    """A number that reads as infinity, a name twice, an integer of no type: refused, with the field's name."""
    answer = post(line, query={"topic": "robot/state"}, Content_Type="application/x-ndjson")
    assert UNSOUND_LINES[line] in refused(answer, 422, "bad_entries")


def test_lines_that_look_unsound_and_are_not(post: Callable[..., Any], store: HttpStore) -> None:
    """The spellings of NaN and infinity that the format has, colons in texts, large exponents, deep nesting."""
    values = [
        b'"Infinity"', b"Infinity", b'["NaN", "-Infinity", NaN]', b'"\\u0049nfinity"', b'"12:30:00"', b"1e300",
        b'"1e400"', b'{"b": {"b": ":"}}', b"0.%se150" % (b"0" * 200), b"[" * 900 + b"1" + b"]" * 900,
    ]  # fmt: skip
    lines = b"".join(b'{"timestamp": %d, "a": %s, "t": "1e999"}\n' % one for one in enumerate(values))
    assert post(lines, query={"topic": STATE.topic}, Content_Type="application/x-ndjson").json()["count"] == 10
    found = [entry["a"] for entry in entries(store)]
    assert found[:2] == [math.inf, math.inf]
    assert math.isnan(found[2][0])
    assert found[3:9] == ["Infinity", "12:30:00", 1e300, "1e400", {"b": {"b": ":"}}, pytest.approx(0, abs=1e-40)]


ORDINARY_LINES = (
    b'{"timestamp": 1.5, "v": 1.0, "q": [0.1, 0.2]}',
    b'{"timestamp": 1.5, "pose": {"x": 1.0, "at": {"y": 2}}, "q": [0.1]}',
    b'{"timestamp": 1.5, "boxes": [{"label": "cup", "at": [1, 2]}, {"label": "a:b"}]}',
    b'{"timestamp": 1.5, "level": "info", "message": "at 12:30: https://host", "x:y": 1}',
    b'{"timestamp": 1.5, "ranges": [1.0, "Infinity", 2.0, "-Infinity"], "v": 1e300}',
)


@pytest.mark.parametrize("line", ORDINARY_LINES)
def test_ordinary_lines_are_read_once(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing is wrong with is not read a second time, by the careful and slow way."""
    monkeypatch.setattr(lines, "json", None)
    assert decode_body(lines.body_of(line, "t"))[1] == 1.5


@pytest.mark.parametrize("pose", [{}, {"pose": {"x": 1.5}}])
def test_the_check_of_a_line_costs_little(pose: dict[str, Any]) -> None:
    """Beside decoding and encoding a laser scan, which has to be done."""
    line = json.dumps({"timestamp": 1.5, **pose, "scan": [i * 0.37 for i in range(5000)]}).encode()

    def seconds(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(20):
            before = time.thread_time()
            function()
            times.append(time.thread_time() - before)
        return min(times)

    assert seconds(lambda: lines.body_of(line, "t")) < 2.2 * seconds(lambda: encode_body(from_line(line)))


def test_documents_hold_nothing_that_would_become_something_else(url: str, store: HttpStore) -> None:
    """A number beyond float64, an integer of no type, a name twice: as lines."""
    import httpx2

    query, headers = {"prefix": store.prefix, "name": "params"}, {"Content-Type": wire.JSON}
    for content, field in (
        (b'{"lr": {"x": 1e400}}', "'lr'"),
        (b'{"lr": 1, "n": %d}' % (1 << 70), "'n'"),
        (b'{"lr": 1, "lr": 2}', "'lr'"),
        (b'{"a": [{"lr": 1, "lr": 2}]}', "'lr'"),
    ):
        answer = httpx2.put(f"{url}{wire.DOCUMENTS}", params=query, content=content, headers=headers)
        assert f"field {field}" in refused(answer, 400, "bad_body")
    assert store.read_document("params") is None


@pytest.mark.parametrize("given", ["writer", "number"])
def test_writer_and_number_belong_together(post: Callable[..., Any], given: str) -> None:
    """One without the other would be stored as often as it is sent, or under a number that is not meant."""
    query = {"topic": "t", given: "7"}
    answer = post(b'{"timestamp": 1}', query=query, Content_Type="application/x-ndjson")
    assert "give both" in refused(answer, 400, "bad_parameter")
    assert answer.json()["error"]["where"] == {"writer": "number", "number": "writer"}[given]


BAD_PLACES: list[dict[str, str]] = [
    {}, {"topic": ""}, {"topic": ".."}, {"topic": "t", "kind": "files"}, {"topic": "t", "number": "0"},
    {"topic": "t", "number": "x"}, {"topic": "t", "writer": "a b"}, {"topic": "t", "more": "1"},
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_PLACES)
def test_lines_need_to_know_where(post: Callable[..., Any], query: dict[str, str]) -> None:
    """A topic, and numbers that are numbers."""
    answer = post(b'{"timestamp": 1}', query=query, Content_Type="application/x-ndjson")
    assert answer.status_code == 400, answer.text


# ---------------------------------------------------------------- time


def _speak(url: str, head: str, parts: Iterator[bytes]) -> bytes:
    """Send a request by hand, as slowly as the parts come; the answer as it came."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(head.encode())
        try:
            for part in parts:
                line.sendall(part)
        except OSError:
            pass
        answer = b""
        while True:
            try:
                got = line.recv(65536)
            except OSError:
                return answer
            if not got:
                return answer
            answer += got


def _head(store: HttpStore, content: bytes) -> str:
    return (
        f"POST {wire.BATCHES}?prefix={store.prefix} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: {wire.BATCH}\r\nContent-Digest: {wire.digest(content)}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )


def test_a_stalled_body_is_cut(url: str, store: HttpStore) -> None:
    """Without a byte for its time the request ends with 408, and nothing is stored."""
    content = raw(body(1.0, x=1))
    started = time.monotonic()
    answer = _speak(url, _head(store, content), iter([content[:10]]))
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "timeout"
    assert time.monotonic() - started < 3.0
    assert entries(store) == []


def test_a_trickling_body_is_cut(url: str, store: HttpStore) -> None:
    """A byte now and then does not keep a request alive for ever."""

    def trickle() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.1)
            yield b"x"

    started = time.monotonic()
    assert b" 408 " in _speak(url, _head(store, bytes(1000)), trickle()).split(b"\r\n")[0]
    assert time.monotonic() - started < 4.0


def test_a_slow_honest_body_is_served(url: str, store: HttpStore) -> None:
    """A slow link that keeps its pace takes the time it needs, far beyond the grace."""
    content = raw(body(1.0, x="a" * 6000))

    def slowly() -> Iterator[bytes]:
        for first in range(0, len(content), 300):
            time.sleep(0.1)
            yield content[first : first + 300]

    started = time.monotonic()
    assert b" 200 " in _speak(url, _head(store, content), slowly()).split(b"\r\n")[0]
    assert time.monotonic() - started > 1.9
    assert len(entries(store)) == 1


def test_a_half_written_request(url: str, store: HttpStore) -> None:
    """Somebody who leaves in the middle leaves nothing, and the server goes on."""
    content = raw(body(1.0, x=1))
    host, port = url.removeprefix("http://").split(":")
    for cut in (10, 100, len(_head(store, content)) + 5):
        with socket.create_connection((host, int(port))) as line:
            line.sendall((_head(store, content).encode() + content)[:cut])
    assert entries(store) == []
    store.append(Batch("w", 1, {1: STATE}, [body(1.0, x=1)]))
    assert len(entries(store)) == 1


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 9_000])
def test_documents_are_objects(url: str, store: HttpStore, content: bytes) -> None:
    """Anything else is refused."""
    import httpx2

    query = {"prefix": store.prefix, "name": "params"}
    answer = httpx2.put(f"{url}{wire.DOCUMENTS}", params=query, content=content, headers={"Content-Type": wire.JSON})
    refused(answer, 400, "bad_body")
    assert store.read_document("params") is None


@pytest.mark.parametrize("name", ["", "../params", "a/b", ".state", "Params", "x" * 65, "experiment.json", "a\x00"])
def test_names_of_documents(url: str, store: HttpStore, name: str) -> None:
    """Only plain names: a document is a file of this name somewhere."""
    import httpx2

    query = {"prefix": store.prefix, "name": name}
    answer = httpx2.put(f"{url}{wire.DOCUMENTS}", params=query, content=b"{}", headers={"Content-Type": wire.JSON})
    refused(answer, 400, "bad_parameter")


def test_a_document_too_large(url: str, store: HttpStore) -> None:
    """Refused by its length."""
    import httpx2

    query = {"prefix": store.prefix, "name": "params"}
    content = json.dumps({"x": "a" * LIMITS.document}).encode()
    answer = httpx2.put(f"{url}{wire.DOCUMENTS}", params=query, content=content, headers={"Content-Type": wire.JSON})
    refused(answer, 413, "too_large")


# ---------------------------------------------------------------- queries


BAD_PREFIXES = [
    "", "a", "a/b", "../../etc", "a/b/..", "/a/b/c", "a/b/c/", "a//b/c", "a/b/\x00", "a/b/tracks", "a/b/.server",
    "A" * 5000,
]  # fmt: skip
NEEDED = {
    wire.TRACKS: {},
    wire.ENTRIES: {"topic": "t"},
    wire.WRITERS: {"writer": "w"},
    wire.DOCUMENTS: {"name": "params"},
    wire.LIVE: {"topic": "t"},
}


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
@pytest.mark.parametrize("path", NEEDED)
def test_hostile_prefixes(url: str, path: str, prefix: str) -> None:
    """400 on every route."""
    import httpx2

    refused(httpx2.get(f"{url}{path}", params={"prefix": prefix, **NEEDED[path]}), 400, "bad_parameter")


BAD_WINDOWS = [
    {"start": "x"}, {"start": "nan"}, {"end": "1e"}, {"first": "-1"}, {"limit": "1.5"}, {"limit": "9" * 30},
    {"format": "xml"}, {"kind": "files"}, {"nonsense": "1"}, {"start": "\u0661"}, {"first": "1"}, {"columns": "a,b"},
    {"start": "1", "kind": "metrics"}, {"end": "1", "kind": "logs", "topic": "logs"},
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_WINDOWS)
def test_windows_that_make_no_sense(url: str, store: HttpStore, query: dict[str, str]) -> None:
    """400, naming the parameter."""
    import httpx2

    answer = httpx2.get(f"{url}{wire.ENTRIES}", params={"prefix": store.prefix, "topic": "t", **query})
    message = refused(answer, 400, "bad_parameter")
    assert next(iter(query)) in message or "known are" in message


@pytest.mark.parametrize(
    "text", ["prefix=ada/a/%ff&topic=t", "prefix=ada/a/b&topic=%c3", "prefix=ada/a/b&topic=t&%80=1"]
)
def test_queries_that_are_no_text(url: str, text: str) -> None:
    """Bytes that are not UTF-8 would name something else: nothing comes into being under U+FFFD."""
    import httpx2

    content, headers = b'{"timestamp": 1}', {"Content-Type": wire.NDJSON}
    sent = httpx2.post(f"{url}{wire.BATCHES}?{text}", content=content, headers=headers)
    for answer in (sent, httpx2.get(f"{url}{wire.ENTRIES}?{text}")):
        assert "UTF-8" in refused(answer, 400, "bad_parameter")
    assert "UTF-8" in refused(httpx2.get(f"{url}/api/experiments/x/tracks/%ff/data"), 400, "bad_request")
    assert "\ufffd" not in httpx2.get(f"{url}{wire.EXPERIMENTS}").text


def test_fields_are_named_by_repeating(url: str, store: HttpStore) -> None:
    """Who separates them by commas is told how to."""
    import httpx2

    query = {"prefix": store.prefix, "topic": "t", "columns": "a,b"}
    message = refused(httpx2.get(f"{url}{wire.ENTRIES}", params=query), 400, "bad_parameter")
    assert message == "columns must be none, got 'a,b'; for some fields repeat column=NAME"


@pytest.mark.parametrize("query", [{"first": "1"}, {"start": "1", "kind": "metrics"}])
def test_a_stream_begins_where_its_kind_can(url: str, store: HttpStore, query: dict[str, str]) -> None:
    """At a time for tracks, at an index for sequences."""
    import httpx2

    answer = httpx2.get(f"{url}{wire.LIVE}", params={"prefix": store.prefix, "topic": "t", **query})
    assert next(iter(query)) in refused(answer, 400, "bad_parameter")


def test_parameters_given_twice(url: str, store: HttpStore) -> None:
    """Which one would count is nobody's guess."""
    import httpx2

    query = [("prefix", store.prefix), ("topic", "a"), ("topic", "b")]
    assert "more than once" in refused(httpx2.get(f"{url}{wire.ENTRIES}", params=query), 400, "bad_parameter")


def test_a_copied_writer_is_told(url: str, store: HttpStore) -> None:
    """A number that came with other entries is 409 where the store can tell; a repetition is fine everywhere."""
    batch = Batch("w", 1, {1: STATE}, [body(1.0, x=1)])
    store.append(batch)
    store.append(batch)
    assert entries(store) == [{"timestamp": 1.0, "x": 1}]


def test_unused_tracks_do_not_change_a_batch(url: str, store: HttpStore) -> None:
    """A retry after more topics were opened is still the same batch."""
    store.append(Batch("w", 1, {1: STATE}, [body(1.0, x=1)]))
    store.append(Batch("w", 1, {1: STATE, 2: Track("tracks", "new")}, [body(1.0, x=1)]))
    assert [info.topic for info in store.tracks()] == [STATE.topic]
