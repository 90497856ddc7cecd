"""The pages of listeners: finding a room, hearing it, mixing it, and what is said when it stops."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, async_playwright, expect

from support.browser import launch
from support.listen_page import LEVEL, NAMES, TONES, fader, heard_page, owner, play, room, status
from support.live import EMAIL, ROOM_PASSWORD
from support.pages import PHONE, check_looks, opened, press_tab_to, visitor
from support.server import ServerProcess
from support.tones import ToneSource


async def test_public_rooms_are_listed_live_ones_first(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    async with (
        room(server, name="On air", public=True) as (live, _),
        room(server, on_air=False, name="Later", password=ROOM_PASSWORD, public=True) as (later, _),
        live.listen(),
        visitor(browser) as context,
        opened(context, server.url) as page,
    ):
        cards = page.locator(".room")
        await expect(cards.nth(0)).to_contain_text("On air")
        await expect(cards.nth(0)).to_contain_text("Live")
        await expect(cards.nth(0)).to_contain_text("1 listener")
        await expect(cards.filter(has_text="Later")).to_contain_text("Needs a password")
        await check_looks(page, tmp_path, "home")
        await page.get_by_label("Room code").fill(later.code.lower())
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Later")
        await expect(page.get_by_label("Password")).to_be_visible()


async def test_an_open_room_plays_at_a_press(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await check_looks(page, tmp_path, "entry")
        await play(page, ears)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Great hall")
        await ears.settled(lambda heard: all(heard.level(0, tone) > -30 for tone in TONES))
        await expect(page.locator(".quality strong")).to_have_text(
            re.compile("Excellent|Good|Fair|Poor")
        )
        await page.get_by_text("Connection in figures").click()
        await expect(page.locator("dd").first).to_have_text(re.compile(r"^\d+ ms$"))
        await check_looks(page, tmp_path, "listen")
        await page.get_by_role("button", name="Stop").click()
        await expect(status(page)).to_have_text("Not playing")


async def test_a_password_is_asked_for_when_it_is_wanted(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server, password=ROOM_PASSWORD) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", refusals=[401]) as (page, ears),
    ):
        await page.get_by_role("button", name="Play", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("wants a password")
        await expect(page.get_by_label("Password")).to_be_focused()
        await page.keyboard.type("something else")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("the password is wrong")
        await expect(page.get_by_label("Password")).to_be_focused()
        await page.get_by_label("Password").fill(ROOM_PASSWORD)
        await page.keyboard.press("Enter")
        await expect(status(page)).to_have_text("Live")
        await expect(page.get_by_role("button", name="Stop")).to_be_focused()
        # A reload of the tab asks nobody again.
        await page.reload()
        await expect(page.get_by_label("Password")).to_have_count(0)
        await play(page, ears)


async def test_an_invite_lets_in_without_the_password(
    browser: Browser, server: ServerProcess
) -> None:
    async with room(server, password=ROOM_PASSWORD) as (made, _):
        path = f"/api/broadcaster/rooms/{made.code}/invites"
        invite = await owner(server, "POST", path, {"maxUses": 1})
        async with heard_page(browser, invite["link"]) as (page, ears):
            await play(page, ears)


async def test_faders_mutes_and_solos_do_as_they_say_in_both_modes(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        for mode in ("Stereo from the server", "Mix on this device"):
            await page.get_by_text(mode).click()
            await ears.settled(
                lambda heard: all(abs(heard.level(0, f) - LEVEL) < 0.1 for f in TONES)
            )
            await fader(page, "Keys").focus()
            await page.keyboard.press("PageDown")
            await expect(fader(page, "Keys")).to_have_attribute("aria-valuetext", "−6.0 dB")
            await ears.settled(lambda heard: abs(heard.level(0, 1000) - (LEVEL - 6)) < 0.2)
            await page.get_by_role("button", name="Mute Voice").click()
            await ears.settled(lambda heard: heard.level(0, 440) < -90)
            await page.get_by_role("button", name="Solo Bells").click()
            alone = await ears.settled(
                lambda heard: heard.level(0, 1000) < -90 and heard.level(0, 2500) > -30
            )
            # Playing follows the buffer's target by up to 1000 ppm.
            assert alone.tone(0) == pytest.approx(2500, rel=0.002)
            await page.get_by_role("button", name="Reset").click()
            await ears.settled(lambda heard: all(heard.level(0, f) > -30 for f in TONES))
            await page.get_by_role("slider", name="Pan of Voice").focus()
            await page.keyboard.press("Home")
            await ears.settled(lambda heard: heard.level(1, 440) < -90)
            await page.keyboard.press("0")
            await ears.settled(lambda heard: heard.level(1, 440) > -30)


async def test_a_fader_follows_the_pointer_finer_with_shift_and_springs_back(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        handle = fader(page, "Voice")
        box = await handle.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        async def drag(by: float) -> float:
            """How far it went, of its way."""
            before = await handle.evaluate("(e) => e.position")
            await page.mouse.move(x, y)
            await page.mouse.down()
            await page.mouse.move(x, y + by / 2)
            await page.mouse.move(x, y + by)
            await page.mouse.up()
            return float(before - await handle.evaluate("(e) => e.position"))

        way = await drag(100)
        assert way == pytest.approx(100 / box["height"], abs=0.01)
        await page.keyboard.down("Shift")
        assert await drag(100) == pytest.approx(way / 10, abs=0.01)
        await page.keyboard.up("Shift")
        await handle.dblclick()
        await expect(handle).to_have_attribute("aria-valuetext", "0.0 dB")


async def test_a_finger_moves_a_fader_finer_when_it_is_aside_and_two_taps_set_it_back(
    browser: Browser, server: ServerProcess
) -> None:
    size = {"width": PHONE[0], "height": PHONE[1]}
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", has_touch=True, viewport=size) as (
            page,
            ears,
        ),
    ):
        await play(page, ears)
        handle = fader(page, "Keys")
        await handle.scroll_into_view_if_needed()
        box = await handle.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        session = await page.context.new_cdp_session(page)

        async def touch(*points: tuple[float, float], at_s: float | None = None) -> float:
            """A finger goes from point to point; how far the fader went, of its way.

            at_s: Unix time that all of it has; now, unless told.
            """
            before = await handle.evaluate("(e) => e.position")
            when = {} if at_s is None else {"timestamp": at_s}
            for index, (to_x, to_y) in enumerate(points):
                kind = "touchMove" if index else "touchStart"
                await session.send(
                    "Input.dispatchTouchEvent",
                    {"type": kind, "touchPoints": [{"x": to_x, "y": to_y}], **when},
                )
            end = {"type": "touchEnd", "touchPoints": [], **when}
            await session.send("Input.dispatchTouchEvent", end)
            return float(await handle.evaluate("(e) => e.position") - before)

        # What it goes before the browser takes it for a drag is lost.
        way = await touch((x, y), (x - 30, y), (x - 130, y))
        assert way == pytest.approx(-115 / box["width"], abs=25 / box["width"])
        aside = await touch((x, y), (x - 30, y), (x - 30, y - 80), (x - 130, y - 80))
        assert aside - way / 10 == pytest.approx(0, abs=30 / box["width"])
        assert abs(aside) < abs(way) / 2
        now = time.time()
        await touch((x, y), at_s=now)
        await expect(handle).not_to_have_attribute("aria-valuetext", "0.0 dB")
        await touch((x, y), at_s=now + 1)  # too late to be a second tap
        await expect(handle).not_to_have_attribute("aria-valuetext", "0.0 dB")
        await touch((x, y), at_s=now + 1.1)
        await expect(handle).to_have_attribute("aria-valuetext", "0.0 dB")


async def test_a_mix_survives_a_reload_and_presets_come_back(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        await page.get_by_role("button", name="Solo Keys").click()
        await ears.settled(lambda heard: heard.level(0, 440) < -90)
        await page.get_by_role("button", name="Save …").click()
        await page.get_by_label("Name of the preset").fill("Keys alone")
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Preset", exact=True)).to_have_value("Keys alone")
        await page.get_by_text("Mix on this device").click()
        await page.reload()
        await play(page, ears)
        await expect(page.get_by_label("Mix on this device")).to_be_checked()
        await expect(page.get_by_role("button", name="Solo Keys")).to_have_attribute(
            "aria-pressed", "true"
        )
        heard = await ears.settled(lambda heard: heard.loudness > -40)
        assert heard.level(0, 440) < -90
        await page.get_by_role("button", name="Reset").click()
        await ears.settled(lambda heard: heard.level(0, 440) > -30)
        await page.get_by_role("button", name="Load").click()
        await ears.settled(lambda heard: heard.level(0, 440) < -90)
        await page.get_by_role("button", name="Delete Keys alone").click()
        await expect(page.get_by_label("Preset", exact=True)).to_contain_text("No presets yet")


async def test_a_mix_survives_reloads_without_a_stream_and_a_room_with_fewer_channels(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server, on_air=False) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, _),
    ):

        @asynccontextmanager
        async def on_air(*tones: float) -> AsyncIterator[None]:
            broadcaster = made.broadcaster(
                ToneSource(list(tones)), channel_names=NAMES[: len(tones)]
            )
            running = asyncio.create_task(broadcaster.run())
            try:
                yield
            finally:
                broadcaster.stop()
                await running

        async def press_play() -> None:
            await page.get_by_role("button", name="Play", exact=True).click()

        muted = page.get_by_role("button", name="Mute Keys")
        async with on_air(*TONES):
            await press_play()
            await muted.click()
            await expect(muted).to_have_attribute("aria-pressed", "true")
        for _ in range(2):
            await page.reload()
            await press_play()
            await expect(status(page)).to_have_text(re.compile("In a break|Waiting"))
        await page.reload()
        async with on_air(TONES[0]):
            await press_play()
            await fader(page, "Voice").focus()
            await page.keyboard.press("PageDown")
            await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "−6.0 dB")
        await page.reload()
        async with on_air(*TONES):
            await press_play()
            await expect(muted).to_have_attribute("aria-pressed", "true")
            await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "−6.0 dB")


async def test_of_presses_the_last_one_counts(browser: Browser, server: ServerProcess) -> None:
    gate = asyncio.Event()

    async def join(route: Route) -> None:
        await gate.wait()
        await route.continue_()

    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await page.route("**/auth/room/join", join)
        for name in ("Play", "Stop", "Play"):
            await page.get_by_role("button", name=name, exact=True).click()
        gate.set()
        await expect(status(page)).to_have_text("Live")
        assert len(page.workers) == 1  # each listener has one
        await page.evaluate(
            """() => {
                window.before = listening;
                const button = document.querySelector('.play');
                button.click();
                button.click();
            }"""
        )
        await ears.until("() => listening !== before && listening?.state === 'live'")
        await ears.put_on_ears("listening")
        await ears.settled(lambda heard: heard.level(0, TONES[0]) > -30)
        await page.get_by_role("button", name="Stop").click()
        await ears.until("() => listener.audioContext === null")


@pytest_asyncio.fixture(loop_scope="session")
async def strict_browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """Chromium as people have it: a page may sound after a press."""
    async with async_playwright() as playwright:
        chromium = await launch(playwright, tmp_path / "none.wav", autoplay=False)
        yield chromium
        await chromium.close()


async def test_sound_that_the_browser_holds_back_is_told_and_a_press_lets_it(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        # As when a telephone call takes the sound away: whether Chromium holds back what no press
        # began is its own affair from one start to the next.
        await page.evaluate("listening.audioContext.suspend()")
        await expect(status(page)).to_have_text("Held back by the browser")
        await page.get_by_role("button", name="Let it sound").click()
        await expect(status(page)).to_have_text("Live")
        await ears.settled(lambda heard: all(heard.level(0, tone) > -30 for tone in TONES))


async def test_by_the_browsers_own_rules_it_plays_at_a_press(
    strict_browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(strict_browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        await ears.settled(lambda heard: all(heard.level(0, tone) > -30 for tone in TONES))


async def test_an_owners_hand_is_seen_and_told(browser: Browser, server: ServerProcess) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        base = f"/api/broadcaster/rooms/{made.code}"
        who = (await owner(server, "GET", f"{base}/participants?live=true"))["participants"]
        (listener,) = [each["participantId"] for each in who if each["role"] == "listener"]
        await owner(server, "PUT", f"{base}/mixes/{listener}", {"faders": [0, 1, 2]})
        await expect(page.locator("#toasts")).to_contain_text("Your mix was changed")
        await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "off")
        await expect(fader(page, "Bells")).to_have_attribute("aria-valuetext", "+6.0 dB")
        await owner(server, "PATCH", base, {"name": "Small hall", "channelNames": ["A", "B", "C"]})
        await expect(page.get_by_role("heading", level=1)).to_have_text("Small hall")
        await expect(fader(page, "B")).to_be_visible()


async def test_what_happens_to_the_room_is_told(browser: Browser, server: ServerProcess) -> None:
    async with (
        room(server, on_air=False) as (made, broadcaster),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, _),
    ):
        await page.get_by_role("button", name="Play", exact=True).click()
        await expect(status(page)).to_have_text("Waiting for the broadcast")
        running = asyncio.create_task(broadcaster.run())
        await expect(status(page)).to_have_text("Live")
        base = f"/api/broadcaster/rooms/{made.code}"
        await owner(server, "POST", f"{base}/suspend", {"forS": 60})
        await expect(status(page)).to_have_text("In a break")
        await expect(page.locator(".player")).to_contain_text("The room waits until")
        await owner(server, "POST", f"{base}/resume")
        await expect(status(page)).to_have_text("Live")
        await owner(server, "DELETE", base)
        await expect(page.get_by_role("alert")).to_contain_text("The room was closed")
        with pytest.raises(Exception, match="closed"):
            await running


async def test_a_listener_who_is_kicked_is_told_and_may_come_again(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        base = f"/api/broadcaster/rooms/{made.code}"
        who = (await owner(server, "GET", f"{base}/participants?live=true"))["participants"]
        (listener,) = [each["participantId"] for each in who if each["role"] == "listener"]
        await owner(server, "POST", f"{base}/kick", {"participantId": listener})
        await expect(page.get_by_role("alert")).to_contain_text("You were asked to leave")
        await play(page, ears)


async def test_another_password_is_asked_for_when_listeners_are_dropped(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server, password=ROOM_PASSWORD) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", refusals=[401]) as (page, ears),
    ):
        await page.get_by_role("button", name="Play", exact=True).click()
        await page.get_by_label("Password").fill(ROOM_PASSWORD)
        await play(page, ears)
        change = {"password": "another one", "dropListeners": True}
        await owner(server, "POST", f"/api/broadcaster/rooms/{made.code}/password", change)
        await expect(page.get_by_role("alert")).to_contain_text("permission to listen is over")
        await page.get_by_role("button", name="Play", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("the password is wrong")
        await page.get_by_label("Password").fill("another one")
        await play(page, ears)


async def test_appearance_is_chosen_and_kept(browser: Browser, server: ServerProcess) -> None:
    async with (
        visitor(browser, color_scheme="light") as context,
        opened(context, server.url) as page,
    ):

        async def lightness() -> float:
            """Of what is behind everything, 0…1."""
            colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            return float(re.findall(r"[\d.]+", colour)[0])

        assert await lightness() > 0.9
        await page.get_by_role("button", name="Appearance: as the device").click()
        await page.get_by_role("button", name="Appearance: light").click()
        await expect(page.get_by_role("button", name="Appearance: dark")).to_be_visible()
        assert await lightness() < 0.3
        await page.reload()
        await expect(page.get_by_role("button", name="Appearance: dark")).to_be_visible()
        assert await lightness() < 0.3


async def test_with_a_certificate_of_its_own_everything_works_from_another_host(
    browser: Browser, tmp_path: Path
) -> None:
    with ServerProcess.start(tmp_path, "--tls-self-signed") as server:
        server.add_user(EMAIL)
        certificate = str(tmp_path / "tls" / "certificate.pem")
        async with (
            room(server, ca_file=certificate) as (made, _),
            heard_page(
                browser,
                f"{server.url.replace('127.0.0.1', 'relay.test')}/listen/{made.code}",
                ignore_https_errors=True,  # whoever sits there has said so to their browser
            ) as (page, ears),
        ):
            assert await page.evaluate("isSecureContext && crossOriginIsolated")
            await play(page, ears)
            await page.get_by_text("Mix on this device").click()
            await page.get_by_role("button", name="Solo Keys").click()
            await ears.settled(
                lambda heard: heard.level(0, 1000) > -30 and heard.level(0, 440) < -90
            )


async def test_it_is_all_done_by_keyboard(browser: Browser, server: ServerProcess) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, _),
    ):
        await press_tab_to(page, "button", "Play")
        await page.keyboard.press("Enter")
        await expect(status(page)).to_have_text("Live")
        await press_tab_to(page, "slider", "Level of Voice")
        await page.keyboard.press("ArrowUp")
        await page.keyboard.press("Shift+ArrowUp")
        await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "+1.1 dB")
        await page.keyboard.press("End")
        await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "+12.0 dB")
        await page.keyboard.press("Home")
        await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", "off")
        await press_tab_to(page, "button", "Mute Voice")
        await page.keyboard.press("Space")
        await expect(page.get_by_role("button", name="Mute Voice")).to_have_attribute(
            "aria-pressed", "true"
        )


async def test_meters_of_sixty_four_strips_cost_no_layout(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    tones = [200.0 + 50 * channel for channel in range(64)]
    names = [f"Channel {channel}" for channel in range(64)]
    async with (
        room(server, tones, names=names) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}") as (page, ears),
    ):
        await play(page, ears)
        await page.get_by_text("Mix on this device").click()
        await expect(page.locator(".strips .strip")).to_have_count(64)
        await ears.until("() => Number.isFinite(listener.levels().channels.peak[63])")
        await page.screenshot(path=tmp_path / "sixty-four.png")
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")

        async def figures() -> dict[str, float]:
            metrics = (await session.send("Performance.getMetrics"))["metrics"]
            return {each["name"]: each["value"] for each in metrics}

        # Statistics come once a second and may change the width of a text; meters, every frame.
        before = await figures()
        await ears.run(
            """async () => {
                for (let frame = 0; frame < 60; frame++) await new Promise(requestAnimationFrame);
            }"""
        )
        after = await figures()
        assert after["LayoutCount"] - before["LayoutCount"] < 30


async def test_over_plain_http_it_plays_and_says_what_is_missing(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    url = server.url.replace("127.0.0.1", "relay.test")
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{url}/listen/{made.code}") as (page, ears),
    ):
        assert not await page.evaluate("isSecureContext")
        await play(page, ears)
        await ears.settled(lambda heard: all(heard.level(0, tone) > -30 for tone in TONES))
        await expect(page.locator(".notice.warn")).to_contain_text("plain http")
        await expect(page.get_by_label("Mix on this device")).to_be_disabled()
        await check_looks(page, tmp_path, "plain-http")
