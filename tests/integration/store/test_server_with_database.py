"""A server whose rooms are kept: after a kill, and while its database is away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from roomserver.clients.errors import ClientError
from roomserver.store.database import Connection
from roomserver.store.embedded import EmbeddedPostgres
from support.api_client import Api, source_wish
from support.live import EMAIL, live_room
from support.postgres import open_directory, signal_all
from support.server import PASSWORD, ServerProcess, command, environment

OPTIONS = ("--database-url", "embedded")
ROOM = {"password": "hall and stage", "name": "Hall", "metadata": {"seats": [1, 2]}}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


async def add_user(data_dir: Path, email: str = EMAIL) -> None:
    """As an operator does it, while the server runs or not."""
    arguments = ("user", "add", email, "--password-stdin", "--data-dir", str(data_dir))
    await asyncio.to_thread(
        subprocess.run,
        command(*arguments),
        input=PASSWORD + "\n",
        text=True,
        env=environment(ROOMSERVER_DATABASE_URL="embedded", ROOMSERVER_BCRYPT_ROUNDS="4"),
        timeout=60,
        check=True,
    )


async def connect(data_dir: Path) -> Connection:
    return await asyncpg.connect(**EmbeddedPostgres(data_dir).connection)


async def wait_until(database: Connection, condition: str) -> None:
    """Until a query gives something other than 0."""
    async with asyncio.timeout(30):
        while not await database.fetchval(condition):  # noqa: ASYNC110 - the database sends no event
            await asyncio.sleep(0.02)


def kill(server: ServerProcess) -> None:
    server.signal(signal.SIGKILL)
    assert server.stop() == -signal.SIGKILL


async def create_room(server: ServerProcess, session: aiohttp.ClientSession) -> dict[str, Any]:
    api = Api(server.url, session)
    token = (await api.login(EMAIL, PASSWORD))["accessToken"]
    async with session.post(
        server.url + "/auth/room/create", json=ROOM, headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 201, await response.text()
        room: dict[str, Any] = await response.json()
        return room


async def join(server: ServerProcess, session: aiohttp.ClientSession, code: str) -> int:
    body = {"roomCode": code, "password": ROOM["password"]}
    async with session.post(server.url + "/auth/room/join", json=body) as response:
        return response.status


async def test_rooms_survive_a_kill_and_closed_ones_stay_closed(
    data_dir: Path, session: aiohttp.ClientSession
) -> None:
    server = ServerProcess.start(data_dir, *OPTIONS)
    await add_user(data_dir)
    kept, closed = [await create_room(server, session) for _ in range(2)]
    assert kept["persisted"] is True
    token = (await Api(server.url, session).login(EMAIL, PASSWORD))["accessToken"]
    async with session.delete(
        f"{server.url}/api/broadcaster/rooms/{closed['roomId']}",
        headers={"Authorization": f"Bearer {token}"},
    ) as response:
        assert response.status == 204
    kill(server)

    with ServerProcess.start(data_dir, *OPTIONS) as server:
        assert await join(server, session, kept["roomCode"]) == 200
        assert await join(server, session, closed["roomCode"]) == 401
        database = await connect(data_dir)
        rows = await database.fetch("SELECT code, state FROM relay.audio_rooms ORDER BY created_at")
        events = await database.fetch("SELECT event_type, count(*) FROM relay.audit_log GROUP BY 1")
        await database.close()
    assert [tuple(row) for row in rows] == [
        (kept["roomCode"], "waiting"),
        (closed["roomCode"], "closed"),
    ]
    counts = dict(map(tuple, events))
    assert (counts["room_created"], counts["room_closed"], counts["login_success"]) == (2, 1, 3)


async def test_listeners_of_a_killed_server_are_no_longer_there(data_dir: Path) -> None:
    server = ServerProcess.start(data_dir, *OPTIONS)
    await add_user(data_dir)
    with contextlib.suppress(ClientError):  # the server goes away under its listener
        async with live_room(server.url, EMAIL) as room, room.listen():
            database = await connect(data_dir)
            count = "SELECT count(*) FROM relay.room_participants WHERE left_at IS NULL"
            await wait_until(database, count)
            await database.close()
            kill(server)
    with ServerProcess.start(data_dir, *OPTIONS):
        database = await connect(data_dir)
        row = await database.fetchrow("SELECT left_at, leave_reason FROM relay.room_participants")
        await database.close()
    assert row is not None
    assert row["leave_reason"] == "server_lost"
    assert row["left_at"] is not None


async def test_without_the_database_rooms_go_on_and_logins_wait(
    data_dir: Path, session: aiohttp.ClientSession
) -> None:
    with ServerProcess.start(data_dir, *OPTIONS) as server:
        await add_user(data_dir)
        api = Api(server.url, session)
        token = (await api.login(EMAIL, PASSWORD))["accessToken"]
        signal_all(
            data_dir / "postgres" / "data", signal.SIGSTOP
        )  # it takes connections and answers nothing
        try:
            async with session.post(
                server.url + "/auth/room/create",
                json=ROOM,
                headers={"Authorization": f"Bearer {token}"},
            ) as response:
                assert response.status == 201
                room = await response.json()
            assert room["persisted"] is False
            assert await join(server, session, room["roomCode"]) == 200
            login = {"email": EMAIL, "password": PASSWORD}
            async with session.post(server.url + "/auth/broadcaster", json=login) as response:
                assert response.status == 503
                assert (await response.json())["code"] == "database_away"
        finally:
            signal_all(data_dir / "postgres" / "data", signal.SIGCONT)
        database = await connect(data_dir)
        await wait_until(database, "SELECT count(*) FROM relay.audio_rooms")
        await database.close()


async def test_rooms_tell_of_themselves_after_a_restart_but_not_while_the_database_is_away(
    data_dir: Path, session: aiohttp.ClientSession
) -> None:
    with ServerProcess.start(data_dir, *OPTIONS) as server:
        await add_user(data_dir)
        room = await create_room(server, session)
        api = Api(server.url, session)
        token = (await api.login(EMAIL, PASSWORD))["accessToken"]
        path = f"/api/broadcaster/rooms/{room['roomId']}"
        assert (await api.call("DELETE", path, token=token)).status == 204
    with ServerProcess.start(data_dir, *OPTIONS, "--analytics-interval-s", "0.1") as server:
        await add_user(data_dir, "other@example.org")
        api = Api(server.url, session)
        token = (await api.login(EMAIL, PASSWORD))["accessToken"]
        other = (await api.login("other@example.org", PASSWORD))["accessToken"]
        for what in ("participants", "statistics", "analytics"):
            answer = await api.call("GET", f"{path}/{what}", token=token)
            assert answer.status == 200
            assert answer.body["room"]["metadata"] == ROOM["metadata"]
            assert answer.body["room"]["state"] == "closed"
            answer = await api.call("GET", f"{path}/{what}", token=other)
            assert (answer.status, answer.body["code"]) == (404, "room_not_found")

        database = await connect(data_dir)
        await database.execute(
            "INSERT INTO relay.room_participants (room_id, participant_id, role, left_at)"
            " VALUES ($1, gen_random_uuid(), 'listener', now())",
            room["roomId"],
        )
        await wait_until(database, "SELECT count(*) FROM relay.room_analytics")
        await database.close()
        signal_all(data_dir / "postgres" / "data", signal.SIGSTOP)
        try:
            answer = await api.call("GET", "/api/audit", token=token)
            assert (answer.status, answer.body["code"]) == (503, "database_away")
        finally:
            signal_all(data_dir / "postgres" / "data", signal.SIGCONT)


async def test_rooms_come_back_as_their_owners_left_them(
    data_dir: Path, session: aiohttp.ClientSession
) -> None:
    rooms_path = "/api/broadcaster/rooms"
    server = ServerProcess.start(data_dir, *OPTIONS)
    await add_user(data_dir)
    await add_user(data_dir, "other@example.org")
    api = Api(server.url, session)
    token = (await api.login(EMAIL, PASSWORD))["accessToken"]
    named, paused, closed = [
        await api.create_room(token, **ROOM, maxListeners=7, graceS=600) for _ in range(3)
    ]
    changes = {"name": "Yard", "channelNames": ["kick", "snare"], "permanent": True}
    path = f"{rooms_path}/{named.id}"
    assert (await api.call("PATCH", path, token=token, json=changes)).status == 200
    old = await api.join(named.code, str(ROOM["password"]))
    body = {"password": "another", "dropListeners": True}
    assert (await api.call("POST", path + "/password", token=token, json=body)).status == 200
    async with api.source(paused):
        body = {"forS": 3000}
        path = f"{rooms_path}/{paused.id}/suspend"
        assert (await api.call("POST", path, token=token, json=body)).status == 200
    answer = await api.call("DELETE", f"{rooms_path}/{closed.id}", token=token)
    assert answer.status == 204
    before = (await api.call("GET", rooms_path, token=token)).body
    kill(server)

    with ServerProcess.start(data_dir, *OPTIONS) as server:
        api = Api(server.url, session)
        answer = await api.call("GET", rooms_path, token=token)
        assert answer.body == before
        assert [room["state"] for room in answer.body["rooms"]] == [
            "closed",
            "suspended",
            "waiting",
        ]
        for room in (named, paused, closed):  # by id and by code, the closed one from the database
            for name in (room.id, room.code.lower()):
                answer = await api.call("GET", f"{rooms_path}/{name}", token=token)
                assert answer.body in before["rooms"]
                assert answer.body["roomId"] == room.id
        pages = await api.call("GET", f"{rooms_path}?limit=1&active=false", token=token)
        assert [room["roomId"] for room in pages.body["rooms"]] == [closed.id]
        assert pages.body["next"] is None

        assert await join(server, session, named.code) == 401
        await api.join(named.code, "another")
        async with api.socket() as socket:  # the versions of tokens are kept as well
            await socket.say("registerListener", roomId=named.id, roomToken=old)
            assert (await socket.closed()).code == 4401
        async with api.socket() as socket:
            await socket.say("registerSource", **source_wish(paused))
            assert (await socket.closed()).code == 4403

        other = (await api.login("other@example.org", PASSWORD))["accessToken"]
        assert (await api.call("GET", rooms_path, token=other)).body == {"rooms": [], "next": None}
        answer = await api.call("GET", f"{rooms_path}/{closed.id}", token=other)
        assert answer.status == 404
        database = await connect(data_dir)
        await database.execute("UPDATE relay.users SET role = 'admin' WHERE email <> $1", EMAIL)
        answer = await api.call("GET", "/api/admin/rooms?limit=2", token=other)
        assert answer.body["rooms"] == before["rooms"][:2]
        cursor = answer.body["next"]
        answer = await api.call("GET", f"/api/admin/rooms?cursor={cursor}", token=other)
        assert answer.body == {"rooms": before["rooms"][2:], "next": None}
        answer = await api.call("DELETE", f"/api/admin/rooms/{named.code}", token=other)
        assert answer.status == 204
        answer = await api.call("GET", f"{rooms_path}/{named.id}", token=token)
        assert answer.body["closeReason"] == "closed_by_admin"
        count = "SELECT count(*) FROM relay.audit_log WHERE event_type = 'room_closed'"
        await wait_until(database, f"SELECT ({count}) - 1")
        events = await database.fetch(
            "SELECT event_type FROM relay.audit_log WHERE event_type LIKE 'room_%'"
            " AND event_type IN ('room_updated', 'room_password_changed', 'room_suspended')"
        )
        await database.close()
    assert sorted(row["event_type"] for row in events) == [
        "room_password_changed",
        "room_suspended",
        "room_updated",
    ]
