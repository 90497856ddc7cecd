"""What pages tell the system, and what is told of a server that is out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import ClientPage
from support.listen_page import LEVEL, TONES, heard_page, play, room, status
from support.pages import check_looks, opened, sign_in, visitor
from support.server import ServerProcess
from support.severing import severable_url
from support.studio import add_tone, go_live, make_room

# Keeps what the page asked of the system: the browser shows it to nobody here.
SPY = """
    window.locks = [];
    const request = WakeLock.prototype.request;
    WakeLock.prototype.request = async function (type) {
        const lock = await request.call(this, type);
        locks.push(lock);
        return lock;
    };
    window.buttons = {};
    const set = MediaSession.prototype.setActionHandler;
    MediaSession.prototype.setActionHandler = function (action, handler) {
        buttons[action] = handler;
        set.call(this, action, handler);
    };
"""
HELD = "() => locks.filter((lock) => !lock.released).length"


async def holds(ears: ClientPage, count: int) -> None:
    """Waits until so many wake locks are held."""
    await ears.until(f"(count) => ({HELD})() === count", count)


async def test_the_screen_stays_on_while_it_plays_unless_one_says_otherwise(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", script=SPY) as (page, ears),
    ):
        assert await ears.run(HELD) == 0
        await play(page, ears)
        await holds(ears, 1)
        assert await ears.run("() => locks[0].type") == "screen"

        # A page that is not seen loses its lock; when it is seen again it asks anew.
        await ears.run(
            """async () => {
                await locks[0].release();
                document.dispatchEvent(new Event('visibilitychange'));
            }"""
        )
        await holds(ears, 1)

        await page.get_by_text("Connection in figures").click()
        choice = page.get_by_label("Keep the screen on while playing")
        await choice.uncheck()
        await holds(ears, 0)
        await page.reload()
        await play(page, ears)
        assert await ears.run("() => locks.length") == 0  # as chosen before
        await page.get_by_text("Connection in figures").click()
        await choice.check()
        await holds(ears, 1)
        await page.get_by_role("button", name="Stop").click()
        await holds(ears, 0)


async def test_the_screen_stays_on_while_a_page_is_on_air(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context:
        await context.add_init_script(SPY)
        async with opened(context, studio.url + "/broadcast") as page:
            ears = ClientPage(page)
            await sign_in(page, "engineer@example.org")
            await make_room(page, "Awake")
            await add_tone(page, 440)
            assert await ears.run(HELD) == 0
            await go_live(page)
            await holds(ears, 1)
            await page.get_by_role("button", name="Stop").click()
            await holds(ears, 0)


async def test_the_systems_buttons_stop_and_play(browser: Browser, server: ServerProcess) -> None:
    async with (
        room(server, name="Great hall") as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", script=SPY) as (page, ears),
    ):
        await play(page, ears)
        session = (
            "() => [navigator.mediaSession.playbackState, navigator.mediaSession.metadata.title]"
        )
        assert await ears.run(session) == ["playing", "Great hall"]
        assert await ears.run("() => buttons.play") is None
        for button in ("pause", "stop"):
            await ears.run("(button) => buttons[button]()", button)
            await expect(status(page)).to_have_text("Not playing")
            assert await ears.run(session) == ["paused", "Great hall"]
            assert await ears.run("() => [buttons.pause, buttons.stop]") == [None, None]
            await ears.run("() => buttons.play()")
            await expect(status(page)).to_have_text("Live")
            await ears.put_on_ears("listening")
            await ears.settled(lambda heard: all(heard.level(0, tone) > -30 for tone in TONES))


@pytest.mark.parametrize("mode", ["Stereo from the server", "Mix on this device"])
async def test_a_connection_that_broke_is_told_plainly_until_it_is_back(
    browser: Browser, server: ServerProcess, pictures: Path, mode: str
) -> None:
    async with (
        room(server) as (made, _),
        severable_url(server.url) as (link, url),
        heard_page(browser, f"{url}/listen/{made.code}", outage=True) as (page, ears),
    ):
        await play(page, ears)
        await page.get_by_text(mode).click()
        await page.get_by_role("button", name="Mute Voice").click()
        await ears.settled(
            lambda heard: (
                heard.level(0, TONES[0]) < -90 and abs(heard.level(0, TONES[1]) - LEVEL) < 0.1
            )
        )
        link.cut()
        await expect(status(page)).to_have_text("Reconnecting …")
        told = page.locator(".player")
        await expect(told).to_contain_text("The connection was lost. It comes back by itself.")
        # It can be stopped, and mixed on: what is moved now counts when it is back.
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        await page.get_by_role("button", name="Mute Bells").click()
        await check_looks(page, pictures, f"reconnecting-{mode.split()[0].lower()}")
        link.mend()
        await expect(status(page)).to_have_text("Live")
        heard = await ears.settled(
            lambda heard: heard.level(0, TONES[2]) < -90 and heard.level(0, TONES[1]) > -30
        )
        assert heard.level(0, TONES[0]) < -90
        assert heard.level(0, TONES[1]) == pytest.approx(LEVEL, abs=0.3)
        await expect(told).not_to_contain_text("The connection was lost")
