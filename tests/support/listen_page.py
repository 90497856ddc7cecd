"""A listener's page in a test: a room of tones, the page, and what is heard in it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from playwright.async_api import Browser, Locator, Page, expect

from roomserver.clients.account import AccountEntry
from roomserver.clients.broadcast import Broadcaster
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from support.api_client import Api
from support.browser import ClientPage
from support.live import EMAIL, LiveRoom
from support.pages import opened, visitor
from support.server import PASSWORD, ServerProcess
from support.tones import AMPLITUDE, ToneSource

TONES = (440.0, 1000.0, 2500.0)
LEVEL = 20 * math.log10(AMPLITUDE) - 3.01  # dB: in the middle, each side
NAMES = ("Voice", "Keys", "Bells")


@asynccontextmanager
async def room(
    server: ServerProcess,
    tones: Sequence[float] = TONES,
    *,
    on_air: bool = True,
    names: Sequence[str] = NAMES,
    password: str | None = None,
    name: str = "Great hall",
    public: bool = False,
    ca_file: str | None = None,
) -> AsyncIterator[tuple[LiveRoom, Broadcaster]]:
    """A room in which each channel has its tone; the broadcaster runs if it is on air."""
    async with RoomApi(server.url, ca_file=ca_file) as api:

        async def renew() -> RoomAccess:
            return await account.broadcaster_token(access.room_id)

        account = AccountEntry(api, EMAIL, PASSWORD)
        access = await account.create_room(password, name=name, public=public)
        made = LiveRoom(api, RoomEntry(api, access, renew), access.room_code)
        # On a busy machine an adaptive buffer would conceal some of it.
        source = ToneSource(list(tones))
        broadcaster = made.broadcaster(source, encoding=None, channel_names=names, buffer_ms=300)
        running = asyncio.create_task(broadcaster.run()) if on_air else None
        try:
            yield made, broadcaster
        finally:
            broadcaster.stop()
            if running is not None:
                await running


@asynccontextmanager
async def heard_page(
    browser: Browser,
    url: str,
    *,
    refusals: Sequence[int] = (),
    outage: bool = False,
    script: str = "",
    **options: Any,
) -> AsyncIterator[tuple[Page, ClientPage]]:
    """A listener's page, and ears for what it plays; see `play`.

    script: runs in the page before its own.
    """
    async with visitor(browser, **options) as context:
        if script:
            await context.add_init_script(script)
        async with opened(context, url, refusals=refusals, outage=outage) as page:
            yield page, ClientPage(page)


async def play(page: Page, ears: ClientPage) -> None:
    """Presses play, waits until it is live, and puts the ears on."""
    await page.get_by_role("button", name="Play", exact=True).click()
    await expect(status(page)).to_have_text("Live")
    await ears.put_on_ears("listening")


def status(page: Page) -> Locator:
    """What the page says of its state."""
    return page.locator(".player .badge")


def fader(page: Page, channel: str) -> Locator:
    """Of a channel, or of the Master."""
    return page.get_by_role("slider", name=f"Level of {channel}")


async def owner(server: ServerProcess, method: str, path: str, body: object = None) -> Any:
    """What the rooms' owner does over HTTP."""
    async with aiohttp.ClientSession() as session:
        api = Api(server.url, session)
        token = (await api.login(EMAIL))["accessToken"]
        answer = await api.call(method, path, token=token, json=body)
        assert answer.status < 300, answer
        return answer.body
