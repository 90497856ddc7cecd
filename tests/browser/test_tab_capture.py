"""The sound of a tab is broadcast: what another tab plays is heard by a listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from support.browser import BLANK, launch
from support.pages import opened, sign_in, visitor
from support.server import ServerProcess
from support.studio import go_live, level, listening, make_room, tones

TITLE = "Radio Teststation"
HERTZ = 620
SILENT_DB = -60
# Chromium asks the policy of cameras for any picture, that of a tab too, and goes on all the same.
CAMERA = "Permissions policy violation: camera is not allowed in this document."
RADIO = """async ([title, frequency]) => {
    document.title = title;
    const context = new AudioContext();
    const tone = new OscillatorNode(context, { frequency });
    tone.connect(new GainNode(context, { gain: 0.2 })).connect(context.destination);
    tone.start();
    await context.resume();
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def sharing_browser() -> AsyncIterator[Browser]:
    """Chromium in which whoever is asked for a tab chooses the one of this title."""
    async with async_playwright() as playwright:
        chromium = await launch(playwright, shared_tab=TITLE)
        yield chromium
        await chromium.close()


async def test_what_a_tab_plays_is_heard_until_it_is_closed(
    sharing_browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(sharing_browser) as context:
        radio = await context.new_page()
        await radio.goto(studio.url + BLANK)
        await radio.evaluate(RADIO, [TITLE, HERTZ])
        async with opened(context, studio.url + "/broadcast", complaint=CAMERA) as page:
            await sign_in(page, "engineer@example.org")
            code = await make_room(page, "A tab")
            await page.get_by_role("button", name="Tab", exact=True).click()
            card = page.locator(".input-card")
            await expect(card).to_contain_text("Browser tab")
            await go_live(page)
            async with listening(studio, code) as listener:
                async with asyncio.timeout(20):  # the browser begins to share it at its leisure
                    while await level(listener) < SILENT_DB:
                        pass
                heard = await tones(listener)
                assert heard == pytest.approx([HERTZ] * len(heard), abs=2.5)
                await radio.close()
                await expect(card).to_contain_text("No longer shared")
