"""A page follows a room to the server it is on, where servers of one database name each other."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import asyncpg
from playwright.async_api import Browser, expect

from roomserver.clients.account import AccountEntry
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.store.migrations import migrate
from support.browser import ClientPage
from support.live import EMAIL, LiveRoom
from support.pages import opened, visitor
from support.postgres import Cluster, postgres
from support.server import PASSWORD
from support.shared_database import server
from support.tones import ToneSource


def free_ports(count: int) -> list[int]:
    """Ports that are free now: servers have to know each other's before they start."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def test_a_page_plays_a_room_of_another_server(browser: Browser, tmp_path: Path) -> None:
    ports = free_ports(2)
    a_url, b_url = (f"http://127.0.0.1:{port}" for port in ports)
    others = ("--allowed-origins", f"{a_url},{b_url}")
    with postgres() as database:
        cluster = Cluster(database)
        connection = await asyncpg.connect(**cluster.connection)
        await migrate(connection)
        await connection.close()
        async with (
            server(tmp_path / "a", cluster, a_url, "--port", str(ports[0]), *others) as a,
            server(tmp_path / "b", cluster, b_url, "--port", str(ports[1]), *others) as b,
            RoomApi(a.url) as api,
        ):
            await asyncio.to_thread(a.add_user, EMAIL)
            account = AccountEntry(api, EMAIL, PASSWORD)
            access = await account.create_room(None, name="Elsewhere")

            async def renew() -> RoomAccess:
                return await account.broadcaster_token(access.room_id)

            room = LiveRoom(api, RoomEntry(api, access, renew), access.room_code)
            broadcaster = room.broadcaster(ToneSource([440.0]), encoding=None, buffer_ms=300)
            running = asyncio.create_task(broadcaster.run())
            try:
                async with (
                    visitor(browser) as context,
                    opened(context, f"{b.url}/listen/{room.code}", refusals=[421]) as page,
                ):
                    await page.get_by_role("button", name="Play", exact=True).click()
                    await expect(page.locator(".player .badge")).to_have_text("Live")
                    await expect(page.get_by_role("heading", level=1)).to_have_text("Elsewhere")
                    ears = ClientPage(page)
                    await ears.put_on_ears("listening")
                    await ears.settled(lambda heard: abs(heard.tone(0) - 440) < 1)
            finally:
                broadcaster.stop()
                await running
