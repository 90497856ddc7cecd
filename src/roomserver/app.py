"""The composition root: what a server is made of, in the order it starts and stops."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog
import uvloop
from aiohttp import web

from roomserver.config import Settings
from roomserver.logs import configure_logging

log = structlog.stdlib.get_logger("roomserver")


class Server:
    """A server that can be started and stopped inside any event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.urls: list[str] = []
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Starts everything; on an error all that was started is stopped again."""
        async with AsyncExitStack() as stack:
            app = web.Application()
            app.router.add_get("/health", _health)
            runner = web.AppRunner(app)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            site = web.TCPSite(runner, self.settings.host, self.settings.port)
            await site.start()
            for address in runner.addresses:
                self.urls.append(f"http://{address[0]}:{address[1]}")
            self._stack = stack.pop_all()
        log.info("listening", urls=self.urls)

    async def stop(self) -> None:
        """Stops everything, in reverse order of the start."""
        await self._stack.aclose()


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def run(settings: Settings) -> int:
    """Runs a server until SIGTERM or SIGINT; returns the exit code of the process."""
    configure_logging(settings.log_format, settings.log_level)
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    await stopping.wait()
    await server.stop()
    return 0
