"""A server with an administrator, its accounts in a file and in PostgreSQL alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from roomserver.store.embedded import EmbeddedPostgres
from support.api_client import Api
from support.postgres import open_directory, postgres
from support.server import ServerProcess

ADMIN = "admin@example.org"
OPTIONS = ("--registration", "invite", "--register-limit", "1000 per minute")


@pytest.fixture(scope="session", params=["none", "embedded"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def server(database_url: str) -> Iterator[ServerProcess]:
    with open_directory() as directory:
        options = ("--database-url", database_url, *OPTIONS)
        with ServerProcess.start(directory / "data", *options) as server:
            server.add_user(ADMIN, admin=True)
            yield server


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


@pytest.fixture
async def admin(api: Api) -> str:
    """An administrator's access token."""
    return (await api.login(ADMIN))["accessToken"]


@pytest.fixture(scope="session")
def database() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for servers that share it, or lose it; it runs when a test begins."""
    with postgres() as database:
        yield database
