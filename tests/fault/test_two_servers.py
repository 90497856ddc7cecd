"""Two servers on one database: whose a room is, what becomes of it, and what clients are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from roomserver.store.database import Connection
from support.api_client import Api, Socket
from support.peer import Frame
from support.postgres import Cluster, url
from support.severing import severable
from support.shared_database import (
    LEASE_S,
    TIMEOUT_S,
    assert_whole,
    kill,
    play,
    server,
    until,
)

A, B = "http://a.example", "http://b.example"
HALL = 200  # listeners at once

OWNER = "SELECT s.url FROM relay.audio_rooms r LEFT JOIN relay.servers s ON s.id = server_id"
IS_AT = f"{OWNER} WHERE r.id = $1 AND s.url = $2"


async def test_rooms_of_a_killed_server_come_to_the_other_after_the_lease_and_not_before(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with (
        server(tmp_path / "a", cluster, A) as a,
        server(tmp_path / "b", cluster, B) as b,
    ):
        await asyncio.to_thread(a.add_user)
        first, second = Api(a.url, session), Api(b.url, session)
        token = (await first.login())["accessToken"]
        room = await first.create_room(token, name="Hall")
        suspended = await first.create_room(token, name="Pause")
        async with first.source(suspended, channelNames=["left", "right"]) as source:
            await source.say("unregisterSource")
            await source.until("roomSuspended")
        async with first.source(room) as source, first.listener(room):
            joined = "SELECT count(*) FROM relay.room_participants WHERE room_id = $1"
            await until(tables, f"{joined} AND role = 'listener'", room.id)
            is_suspended = "SELECT true FROM relay.audio_rooms WHERE id = $1 AND state = $2"
            await until(tables, is_suspended, suspended.id, "suspended")
            await until(tables, is_suspended, room.id, "active")
            deadline = "SELECT suspended_until FROM relay.audio_rooms WHERE id = $1"
            before = await tables.fetchval(deadline, suspended.id)
            # While it lives the other has no part in it, however long that is.
            await until(
                tables,
                "SELECT count(*) FROM relay.servers WHERE heartbeat - started_at >"
                " make_interval(secs => 2 * lease_s) HAVING count(*) = 2",
            )
            assert await tables.fetchval(IS_AT, room.id, A)
            await kill(a)
        await until(tables, IS_AT, room.id, B)
        # By the database's clock alone: when the room was taken, and when its server last lived.
        waited = await tables.fetchval(
            "SELECT min(r.updated_at - s.heartbeat) >= make_interval(secs => $2)"
            " FROM relay.audio_rooms r, relay.servers s WHERE s.url = $1 AND r.id = $3",
            A,
            float(LEASE_S),
            suspended.id,
        )
        assert waited is True
        listener = await second.join(room.code)  # the password is the same
        assert listener
        assert await tables.fetchval(deadline, suspended.id) == before
        async with second.listener(suspended) as guest:
            registered = guest.texts("listenerRegistered")[0]
            assert registered["state"] == "suspended"
        names = "SELECT channel_names FROM relay.audio_rooms WHERE id = $1"
        assert await tables.fetchval(names, suspended.id) == ["left", "right"]
        lost = "SELECT count(*) FROM relay.room_participants WHERE leave_reason = 'server_lost'"
        await until(tables, f"{lost} HAVING count(*) = 2")
        async with second.source(room):  # its token is as good here
            pass


async def test_a_server_that_stops_leaves_its_rooms_at_once(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with server(tmp_path / "b", cluster, B) as b:
        async with server(tmp_path / "a", cluster, A) as a:
            await asyncio.to_thread(a.add_user)
            first = Api(a.url, session)
            token = (await first.login())["accessToken"]
            room, full = [await first.create_room(token) for _ in range(2)]
            hall = [await first.join(full.code) for _ in range(HALL)]
        # Taken when somebody asks for it, if not before, and however many come at once.
        second = Api(b.url, session)

        async def come(listener: str) -> None:
            async with second.socket() as socket:
                await socket.say("registerListener", roomId=full.id, roomToken=listener)
                await socket.until("listenerRegistered")

        async with asyncio.TaskGroup() as group:
            for listener in hall:
                group.create_task(come(listener))
        assert await second.join(room.code)
        assert await tables.fetchval(IS_AT, room.id, B)


async def test_a_client_at_the_wrong_server_is_told_the_right_one(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with (
        server(tmp_path / "a", cluster, A) as a,
        server(tmp_path / "b", cluster, B) as b,
    ):
        await asyncio.to_thread(a.add_user)
        await asyncio.to_thread(a.add_user, "other@example.org")
        first, second = Api(a.url, session), Api(b.url, session)
        token = (await first.login())["accessToken"]
        stranger = (await second.login("other@example.org"))["accessToken"]
        room = await first.create_room(token)

        async def join(code: str, password: str) -> tuple[int, Any]:
            body = {"roomCode": code, "password": password}
            answer = await second.call("POST", "/auth/room/join", json=body)
            return answer.status, answer.body

        status, problem = await join(room.code, "let me in")
        assert (status, problem["code"], problem["url"]) == (421, "wrong_server", A)
        # Whoever guesses learns nothing: a room elsewhere is like none.
        assert await join(room.code, "wrong") == await join("ABCDEF", "wrong")
        assert (await join("ABCDEF", "wrong"))[0] == 401

        path = f"/api/broadcaster/rooms/{room.id}"
        answer = await second.call("DELETE", path, token=token)
        assert (answer.status, answer.body["code"]) == (421, "wrong_server")
        assert answer.body["url"] == A
        answer = await second.call("POST", f"{path}/token", token=stranger)
        assert (answer.status, answer.body["code"]) == (404, "room_not_found")

        listener = await first.join(room.code)
        for kind, fields in (
            ("registerListener", {"roomToken": listener}),
            (
                "registerSource",
                {
                    "roomToken": room.token,
                    "channels": 1,
                    "sampleRate": 48000,
                    "encoding": "pcm_s16le",
                },
            ),
        ):
            async with second.socket() as socket:
                await socket.say(kind, roomId=room.id, **fields)
                error = await socket.until("error")
                assert (error["code"], error["url"]) == ("wrong_server", A)
                assert (await socket.closed()).code == 4421
        async with second.socket() as socket:  # a token that is none tells nothing
            await socket.say("registerListener", roomId=room.id, roomToken="x")
            assert (await socket.until("error"))["code"] == "token_invalid"


def heard(listener: Socket) -> list[Frame]:
    """The frames that came so far."""
    return [frame for frame in listener.seen if isinstance(frame, Frame) and frame.kind == 2]


async def test_a_room_that_plays_at_both_goes_on_at_both_until_one_is_done(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Each side of a cut has a source: nobody's audio is ended for that."""
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(severable(Path(cluster.connection["host"])))
        cut_url = url(cluster.connection | {"host": str(link.directory)})
        a = await stack.enter_async_context(
            server(tmp_path / "a", cluster, A, database_url=cut_url)
        )
        b = await stack.enter_async_context(server(tmp_path / "b", cluster, B))
        await asyncio.to_thread(b.add_user)
        first, second = Api(a.url, session), Api(b.url, session)
        room = await first.create_room((await first.login())["accessToken"])
        done = [asyncio.Event(), asyncio.Event()]
        async with asyncio.timeout(2 * TIMEOUT_S), asyncio.TaskGroup() as group:
            playing = asyncio.Event()
            group.create_task(play(first, room, playing, done[0]))
            await playing.wait()
            at_first = await stack.enter_async_context(first.listener(room))
            link.cut()
            await until(tables, IS_AT, room.id, B)
            playing = asyncio.Event()
            group.create_task(play(second, room, playing, done[1]))
            await playing.wait()
            at_second = await stack.enter_async_context(second.listener(room))
            state = "SELECT true FROM relay.audio_rooms WHERE id = $1 AND state = 'active'"
            await until(tables, state, room.id)

            link.mend()
            told = await asyncio.to_thread(a.wait_for_event, "room_plays_twice", timeout=TIMEOUT_S)
            assert (told["room"], told["elsewhere"]) == (room.id, B)
            for listener in (at_first, at_second):
                assert await listener.frames(50)
                assert_whole(heard(listener))
            done[0].set()  # and now there is one
            error = await at_first.until("error")
            assert (error["code"], error["url"]) == ("wrong_server", B)
            assert (await at_first.closed()).code == 4421
            assert await at_second.frames(50)
            assert_whole(heard(at_second))
            await until(tables, f"{IS_AT} AND state = 'active'", room.id, B)
            assert await second.join(room.code)
            done[1].set()


