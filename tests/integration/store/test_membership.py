"""What a server among others does at moments in which answers are lost or come late."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store import durable
from roomserver.store.database import Connection, Database
from roomserver.store.durable import DurableRoomStore
from roomserver.store.interfaces import LookupsBusyError
from roomserver.store.outbox import Outbox
from roomserver.store.records import RoomRecord
from support.events import new_room
from support.postgres import Cluster
from support.severing import Severed, severable

TIMEOUT_S = 60.0
LEASE_S = 1.0
BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"

pytestmark = pytest.mark.parametrize("cluster", ["newest"], indirect=True)


class Here:
    """The rooms of a server, of which none has a source; remembers what it was told."""

    def __init__(self) -> None:
        self.taken_up: list[str] = []
        self.changed = asyncio.Event()

    def take_up(self, records: Iterable[RoomRecord]) -> None:
        self.taken_up += [record.id for record in records]
        self.changed.set()

    def is_running(self, room: str) -> bool:
        return False

    def renew(self, record: RoomRecord) -> None:
        raise AssertionError("no other server changed anything")

    def keep(self, room: str, version: int) -> None:
        raise AssertionError("no other server had it")

    def let_go(self, room: str, url: str | None) -> None:
        raise AssertionError("no other server has it")

    async def until_taken_up(self, room: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while room not in self.taken_up:
                self.changed.clear()
                await self.changed.wait()


class WatchedOutbox(Outbox):
    """Tells when the snapshot is about to be replaced."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, capacity=10**6)
        self.replacing = asyncio.Event()

    async def replace_rooms(self, rooms: Sequence[RoomRecord]) -> None:
        self.replacing.set()
        await super().replace_rooms(rooms)


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[Severed]:
    async with severable(Path(cluster.connection["host"])) as link:
        yield link


@asynccontextmanager
async def opened(
    data_dir: Path, connection: dict[str, Any]
) -> AsyncIterator[tuple[DurableRoomStore, WatchedOutbox, Here]]:
    """A store that serves, as a server has it."""
    database = Database(connection)
    outbox = WatchedOutbox(data_dir)
    store = DurableRoomStore(outbox, database, url="", lease_s=LEASE_S)
    here = Here()
    try:
        await store.open()
        await store.open_rooms()
        store.serve(here)
        yield store, outbox, here
    finally:
        await store.close()
        await database.close()


async def until(tables: Connection, condition: str, *arguments: Any) -> None:
    """Until a query gives something other than nothing."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await tables.fetchval(condition, *arguments):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def add_abandoned_room(tables: Connection) -> str:
    room: str = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code) VALUES ('ALONE') RETURNING id::text"
    )
    return room


async def test_a_room_closed_while_the_own_rooms_are_asked_for_is_not_opened_again(
    cluster: Cluster, tables: Connection, link: Severed, tmp_path: Path
) -> None:
    """The database still says that it is open; it learns of the closing later."""
    room, other = new_room(), new_room()
    async with opened(tmp_path, cluster.connection) as (store, _, _):
        await store.create_room(room)
        await store.create_room(other)
    closed = replace(
        room,
        version=2,
        state=RoomState.CLOSED,
        closed_at=1_700_000_100.0,
        close_reason=RoomCloseReason.CLOSED_BY_OWNER,
    )
    link.cut()
    through = cluster.connection | {"host": str(link.directory)}
    blocker = await asyncpg.connect(**cluster.connection)
    async with opened(tmp_path, through) as (store, outbox, here):
        assert {each.id for each in await store.open_rooms()} == {room.id, other.id}
        blocking = blocker.transaction()
        await blocking.start()
        await blocker.execute("LOCK TABLE relay.audio_rooms IN ACCESS EXCLUSIVE MODE")
        link.mend()
        await until(tables, BLOCKED, "relay.audio_rooms")  # the claim
        store.room_changed(closed)
        await store.written()
        await blocking.rollback()
        await here.until_taken_up(other.id)
        await until(
            tables, "SELECT true FROM relay.audio_rooms WHERE id = $1 AND NOT active", room.id
        )
        async with asyncio.timeout(TIMEOUT_S):
            await outbox.replacing.wait()
        assert room.id not in here.taken_up
    await blocker.close()
    link.cut()
    async with opened(tmp_path, through) as (store, _, _):  # from what it wrote down
        assert {each.id for each in await store.open_rooms()} == {other.id}
    link.mend()


async def test_a_room_whose_claim_was_not_answered_is_taken_up_all_the_same(
    cluster: Cluster, tables: Connection, link: Severed, tmp_path: Path
) -> None:
    await tables.execute("""
        CREATE FUNCTION relay.linger() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER linger AFTER UPDATE ON relay.audio_rooms
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.code = 'ALONE')
            EXECUTE FUNCTION relay.linger()
    """)
    try:
        through = cluster.connection | {"host": str(link.directory)}
        async with opened(tmp_path, through) as (_, outbox, here):
            room = await add_abandoned_room(tables)
            lingers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            await until(tables, lingers)  # the claim is being committed
            link.cut()
            is_ours = "SELECT true FROM relay.audio_rooms WHERE id = $1 AND server_id = $2"
            await until(tables, is_ours, room, outbox.stream_id)
            assert room not in here.taken_up
            link.mend()
            await here.until_taken_up(room)
    finally:
        await tables.execute("DROP FUNCTION relay.linger() CASCADE")


async def test_a_snapshot_does_not_undo_what_is_on_its_way_to_the_disk(
    cluster: Cluster, tables: Connection, link: Severed, tmp_path: Path
) -> None:
    room = new_room()
    through = cluster.connection | {"host": str(link.directory)}
    async with opened(tmp_path, through) as (store, outbox, here):
        await store.create_room(room)
        # A commit takes as long as another has the file.
        async with outbox_held(tmp_path):
            keeping = asyncio.create_task(store.keep_room(replace(room, version=2, name="Yard")))
            making = asyncio.create_task(store.create_room(made := new_room()))
            await here.until_taken_up(await add_abandoned_room(tables))
            async with asyncio.timeout(TIMEOUT_S):
                await outbox.replacing.wait()
        await asyncio.gather(keeping, making)
    link.cut()
    async with opened(tmp_path, through) as (store, _, _):
        names = {each.id: each.name for each in await store.open_rooms()}
        assert names[room.id] == "Yard"
        assert made.id in names
    link.mend()


@asynccontextmanager
async def outbox_held(data_dir: Path) -> AsyncIterator[None]:
    """Nothing is written into the outbox meanwhile; for less than the 5 s that SQLite waits."""
    with contextlib.closing(sqlite3.connect(data_dir / "outbox.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


async def test_who_only_guesses_is_answered_so_often_and_who_knows_always(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    async with opened(tmp_path, cluster.connection) as (store, _, _):
        for _ in range(durable.GUESSES_PER_S):
            assert await store.locate("NOSUCH", guess=True) is None
        loop = asyncio.get_running_loop()
        begin, busy = loop.time(), 0
        while loop.time() - begin < 1:
            try:
                await store.locate("NOSUCH", guess=True)
            except LookupsBusyError:
                busy += 1
                assert await store.locate("NOSUCH", guess=False) is None
                break
        assert busy, "guesses were answered without end"
