"""Pages of the server in a browser: opened, signed in to, and held to what is true of every page.

A page must end without complaints of the browser: no error or warning in the console, nothing that
its Content-Security-Policy forbids, no exception.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from support.server import PASSWORD

TIMEOUT_MS = 20_000
DESKTOP = (1280, 900)
NARROWEST, PHONE = (320, 640), (390, 844)
# What axe looks at, which takes time: both layouts, and all colours of both schemes.
CHECKED = ((NARROWEST, "dark"), (DESKTOP, "light"))
AXE = Path(__file__).parents[1] / "browser" / "vendor" / "axe.min.js"
OUTAGE = re.compile(r"WebSocket connection|net::ERR_|status of 503")
REFUSAL = re.compile(r"status of (\d{3})|net::(ERR_\w+)")

expect.set_options(timeout=TIMEOUT_MS)


@asynccontextmanager
async def visitor(browser: Browser, **options: object) -> AsyncIterator[BrowserContext]:
    """Somebody with a browser of their own: cookies and storage are shared by their pages."""
    usual = {
        "viewport": {"width": DESKTOP[0], "height": DESKTOP[1]},
        "permissions": ["microphone", "screen-wake-lock"],
        "accept_downloads": True,
    }
    context = await browser.new_context(**(usual | options))  # type: ignore[arg-type]
    context.set_default_timeout(TIMEOUT_MS)
    try:
        yield context
    finally:
        await context.close()


@asynccontextmanager
async def opened(
    context: BrowserContext,
    url: str,
    *,
    refusals: Collection[int | str] = (),
    outage: bool = False,
    complaint: str | None = None,
) -> AsyncIterator[Page]:
    """A page; `refusals` are HTTP statuses, and Chromium's errors, that the test provokes.

    complaint: a message of the browser that says nothing about the page.
    outage: the server is out of reach for a while, of which the browser complains.
    """
    page = await context.new_page()
    problems: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        found = REFUSAL.search(message.text)
        if found is not None and (found[2] or int(found[1])) in refusals:
            return
        if message.text == complaint or (outage and OUTAGE.search(message.text)):
            return
        if message.type in ("error", "warning"):
            problems.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: problems.append(f"{error}\n{error.stack}"))
    await page.goto(url)
    yield page
    await page.close()
    assert not problems, problems


async def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """Signs in by the form that the page shows."""
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


async def press_tab_to(page: Page, role: str, name: str) -> None:
    """Moves the focus by the Tab key alone until it is on this. Fails when it comes round."""
    target = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
    await expect(target).to_be_visible()
    for _ in range(60):
        if await target.evaluate("(element) => element === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not lead to the {role} {name!r}")


async def check_looks(page: Page, pictures: Path, name: str) -> None:
    """Nothing is cut off at any width, and axe finds nothing serious, in light and in dark.

    Pictures are kept for people to look at.
    """
    for size in (NARROWEST, PHONE, DESKTOP):
        await page.set_viewport_size({"width": size[0], "height": size[1]})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0], f"{name} is {wide} px wide on a screen of {size[0]} px"
        for scheme in ("light", "dark"):
            await _draw(page, scheme)
            await page.screenshot(path=pictures / f"{name}-{size[0]}-{scheme}.png", full_page=True)
            if (size, scheme) in CHECKED:
                await _check_accessibility(page, f"{name} ({size[0]} px, {scheme})")


async def _draw(page: Page, scheme: Literal["light", "dark"]) -> None:
    # What moves is still: a colour in between is nobody's contrast.
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")


async def _check_accessibility(page: Page, name: str) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    serious = [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']][:3]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert not serious, f"{name}: {serious}"
