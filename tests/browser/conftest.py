"""One browser and one server for all tests of the pages, which share an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from roomserver.clients.wire import Encoding
from support.browser import MICROPHONE_HZ, launch
from support.server import ServerProcess
from support.tones import wav_of_tones

HERE = Path(__file__).parent


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
    microphone.write_bytes(wav_of_tones(MICROPHONE_HZ, encoding=Encoding.S16LE))
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
