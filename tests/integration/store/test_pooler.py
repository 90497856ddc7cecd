"""A server behind pgbouncer in transaction mode, from the first login to the next start."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from roomserver.store.database import Connection
from support.api_client import Api, RoomKeys
from support.postgres import Cluster
from support.server import ServerProcess

STAYS = "SELECT count(*) FROM relay.room_participants WHERE left_at IS NOT NULL"


@pytest.mark.parametrize("cluster", ["pooled"], indirect=True)
async def test_everything_works_behind_a_pooler(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    def start() -> ServerProcess:
        return ServerProcess.start(tmp_path, env=cluster.variables())

    async with aiohttp.ClientSession() as session:
        server = await asyncio.to_thread(start)
        await asyncio.to_thread(server.add_user)
        api = Api(server.url, session)
        access = (await api.login())["accessToken"]
        rooms = [await api.create_room(access, metadata={"seats": [1]}) for _ in range(3)]
        stays = [visit(api, room) for room in rooms for _ in range(10)]
        await asyncio.gather(*stays)  # more at once than the pooler has connections
        async with asyncio.timeout(30):
            while await tables.fetchval(STAYS) < len(stays):  # noqa: ASYNC110 - it sends no event
                await asyncio.sleep(0.02)
        server.signal(signal.SIGKILL)
        server.stop()

        with await asyncio.to_thread(start) as server:
            api = Api(server.url, session)
            assert await api.login()
            for room in rooms:
                assert await api.join(room.code)


async def visit(api: Api, room: RoomKeys) -> None:
    """Somebody comes and goes."""
    async with api.listener(room):
        pass
