"""A server on a real database, with three accounts and rooms of the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from support.api_client import Api
from support.postgres import Cluster, open_directory, postgres
from support.rest import ADMIN, OWNER, STRANGER, Keys
from support.server import ServerProcess

from .stage import SECRET, Scene, Stage


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with open_directory() as directory:
        data_dir = directory / "data"
        options = ("--database-url", "embedded")
        with ServerProcess.start(data_dir, *options) as server:
            for email in (OWNER, STRANGER, ADMIN):
                server.add_user(email, admin=email == ADMIN)
            yield server


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server with low limits whose database, and disk, a test may take away."""
    options = (
        *("--registration", "invite"),
        *("--refresh-limit", "3 per minute"),
        *("--create-limit", "60 per hour"),
        *("--password-queue", "1"),
        *("--trusted-proxies", "127.0.0.1"),
    )
    directory = tmp_path_factory.mktemp("scene")
    with postgres() as database, ServerProcess.start(directory / "closed") as closed:
        cluster = Cluster(database)
        server = ServerProcess.start(
            directory / "server",
            *options,
            env=cluster.variables() | {"ROOMSERVER_SECRET": SECRET},
            bcrypt_rounds=10,
        )
        try:
            yield asyncio.run(Scene.make(server, cluster, closed.url))
        finally:
            # Its log has errors: it was told to write what could not be written.
            assert server.stop() == 0, server.output()


@pytest.fixture
def stage(scene: Scene, session: aiohttp.ClientSession) -> Stage:
    return Stage(scene, Api(scene.server.url, session))
