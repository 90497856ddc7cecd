"""Rooms for tests of the client module: it listens to tones, or broadcasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser

from support.browser import ClientPage, client_page
from support.live import LiveRoom, live_room
from support.server import ServerProcess
from support.tones import ToneSource


@asynccontextmanager
async def playing(
    room: LiveRoom, tones: list[float], *, killed: bool = False
) -> AsyncIterator[None]:
    """The project's own broadcaster plays a tone on each channel; then it stops, or is killed."""
    # On a busy machine an adaptive buffer would conceal some of it.
    broadcaster = room.broadcaster(ToneSource(tones), buffer_ms=300)
    running = asyncio.create_task(broadcaster.run())
    try:
        yield
    finally:
        if killed:
            running.cancel()
        broadcaster.stop()
        await asyncio.wait({running})
        assert running.cancelled() or running.exception() is None


@asynccontextmanager
async def room_of_tones(url: str, tones: list[float]) -> AsyncIterator[LiveRoom]:
    """A new room in which each channel has its tone."""
    async with live_room(url) as room, playing(room, tones):
        yield room


@asynccontextmanager
async def broadcasting(
    browser: Browser,
    server: ServerProcess,
    inputs: str,
    argument: Any = None,
    *,
    url: str = "",
    **wishes: Any,
) -> AsyncIterator[tuple[LiveRoom, ClientPage]]:
    """A room into which a browser broadcasts what the function `inputs` adds.

    url: where the browser finds the server, if it is not where the server is.
    wishes: options of the broadcaster.
    """
    async with live_room(server.url) as room, client_page(browser, url or server.url) as page:
        access = room.entry.access
        options = {"roomId": access.room_id, "roomToken": access.room_token, "frameMs": 10} | wishes
        await page.run(
            """(options) => {
                window.broadcaster = new client.Broadcaster(options);
                window.errors = [];
                broadcaster.addEventListener('error', (e) => errors.push(e.detail.error.message));
            }""",
            options,
        )
        await page.run(inputs, argument)
        await page.run("() => broadcaster.start()")
        try:
            yield room, page
        finally:
            await page.run("() => broadcaster.close()")
