"""A server on a real database, with three accounts and rooms of the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from support.api_client import Api
from support.postgres import open_directory
from support.rest import ADMIN, OWNER, STRANGER, Keys
from support.server import ServerProcess


@pytest.fixture(scope="package")
def server() -> Iterator[ServerProcess]:
    with open_directory() as directory:
        data_dir = directory / "data"
        options = ("--database-url", "embedded")
        with ServerProcess.start(data_dir, *options) as server:
            for email in (OWNER, STRANGER, ADMIN):
                server.add_user(email, admin=email == ADMIN)
            yield server


@pytest.fixture(scope="package")
def keys(server: ServerProcess) -> Keys:
    async def make() -> Keys:
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            owner, stranger, admin = [
                (await api.login(email))["accessToken"] for email in (OWNER, STRANGER, ADMIN)
            ]
            room = await api.create_room(owner)
            closed = await api.create_room(owner)
            path = f"/api/broadcaster/rooms/{closed.id}"
            assert (await api.call("DELETE", path, token=owner)).status == 204
            return Keys(owner, stranger, admin, room.id, closed.id)

    return asyncio.run(make())


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)
