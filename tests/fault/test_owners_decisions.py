"""What owners decide is kept, or it is not so; and a server without its database knows it."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roomserver.store.database import Connection
from support.api_client import ROOM_PASSWORD, Answer, Api, RoomKeys, source_wish
from support.postgres import Cluster
from support.shared_database import TIMEOUT_S, kill, server

A = "http://a.example"
ROOMS = "/api/broadcaster/rooms"
NO_DATABASE = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"
ANOTHER = "another password"
LONG = {"forS": 3000}


async def join(api: Api, room: RoomKeys, password: str) -> int:
    body = {"roomCode": room.code, "password": password}
    return (await api.call("POST", "/auth/room/join", json=body)).status


async def refusal(api: Api, kind: str, **registration: Any) -> int:
    """The close code by which a registration is refused."""
    async with api.socket() as socket:
        await socket.say(kind, **registration)
        return (await socket.closed()).code


@pytest.mark.timeout(180)
async def test_a_server_that_starts_without_its_database_has_rooms_as_their_owners_left_them(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with server(tmp_path, cluster, A) as process:
        await asyncio.to_thread(process.add_user)
        api = Api(process.url, session)
        access = (await api.login())["accessToken"]
        wishes: dict[str, Any] = {
            "name": "Hall",
            "channelNames": ["kick", "snare"],
            "maxListeners": 1,
            "graceS": 600,
            "metadata": {"seats": 3},
        }
        room = await api.create_room(access, **wishes)
        old = await api.join(room.code)
        path = f"{ROOMS}/{room.id}"
        async with api.source(room) as source:
            body: dict[str, Any] = {"password": ANOTHER, "dropListeners": True}
            answer = await api.call("POST", path + "/password", token=access, json=body)
            assert answer.status == 200
            room.token = (await source.until("roomToken"))["roomToken"]
            answer = await api.call("POST", path + "/suspend", token=access, json=LONG)
            assert answer.status == 200
        before = (await api.call("GET", path, token=access)).body
        assert before["held"] is True
        await kill(process)

    async with server(tmp_path, cluster, A, database_url=NO_DATABASE) as process:
        await asyncio.to_thread(process.wait_for_event, "database_away_at_start")
        api = Api(process.url, session)
        assert await join(api, room, ROOM_PASSWORD) == 401
        token = await api.join(room.code, ANOTHER)
        late = await api.join(room.code, ANOTHER)
        async with api.socket() as listener:
            await listener.say("registerListener", roomId=room.id, roomToken=token)
            registered = await listener.until("listenerRegistered")
            assert (registered["roomName"], registered["state"]) == ("Hall", "suspended")
            listen = {"kind": "registerListener", "roomId": room.id}
            assert await refusal(api, **listen, roomToken=late) == 4429
            assert await refusal(api, **listen, roomToken=old) == 4401
            assert await refusal(api, "registerSource", **source_wish(room)) == 4403

    async with server(tmp_path, cluster, A) as process:
        api = Api(process.url, session)
        after = (await api.call("GET", path, token=access)).body
        assert after == before
        assert {name: after[name] for name in wishes} == wishes
        assert (await api.call("POST", path + "/resume", token=access)).status == 200
        async with api.source(room):
            assert (await api.call("GET", path, token=access)).body["state"] == "active"


@pytest.mark.timeout(180)
async def test_what_the_outbox_cannot_write_is_refused_and_not_so(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with server(tmp_path, cluster, A) as process:
        await asyncio.to_thread(process.add_user)
        api = Api(process.url, session)
        access = (await api.login())["accessToken"]
        room, paused = [await api.create_room(access) for _ in range(2)]
        path, paused_path = [f"{ROOMS}/{keys.id}" for keys in (room, paused)]
        async with api.source(paused):
            answer = await api.call("POST", paused_path + "/suspend", token=access, json=LONG)
            assert answer.status == 200
        decisions: list[tuple[str, str, dict[str, Any] | None]] = [
            ("POST", "/auth/room/create", {"name": "new"}),
            ("PATCH", path, {"name": "Yard", "channelNames": ["kick"], "maxListeners": 1}),
            ("POST", path + "/password", {"password": ANOTHER}),
            ("POST", path + "/password", {"password": ANOTHER, "dropListeners": True}),
            ("POST", path + "/suspend", {}),
            ("POST", paused_path + "/resume", None),
            ("DELETE", path, None),
        ]

        async def decide(method: str, where: str, body: dict[str, Any] | None) -> Answer:
            return await api.call(method, where, token=access, json=body)

        async with api.source(room) as source, api.listener(room) as listener:
            before = (await api.call("GET", ROOMS, token=access)).body
            unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
            for decision in decisions:
                answer = await decide(*decision)
                assert (answer.status, answer.body["code"]) == (503, "not_kept"), decision
                assert answer.headers["Retry-After"]
                assert (await api.call("GET", ROOMS, token=access)).body == before
            assert await join(api, room, ANOTHER) == 401
            assert await join(api, room, ROOM_PASSWORD) == 200
            assert await refusal(api, "registerSource", **source_wish(paused)) == 4403
            for socket in (source, listener):
                await socket.say("ping", t=1)
                await socket.until("pong")
                assert not socket.texts("roomChanged")
                assert not socket.texts("roomToken")

            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            async with asyncio.timeout(TIMEOUT_S):
                while (await decide(*decisions[0])).status == 503:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            for decision in decisions[1:]:
                answer = await decide(*decision)
                assert answer.status in (200, 204), answer
        left = (await api.call("GET", ROOMS, token=access)).body["rooms"]
        await kill(process)
    async with server(tmp_path, cluster, A) as process:
        rooms = (await Api(process.url, session).call("GET", ROOMS, token=access)).body["rooms"]
        assert rooms == left
        (closed,) = [found for found in rooms if found["roomId"] == room.id]
        assert (closed["name"], closed["state"]) == ("Yard", "closed")
