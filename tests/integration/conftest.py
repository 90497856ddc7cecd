"""One server process for a module's tests, with an account, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from support.api_client import Api
from support.server import ServerProcess

# Short where a test has to wait for the end of something.
OPTIONS = ("--grace-s", "1.5", "--register-timeout-s", "2", "--max-text-bytes", "4096")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("server")
    with ServerProcess.start(directory, *OPTIONS) as process:
        process.add_user()
        yield process


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for audio that must be whole: it waits for a test that got no time to run."""
    directory = tmp_path_factory.mktemp("studio")
    with ServerProcess.start(directory, "--max-lag-ms", "5000") as process:
        process.add_user()
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


@pytest.fixture
async def access_token(api: Api) -> str:
    """Of the server's only account."""
    return (await api.login())["accessToken"]
