"""Several fingers on a mixer: each has its own fader."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from playwright.async_api import Browser, CDPSession, Page, expect

from support.listen_page import fader, heard_page, play, room
from support.server import ServerProcess

Point = tuple[float, float]


async def middle(page: Page, channel: str) -> Point:
    """Of its fader, once that stands still and nothing lies on it."""
    await fader(page, channel).click(trial=True)
    box = await fader(page, channel).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def touch(
    session: CDPSession, kind: str, *, at_s: float | None = None, **fingers: Point
) -> None:
    """What the fingers on the screen do at once; one that is no longer named is lifted.

    at_s: Unix time that it has; now, unless told.
    """
    points: list[dict[str, Any]] = [
        {"x": x, "y": y, "id": ord(name)} for name, (x, y) in fingers.items()
    ]
    when = time.time() if at_s is None else at_s
    await session.send(
        "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points, "timestamp": when}
    )


async def test_two_fingers_move_two_faders(browser: Browser, server: ServerProcess) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", has_touch=True) as (page, ears),
    ):
        await play(page, ears)
        await fader(page, "Voice").scroll_into_view_if_needed()
        session = await page.context.new_cdp_session(page)
        a, b = await middle(page, "Voice"), await middle(page, "Keys")
        await touch(session, "touchStart", a=a, b=b)
        for step in range(1, 5):
            by = 10 * step
            await touch(session, "touchMove", a=(a[0], a[1] - by), b=(b[0], b[1] + by))
        await touch(session, "touchEnd")
        await expect(fader(page, "Voice")).to_have_attribute("aria-valuetext", re.compile(r"^\+"))
        await expect(fader(page, "Keys")).to_have_attribute("aria-valuetext", re.compile("^−"))
        # What is shown is what is in force, of both.
        voice, keys, bells = await page.evaluate("listening.mix.faders")
        assert voice > 1 > keys
        assert bells == 1


async def test_of_two_fingers_on_a_fader_the_first_one_moves_it(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", has_touch=True) as (page, ears),
    ):
        await play(page, ears)
        handle = fader(page, "Voice")
        await handle.scroll_into_view_if_needed()
        session = await page.context.new_cdp_session(page)
        x, y = await middle(page, "Voice")
        await handle.evaluate(
            "(fader) => {"
            "  window.shown = [fader.position];"
            "  fader.addEventListener('input', () => shown.push(fader.position));"
            "}"
        )

        async def moves() -> float:
            """By how much it moved next: browsers hand a finger on with their next picture."""
            differs = (
                "async () => {"
                "  while (shown.length < 2) await new Promise(requestAnimationFrame);"
                "  return shown[1] - shown.shift();"
                "}"
            )
            async with asyncio.timeout(10):
                return float(await page.evaluate(differs))

        await touch(session, "touchStart", a=(x, y))
        await touch(session, "touchStart", a=(x, y), b=(x, y + 30))
        await touch(session, "touchMove", a=(x, y), b=(x, y + 60))
        await touch(session, "touchMove", a=(x, y - 20))  # and the other one is lifted
        way = await handle.evaluate("(fader) => fader.clientHeight")
        assert await moves() == pytest.approx(20 / way)  # not down, where the other one went
        await touch(session, "touchEnd")
        await touch(session, "touchStart", a=(x, y))
        await touch(session, "touchMove", a=(x, y + 30))
        assert await moves() == pytest.approx(-30 / way)
        await touch(session, "touchEnd")


async def test_a_finger_that_scrolls_has_not_tapped(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room(server) as (made, _),
        heard_page(browser, f"{server.url}/listen/{made.code}", has_touch=True) as (page, ears),
    ):
        await play(page, ears)
        handle = fader(page, "Voice")
        await handle.scroll_into_view_if_needed()
        await handle.focus()
        await page.keyboard.press("PageDown")
        session = await page.context.new_cdp_session(page)
        x, y = await middle(page, "Voice")

        async def press_twice(at_s: float, *, end: str = "touchEnd") -> None:
            """So quickly that it is two taps, if both are taps."""
            await touch(session, "touchStart", at_s=at_s, a=(x, y))
            await touch(session, end, at_s=at_s + 0.05)
            await touch(session, "touchStart", at_s=at_s + 0.1, a=(x, y))
            await touch(session, "touchEnd", at_s=at_s + 0.15)

        now = time.time()
        await press_twice(now - 2, end="touchCancel")
        await expect(handle).to_have_attribute("aria-valuetext", "−6.0 dB")
        await press_twice(now - 1)
        await expect(handle).to_have_attribute("aria-valuetext", "0.0 dB")
