"""`python -m benchmarks.peers.python_server LIBRARY ...`: a WebSocket server that sends to all.

Each library as its documentation sends to many: picows and aiohttp connection by connection,
websockets with its `broadcast`. On uvloop, as fast as they go in Python.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import uvloop

from benchmarks.peers.frames import Schedule

ADDRESS = "127.0.0.1"


def say_listening(port: int) -> None:
    """Where listeners come to."""
    print(json.dumps({"event": "listening", "port": port}), flush=True)


async def picows(schedule: Schedule) -> None:
    """picows: one `send` a connection; it frames each message anew."""
    from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    connected: set[WSTransport] = set()

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            connected.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            connected.discard(transport)

    def made(_: WSUpgradeRequest) -> WSListener:
        return Listener()

    server = await ws_create_server(made, ADDRESS, 0, backlog=1024)
    say_listening(server.sockets[0].getsockname()[1])

    def send(message: bytes) -> None:
        for transport in connected:
            transport.send(WSMsgType.BINARY, message)

    await schedule.stream(send)


async def aiohttp(schedule: Schedule) -> None:
    """aiohttp: `send_bytes` to one after another."""
    from aiohttp import web

    connected: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        connected.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            connected.discard(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0, backlog=1024)
    await site.start()
    say_listening(runner.addresses[0][1])

    async def send(message: bytes) -> None:
        for socket in tuple(connected):
            await socket.send_bytes(message)

    await schedule.stream(send)


async def websockets(schedule: Schedule) -> None:
    """websockets: `broadcast`, which frames a message once."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    connected: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connected.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connected.discard(connection)

    async with serve(handle, ADDRESS, 0, compression=None, backlog=1024) as server:
        say_listening(next(iter(server.sockets)).getsockname()[1])
        await schedule.stream(lambda message: broadcast(connected, message))


LIBRARIES: dict[str, Callable[[Schedule], Awaitable[None]]] = {
    "picows": picows,
    "aiohttp": aiohttp,
    "websockets": websockets,
}


async def until_input_ends(work: Awaitable[None]) -> None:
    """Does the work, at most until standard input ends."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: sys.stdin.readline() or task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        return
    finally:
        loop.remove_reader(sys.stdin)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="A peer of the benchmarks.")
    parser.add_argument("library", choices=list(LIBRARIES))
    Schedule.add_to(parser)
    options = parser.parse_args()
    schedule = Schedule(options.message, options.tick_us, options.max_seconds)
    uvloop.run(until_input_ends(LIBRARIES[options.library](schedule)))


if __name__ == "__main__":
    main()
