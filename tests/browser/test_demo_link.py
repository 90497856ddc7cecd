"""`make demo` prints a link; opening it and pressing play plays."""

from __future__ import annotations

import asyncio
import re
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from support.browser import ClientPage
from support.pages import opened, visitor
from support.server import command, environment

START_S = 60.0
LINK = re.compile(r"^\s*(http://\S+/listen/\w+)$")


@asynccontextmanager
async def demo_link() -> AsyncIterator[str]:
    """Runs the demonstration; the link that it prints."""
    process = await asyncio.create_subprocess_exec(
        *command("demo", "--port", "0", "--buffer-ms", "400"), stderr=PIPE, env=environment()
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(START_S):
            while not (said and (link := LINK.match(said[-1]))):
                line = (await process.stderr.readline()).decode()
                assert line, f"it ended and had said: {said}"
                said.append(line)
        reader = asyncio.create_task(process.stderr.read())  # or its pipe would fill
        yield link[1]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(START_S):
            assert await process.wait() == 0, await reader
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_link_of_the_demonstration_plays(browser: Browser) -> None:
    async with (
        demo_link() as link,
        visitor(browser) as context,
        opened(context, link) as page,
    ):
        await page.get_by_role("button", name="Play", exact=True).click()
        await expect(page.locator(".player .badge")).to_have_text("Live")
        await expect(page.locator(".strips .strip")).to_have_count(16)
        ears = ClientPage(page)
        await ears.put_on_ears("listening")
        await page.get_by_role("button", name="Solo pulsing A").click()
        heard = await ears.settled(lambda heard: abs(heard.tone(0) - 440) < 2)
        assert heard.tone(1) == pytest.approx(440, rel=0.002)
