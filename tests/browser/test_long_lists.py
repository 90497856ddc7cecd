"""Lists that are longer than a page of them: the rest comes at a press, and stays."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from playwright.async_api import Browser, Page, expect

from support.api_client import Api
from support.pages import opened, sign_in, visitor
from support.server import ServerProcess

OWNER = "engineer@example.org"
ROOMS = 120  # more than two pages of any list
LISTENERS = 104


async def test_public_rooms_and_those_of_an_account_are_shown_page_by_page(
    browser: Browser, tmp_path: Path
) -> None:
    with ServerProcess.start(tmp_path) as server:
        server.add_user(OWNER)
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            token = (await api.login())["accessToken"]
            for number in range(ROOMS):
                await api.create_room(token, name=f"Hall {number}", public=True)
        async with visitor(browser) as context:
            async with opened(context, server.url) as page:
                cards = page.locator("a.room")
                await expect(cards).to_have_count(50)
                more = page.get_by_role("button", name="Show more")
                await more.click()
                await expect(cards).to_have_count(100)
                # What was shown stays when the list is asked for again by itself.
                async with page.expect_response(lambda answer: "cursor=" in answer.url):
                    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
                await expect(cards).to_have_count(100)
                await more.click()
                await expect(cards).to_have_count(ROOMS)
                await expect(more).to_have_count(0)
            async with opened(context, server.url + "/dashboard") as page:
                await sign_in(page, OWNER)
                await check_table(page, "Your rooms", ROOMS)
                await page.get_by_role("link", name="Audit log").click()
                await check_table(page, "Audit log", ROOMS)


async def check_table(page: Page, name: str, least: int) -> None:
    """A table comes to its end by presses, and has so many rows by then."""
    rows = page.get_by_role("region", name=name).get_by_role("rowheader")
    more = page.get_by_role("button", name="Show more")
    await expect(rows).to_have_count(50)
    shown = 50
    while await more.count():
        await more.click()
        await expect(rows.nth(shown)).to_be_visible()
        shown = await rows.count()
    assert shown >= least


async def test_many_listeners_are_shown_page_by_page_while_they_are_there_and_after(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        visitor(browser) as context,
        opened(context, studio.url + "/broadcast") as page,
    ):
        api = Api(studio.url, session)
        room = await api.create_room((await api.login())["accessToken"], name="Crowded")
        async with AsyncExitStack() as listeners:
            for number in range(LISTENERS):
                await listeners.enter_async_context(api.listener(room, nickname=f"Seat {number}"))
            await sign_in(page, OWNER)
            await page.get_by_role("button", name="Crowded").click()
            audience = page.get_by_role("region", name="Listeners")
            people = audience.locator(".person")
            await expect(people).to_have_count(100)
            await expect(audience.get_by_role("heading")).to_contain_text(str(LISTENERS))
            await audience.get_by_role("button", name="Show more").click()
            await expect(people).to_have_count(LISTENERS)
            await expect(audience.get_by_role("button", name="Show more")).to_have_count(0)
            # The list is asked for again by itself, and stays as long.
            async with page.expect_response(lambda answer: "/listeners" in answer.url):
                pass
            await expect(people).to_have_count(LISTENERS)
        await page.goto(f"{studio.url}/dashboard#/rooms/{room.id}")
        await check_table(page, "Who was there", LISTENERS)
