"""Where requests end is where aiohttp sees their end, however they are written and cut.

A connection decides that by itself, to answer some requests in aiohttp's stead and to give it the
others one by one. So whatever comes is given both to it and to aiohttp alone. Where it does not see
the same requests, it has to have stopped before: whoever sees other requests than a proxy in front
can be made to answer one user with what is meant for another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomserver.edge.entrance import PATH, plain_headers
from roomserver.edge.http import MAX_HEADERS, MAX_LINE, HttpConnection, connection_factory

thorough = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

JOIN: Final = f"POST {PATH} HTTP/1.1".encode()
LAST: Final = b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n"


class Request(NamedTuple):
    """As somebody saw it; header names in lower case, without `Connection`."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> Request:
        kept = sorted((name.lower(), value) for name, value in headers)
        return cls(method, path, [field for field in kept if field[0] != "connection"], body)


class Seen(NamedTuple):
    """What became of the bytes: the requests, and whether the connection is over with the last."""

    requests: list[Request]
    is_over: bool


class Wire(asyncio.Transport):
    """Takes everything at once, and keeps it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent = bytearray()
        self.closing = False
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass  # nobody here sends so much

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


Maker = Callable[[web.Server, list[Request]], asyncio.Protocol]


def ours(server: web.Server, requests: list[Request]) -> asyncio.Protocol:
    def answer(connection: HttpConnection, head: bytes, body: bytes) -> bytes | None:
        headers = plain_headers(head, body)
        if headers is None:
            return None
        requests.append(Request.of("POST", PATH, list(headers.items()), body))
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    return connection_factory(server, timeout_s=60.0, max_head_bytes=16_384, answerer=answer)()


def aiohttps(server: web.Server, requests: list[Request]) -> asyncio.Protocol:
    return web.RequestHandler(
        server,
        loop=asyncio.get_running_loop(),
        access_log=None,  # type: ignore[arg-type]
        max_headers=MAX_HEADERS,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
    )


async def seen(make: Maker, pieces: Sequence[bytes], *, patient: bool = True) -> Seen:
    """By the protocol, when these come one by one; or, not patient, without time between them."""
    requests: list[Request] = []

    async def see(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        headers = list(request.headers.items())
        requests.append(Request.of(request.method, request.raw_path, headers, body))
        return web.Response()

    async def settle(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    server = web.Server(see, access_log=None)
    protocol = make(server, requests)
    wire = Wire(protocol)
    for piece in pieces:
        if not wire.closing:
            protocol.data_received(piece)
        if patient:
            await settle(20)  # enough for one request and another
    await settle(80)  # enough for all
    # Said, where it is open to take in what is left of a body that nobody wants.
    is_over = wire.closing or b"Connection: close" in wire.sent or b"HTTP/1.0 " in wire.sent
    found = list(requests)
    wire.close()
    await settle(10)
    return Seen(found, is_over)


def cut(stream: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % len(stream) for place in at), len(stream)]
    return [stream[a:b] for a, b in pairwise(places) if a < b]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    logger = logging.getLogger("aiohttp.server")
    logger.disabled = True  # it has much to say about such requests
    with asyncio.Runner() as runner:
        yield runner
    logger.disabled = False


def check(runner: asyncio.Runner, stream: bytes, at: Sequence[int] = (), *, patient: bool) -> Seen:
    async def both() -> tuple[Seen, Seen]:
        mine = await seen(ours, cut(stream, at), patient=patient)
        # Byte by byte: of what comes at once it drops what stands before a mistake, and what stands
        # behind a request that would rather speak another protocol.
        return mine, await seen(aiohttps, cut(stream, range(len(stream))), patient=False)

    mine, aiohttps_ = runner.run(both())
    assert mine.requests == aiohttps_.requests[: len(mine.requests)]
    assert mine.is_over or len(mine.requests) == len(aiohttps_.requests)
    return mine


METHODS = ["GET", "HEAD", "PUT", *["CONNECT"] * 3, "PRI", "get", "BREW", ""]
TARGETS = ["/", PATH, "*", "http://x/y", "x:80", "/transfer-encoding", "/a b", "/ü", ""]
VERSIONS = ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", ""]
NUMBERS = [  # for a length in decimal
    "{}", "{:03}", "{:022}", "+{}", "-{}", "{}_0", "0x{}", "{},{}", "{}, {}", "{} {}", "{};",
    "{}.0", " {}", "\t{}", "{} ", "{}\t", "{} \t", "\v{}", "{}\v", "\xa0{}", "{}\0", "\r\n {}",
    "{}\r\n 0", "",
    "1{:018}", "{}99999999999999999999", "²",
]  # fmt: skip
LENGTHS = ["Content-Length: ", "content-length:", "CONTENT-LENGTH:\t", "Content-Length : "]
LENGTHS += [" Content-Length: ", "Content_Length: ", "Content-Length", "X: y\nContent-Length: "]
LENGTHS += ["X: y\rContent-Length: ", "Content-Length:: ", "X-Content-Length: "]
ODD_LINES = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    "transfer-encoding:\tChunked ",
    "Transfer_Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Keep-Alive, Upgrade",
    "Connection: upgrade\r\nUpgrade: h2c",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Upgrade: websocket",
    "Proxy-Connection: close",
    "Expect: 100-continue",
    "Content-Encoding: identity",
    "Sec-WebSocket-Key1: x",
    "Host: y",
    "Content-Type: text/plain",
    "X: \x00",
    "X: \x7f",
    "X: \xff \t",
    "X : y",
    ": y",
    "X",
    "X: y\r",
    "",
    " folded",
]
LONG_LINES = {
    "a long line": "X: " + "a" * (MAX_LINE - 200),
    "the longest": "X: " + "a" * (MAX_LINE - 1),
    "a line too long": "X: " + "a" * (MAX_LINE + 1),
    "a name too long": "X" * MAX_LINE + ": ",
    "as many as may be": "\r\n".join(f"X{i}: y" for i in range(MAX_HEADERS - 3)),
    "one too many": "\r\n".join(f"X{i}: y" for i in range(MAX_HEADERS - 2)),
    "too long together": "\r\n".join(f"X{i}: {'a' * 1000}" for i in range(17)),
}
BODIES = [
    b"{}",
    b"hello",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n",
    JOIN + b"\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
]
OFF = st.sampled_from([0, 0, 0, -1, 1, 1000])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Most are nearly as they should be, a few wholly."""
    oddities = st.sampled_from(["line", "line", "first", "length", "end"])
    kinds = draw(st.lists(oddities, max_size=2))
    method = draw(st.sampled_from(METHODS)) if "first" in kinds else "POST"
    target = draw(st.sampled_from(TARGETS)) if "first" in kinds else PATH
    version = "HTTP/1.1"
    if "first" in kinds and draw(st.booleans()):
        version = draw(st.sampled_from(VERSIONS))
    body = draw(st.sampled_from([b"", *BODIES]))
    lines = ["Host: x", "Content-Type: application/json"]
    if body or draw(st.booleans()):
        name, number, off = "Content-Length: ", "{}", 0
        if "length" in kinds:
            name = draw(st.sampled_from(["Content-Length: "] * 6 + LENGTHS))
            number = draw(st.sampled_from(["{}"] * 6 + NUMBERS))
            off = draw(OFF)
        length = max(len(body) + off, 0)
        lines.append(name + number.format(length, length))
    lines = draw(st.permutations(lines))
    for _ in range(kinds.count("line")):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(ODD_LINES)))
    if kinds.count("length") > 1:
        lines.append(f"Content-Length: {draw(st.integers(0, len(body)))}")
    ends = ["\r\n"] * (len(lines) + 2)
    if "end" in kinds:
        at = draw(st.integers(0, len(ends) - 1))
        ends[at] = draw(st.sampled_from(["\n", "\r", "\r\r\n", "\r\n\n", "\n\n", "\0\r\n", ""]))
    head = [f"{method} {target} {version}", *lines, ""]
    before = draw(st.sampled_from([""] * 6 + ["\r\n", "\r\n\r\n", "\n", "\r", "\r\r\n", " "]))
    text = before + "".join(line + end for line, end in zip(head, ends, strict=True))
    return text.encode("latin-1") + body


