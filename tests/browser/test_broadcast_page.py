"""The Broadcast page: from signing in to being heard, and an owner's hand on a room."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from roomserver.clients.wire import Encoding
from support.browser import MICROPHONE_HZ
from support.pages import PHONE, check_looks, opened, press_tab_to, sign_in, visitor
from support.server import ServerProcess
from support.studio import (
    add_tone,
    confirm,
    go_live,
    level,
    level_becomes,
    listening,
    make_room,
    name_of,
    stream,
    tones,
)
from support.tones import wav_of_tones


async def test_a_lamp_says_that_a_channel_clipped_until_it_is_put_out(
    browser: Browser, studio: ServerProcess
) -> None:
    song = wav_of_tones([1200.0], amplitude=1.5)
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Too loud")
        await page.locator("input[type=file]").set_input_files(
            {"name": "song.wav", "mimeType": "audio/wav", "buffer": song}
        )
        lit = page.get_by_role("button", name="Channel 1 has clipped: reset")
        await expect(lit).to_be_visible()
        await page.get_by_role("button", name="Mute", exact=True).click()
        await add_tone(page, 440)  # the lamp stays lit
        await lit.click()
        await expect(page.get_by_role("button", name="Channel 1 has not clipped")).to_be_visible()


async def test_who_has_no_mouse_signs_in_makes_a_room_goes_live_and_is_heard(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        keys = page.keyboard
        await press_tab_to(page, "textbox", "E-mail")
        await keys.type("engineer@example.org")
        await keys.press("Tab")
        await keys.type("correct horse battery")
        await keys.press("Enter")
        await press_tab_to(page, "button", "New room")
        await keys.press("Enter")
        await keys.type("By hand")
        await keys.press("Enter")
        await press_tab_to(page, "button", "Test tone")
        await keys.press("Enter")
        await keys.press("Enter")  # in the field of the frequency: as it is
        await expect(page.locator(".input-card")).to_have_count(1)
        await press_tab_to(page, "textbox", "Name of channel 1")
        await keys.press("Control+a")
        await keys.type("Organ")
        await press_tab_to(page, "button", "Go live")
        await keys.press("Enter")
        await expect(page.locator(".transport.live")).to_be_visible()
        code = await page.locator(".page-head .code").inner_text()
        async with listening(studio, code) as listener:
            assert await tones(listener) == pytest.approx([440], abs=2.5)
            assert (await stream(listener))["channelNames"] == ["Organ"]
        await expect(page.get_by_text("Nobody listens yet.")).to_be_visible()
        await expect(page.get_by_label("Broadcast", exact=True)).to_contain_text("Listeners0")
        await press_tab_to(page, "button", "Stop")
        await keys.press("Enter")
        await expect(page.get_by_role("button", name="Go live")).to_be_enabled()


async def test_a_device_and_a_file_become_channels_whose_gain_and_mute_are_heard(
    browser: Browser, studio: ServerProcess, tmp_path: Path
) -> None:
    song = wav_of_tones([1200.0], encoding=Encoding.S16LE)
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "Soundcheck")
        await page.locator("input[type=file]").set_input_files(
            {"name": "song.wav", "mimeType": "audio/wav", "buffer": song}
        )
        await expect(page.get_by_text("song.wav", exact=True)).to_be_visible()
        await page.get_by_role("button", name="Device", exact=True).click()
        await page.get_by_label("Channels of the device").select_option("2")
        await confirm(page, "Add")
        await expect(page.locator(".channel")).to_have_count(3)
        await page.get_by_role("button", name="Device", exact=True).click()
        await page.get_by_label("Only these channels").fill("2")
        await confirm(page, "Add")
        await expect(page.locator(".channel")).to_have_count(4)
        await page.get_by_label("Name of channel 2").fill("Left")
        await page.get_by_label("Name of channel 2").press("Enter")
        await go_live(page)
        async with listening(studio, code) as listener:
            assert await tones(listener) == pytest.approx([1200, *MICROPHONE_HZ, 800], abs=2.5)
            names = (await stream(listener))["channelNames"]
            assert names[:2] == ["song.wav", "Left"]
            full = -12 - 3.01  # the RMS of a sine
            await level_becomes(listener, full)
            fader = page.get_by_role("slider", name="Gain of song.wav")
            await fader.focus()
            await page.keyboard.press("PageDown")
            await expect(fader).to_have_attribute("aria-valuetext", "−6.0 dB")
            await level_becomes(listener, full - 6)
            await fader.dblclick()
            await level_becomes(listener, full)
            await page.get_by_role("button", name="Mute").first.click()
            await level_becomes(listener, -120)
            await page.get_by_label("Name of channel 3").fill("Right")
            await page.get_by_label("Name of channel 3").press("Enter")
            changed = await listener.wait_text("roomChanged")
            assert changed["channelNames"][1:3] == ["Left", "Right"]


async def test_channels_are_on_air_in_the_order_that_was_chosen_by_keyboard_or_pointer(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "In order")
        order = page.get_by_role("button", name="Order …")
        await add_tone(page, 300)
        await expect(order).to_be_disabled()
        await add_tone(page, 600)
        await add_tone(page, 900)

        await press_tab_to(page, "button", "Order …")
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Order of the channels")
        up = dialog.get_by_role("button", name="Move Tone 900 Hz up")
        await up.focus()
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_role("status")).to_have_text(
            "Tone 900 Hz is channel 2 of 3 now."
        )
        await expect(up).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Enter")  # it is the first one by now, and stays that
        await dialog.get_by_label("Place of Tone 300 Hz").fill("3")
        await page.keyboard.press("Enter")
        await expect(dialog.locator("strong")).to_have_text(
            ["Tone 900 Hz", "Tone 600 Hz", "Tone 300 Hz"]
        )
        await check_looks(page, pictures, "order")
        await confirm(page, "Use this order")
        for channel, frequency in enumerate((900, 600, 300), 1):
            await name_of(page, channel, f"Tone {frequency} Hz")

        await go_live(page)
        async with listening(studio, code) as listener:
            assert await tones(listener) == pytest.approx([900, 600, 300], abs=2.5)
            first = (await stream(listener))["stream"]
            await order.click()
            await expect(dialog).to_contain_text("You are on air")
            grip = await dialog.locator(".grip").first.bounding_box()
            last = await dialog.locator(".order li").last.bounding_box()
            assert grip is not None
            assert last is not None
            await page.mouse.move(grip["x"] + 8, grip["y"] + grip["height"] / 2)
            await page.mouse.down()
            await page.mouse.move(grip["x"] + 8, last["y"] + last["height"] / 2, steps=5)
            await page.mouse.up()
            names = ["Tone 600 Hz", "Tone 300 Hz", "Tone 900 Hz"]
            await expect(dialog.locator("strong")).to_have_text(names)
            await confirm(page, "Use this order")
            started = await stream(listener, after=first)
            assert started["channelNames"] == names
            assert await tones(listener) == pytest.approx([600, 300, 900], abs=2.5)
            assert not listener.texts("roomClosed")
            await expect(page.locator(".transport.live")).to_be_visible()

            await page.get_by_label("Name of channel 1", exact=True).fill("Organ")
            await page.keyboard.press("Enter")
            await listener.wait_text("roomChanged")
            await page.reload()
            await page.get_by_role("button", name="Go on live").click()
            after = await stream(listener, after=started["stream"])
            assert after["channelNames"] == ["Organ", *names[1:]]
            assert await tones(listener) == pytest.approx([600, 300, 900], abs=2.5)


async def test_a_row_that_is_dragged_past_a_taller_one_does_not_go_back(
    browser: Browser, studio: ServerProcess
) -> None:
    tall = "Whatever stands there, behind the organ, from the left to the right"[:64]
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Tall")
        await add_tone(page, 300)
        await add_tone(page, 600)
        await page.get_by_label("Name of channel 2", exact=True).fill(tall)
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Order …").click()
        dialog = page.get_by_role("dialog")
        names = dialog.locator("strong")
        first, second = ["Tone 300 Hz", tall], [tall, "Tone 300 Hz"]
        await expect(names).to_have_text(first)
        upper = await dialog.locator(".order li").first.bounding_box()
        lower = await dialog.locator(".order li").last.bounding_box()
        grip = await dialog.locator(".grip").first.bounding_box()
        assert upper is not None
        assert lower is not None
        assert grip is not None
        assert lower["height"] > 1.5 * upper["height"]
        x, top = grip["x"] + grip["width"] / 2, upper["y"] + upper["height"] / 2
        bottom = lower["y"] + lower["height"] - upper["height"] / 2

        async def drag(from_y: float, to_y: float, **button: Any) -> list[list[str]]:
            """The orders on the way."""
            await page.mouse.move(x, from_y)
            await page.mouse.down(**button)
            seen = [await names.all_inner_texts()]
            steps = 40
            for step in range(1, steps + 1):
                await page.mouse.move(x, from_y + (to_y - from_y) * step / steps)
                now = await names.all_inner_texts()
                if now != seen[-1]:
                    seen.append(now)
            await page.mouse.up(**button)
            return seen

        assert await drag(top, bottom, button="right") == [first]
        assert await drag(top, bottom) == [first, second]
        assert await drag(bottom, top) == [second, first]


async def test_an_order_of_channels_that_are_gone_is_not_used(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Out of order")
        await add_tone(page, 300)
        await add_tone(page, 600)
        await page.get_by_role("button", name="Order …").click()
        await page.get_by_role("button", name="Move Tone 300 Hz down").click()
        # As when its device is pulled out for good, or a script of the page takes it away.
        await page.evaluate(
            """() => [...document.querySelectorAll('.input-head button')]
                .find((each) => each.getAttribute('aria-label') === 'Remove Tone 600 Hz').click()"""
        )
        await confirm(page, "Use this order")
        await expect(page.locator("#toasts")).to_contain_text("became others meanwhile")
        await name_of(page, 1, "Tone 300 Hz")


async def test_an_owner_sees_who_listens_mixes_for_them_kicks_and_bans(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        await check_looks(page, pictures, "rooms")
        code = await make_room(page, "Hands")
        await add_tone(page, 440)
        await add_tone(page, 1000)
        await go_live(page)
        async with (
            listening(studio, code, "Drums", mode="mix") as drums,
            listening(studio, code, "<b>Loud</b>") as loud,
        ):
            await drums.connection.send(
                {"type": "stats", "latencyMs": 95, "bufferMs": 60, "jitterMs": 2, "lost": 0}
            )
            row = page.locator(".person").filter(has_text="Drums")
            await expect(row).to_contain_text("Excellent")
            await expect(row).to_contain_text("95")
            await check_looks(page, pictures, "broadcast")

            await row.get_by_role("button", name="Mix").click()
            fader = page.get_by_role("slider", name="Level of Tone 1000 Hz")
            await expect(fader).to_be_visible()
            await check_looks(page, pictures, "mix")
            await fader.focus()
            await page.keyboard.press("Home")
            await page.get_by_role("button", name="Mute Tone 440 Hz").click()
            await drums.wait_until(
                lambda message: (
                    isinstance(message, dict)
                    and message["type"] == "mixChanged"
                    and list(message["faders"]) == [1, 0]
                    and list(message["mutes"]) == [True, False]
                )
            )
            await drums.connection.send({"type": "setMix", "master": 2})
            master = page.get_by_role("slider", name="Level of Master")
            await expect(master).to_have_attribute("aria-valuetext", "+6.0 dB")
            await expect(page.locator(".strip.silenced")).to_have_count(1)
            await check_looks(page, pictures, "mix-muted")
            await page.get_by_role("dialog").get_by_role("button", name="Close").click()

            await row.get_by_role("button", name="Kick").click()
            await page.get_by_label("Reason").fill("Soundcheck is over")
            await confirm(page, "Kick")
            error = await drums.wait_text("error")
            assert (error["code"], error["message"]) == ("kicked", "Soundcheck is over")
            await expect(row).to_have_count(0)

            row = page.locator(".person").filter(has_text="<b>Loud</b>")
            await row.get_by_role("button", name="Ban").click()
            dialog = page.get_by_role("dialog")
            await expect(dialog.get_by_role("status")).to_have_text("1 connection would be closed.")
            await check_looks(page, pictures, "ban")
            await dialog.get_by_label("Also everyone from").uncheck()
            await confirm(page, "Ban")
            assert (await loud.wait_text("error"))["code"] == "banned"
            await expect(page.get_by_text("Nobody listens yet.")).to_be_visible()
        await expect(page.locator(".upload .quality")).not_to_contain_text("Unknown")
        await page.get_by_text("Figures").click()
        await expect(page.get_by_role("table")).to_contain_text("Tone 1000 Hz")


async def test_a_link_or_an_invite_lets_listeners_in(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        await page.get_by_role("button", name="New room").click()
        await check_looks(page, pictures, "new-room")
        await page.get_by_label("Name", exact=True).fill("Behind a door")
        await page.get_by_label("Password for listeners").fill("sesame")
        await page.get_by_role("button", name="Create room").click()
        await page.get_by_role("button", name="Share").click()
        dialog = page.get_by_role("dialog")
        code = await dialog.locator(".code").inner_text()
        link = await dialog.get_by_label("Link", exact=True).input_value()
        assert link == f"{studio.url}/listen/{code}"
        await dialog.get_by_label("How often").fill("1")
        await dialog.get_by_role("button", name="Make invite").click()
        invite = await dialog.get_by_label("Invite link").input_value()
        secret = re.fullmatch(re.escape(link) + "#invite=(.+)", invite)
        assert secret is not None
        await expect(dialog.get_by_role("row")).to_have_count(2)
        await check_looks(page, pictures, "share")
        await dialog.get_by_role("button", name="Revoke").click()
        above = page.get_by_role("dialog", name="Revoke this invite?")
        await above.get_by_role("button", name="Cancel").click()
        await expect(above).to_have_count(0)
        await expect(page.get_by_role("dialog", name="Share “Behind a door”")).to_be_visible()
        join = {"roomCode": code, "invite": secret[1]}
        request = context.request
        assert (await request.post(studio.url + "/auth/room/join", data=join)).status == 200
        assert (await request.post(studio.url + "/auth/room/join", data=join)).status == 401
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Share").click()
        await expect(dialog.get_by_role("row").nth(1)).to_contain_text("Used up")


async def test_a_room_is_opened_once_and_not_any_more_when_it_was_left(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "Once")
        found = await page.evaluate(
            """async (code) => {
                const { requestAll, session } = await import('/static/pages/api.js');
                const { Studio } = await import('/static/pages/studio/studio.js');
                await session.resume();
                const rooms = await requestAll('/api/broadcaster/rooms', 'rooms', { active: true });
                const room = rooms.find((one) => one.roomCode === code);
                const twice = new Studio(room);
                const [one, other] = await Promise.all([twice.open(), twice.open()]);
                twice.dispose();
                const left = new Studio(room);
                const opening = left.open().then(() => 'opened', (error) => error.code);
                left.dispose();
                return [one === other, await opening, left.broadcaster];
            }""",
            code,
        )
        assert found == [True, "left", None]


async def test_a_browser_that_keeps_nothing_goes_live_all_the_same(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context:
        await context.add_init_script(
            """for (const name of ['localStorage', 'sessionStorage']) {
                const get = () => { throw new DOMException('forbidden', 'SecurityError'); };
                Object.defineProperty(window, name, { get });
            }"""
        )
        async with opened(context, studio.url + "/broadcast") as page:
            await sign_in(page, "engineer@example.org")
            await make_room(page, "Nothing kept")
            await add_tone(page, 440)
            await go_live(page)
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("button", name="Go live")).to_be_enabled()


async def test_after_a_reload_the_broadcast_goes_on_in_the_same_room(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "Again")
        await add_tone(page, 700)
        await page.get_by_label("Name of channel 1").fill("Flute")
        await page.get_by_label("Name of channel 1").press("Enter")
        await page.get_by_role("slider", name="Gain of Tone 700 Hz").press("PageDown")
        await go_live(page)
        async with listening(studio, code) as listener:
            turned_down = -12 - 3.01 - 6  # the RMS
            await level_becomes(listener, turned_down)
            first = (await stream(listener))["stream"]
            await page.reload()
            await page.get_by_role("button", name="Go on live").click()
            await expect(page.locator(".transport.live")).to_be_visible()
            assert (await stream(listener, after=first))["channelNames"] == ["Flute"]
            assert await tones(listener) == pytest.approx([700], abs=2.5)
            assert await level(listener) == pytest.approx(turned_down, abs=0.5)


async def test_a_broadcast_that_is_taken_over_is_told_and_can_be_taken_back(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as first:
        await sign_in(first, "engineer@example.org")
        code = await make_room(first, "Two windows")
        await add_tone(first, 300)
        await go_live(first)
        async with opened(context, f"{studio.url}/broadcast?room={code}") as second:
            await expect(second.get_by_role("heading", name="Two windows")).to_be_visible()
            await add_tone(second, 600)
            await go_live(second)
            told = first.get_by_role("alert")
            await expect(told).to_contain_text("taken over this broadcast")
            async with listening(studio, code) as listener:
                assert await tones(listener) == pytest.approx([600], abs=2.5)
                number = (await stream(listener))["stream"]
                await first.get_by_role("button", name="Take it back").click()
                await expect(second.get_by_role("alert")).to_contain_text("taken over")
                await stream(listener, after=number)
                assert await tones(listener) == pytest.approx([300], abs=2.5)


async def test_a_break_keeps_the_listeners_and_ends_when_the_owner_says_so(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        visitor(browser) as context,
        # What the page was just asking of the room when it was closed.
        opened(context, studio.url + "/broadcast", refusals=[410]) as page,
    ):
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "Interval")
        await add_tone(page, 440)
        await go_live(page)
        async with listening(studio, code) as listener:
            await listener.wait_frames(5)
            await page.locator("summary", has_text="Room").click()
            await page.get_by_role("button", name="Take a break").click()
            await confirm(page, "Take a break")
            await listener.wait_text("roomSuspended")
            await page.get_by_role("button", name="End the break").click()
            await listener.wait_text("roomResumed")
            after = len(listener.messages)
            await listener.wait_frames(5, after=after)
            await expect(page.locator(".transport.live")).to_be_visible()
            await page.locator("summary", has_text="Room").click()
            await page.get_by_role("button", name="Close room").click()
            await confirm(page, "Close room")
            closed = await listener.wait_text("roomClosed")
            assert closed["reason"] == "closed_by_owner"
        await expect(page.get_by_role("heading", name="Your rooms")).to_be_visible()


async def test_a_wrong_password_is_told_and_an_account_can_be_made(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with (
        visitor(browser) as context,
        opened(context, studio.url + "/broadcast", refusals=[401]) as page,
    ):
        await page.get_by_label("E-mail").fill("engineer@example.org")
        await page.get_by_label("Password").fill("guessed")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("E-mail or password is wrong.")
        await check_looks(page, pictures, "sign-in")
        await page.get_by_role("button", name="Create an account").click()
        await page.get_by_label("E-mail").fill("new@example.org")
        await page.get_by_label("Password").fill("a long new password")
        await page.get_by_role("button", name="Create account").click()
        await expect(page.get_by_text("No room is open.")).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("new@example.org")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_the_list_of_devices_follows_what_is_plugged_in_and_out(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Plugs")
        await page.get_by_role("button", name="Device", exact=True).click()
        options = page.get_by_role("dialog").locator("select[name=device] option")
        add = page.get_by_role("button", name="Add", exact=True)
        await expect(options).not_to_have_count(0)
        there = await options.count()
        await page.evaluate(
            """() => {
                window.plugged = navigator.mediaDevices.enumerateDevices;
                navigator.mediaDevices.enumerateDevices = async () => [];
                navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
            }"""
        )
        await expect(options).to_have_count(0)
        await expect(add).to_be_disabled()
        await page.evaluate(
            """() => {
                navigator.mediaDevices.enumerateDevices = window.plugged;
                navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
            }"""
        )
        await expect(options).to_have_count(there)
        await expect(add).to_be_enabled()


async def test_who_signs_out_elsewhere_stays_on_air(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context, opened(context, studio.url + "/broadcast") as page:
        await sign_in(page, "engineer@example.org")
        code = await make_room(page, "Signed out")
        await add_tone(page, 440)
        await go_live(page)
        async with (
            opened(context, studio.url + "/dashboard") as other,
            listening(studio, code) as ears,
        ):
            await other.get_by_role("button", name="Sign out").click()
            await expect(page.get_by_role("alert")).to_contain_text("The broadcast goes on")
            assert await tones(ears) == pytest.approx([440], abs=2.5)
            await sign_in(page, "engineer@example.org")
            await expect(page.get_by_role("alert")).to_have_count(0)
            await expect(page.locator(".transport.live")).to_be_visible()
            await expect(page.locator(".person")).to_have_count(1)


async def test_a_room_that_was_closed_elsewhere_is_left(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        visitor(browser) as context,
        opened(context, studio.url + "/broadcast", refusals=[410]) as page,
    ):
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Closed elsewhere")
        async with opened(context, studio.url + "/dashboard") as other:
            await other.get_by_role("link", name="Closed elsewhere").click()
            await other.get_by_role("button", name="Close room").click()
            await confirm(other, "Close room")
            await expect(page.get_by_text("The room is closed.")).to_be_visible()
            await expect(page.get_by_role("heading", name="Your rooms")).to_be_visible()


async def test_a_page_over_plain_http_says_what_is_missing(
    browser: Browser, studio: ServerProcess
) -> None:
    url = studio.url.replace("127.0.0.1", "relay.test") + "/broadcast"
    async with visitor(browser) as context, opened(context, url) as page:
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Without")
        await expect(page.get_by_role("alert")).to_contain_text("over https only")
        await page.get_by_role("button", name="Device", exact=True).click()
        await expect(page.get_by_role("status").filter(has_text="over https only")).to_be_visible()
