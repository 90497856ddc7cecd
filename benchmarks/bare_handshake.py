"""What a handshake costs aiohttp alone: `python -m benchmarks.bare_handshake --max-seconds N`.

A server on uvloop that opens WebSockets at `/ws` and waits for what comes over them: no more than
aiohttp's own documentation shows. It ends at the end of its input or after the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import uvloop
from aiohttp import web

BACKLOG = 4096


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """One connection, until its end."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for _ in socket:
        pass
    return socket


async def serve(max_seconds: float) -> None:
    """Listens on a free port of this machine, which it tells."""
    app = web.Application()
    app.router.add_get("/ws", websocket)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG)
    await site.start()
    print(json.dumps({"event": "listening", "port": runner.addresses[0][1]}), flush=True)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), over.set)
    loop.call_later(max_seconds, over.set)
    await over.wait()
    loop.remove_reader(sys.stdin.fileno())
    await site.stop()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Benchmark subject: aiohttp's own handshake.")
    parser.add_argument("--max-seconds", type=float, required=True)
    uvloop.run(serve(parser.parse_args().max_seconds))


if __name__ == "__main__":
    main()
