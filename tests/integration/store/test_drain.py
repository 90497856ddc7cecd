"""From the outbox into PostgreSQL: everything, once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.database import Connection, Database
from roomserver.store.drain import Drain
from roomserver.store.events import Counted, Event, Joined, Left, RoomChanged
from roomserver.store.outbox import Entry, Outbox
from roomserver.store.records import BanRecord, LeaveReason, RoomRecord
from support.events import new_audit, new_room, new_stay
from support.postgres import Cluster

TIMEOUT_S = 60.0


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(tmp_path, capacity=10**6)
    yield outbox
    await outbox.close()


@pytest.fixture
async def drain(cluster: Cluster, tables: Connection, outbox: Outbox) -> AsyncIterator[Drain]:
    """Not started."""
    database = cluster.database()
    drain = Drain(outbox, database, server_id=None, room=lambda _: None)
    yield drain
    await drain.stop()
    await database.close()


async def drained(drain: Drain, outbox: Outbox, *events: Event) -> None:
    """The events have been taken over."""
    for event in events:
        assert outbox.append_soon(event)
    if drain._task is None:
        drain.start()
    async with asyncio.timeout(TIMEOUT_S):
        await drain.reached(await outbox.flush())


async def test_what_happened_is_there_as_it_was(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    room = new_room(permanent=True, max_listeners=5)
    stay = new_stay(room, joined_at=1_700_000_000.123457)
    gone = structs.replace(
        stay,
        left_at=1_700_000_011.0,
        duration_s=10.5,
        reason=LeaveReason.TOO_SLOW,
        frames_sent=500,
        frames_dropped=3,
        latency_ms=41.5,
    )
    await drained(
        drain,
        outbox,
        RoomChanged(room),
        Joined(stay),
        Counted(structs.replace(stay, frames_sent=100)),
        Left(gone),
        new_audit(room=room.id, address="10.0.0.1"),
    )

    row = await tables.fetchrow("SELECT * FROM relay.audio_rooms")
    assert row is not None
    assert (str(row["id"]), row["code"], row["name"]) == (room.id, room.code, "Hall")
    assert row["password_hash"] == "$2b$04$hash"
    assert row["created_at"].timestamp() == room.created_at
    assert (row["public"], row["permanent"], row["max_listeners"]) == (True, True, 5)
    assert (row["state"], row["active"], row["version"]) == ("waiting", True, 1)
    metadata = "SELECT metadata = $1::text::jsonb FROM relay.audio_rooms"
    assert await tables.fetchval(metadata, '{"stage": [1, {"deep": null}]}') is True
    row = await tables.fetchrow("SELECT * FROM relay.room_participants")
    assert row is not None
    assert str(row["participant_id"]) == stay.participant
    assert (row["nickname"], str(row["ip_address"])) == ("Grüße", "2001:db8::1")
    assert row["connection_duration"] == 10.5
    assert (row["leave_reason"], row["frames_sent"], row["frames_dropped"]) == ("too_slow", 500, 3)
    assert row["joined_at"].timestamp() == stay.joined_at
    audit = await tables.fetchrow("SELECT * FROM relay.audit_log")
    assert audit is not None
    assert (audit["event_type"], str(audit["room_id"])) == ("room_created", room.id)
    assert json.loads(audit["details"]) == {"code": "ABC234"}
    assert audit["created_at"].timestamp() == 1_700_000_000.0


async def test_of_the_events_of_a_stay_its_end_counts(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    """Also when they are taken over together, and counters come after it."""
    room = new_room()
    stay = new_stay(room)
    gone = structs.replace(stay, left_at=1_700_000_011.0, duration_s=10.0, frames_sent=500)
    late = structs.replace(stay, frames_sent=400)
    await drained(
        drain,
        outbox,
        *(RoomChanged(room), Joined(stay), Counted(stay), Left(gone), Counted(late)),
    )
    await drained(drain, outbox, Counted(late))
    row = await tables.fetchrow(
        "SELECT left_at IS NOT NULL AS ended, frames_sent FROM relay.room_participants"
    )
    assert row is not None
    assert tuple(row) == (True, 500)


async def test_the_highest_version_of_a_room_counts(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    room = new_room()
    closed = replace(room, version=3, state=RoomState.CLOSED, closed_at=1_700_000_100.0)
    await drained(drain, outbox, RoomChanged(closed))
    await drained(drain, outbox, RoomChanged(replace(room, version=2, name="late")))
    row = await tables.fetchrow("SELECT state, name, version FROM relay.audio_rooms")
    assert row is not None
    assert tuple(row) == ("closed", "Hall", 3)


async def test_a_lost_join_costs_nothing_and_a_late_one_neither(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    room = new_room()
    stay = new_stay(room)
    left = structs.replace(stay, left_at=1_700_000_005.0, duration_s=4.0, frames_sent=200)
    await drained(drain, outbox, RoomChanged(room), Left(left))
    await drained(drain, outbox, Joined(stay), Counted(structs.replace(stay, frames_sent=900)))
    rows = await tables.fetch(
        "SELECT connection_duration, frames_sent FROM relay.room_participants"
    )
    assert [tuple(row) for row in rows] == [(4.0, 200)]


@pytest.mark.parametrize("step", ["take_over", "acknowledge"])
async def test_a_crash_before_or_after_the_commit_takes_nothing_twice(
    drain: Drain,
    outbox: Outbox,
    tables: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """The events are sent again, and what the database has already is known by its number."""

    async def crash(*_: object) -> None:
        raise asyncio.CancelledError

    for _ in range(3):
        outbox.append_soon(new_audit())
    with monkeypatch.context() as patch:
        patch.setattr(drain if step == "take_over" else outbox, step, crash)
        drain.start()
        assert drain._task is not None
        await asyncio.wait({drain._task}, timeout=TIMEOUT_S)
        assert outbox.waiting == 3
    count = "SELECT count(*) FROM relay.audit_log"
    assert await tables.fetchval(count) == (0 if step == "take_over" else 3)
    # Would be an error if it were applied a second time: the table no longer knows the first.
    await tables.execute("DELETE FROM relay.audit_log")
    await outbox.close()
    outbox = Outbox(tmp_path, capacity=1000)
    again = Drain(outbox, drain._database, server_id=None, room=lambda _: None)
    await drained(again, outbox, new_audit())
    await again.stop()
    await outbox.close()
    assert await tables.fetchval(count) == (4 if step == "take_over" else 1)


async def test_numbers_of_a_lost_file_hide_nothing(
    drain: Drain, outbox: Outbox, tables: Connection, tmp_path: Path
) -> None:
    await drained(drain, outbox, *(new_audit() for _ in range(5)))
    (tmp_path / "new").mkdir()
    new = Outbox(tmp_path / "new", capacity=100)
    other = Drain(new, drain._database, server_id=None, room=lambda _: None)
    await drained(other, new, new_audit())
    await other.stop()
    await new.close()
    assert await tables.fetchval("SELECT count(*) FROM relay.audit_log") == 6


async def test_whom_the_database_does_not_know_is_nobody(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    stranger = str(uuid4())
    room = new_room(created_by=stranger)
    stay = new_stay(room, user=stranger)
    await drained(
        drain, outbox, RoomChanged(room), Joined(stay), new_audit(user=stranger, room=str(uuid4()))
    )
    assert await tables.fetchval("SELECT created_by FROM relay.audio_rooms") is None
    assert await tables.fetchval("SELECT user_id FROM relay.room_participants") is None
    row = await tables.fetchrow("SELECT user_id, room_id FROM relay.audit_log")
    assert row is not None
    assert tuple(row) == (None, None)
    assert drain.dead_letters == 0


async def test_a_room_that_the_database_lost_is_made_again(
    cluster: Cluster, tables: Connection, outbox: Outbox
) -> None:
    room = new_room(name="still here")
    database = cluster.database()
    drain = Drain(outbox, database, server_id=None, room={room.id: room}.get)
    await drained(drain, outbox, Joined(new_stay(room)))
    await drain.stop()
    await database.close()
    assert await tables.fetchval("SELECT name FROM relay.audio_rooms") == "still here"
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 1


async def test_what_can_not_be_is_put_aside_and_stops_nothing(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    room = new_room()
    await drained(
        drain,
        outbox,
        Joined(new_stay(new_room())),  # nobody knows its room
        RoomChanged(new_room(max_listeners=-1)),
        new_audit(details={"text": "a\0b"}),
        Joined(new_stay(room, participant="no uuid")),
        RoomChanged(room),
        Joined(new_stay(room)),
    )
    rows = await tables.fetch("SELECT kind, error FROM relay.dead_letters ORDER BY seq")
    assert [row["kind"] for row in rows] == ["Joined", "RoomChanged", "Audited", "Joined"]
    assert drain.dead_letters == 4
    assert await tables.fetchval("SELECT count(*) FROM relay.audio_rooms") == 1
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 1


@pytest.mark.parametrize("unix_s", [math.inf, math.nan, 253_402_300_800.0, -62_135_596_801.0])
async def test_a_time_that_no_calendar_has_is_put_aside(
    drain: Drain, tables: Connection, unix_s: float
) -> None:
    """Those that JSON has no number for, too; a stay that ended then is not left open."""
    room = new_room()
    events: list[Event] = [
        RoomChanged(room),
        Joined(new_stay(room, joined_at=unix_s)),
        Left(new_stay(room, left_at=unix_s)),
        new_audit(at=unix_s),
    ]
    await drain.take_over([Entry(seq, event) for seq, event in enumerate(events, 1)])
    rows = await tables.fetch("SELECT kind FROM relay.dead_letters ORDER BY seq")
    assert [row["kind"] for row in rows] == ["Joined", "Left", "Audited"]
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 0


async def test_a_time_that_a_calendar_just_has_is_kept_and_can_be_read(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    room = new_room()
    first, last = -62_135_596_800.0, 253_402_300_799.0
    await drained(
        drain, outbox, RoomChanged(room), Left(new_stay(room, joined_at=first, left_at=last))
    )
    row = await tables.fetchrow("SELECT joined_at, left_at FROM relay.room_participants")
    assert row is not None
    assert [time.timestamp() for time in row] == [first, last]


async def test_a_database_that_was_away_gets_everything_afterwards(
    cluster: Cluster, drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    await drained(drain, outbox, new_audit())
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)
    await drained(drain, outbox, *(new_audit() for _ in range(2000)))
    assert drain.away is None
    async with drain._database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM relay.audit_log") == 2001


async def test_an_outbox_put_back_from_a_copy_hides_nothing_that_happens_afterwards(
    database: Database, tables: Connection, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()

    async def happen(*events: Event, wait: bool = True) -> None:
        """In a process of its own."""
        outbox = Outbox(tmp_path, capacity=10**6)
        drain = Drain(outbox, database, server_id=None, room=lambda _: None)
        for event in events:
            outbox.append_soon(event)
        if wait:
            await drained(drain, outbox)
        await drain.stop()
        await outbox.close()

    count = "SELECT count(*) FROM relay.audit_log"
    await happen(new_audit(), new_audit())
    await happen(new_audit(), wait=False)  # in the copy it waits
    shutil.copy(tmp_path / "outbox.db", copy)
    await happen(*(new_audit() for _ in range(4)))
    assert await tables.fetchval(count) == 7
    shutil.copy(copy / "outbox.db", tmp_path)
    await happen(*(new_audit() for _ in range(3)))
    assert await tables.fetchval(count) == 10
    await happen(new_audit())
    assert await tables.fetchval(count) == 11
    assert await tables.fetchval("SELECT max(last_seq) FROM relay.outbox_progress") == 11


async def test_the_bans_of_a_room_are_those_that_its_newest_record_has(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    def new_ban(**whom: str) -> BanRecord:
        fields: dict[str, Any] = {"participant": None, "user": None, "address": None, **whom}
        return BanRecord(str(uuid4()), reason="loud", created_by=None, created_at=1.0, **fields)

    first, second = new_ban(participant=str(uuid4())), new_ban(address="2001:db8::/64")
    stranger = new_ban(participant=str(uuid4()), user=str(uuid4()))  # no user of this database
    room = new_room()
    await drained(drain, outbox, RoomChanged(replace(room, version=2, bans=(first,))))
    await drained(drain, outbox, RoomChanged(replace(room, version=4, bans=(second, stranger))))
    await drained(drain, outbox, RoomChanged(replace(room, version=3, bans=(first, second))))
    bans = await tables.fetch(
        "SELECT id::text, address::text, user_id, lifted_at IS NULL AS in_force"
        " FROM relay.room_bans ORDER BY created_at"
    )
    assert {tuple(ban) for ban in bans} == {
        (first.id, None, None, False),
        (second.id, "2001:db8::/64", None, True),
        (stranger.id, None, None, True),
    }


async def test_what_somebody_closed_stays_closed_whatever_another_server_made_of_it(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    closed_at = 1_700_000_100.0
    by_owner, lapsed, reopened = new_room(), new_room(), new_room()
    other = "INSERT INTO relay.servers (id, url) VALUES ($1, '') RETURNING id"
    server = await tables.fetchval(other, str(uuid4()))
    await drained(drain, outbox, *(RoomChanged(room) for room in (by_owner, lapsed, reopened)))
    await tables.execute("UPDATE relay.audio_rooms SET server_id = $1, version = 9", server)

    def closed(room: RoomRecord, version: int, reason: RoomCloseReason) -> RoomChanged:
        return RoomChanged(
            replace(
                room,
                version=version,
                state=RoomState.CLOSED,
                closed_at=closed_at,
                close_reason=reason,
            )
        )

    await drained(
        drain,
        outbox,
        closed(by_owner, 2, RoomCloseReason.CLOSED_BY_OWNER),
        closed(lapsed, 20, RoomCloseReason.SOURCE_GONE),  # it may play where it is now
        closed(reopened, 2, RoomCloseReason.CLOSED_BY_ADMIN),
        RoomChanged(replace(reopened, version=30, state=RoomState.ACTIVE)),
    )
    rows = await tables.fetch("SELECT id::text, active FROM relay.audio_rooms")
    assert {row["id"]: row["active"] for row in rows} == {
        by_owner.id: False,
        lapsed.id: True,
        reopened.id: False,
    }


async def test_what_is_damaged_or_without_an_address_stops_nothing(
    drain: Drain, outbox: Outbox, tables: Connection
) -> None:
    outbox._db.execute("INSERT INTO events (event) VALUES (?)", (b"\xffno event",))
    await drained(drain, outbox, new_audit(address="unknown"), new_audit(at=1e30), new_audit())
    assert await tables.fetchval("SELECT count(*) FROM relay.audit_log") == 2
    rows = await tables.fetch("SELECT kind FROM relay.dead_letters ORDER BY seq")
    assert [row["kind"] for row in rows] == ["Unreadable", "Audited"]
