"""Clients that do not take their answers: they are waited for, and then hold nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop
from aiohttp import web

from roomserver.edge import http
from roomserver.edge.http import (
    ANSWER_S,
    IDLE_S,
    LEAST_TAKEN,
    Answerer,
    HttpConnection,
    connection_factory,
)
from support.loop_clock import LoopClock

SMALL_BUFFER = 4096
PAGE = b"GET /145000 HTTP/1.1\r\nHost: x\r\n\r\n"
PIECE = b"GET /40000 HTTP/1.1\r\nHost: x\r\n\r\n"  # which a transport takes whole
LAST = b"GET /145000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def known(connection: HttpConnection, head: bytes, body: bytes) -> bytes:
    """Answers at once, with as many bytes as are asked for."""
    length = int(head.split()[1][1:])
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(length)


async def find_out(request: web.BaseRequest) -> web.Response:
    """The same, by way of aiohttp."""
    return web.Response(body=bytes(int(request.path[1:])))


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the server's, between which next to nothing fits."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as ours:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        ours.connect(listening.getsockname())
        theirs, _ = listening.accept()
        with theirs:
            yield ours, theirs


@contextlib.contextmanager
def unix_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same, without TCP's timers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        yield ours, theirs


@dataclass
class Stage:
    """A client that has asked and takes nothing unless told, and the server."""

    server: web.Server
    transport: asyncio.Transport
    ours: socket.socket
    theirs: socket.socket
    taken: int = 0

    @property
    def waiting(self) -> int:
        """Bytes that the server could not send."""
        return self.transport.get_write_buffer_size()

    @property
    def is_over(self) -> bool:
        """Whether the connection is, and its descriptor is free."""
        return self.theirs.fileno() == -1

    def take(self) -> int:
        """Some of what has come; how much that was by now."""
        with contextlib.suppress(BlockingIOError):
            self.taken += len(self.ours.recv(1024))
        return self.taken

    async def take_down_to(self, waiting: int) -> None:
        """Until no more than this waits."""
        await until(lambda: self.take() > 0 and self.waiting <= waiting)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - of sockets nobody tells
            await asyncio.sleep(0)


@asynccontextmanager
async def asked(
    request: bytes,
    *,
    answerer: Answerer | None = None,
    pair: Callable[[], contextlib.AbstractContextManager[tuple[socket.socket, socket.socket]]],
) -> AsyncIterator[Stage]:
    """The stage from when something waits for the client."""
    server = web.Server(find_out, access_log=None)
    make = connection_factory(server, timeout_s=60.0, max_head_bytes=16_384, answerer=answerer)
    with pair() as (ours, theirs):
        ours.sendall(request)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(make, theirs)
        stage = Stage(server, transport, ours, theirs)
        try:
            await until(lambda: stage.waiting > 0 or stage.is_over)
            yield stage
        finally:
            transport.abort()
            await server.shutdown(1.0)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


REQUESTS = {
    "a page": PAGE,
    "less than is held back": PIECE,
    "many requests": PIECE * 100,
    "the last request": LAST,
}
one_of_them = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
either_way = pytest.mark.parametrize("answerer", [None, known], ids=["aiohttp", "known"])


@either_way
@one_of_them
@pytest.mark.parametrize("half_closed", [False, True], ids=["", "half closed"])
def test_who_takes_nothing_of_an_answer_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
    runner: asyncio.Runner,
    request_: bytes,
    answerer: Answerer | None,
    half_closed: bool,
) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.05)

    async def scenario() -> None:
        async with asked(request_, answerer=answerer, pair=tcp_pair) as stage:
            if half_closed:
                with contextlib.suppress(OSError):  # it may be over already
                    stage.ours.shutdown(socket.SHUT_WR)
            await until(lambda: stage.is_over and not stage.server.connections)

    runner.run(scenario())


@either_way
@one_of_them
def test_a_shutdown_does_not_wait_for_who_takes_nothing(
    runner: asyncio.Runner, request_: bytes, answerer: Answerer | None
) -> None:
    async def scenario() -> None:
        async with asked(request_, answerer=answerer, pair=tcp_pair) as stage:
            await stage.server.shutdown(0.1)
            await until(lambda: stage.is_over)

    runner.run(scenario())


@either_way
async def test_who_takes_an_answer_slowly_gets_all_of_it_and_may_ask_again(
    monkeypatch: pytest.MonkeyPatch, answerer: Answerer | None
) -> None:
    clock = LoopClock(monkeypatch)
    async with asked(PAGE, answerer=answerer, pair=unix_pair) as stage:
        while stage.waiting:
            await clock.advance(ANSWER_S - 1)
            await stage.take_down_to(max(stage.waiting - LEAST_TAKEN, 0))
        await until(lambda: stage.take() > 145_000)
        before = stage.taken
        await clock.advance(IDLE_S - 1)
        assert not stage.is_over
        stage.ours.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: stage.take() > before)
        await clock.advance(IDLE_S)
        await until(lambda: stage.is_over)


async def test_who_takes_next_to_nothing_of_an_answer_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = LoopClock(monkeypatch)
    async with asked(PAGE, pair=unix_pair) as stage:
        await stage.take_down_to(stage.waiting - 1)
        await clock.advance(ANSWER_S - 1)
        assert not stage.is_over
        await clock.advance(1)
        await until(lambda: stage.is_over)


async def test_what_was_asked_meanwhile_is_answered_when_the_answer_is_taken() -> None:
    async with asked(PAGE + PIECE, answerer=known, pair=unix_pair) as stage:
        stage.ours.send(PIECE)
        await until(lambda: stage.take() > 145_000 + 40_000 + 40_000)
        assert stage.waiting == 0
