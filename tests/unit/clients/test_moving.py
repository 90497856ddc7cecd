"""Clients at the wrong server go to the right one, which it names."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from aiohttp import web

from roomserver.clients.account import AccountEntry
from roomserver.clients.broadcast import Broadcaster, BroadcastOptions
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError, RefusedError
from roomserver.clients.listen import Listener, ListenOptions
from roomserver.clients.meters import Display
from support.fake_room import CODE, EMAIL, PASSWORD, ROOM_PASSWORD, FakeRoom, leave_for, take_all
from support.live import wav_source

RATE = 8000
TIMEOUT_S = 20.0


@pytest.fixture
async def other() -> AsyncIterator[FakeRoom]:
    """Another server, with the same room."""
    async with FakeRoom() as room:
        yield room


async def test_requests_follow_to_the_server_that_has_the_room(
    room: FakeRoom, other: FakeRoom
) -> None:
    room.moved_to = other.url
    async with RoomApi(room.url) as api:
        assert (await api.join(CODE, ROOM_PASSWORD)).name == "Hall"
        assert str(api.url).rstrip("/") == other.url
    async with RoomApi(room.url) as api:
        assert (await AccountEntry(api, EMAIL, PASSWORD).broadcaster_token(CODE)).room_token
        assert str(api.url).rstrip("/") == other.url
    assert (room.tokens_given, other.tokens_given) == (0, 2)


async def test_a_server_that_does_not_say_where_is_an_end(room: FakeRoom) -> None:
    room.moved_to = ""
    async with RoomApi(room.url) as api:
        with pytest.raises(RefusedError, match="on another server") as caught:
            await api.join(CODE, ROOM_PASSWORD)
        assert (caught.value.status, caught.value.code) == (421, "wrong_server")
        entry = RoomEntry(api, RoomAccess("room", "token-1"), never)
        with pytest.raises(RefusedError, match="on another server"):
            await entry.connect("registerListener", "listenerRegistered", lambda: {"mode": "mix"})


async def test_servers_that_send_around_are_left_after_some_time(
    room: FakeRoom, other: FakeRoom
) -> None:
    room.moved_to, other.moved_to = other.url, room.url
    async with RoomApi(room.url) as api:
        with pytest.raises(ClientError, match="send us around"):
            await api.join(CODE, ROOM_PASSWORD)
        entry = RoomEntry(api, RoomAccess("room", "token-1"), never)
        with pytest.raises(ClientError, match="send us around"):
            await entry.reconnect("registerListener", "listenerRegistered", lambda: {"mode": "mix"})


async def test_nobody_is_lured_away_from_encryption() -> None:
    api = RoomApi("https://hall.example")
    for url in ("http://hall.example", "ftp://hall.example", "nonsense://"):
        with pytest.raises(ClientError):
            api.move_to(url)
    api.move_to("https://other.example/relay")
    assert str(api.url) == "https://other.example/relay"


async def test_who_was_sent_to_a_server_that_is_gone_comes_back(
    room: FakeRoom, other: FakeRoom, display: Display
) -> None:
    """That server died, and the room came to the first one meanwhile."""
    async with RoomApi(room.url) as api:
        entry = RoomEntry(api, RoomAccess("room", "token-1"), never)
        api.move_to("http://127.0.0.1:1")
        async with asyncio.timeout(TIMEOUT_S):
            connection = await entry.reconnect(
                "registerListener", "listenerRegistered", lambda: {"mode": "mix"}
            )
        await connection.close()
    assert len(room.registrations) == 1


async def test_a_listener_follows_its_room(
    room: FakeRoom, other: FakeRoom, display: Display, log: io.StringIO
) -> None:
    """While it is connected, and when it connects."""

    async def leave(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await leave_for(websocket, other.url)

    room.listener_scripts = [leave]
    async with RoomApi(room.url) as api:
        entry = RoomEntry(api, await api.join(CODE, ROOM_PASSWORD), never)
        listener = Listener(entry, ListenOptions(), display)
        task = asyncio.create_task(listener.run())
        await other.until(lambda: len(other.registrations) == 1, TIMEOUT_S)
        listener.stop()
        await task
    assert [len(at.registrations) for at in (room, other)] == [1, 1]
    assert "on another server" in log.getvalue()


async def test_a_broadcaster_follows_its_room(
    room: FakeRoom, other: FakeRoom, display: Display
) -> None:
    async def leave(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await room.take(websocket)
        await leave_for(websocket, other.url)

    room.source_scripts, other.source_scripts = [leave], [take_all]
    async with RoomApi(room.url) as api:
        entry = RoomEntry(api, await api.join(CODE, ROOM_PASSWORD), never)
        source = wav_source(np.zeros((3 * RATE, 1), np.int16), RATE)
        broadcaster = Broadcaster(entry, source, BroadcastOptions(), display)
        task = asyncio.create_task(broadcaster.run())
        await other.until(lambda: len(other.packets) > 5, TIMEOUT_S)
        broadcaster.stop()
        await task
    assert [len(at.registrations) for at in (room, other)] == [1, 1]


async def never() -> RoomAccess:
    raise AssertionError("its token is as good at the other server")
