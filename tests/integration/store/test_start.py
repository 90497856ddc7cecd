"""How a server begins: what waited first, then stays nobody ended, then rooms; with or without
its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from msgspec import structs

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.database import Connection
from roomserver.store.durable import DurableRoomStore
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.events import Event, Left, RoomChanged
from roomserver.store.outbox import Outbox
from roomserver.store.records import LeaveReason
from support.api_client import Api
from support.events import new_room, new_stay
from support.postgres import Cluster, url
from support.postgres import postgres as new_postgres
from support.server import PASSWORD, ServerProcess

TIMEOUT_S = 60.0


@asynccontextmanager
async def store(cluster: Cluster, data_dir: Path) -> AsyncIterator[DurableRoomStore]:
    """As a server has it, once it has begun."""
    database = cluster.database()
    rooms = DurableRoomStore(Outbox(data_dir, capacity=10**6), database, url="")
    try:
        await rooms.open()
        yield rooms
    finally:
        await rooms.close()
        await database.close()


async def wait(data_dir: Path, *events: Event) -> None:
    """Events wait in the outbox when the server begins."""
    outbox = Outbox(data_dir, capacity=10**6)
    for event in events:
        outbox.append_soon(event)
    await outbox.close()


async def test_what_waited_is_taken_over_then_stays_are_ended_then_rooms_taken_up(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    kept, closed = new_room(), new_room()
    told, untold = new_stay(kept), new_stay(kept)
    async with store(cluster, tmp_path) as rooms:
        for room in (kept, closed):
            assert await rooms.create_room(room)
        for stay in (told, untold):
            rooms.participant_joined(stay)
    await tables.execute("UPDATE relay.audio_rooms SET server_id = (SELECT id FROM relay.servers)")
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 2
    # It died with these in its outbox, and never let go of its rooms.
    await wait(
        tmp_path,
        Left(
            structs.replace(told, left_at=1_700_000_009.0, duration_s=8.0, reason=LeaveReason.LEFT)
        ),
        RoomChanged(
            replace(
                closed,
                version=2,
                state=RoomState.CLOSED,
                closed_at=1_700_000_009.0,
                close_reason=RoomCloseReason.CLOSED_BY_OWNER,
            )
        ),
        RoomChanged(replace(kept, version=2, name="New name")),
    )

    async with store(cluster, tmp_path) as rooms:
        assert [(room.id, room.name) for room in await rooms.open_rooms()] == [
            (kept.id, "New name")
        ]
        stays = await tables.fetch("SELECT client_id, leave_reason FROM relay.room_participants")
    reasons = {stay["client_id"]: stay["leave_reason"] for stay in stays}
    assert reasons == {told.connection: "left", untold.connection: "server_lost"}


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """One that a test stops and starts."""
    with new_postgres() as server:
        yield server


async def test_a_server_without_its_database_has_the_rooms_it_knew_and_joins_it_later(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    options = ("--database-url", url(postgres.connection))
    async with aiohttp.ClientSession() as session:
        with ServerProcess.start(tmp_path, *options) as server:
            await asyncio.to_thread(server.add_user)
            api = Api(server.url, session)
            token = (await api.login())["accessToken"]
            rooms = [await api.create_room(token) for _ in range(2)]
        await asyncio.to_thread(postgres.stop)

        with ServerProcess.start(tmp_path, *options) as server:
            server.wait_for_event("database_away_at_start")
            api = Api(server.url, session)
            assert await ready(session, server) == (503, "database_away")
            for room in rooms:
                assert await api.join(room.code)
            login = {"email": "engineer@example.org", "password": PASSWORD}
            async with session.post(server.url + "/auth/broadcaster", json=login) as response:
                assert response.status == 503
            made = await api.create_room(token)  # the token is known by its signature
            await asyncio.to_thread(postgres.start)
            await asyncio.to_thread(server.wait_for_event, "database_joined", timeout=TIMEOUT_S)
            assert await ready(session, server) == (200, "")
            await api.login()
            database = await asyncpg.connect(**postgres.connection)
            known = "SELECT EXISTS (SELECT FROM relay.audio_rooms WHERE code = $1 AND active)"
            async with asyncio.timeout(TIMEOUT_S):
                while not await database.fetchval(known, made.code):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
            await database.close()


async def ready(session: aiohttp.ClientSession, server: ServerProcess) -> tuple[int, str]:
    """What `/readyz` says, and why not."""
    async with session.get(server.url + "/readyz") as response:
        return response.status, (await response.json()).get("detail", "")
