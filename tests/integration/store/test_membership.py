"""What a server among others does at moments in which answers are lost or come late."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec import structs

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store import lookups
from roomserver.store.database import Connection, Database, DatabaseAwayError
from roomserver.store.durable import DurableRoomStore
from roomserver.store.outbox import Outbox
from roomserver.store.records import LeaveReason, RoomRecord
from support.events import new_audit, new_room, new_stay
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
        self.present: set[str] = set()
        self.changed = asyncio.Event()

    def take_up(self, records: Iterable[RoomRecord]) -> None:
        self.taken_up += [record.id for record in records]
        self.changed.set()

    def is_running(self, room: str) -> bool:
        return False

    def stays(self) -> set[str]:
        return self.present

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

    def __init__(self, data_dir: Path, capacity: int) -> None:
        super().__init__(data_dir, capacity=capacity)
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
    data_dir: Path, connection: dict[str, Any], *, lease_s: float = LEASE_S, capacity: int = 10**6
) -> AsyncIterator[tuple[DurableRoomStore, WatchedOutbox, Here]]:
    """A store that serves, as a server has it."""
    database = Database(connection)
    outbox = WatchedOutbox(data_dir, capacity)
    store = DurableRoomStore(outbox, database, url="", lease_s=lease_s)
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


@pytest.mark.parametrize("guess", [True, False])
async def test_all_who_come_for_a_room_that_nobody_has_wait_for_the_one_claim(
    cluster: Cluster, tables: Connection, tmp_path: Path, guess: bool
) -> None:
    """A hall whose server is gone comes at once, and more of it than may wait one by one."""
    async with opened(tmp_path, cluster.connection, lease_s=600) as (store, _, here):
        room = await add_abandoned_room(tables)  # no heartbeat finds it before the hall does
        crowd = [store.locate(room, guess=guess) for _ in range(10 * lookups.LOOKUPS_WAITING)]
        assert set(await asyncio.gather(*crowd, return_exceptions=True)) == {None}
        assert here.taken_up == [room]


async def test_that_a_room_can_not_be_looked_up_is_told_to_who_does_not_guess(
    cluster: Cluster, tables: Connection, link: Severed, tmp_path: Path
) -> None:
    through = cluster.connection | {"host": str(link.directory)}
    room = new_room()
    async with opened(tmp_path, through) as (store, _, _):
        await store.create_room(room)
        link.cut()
        for _ in range(2):  # when it is noticed, and when it is known
            with pytest.raises(DatabaseAwayError):
                await store.locate("NOSUCH", guess=False)
            assert await store.locate("NOSUCH", guess=True) is None
        assert await store.locate(room.id, guess=False) is None, "it is here"
        link.mend()


@pytest.mark.parametrize("lost", ["dropped", "refused"])
async def test_a_stay_whose_end_was_lost_ends_all_the_same(
    cluster: Cluster, tables: Connection, link: Severed, tmp_path: Path, lost: str
) -> None:
    room = new_room()
    gone, still_here, came_later = [new_stay(room, joined_at=time.time()) for _ in range(3)]
    end = structs.replace(gone, left_at=gone.joined_at + 1, reason=LeaveReason.LEFT)
    through = cluster.connection | {"host": str(link.directory)}
    async with opened(tmp_path, through, capacity=20) as (store, _, here):
        await store.create_room(room)
        for stay in (gone, still_here):
            here.present.add(stay.id)
            store.participant_joined(stay)
        await until(tables, "SELECT count(*) = 2 FROM relay.room_participants")
        here.present.remove(gone.id)
        if lost == "dropped":
            link.cut()
            for _ in range(20):
                store.audit(new_audit().record)
            store.participant_left(end)
            assert store.figures().dropped["leave"] == 1
            link.mend()
        else:
            store.participant_left(structs.replace(end, frames_sent=-1))
        here.present.add(came_later.id)
        ended = "SELECT true FROM relay.room_participants WHERE id = $1 AND left_at >= joined_at"
        await until(tables, f"{ended} AND leave_reason = 'server_lost'", gone.id)
        store.participant_joined(came_later)
        store.participant_left(end)  # late, and better than nothing
        await until(tables, f"{ended} AND leave_reason = 'left'", gone.id)
        goes_on = "SELECT id::text FROM relay.room_participants WHERE left_at IS NULL"
        await until(tables, f"{goes_on} AND id = $1", came_later.id)
        assert {row["id"] for row in await tables.fetch(goes_on)} == {still_here.id, came_later.id}
