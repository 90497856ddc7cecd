"""One browser and one server for all tests of the pages, which share an event loop."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator, Iterator
from inspect import iscoroutinefunction
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from support.browser import launch
from support.server import ServerProcess

HERE = Path(__file__).parent
#: Of the fake microphone: left and right.
MICROPHONE_HZ = (500.0, 800.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and HERE in item.path.parents
            and iscoroutinefunction(item.function)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Chromium; its microphone hears a tone on each side."""
    microphone = tmp_path_factory.mktemp("microphone") / "tones.wav"
    time = np.arange(48_000) / 48_000
    tones = [0.25 * np.sin(2 * np.pi * frequency * time) for frequency in MICROPHONE_HZ]
    with wave.open(str(microphone), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((np.stack(tones, 1) * 32767).astype("<i2").tobytes())
    async with async_playwright() as playwright:
        chromium = await launch(playwright, microphone)
        yield chromium
        await chromium.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an account, for tests that leave it as it is."""
    with ServerProcess.start(tmp_path_factory.mktemp("server")) as process:
        process.add_user()
        yield process


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that make rooms and accounts, where anyone may make one."""
    directory = tmp_path_factory.mktemp("studio")
    with ServerProcess.start(directory, "--registration", "open") as process:
        process.add_user()
        yield process


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of pages are left for people: below pytest's `--basetemp`."""
    return tmp_path_factory.mktemp("pictures")