def join(*lines: str) -> bytes:
    """A request to come in, with these lines in place of a length."""
    head = [JOIN.decode(), "Host: x", "Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode() + b"{}"


def tunnel(body: bytes) -> bytes:
    return b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


EXAMPLES = {
    "a tunnel": tunnel(b"hello") + join("Content-Length: 2"),
    "a length with many zeros": join("Content-Length: 0000000000000000000002"),
    **{
        name: join("Content-Length: 2", line) + join("Content-Length: 2")
        for name, line in LONG_LINES.items()
    },
}


@pytest.mark.parametrize("sent", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("at", [(), range(0, 100_000, 9973)], ids=["whole", "cut"])
@pytest.mark.parametrize("patient", [True, False], ids=["slowly", "at once"])
def test_examples_end_there_too(
    runner: asyncio.Runner, sent: bytes, at: Sequence[int], patient: bool
) -> None:
    check(runner, sent + LAST, at, patient=patient)


def test_no_request_is_seen_in_a_tunnel(runner: asyncio.Runner) -> None:
    """Though aiohttp alone looks for one there, whatever length the tunnel says it has."""
    found = check(runner, tunnel(LAST) + LAST, patient=True)
    assert [request.path for request in found.requests] == ["x:80"]
    assert found.is_over


@pytest.mark.parametrize("first", ["CONNECT  ", "GET /", "GET / HTTP/0.9", "GET / HTTP/2.0"])
def test_what_is_no_version_1_is_refused(runner: asyncio.Runner, first: str) -> None:
    """Some of it aiohttp's parser lets through to where nobody expects it."""
    found = runner.run(seen(ours, [f"{first}\r\nHost: x\r\n\r\n".encode()]))
    assert found == Seen([], is_over=True)


def test_a_connection_that_nobody_answers_is_over(runner: asyncio.Runner) -> None:
    """Not held without a clock, if aiohttp can make no request of what its parser lets through."""

    def break_down(*arguments: object) -> web.BaseRequest:
        raise asyncio.CancelledError  # nobody is told

    async def see(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async def scenario() -> bool:
        server = web.Server(see, request_factory=break_down)
        wire = Wire(ours(server, []))
        wire.protocol.data_received(LAST)
        for _ in range(20):
            await asyncio.sleep(0)
        return wire.closing

    assert runner.run(scenario())


def test_plain_requests_are_all_seen(runner: asyncio.Runner) -> None:
    """So that the others are not left out for being stopped too early."""
    sent = [join("Content-Length: 2"), LAST, join("Content-Length: 2", "X: y")]
    plain = check(runner, b"".join(sent) + LAST, range(0, 1000, 7), patient=True)
    assert [request.path for request in plain.requests] == [PATH, "/last", PATH, "/last"]
    assert not plain.is_over


@thorough
@given(
    st.lists(requests(), min_size=1, max_size=3),
    st.lists(st.integers(0, 100_000), max_size=4),
    st.booleans(),
)
def test_requests_end_where_aiohttp_sees_their_end(
    runner: asyncio.Runner, sent: list[bytes], at: list[int], patient: bool
) -> None:
    check(runner, b"".join(sent) + LAST, at, patient=patient)
