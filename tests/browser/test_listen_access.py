"""Ways into a room that do not lead there, or not for ever, on the page of listeners."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, expect

from support.listen_page import heard_page, owner, play, room, status
from support.live import ROOM_PASSWORD
from support.pages import check_looks, opened, visitor
from support.server import ServerProcess
from support.severing import severable_url

TOKEN_S = 16


async def test_who_gets_no_connection_for_the_sound_is_told_a_way_out(
    browser: Browser, server: ServerProcess, pictures: Path
) -> None:
    async with (
        room(server) as (made, _),
        severable_url(server.url, unwanted=b"GET /ws ") as (_, url),
        heard_page(browser, f"{url}/listen/{made.code}", outage=True) as (page, _),
    ):
        await page.get_by_role("button", name="Play", exact=True).click()
        await expect(page.locator(".player")).to_contain_text(
            "no connection for the sound comes about"
        )
        await expect(status(page)).to_have_text("Reconnecting …")
        await check_looks(page, pictures, "unconnected")
        await page.get_by_role("button", name="Stop").click()
        await expect(status(page)).to_have_text("Not playing")


async def test_a_tab_is_reloaded_after_the_token_it_came_with_is_over(
    browser: Browser, tmp_path: Path
) -> None:
    stored = "(key) => JSON.parse(sessionStorage.getItem(key)).roomToken"
    with ServerProcess.start(tmp_path, "--room-token-s", str(TOKEN_S)) as server:
        server.add_user()
        async with room(server, password=ROOM_PASSWORD) as (made, _):
            path = f"/api/broadcaster/rooms/{made.code}/invites"
            link = (await owner(server, "POST", path, {"maxUses": 1}))["link"]
            async with heard_page(browser, link) as (page, ears):
                await play(page, ears)
                key = f"relaycore:room:{made.code}"
                # With the second one that the server sent the first is over; and so is the invite.
                for _ in range(2):
                    token = await page.evaluate(stored, key)
                    await ears.until(f"([key, old]) => ({stored})(key) !== old", [key, token])
                await page.reload()
                await play(page, ears)


async def test_an_address_that_names_no_room_asks_for_a_code(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        visitor(browser) as context,
        opened(context, f"{server.url}/listen/%") as page,
    ):
        await expect(page.get_by_role("heading", level=1)).to_have_text("Enter a room")
        await page.get_by_label("Room code").fill("ABCDEF")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/listen/ABCDEF")


async def test_who_is_banned_is_asked_for_no_password(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", refusals=[403]) as (page, ears),
    ):
        await play(page, ears)
        base = f"/api/broadcaster/rooms/{made.code}"
        who = (await owner(server, "GET", f"{base}/participants?live=true"))["participants"]
        (listener,) = [each["participantId"] for each in who if each["role"] == "listener"]
        ban = {"participantId": listener, "withAddress": True}
        await owner(server, "POST", f"{base}/ban", ban)
        await expect(page.get_by_role("alert")).to_contain_text("You may not enter")
        async with page.expect_response("**/auth/room/join"):
            await page.get_by_role("button", name="Play", exact=True).click()
        await expect(page.get_by_role("alert")).to_have_text("You may not enter this room.")
        await expect(page.get_by_label("Password")).to_have_count(0)
