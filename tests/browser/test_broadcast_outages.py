"""A page that is on air loses its server for a while: it goes on by itself, in the same room."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import ClientPage
from support.listen_page import heard_page, play, status
from support.pages import opened, sign_in, visitor
from support.restarting import restartable
from support.server import ServerProcess
from support.severing import severable_url
from support.studio import add_tone, go_live, listening, make_room, tones

OUTAGE_S = 5.0
HERTZ = 440


async def begin(page: Page, name: str) -> str:
    """Goes live with a tone; the room's code."""
    await sign_in(page, "engineer@example.org")
    code = await make_room(page, name)
    await add_tone(page, HERTZ)
    await go_live(page)
    return code


async def hears_it(ears: ClientPage) -> None:
    await ears.settled(lambda heard: heard.loudness > -30 and abs(heard.tone(0) - HERTZ) < 2)


async def test_after_its_network_was_cut_a_broadcast_goes_on_for_the_same_listeners(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        severable_url(studio.url) as (link, url),
        visitor(browser) as context,
        opened(context, url + "/broadcast", outage=True) as page,
    ):
        code = await begin(page, "Cut")
        async with listening(studio, code) as listener:
            await listener.wait_frames(10)
            link.cut()
            state = page.locator(".transport .on-air")
            await expect(state).to_have_text("Reconnecting …")
            await listener.wait_text("roomSuspended")
            await asyncio.sleep(OUTAGE_S)  # what the outage lasts, not a wait
            link.mend()
            await listener.wait_text("roomResumed")
            await expect(state).to_have_text("On air")
            assert await tones(listener) == pytest.approx([HERTZ], abs=2.5)
            assert not listener.texts("roomClosed")
        await expect(page.locator(".page-head .code")).to_have_text(code)
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_after_its_server_was_restarted_a_broadcast_goes_on_and_listeners_hear_it_again(
    browser: Browser,
) -> None:
    async with (
        restartable() as server,
        visitor(browser) as context,
        opened(context, server.url + "/broadcast", outage=True) as page,
    ):
        code = await begin(page, "Restarted")
        link = f"{server.url}/listen/{code}"
        async with heard_page(browser, link, outage=True) as (other, ears):
            await play(other, ears)
            await hears_it(ears)
            state = page.locator(".transport .on-air")
            restarting = asyncio.create_task(server.restart())
            await expect(state).to_have_text("Reconnecting …")
            await expect(status(other)).to_have_text("Reconnecting …")
            await restarting
            await expect(state).to_have_text("On air")
            await expect(status(other)).to_have_text("Live")
            await hears_it(ears)
            await ears.until("() => listening.statistics.reconnects > 0")
        # It is the same room, and can be managed as before.
        await expect(page.locator(".page-head .code")).to_have_text(code)
        await expect(page.get_by_label("Broadcast", exact=True)).to_contain_text("Listeners0")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("button", name="Go live")).to_be_enabled()
