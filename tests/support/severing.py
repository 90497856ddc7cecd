"""A way to a server that a test can cut, and mend: to PostgreSQL's Unix socket, or over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

SOCKET = ".s.PGSQL.5432"

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Link:
    """Between clients and a server, which `dial` reaches."""

    def __init__(self, dial: Dial, unwanted: bytes | None = None) -> None:
        self._dial = dial
        self._unwanted = unwanted
        self._cut = False
        self._links: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()  # upwards
        self._open.set()

    def hold(self) -> None:
        """From now on nothing that clients send goes on, until `go_on`."""
        self._open.clear()

    def go_on(self) -> None:
        """What clients send arrives again."""
        self._open.set()

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
                up_reader, up_writer = await self._dial()
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_pump(reader, up_writer, self._open, self._unwanted))
                        group.create_task(_pump(up_reader, writer))
                finally:
                    up_writer.close()
        except* (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()
            self._links.discard(task)


@dataclass
class Severed:
    """`directory` takes the place of the one with the server's socket."""

    link: Link
    directory: Path

    def cut(self) -> None:
        """As `Link.cut`."""
        self.link.cut()

    def mend(self) -> None:
        """As `Link.mend`."""
        self.link.mend()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    is_open: asyncio.Event | None = None,
    unwanted: bytes | None = None,
) -> None:
    while data := await reader.read(65_536):
        if unwanted is not None and data.startswith(unwanted):
            raise ConnectionRefusedError
        if is_open is not None:
            await is_open.wait()
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


@asynccontextmanager
async def severable(server: Path) -> AsyncIterator[Severed]:
    """A way to the server whose socket is in this directory."""
    link = Link(lambda: asyncio.open_unix_connection(server / SOCKET))
    with tempfile.TemporaryDirectory(prefix="cut-", dir="/tmp") as name:
        listening = await asyncio.start_unix_server(link.accept, Path(name) / SOCKET)
        try:
            yield Severed(link, Path(name))
        finally:
            listening.close()
            link.cut()


@asynccontextmanager
async def severable_url(
    url: str, *, unwanted: bytes | None = None
) -> AsyncIterator[tuple[Link, str]]:
    """A way to a server over HTTP, and the URL it has there.

    unwanted: how what begins that does not get through; its connection breaks.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    link = Link(lambda: asyncio.open_connection(host, int(port)), unwanted)
    listening = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    try:
        yield link, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        link.cut()