async def test_a_room_that_plays_is_kept_by_a_server_that_lost_its_lease(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(severable(Path(cluster.connection["host"])))
        cut_url = url(cluster.connection | {"host": str(link.directory)})
        a = await stack.enter_async_context(
            server(tmp_path / "a", cluster, A, database_url=cut_url)
        )
        b = await stack.enter_async_context(server(tmp_path / "b", cluster, B))
        await asyncio.to_thread(b.add_user)
        first = Api(a.url, session)
        token = (await first.login())["accessToken"]
        live = await first.create_room(token)
        idle = await first.create_room(token)
        playing, done = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(2 * TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(play(first, live, playing, done))
            await playing.wait()
            waiting = await stack.enter_async_context(first.listener(idle))
            listener = await stack.enter_async_context(first.listener(live))

            link.cut()
            for room in (live, idle):
                await until(tables, IS_AT, room.id, B)
            link.mend()
            await until(tables, IS_AT, live.id, A)
            error = await waiting.until("error")
            assert (error["code"], error["url"]) == ("wrong_server", B)
            assert (await waiting.closed()).code == 4421
            # The row says what goes on here, and the other server lets go of the room.
            state = "SELECT true FROM relay.audio_rooms WHERE id = $1 AND state = 'active'"
            await until(tables, state, live.id)
            frames = await listener.frames(50)
            assert await Api(b.url, session).join(idle.code)
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    body = {"roomCode": live.code, "password": "let me in"}
                    answer = await Api(b.url, session).call("POST", "/auth/room/join", json=body)
                    if answer.status == 421:
                        break
                    await asyncio.sleep(0.1)
            assert answer.body["url"] == A
            done.set()
        assert frames
        assert_whole(heard(listener))
