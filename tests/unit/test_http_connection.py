"""A connection that speaks HTTP, with answers that are known at once among those of aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from roomserver.edge import http
from roomserver.edge.http import Answerer, HttpConnection, connection_factory

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class Known:
    """Answers whatever asks for something known, by its name and body."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []

    def answer(self, connection: HttpConnection, head: bytes, body: bytes) -> bytes | None:
        self.asked.append((head, body))
        name = head.split()[1].removeprefix(b"/")
        return ANSWER % (len(name + body), name + body) if name.startswith(b"known") else None


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@asynccontextmanager
async def connected(
    answerer: Answerer, *, timeout_s: float = 60.0, arrived: asyncio.Event | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client of a server that says of each request what its path was; `arrived`: it has one."""

    async def path(request: web.BaseRequest) -> web.Response:
        if arrived is not None:
            arrived.set()
        await request.read()
        return web.Response(body=f"aiohttp{request.path}".encode())

    server = web.Server(path, access_log=None)
    make = connection_factory(server, timeout_s=timeout_s, max_head_bytes=16_384, answerer=answerer)
    loop = asyncio.get_running_loop()
    with pair() as (ours, theirs):
        transport, _ = await loop.connect_accepted_socket(make, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            transport.abort()
            await server.shutdown(1.0)


async def body(reader: asyncio.StreamReader) -> bytes:
    """Of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    return await reader.readexactly(int(length.split()[1]))


async def test_what_is_known_is_answered_and_aiohttp_gets_the_rest_in_its_order() -> None:
    known = Known()
    async with connected(known.answer) as (reader, writer):
        names = (b"known1", b"known2", b"else1", b"known3", b"else2", b"else3", b"known4")
        writer.write(b"".join((GET if name.endswith(b"2") else POST) % name for name in names))
        expected = [
            (b"aiohttp/" + name)
            if name.startswith(b"else")
            else name + (b"" if name.endswith(b"2") else b"body")
            for name in names
        ]
        assert [await body(reader) for _ in names] == expected
        writer.write(GET % b"else4")
        assert await body(reader) == b"aiohttp/else4"
        writer.write(GET % b"known5")
        assert await body(reader) == b"known5"


async def test_a_request_is_looked_at_when_all_of_its_body_is_there() -> None:
    known = Known()
    arrived = asyncio.Event()
    async with connected(known.answer, arrived=arrived) as (reader, writer):
        writer.write((POST % b"known")[:-2])
        await asyncio.wait_for(arrived.wait(), 60)
        writer.write(b"dy" + GET % b"known")
        assert await body(reader) == b"aiohttp/known"
        assert await body(reader) == b"known"
    assert [request for _, request in known.asked] == [b""]


async def test_a_client_that_takes_no_answers_is_given_no_more_than_it_can_hold() -> None:
    known = Known()
    requests = 20_000
    async with connected(known.answer) as (reader, writer):
        name = b"known" + b"x" * 1000
        writer.write((GET % name) * requests)
        stood = -1
        async with asyncio.timeout(60):
            while stood != len(known.asked):  # until it stands still
                stood = len(known.asked)
                for _ in range(1000):
                    await asyncio.sleep(0)
        assert 0 < stood < requests
        assert {await body(reader) for _ in range(requests)} == {name}


async def test_requests_are_not_read_far_ahead_of_their_answers() -> None:
    request = GET % (b"known" + b"x" * 1000)
    requests = 8000
    ahead = 0
    async with connected(Known().answer) as (reader, writer):
        writer.write(request * requests)
        for answered in range(1, requests + 1):
            await body(reader)
            unread = writer.transport.get_write_buffer_size()  # all but what sockets hold
            ahead = max(ahead, (requests - answered) * len(request) - unread)
    assert ahead < 2 << 20 < requests * len(request) // 2


@pytest.mark.parametrize("name", [b"known", b"else"])
async def test_a_connection_on_which_nobody_asks_any_more_is_closed(
    monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(http, "IDLE_S", 2.0)
    async with connected(Known().answer) as (reader, writer):
        for _ in range(2):
            writer.write(GET % name)
            assert (await body(reader)).endswith(name)
        assert await reader.read() == b""


@pytest.mark.parametrize("name", [b"known", b"else"])
async def test_a_later_request_has_the_same_time_as_the_first(name: bytes) -> None:
    async with connected(Known().answer, timeout_s=2.0) as (reader, writer):
        writer.write(GET % name)
        assert (await body(reader)).endswith(name)
        writer.write(b"GET ")
        assert b"request_timeout" in await reader.read()
