"""A way to PostgreSQL's Unix socket that a test can cut, and mend."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

SOCKET = ".s.PGSQL.5432"


class Severed:
    """Between clients and a server; `directory` takes the place of the server's own."""

    def __init__(self, directory: Path, server: Path) -> None:
        self.directory = directory
        self._server = server
        self._cut = False
        self._links: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Every connection breaks, and new ones are refused."""
        self._cut = True
        for link in self._links:
            link.cancel()

    def mend(self) -> None:
        """Connections are taken again."""
        self._cut = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            if not self._cut:
                up_reader, up_writer = await asyncio.open_unix_connection(self._server / SOCKET)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_pump(reader, up_writer))
                        group.create_task(_pump(up_reader, writer))
                finally:
                    up_writer.close()
        except* (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()
            self._links.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


@asynccontextmanager
async def severable(server: Path) -> AsyncIterator[Severed]:
    """A way to the server whose socket is in this directory."""
    with tempfile.TemporaryDirectory(prefix="cut-", dir="/tmp") as name:
        link = Severed(Path(name), server)
        listening = await asyncio.start_unix_server(link.accept, Path(name) / SOCKET)
        try:
            yield link
        finally:
            listening.close()
            link.cut()
