"""The Broadcast page in a test: a room, its inputs, and what a listener of it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from playwright.async_api import Page, expect

from roomserver.clients.connection import RoomApi
from roomserver.clients.wire import Frame
from support.live import Capture
from support.server import ServerProcess


@asynccontextmanager
async def listening(
    server: ServerProcess, code: str, nickname: str | None = None, **fields: object
) -> AsyncIterator[Capture]:
    """A listener in an open room that keeps all that comes."""
    async with RoomApi(server.url) as api:
        access = await api.join(code, None)
        registration = {
            "type": "registerListener",
            "roomId": access.room_id,
            "roomToken": access.room_token,
            **({} if nickname is None else {"nickname": nickname}),
            **fields,
        }
        connection = await api.connect(registration, answer="listenerRegistered")
        capture = Capture(connection)
        reader = asyncio.create_task(capture.run())
        try:
            yield capture
        finally:
            reader.cancel()
            await asyncio.wait({reader})
            await connection.close()


async def stream(capture: Capture, *, after: int = 0) -> dict[str, Any]:
    """The format of the stream that is heard, of one with a greater number than `after`."""
    registered = capture.connection.registered
    if registered.get("stream", 0) > after:
        return registered
    number = await capture.wait_until(
        lambda message: (
            isinstance(message, dict)
            and message["type"] == "streamStarted"
            and message["stream"] > after
        )
    )
    found = capture.messages[number]
    assert isinstance(found, dict)
    return found


async def tones(capture: Capture) -> list[float]:
    """The loudest frequency of each channel in what comes from now on, in Hz."""
    start = len(capture.messages)
    await capture.wait_frames(30, after=start)
    frames = [each for each in capture.messages[start:] if isinstance(each, Frame)][-25:]
    heard = np.concatenate([frame.samples for frame in frames]).astype(float)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))[:, None], axis=0))
    started = capture.texts("streamStarted") or [capture.connection.registered]
    rate = started[-1]["sampleRate"]
    return [float(np.argmax(side)) * rate / len(heard) for side in spectrum.T]


async def level(capture: Capture) -> float:
    """RMS of the first channel in what comes from now on, in dB of full scale."""
    start = len(capture.messages)
    await capture.wait_frames(25, after=start)
    frames = [each for each in capture.messages[start:] if isinstance(each, Frame)][-20:]
    heard = np.concatenate([frame.samples for frame in frames])[:, 0].astype(float) / 32768
    return float(10 * np.log10(np.mean(heard**2) + 1e-12))


async def level_becomes(capture: Capture, wanted_db: float) -> None:
    """Waits until the first channel has this level."""
    async with asyncio.timeout(20):
        while abs(await level(capture) - wanted_db) > 0.5:
            pass


async def make_room(page: Page, name: str) -> str:
    """A room that is open to everyone, of whoever is signed in; its code."""
    await page.get_by_role("button", name="New room").click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Create room").click()
    await expect(page.get_by_role("heading", name=name)).to_be_visible()
    return await page.locator(".page-head .code").inner_text()


async def add_tone(page: Page, frequency: float) -> None:
    """An input of this frequency."""
    await page.get_by_role("button", name="Test tone").click()
    await page.get_by_label("Frequency").fill(str(frequency))
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_text(f"Tone {frequency} Hz", exact=True)).to_be_visible()


async def go_live(page: Page) -> None:
    await page.get_by_role("button", name="Go live").click()
    await expect(page.locator(".transport.live")).to_be_visible()


async def name_of(page: Page, channel: int, name: str) -> None:
    """Waits until a channel, counted from 1, is called so."""
    field = page.get_by_label(f"Name of channel {channel}", exact=True)
    await expect(field).to_have_value(name)


async def confirm(page: Page, button: str) -> None:
    """Presses a button of the dialog, which closes."""
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name=button, exact=True).click()
    await expect(dialog).to_have_count(0)
