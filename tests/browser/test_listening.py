"""A room that a browser listens to: what comes out of it, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser

from support.browser import client_page
from support.live import ROOM_PASSWORD, LiveRoom, live_room
from support.server import ServerProcess
from support.tones import ToneSource

TONES = [440.0, 1000.0]


@asynccontextmanager
async def room_of_tones(url: str, tones: list[float]) -> AsyncIterator[LiveRoom]:
    """A room in which each channel has its tone."""
    async with live_room(url) as room:
        broadcaster = room.broadcaster(ToneSource(tones), encoding=None)
        running = asyncio.create_task(broadcaster.run())
        try:
            yield room
        finally:
            broadcaster.stop()
            await running


@pytest.mark.parametrize("mode", ["mix", "multichannel"])
@pytest.mark.parametrize("isolated", [True, False])
async def test_a_listener_hears_the_tones_of_the_room(
    browser: Browser, server: ServerProcess, mode: str, isolated: bool
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url, isolated=isolated) as page,
    ):
        mix = {"pans": [-1, 1]}
        await page.listen(room.code, ROOM_PASSWORD, mode=mode, mix=mix)
        heard = await page.settled(lambda heard: heard.loudness > -20)
        assert [heard.tone(0), heard.tone(1)] == pytest.approx(TONES, abs=1)
