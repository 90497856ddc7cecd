"""A server with a private database that a test restarts, at the same port and on the same data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.postgres import open_directory
from support.server import ServerProcess


@dataclass
class Restarting:
    """Made by `restartable`; `server` is the process that runs now."""

    server: ServerProcess
    data_dir: Path
    port: int

    @property
    def url(self) -> str:
        """Where it is, before and after."""
        return self.server.url

    async def restart(self) -> None:
        """Ends it with SIGTERM, which has to succeed, and starts it again."""
        assert await asyncio.to_thread(self.server.stop) == 0
        self.server = await asyncio.to_thread(_start, self.data_dir, self.port)


def _start(data_dir: Path, port: int) -> ServerProcess:
    options = ("--port", str(port), "--database-url", "embedded")
    return ServerProcess.start(data_dir, *options)


@asynccontextmanager
async def restartable() -> AsyncIterator[Restarting]:
    """A server on which the usual account is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_directory() as directory:
        data_dir = directory / "data"
        process = await asyncio.to_thread(_start, data_dir, port)
        running = Restarting(process, data_dir, port)
        try:
            await asyncio.to_thread(process.add_user)
            yield running
        finally:
            await asyncio.to_thread(running.server.stop)
