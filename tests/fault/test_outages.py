"""Servers, databases and disks that fail under a broadcast: it goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import aiohttp
import asyncpg
import numpy as np
import pytest

from roomserver.store.database import Connection
from support.api_client import Api, RoomKeys, Socket
from support.peer import Closed, Frame
from support.postgres import Cluster
from support.server import ServerProcess
from support.shared_database import (
    CHANNELS,
    PACKET,
    RATE,
    TIMEOUT_S,
    assert_whole,
    kill,
    play,
    ramp,
    server,
    until,
)

A = "http://a.example"
VISITORS = 200
VISITS_PER_S = 100
JOINS = 2000
AT_ONCE = 40
AWAY_S = 60.0
STANDSTILL_S = 0.8  # of a server whose rooms buffer a second
LONGEST_PAUSE_S = 2.0  # of a listener that shares an event loop with 200 whose server is gone
HEARD_AFTER = 50  # frames
STAYS = "SELECT count(*) FROM relay.room_participants"
STATE = "SELECT state FROM relay.audio_rooms WHERE id = $1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mode = f"size=8m,mode=755,uid={os.geteuid()}"
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", mode, "tmpfs", disk], check=True)
    yield disk
    subprocess.run([*sudo, "umount", "--lazy", disk], check=True)


@contextlib.contextmanager
def stopped(process: ServerProcess) -> Iterator[None]:
    """A server that stands still."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@asynccontextmanager
async def broadcast(api: Api, room: RoomKeys, *, killed: bool = False) -> AsyncIterator[Socket]:
    """A source that plays, and a listener; at the end that must have heard all of it in time.

    killed: at the end the server is.
    """
    playing, done = threading.Event(), threading.Event()
    frames: list[Frame] = []
    enough = math.inf

    async def source() -> None:
        try:
            async with aiohttp.ClientSession() as session:
                await play(Api(api.url, session), room, playing, done)
        except ConnectionError:
            assert killed

    async def listen(listener: Socket) -> float:
        """When it was over."""
        while len(frames) < enough:
            message = await listener.next()
            if isinstance(message, Frame) and message.kind == 2:
                frames.append(message)
            if isinstance(message, Closed):
                assert killed, f"closed with {message}"
                break
        return time.monotonic()

    async with asyncio.TaskGroup() as group:
        # In a thread of its own: nothing else that the test does holds it up.
        group.create_task(asyncio.to_thread(asyncio.run, source()))
        try:
            assert await asyncio.to_thread(playing.wait, TIMEOUT_S)
            async with api.listener(room) as listener:
                hearing = group.create_task(listen(listener))
                try:
                    yield listener
                finally:
                    if not killed:  # what was sent until now is on its way still
                        enough = len(frames) + HEARD_AFTER
                    ended = await hearing
        finally:
            done.set()
    assert_whole(frames)
    pauses = [after.received_s - before.received_s for before, after in pairwise(frames)]
    assert max([*pauses, ended - frames[-1].received_s]) < LONGEST_PAUSE_S
    due = (ended - frames[0].received_s) * RATE / PACKET
    assert len(frames) > due - LONGEST_PAUSE_S * RATE / PACKET


