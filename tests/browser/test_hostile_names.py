"""Names that a stranger chose are text on every page, and cut nothing off."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, Page, expect

from support.listen_page import heard_page, play, room
from support.live import EMAIL
from support.pages import check_looks, opened, sign_in, visitor
from support.server import ServerProcess

IMAGE = "<img src=x onerror=\"window.ran='image'\">"
SCRIPT = "</script><script>window.ran='script'</script>"
LONG = "W" * 64  # nowhere to break it


async def is_text(page: Page) -> None:
    assert await page.evaluate("window.ran") is None
    assert await page.locator("img[src=x]").count() == 0


async def test_names_of_rooms_and_channels_are_text(
    browser: Browser, server: ServerProcess, pictures: Path
) -> None:
    async with (
        room(server, names=[IMAGE, SCRIPT, LONG], name=IMAGE, public=True) as (made, _),
        room(server, on_air=False, name=LONG, public=True),
        visitor(browser) as context,
    ):
        async with opened(context, server.url) as page:
            for name in (IMAGE, LONG):
                await expect(page.get_by_role("link").filter(has_text=name)).to_be_visible()
            await is_text(page)
            await check_looks(page, pictures, "hostile-home")
        async with heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears):
            await play(page, ears)
            await expect(page.get_by_role("heading", level=1)).to_have_text(IMAGE)
            strips = page.locator(".strips .name")
            await expect(strips).to_have_text([IMAGE, SCRIPT, LONG])
            assert await page.title() == f"{IMAGE} · relaycore"
            await is_text(page)
            await check_looks(page, pictures, "hostile-listen")
        async with opened(context, server.url + "/dashboard") as page:
            await sign_in(page, EMAIL)
            await expect(page.get_by_role("link", name=LONG)).to_be_visible()
            await check_looks(page, pictures, "hostile-dashboard")
            await page.get_by_role("link", name=IMAGE).click()
            await expect(page.get_by_role("heading", name=IMAGE)).to_be_visible()
            await is_text(page)
            await check_looks(page, pictures, "hostile-dashboard-room")