async def visit(
    api: Api, room: RoomKeys, visits: int, seen: list[str], *, over_s: float = 0.0
) -> None:
    """Comes and goes, in so many seconds at least; `seen` gets the ids it was registered by."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for number in range(visits):
        async with api.listener(room) as listener:
            seen.append(listener.texts("listenerRegistered")[0]["clientId"])
        await asyncio.sleep(begin + (number + 1) * over_s / visits - loop.time())


async def assert_once(tables: Connection, clients: list[str]) -> None:
    """Each of them has one stay, one line for its coming, and nobody more than one for going."""
    rows = await tables.fetch("SELECT client_id FROM relay.room_participants")
    stays = [row["client_id"] for row in rows]
    assert len(stays) == len(set(stays))
    assert set(clients) <= set(stays)
    lines = await tables.fetch(
        "SELECT details ->> 'client' FROM relay.audit_log WHERE event_type = 'room_joined'"
    )
    joined = [row[0] for row in lines]
    assert len(joined) == len(set(joined))
    assert set(clients) <= set(joined)
    lines = await tables.fetch(
        "SELECT details ->> 'client' FROM relay.audit_log WHERE event_type = 'room_left'"
    )
    left = [row[0] for row in lines]
    assert len(left) == len(set(left))
    assert set(left) <= set(joined)
    assert await tables.fetchval("SELECT count(*) FROM relay.dead_letters") == 0


@pytest.mark.parametrize("begins", ["buffering", "playing"])
async def test_a_server_that_stands_still_for_a_moment_loses_no_sound(
    begins: str,
    cluster: Cluster,
    tables: Connection,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """As a machine that has too much to do may let it; its source does not wait."""
    async with server(tmp_path, cluster, A) as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        room = await api.create_room((await api.login())["accessToken"])
        async with broadcast(api, room) as listener:
            if begins == "playing":
                async with asyncio.timeout(TIMEOUT_S):
                    while not any(isinstance(m, Frame) for m in listener.seen):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            for _ in range(3):
                await asyncio.sleep(0.3)  # amid the second that it buffers first
                with stopped(a):
                    await asyncio.sleep(STANDSTILL_S)


async def test_the_last_sound_of_a_source_that_leaves_a_server_at_a_standstill_is_played(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    samples = np.broadcast_to(ramp(0, 3 * RATE), (CHANNELS, 3 * RATE))
    async with server(tmp_path, cluster, A) as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        room = await api.create_room((await api.login())["accessToken"])
        async with api.listener(room) as listener, api.source(room, bufferMs=1000) as source:
            await source.play(samples[:, : 2 * RATE], rate=RATE)
            with stopped(a):
                await source.play(samples[:, 2 * RATE :], rate=RATE, timestamp=2 * RATE)
                await source.say("unregisterSource")
            await listener.until("roomSuspended")
            frames = [m for m in listener.seen if isinstance(m, Frame) and m.kind == 2]
    assert_whole(frames)
    assert sum(frame.samples for frame in frames) >= 3 * RATE


@pytest.mark.timeout(180)
async def test_a_server_killed_in_a_broadcast_with_listeners_coming_and_going(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    seen: list[str] = []
    async with server(tmp_path, cluster, A) as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        token = (await api.login())["accessToken"]
        room, closed = [await api.create_room(token) for _ in range(2)]
        async with broadcast(api, room, killed=True):

            async def come_and_go(number: int) -> None:
                await asyncio.sleep(number / VISITS_PER_S)  # not in step with the others
                await visit(api, room, 1000, seen, over_s=1000 * VISITORS / VISITS_PER_S)

            tasks = [asyncio.create_task(come_and_go(number)) for number in range(VISITORS)]
            async with asyncio.timeout(TIMEOUT_S):
                while len(seen) < 3 * VISITORS:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            before = list(seen)
            kept = await api.create_room(token)  # what was told before that is on disk with it
            path = f"/api/broadcaster/rooms/{closed.id}"
            assert (await api.call("DELETE", path, token=token)).status == 204
            await kill(a)
        await asyncio.gather(*tasks, return_exceptions=True)
    async with server(tmp_path, cluster, A) as a:
        await until(tables, f"{STAYS} WHERE leave_reason = 'server_lost'")
        assert await Api(a.url, session).join(kept.code)
        assert await Api(a.url, session).join(room.code)
        assert await tables.fetchval(f"{STAYS} WHERE left_at IS NULL") == 0
        assert await tables.fetchval(STATE, closed.id) == "closed"
        await assert_once(tables, before)


async def test_what_a_killed_server_had_counted_is_kept(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    counted = f"{STAYS} WHERE role = ANY ($1) AND frames_sent > 0"
    roles = ["broadcaster", "listener"]
    async with server(tmp_path, cluster, A, "--counters-interval-s", "0.2") as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        room = await api.create_room((await api.login())["accessToken"])
        async with broadcast(api, room) as listener:
            await listener.say("stats", latencyMs=80, bufferMs=60)
            await until(tables, f"{counted} AND left_at IS NULL HAVING count(*) = 2", roles)
            await until(tables, f"{STAYS} WHERE avg_latency_ms = 80")
        # The end says more than what was counted before it.
        await until(tables, f"{STAYS} WHERE left_at IS NOT NULL HAVING count(*) = 2")
        playing, done = asyncio.Event(), asyncio.Event()
        source = asyncio.create_task(play(api, room, playing, done))
        await playing.wait()
        await until(tables, f"{counted} AND left_at IS NULL", ["broadcaster"])
        await kill(a)
        await asyncio.gather(source, return_exceptions=True)
    async with server(tmp_path, cluster, A):
        await until(tables, f"{counted} AND leave_reason = 'server_lost'", ["broadcaster"])
        await assert_once(tables, [])


@pytest.mark.timeout(300)
async def test_a_database_that_is_away_for_a_minute_of_joins_and_then_killed(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    seen: list[str] = []
    async with server(tmp_path, cluster, A) as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        token = (await api.login())["accessToken"]
        room, closed = [await api.create_room(token) for _ in range(2)]
        async with broadcast(api, room) as listener:
            await until(tables, f"{STAYS} HAVING count(*) = 2")
            cluster.signal_all(signal.SIGSTOP)  # it takes connections and answers nothing
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        visits = JOINS // AT_ONCE
                        group.create_task(visit(api, room, visits, seen, over_s=AWAY_S))
                    for name in ("first", "second"):
                        answer = await api.call(
                            "POST", "/auth/room/create", token=token, json={"name": name}
                        )
                        assert (answer.status, answer.body["persisted"]) == (201, False)
                    path = f"/api/broadcaster/rooms/{closed.id}"
                    assert (await api.call("DELETE", path, token=token)).status == 204
                ready = await api.call("GET", "/readyz")
                assert (ready.status, ready.body["detail"]) == (503, "database_away")
            finally:
                # Dies in the middle of what it has to do now, and is started again.
                assert cluster.pid is not None
                os.kill(cluster.pid, signal.SIGKILL)
                cluster.signal_all(signal.SIGCONT)
            seen.append(listener.texts("listenerRegistered")[0]["clientId"])
            again = await connect(cluster)
            await until(again, f"{STAYS} HAVING count(*) = $1", JOINS + 2)
            left = f"{STAYS} WHERE left_at IS NOT NULL HAVING count(*) = $1"
            await until(again, left, JOINS)
        assert len(seen) == JOINS + 1
        names = "SELECT count(*) FROM relay.audio_rooms WHERE active AND name = ANY ($1)"
        assert await again.fetchval(names, ["first", "second"]) == 2
        assert await again.fetchval(STATE, closed.id) == "closed"
        await until(again, "SELECT count(*) FROM relay.audit_log WHERE event_type = 'room_closed'")
        await assert_once(again, seen)
        await again.close()
    async with server(tmp_path, cluster, A) as a:
        body = {"roomCode": closed.code, "password": "let me in"}
        answer = await Api(a.url, session).call("POST", "/auth/room/join", json=body)
        assert answer.status == 401


async def connect(cluster: Cluster) -> Connection:
    """A connection to a database that is being started."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                return await asyncpg.connect(**cluster.connection, timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_a_full_disk_under_the_outbox(
    cluster: Cluster, tables: Connection, session: aiohttp.ClientSession, small_disk: Path
) -> None:
    data_dir = small_disk / "data"
    seen: list[str] = []
    kept: list[str] = []
    async with server(data_dir, cluster, A) as a:
        await asyncio.to_thread(a.add_user)
        api = Api(a.url, session)
        token = (await api.login())["accessToken"]
        room = await api.create_room(token)
        path = f"/api/broadcaster/rooms/{(await api.create_room(token)).id}"

        async def create() -> str | None:
            """Its code, if it is kept."""
            wish = {"password": "let me in", "metadata": {"text": "x" * 10_000}}
            answer = await api.call("POST", "/auth/room/create", token=token, json=wish)
            if answer.status == 201:
                kept.append(answer.body["roomId"])
                return str(answer.body["roomCode"])
            assert (answer.status, answer.body["code"]) == (503, "not_kept")
            return None

        async with broadcast(api, room):
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            for _ in range(500):  # what the files have room for still goes in
                if await create() is None:
                    break
            else:
                raise AssertionError("the disk is not full")
            answer = await api.call("DELETE", path, token=token)
            assert (answer.status, answer.body["code"]) == (503, "not_kept")
            await visit(api, room, 20, seen)
            filler.unlink()
            async with asyncio.timeout(TIMEOUT_S):
                while (code := await create()) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert (await api.call("DELETE", path, token=token)).status == 204
            await visit(api, room, 20, seen)
            assert await api.join(code)
        await until(tables, f"{STAYS} WHERE left_at IS NOT NULL HAVING count(*) >= 40")
        await until(
            tables,
            "SELECT count(*) FROM relay.audit_log WHERE event_type = 'room_left'"
            " HAVING count(*) >= 42",
        )
        await assert_once(tables, seen)
        rooms = await tables.fetch("SELECT id::text FROM relay.audio_rooms WHERE active")
        assert {row["id"] for row in rooms} == {room.id, *kept}
