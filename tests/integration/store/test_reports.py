"""Reports out of the database: read as the user who asks, in all ways in which it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from roomserver.store.analytics import LOCK_KEY, Analytics
from roomserver.store.database import Connection, Database
from roomserver.store.records import Place
from roomserver.store.reports import AuditFilter, PostgresReports

BEGIN = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=1)
TODAY = BEGIN.date()


@pytest.fixture
def analytics(database: Database) -> Analytics:
    return Analytics(database)


@pytest.fixture
def reports(database: Database, analytics: Analytics) -> PostgresReports:
    return PostgresReports(database, analytics)


async def add_owner(tables: Connection, name: str) -> tuple[str, str]:
    """A user, who has a public room with five stays and five lines of audit; both ids."""
    user: UUID = await tables.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ($1, 'x') RETURNING id",
        f"{name}@example.org",
    )
    room: UUID = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code, created_by, public) VALUES ($1, $2, true)"
        " RETURNING id",
        name,
        user,
    )
    for number in range(5):
        at = BEGIN + timedelta(minutes=number // 2)  # some at the same moment
        await tables.execute(
            "INSERT INTO relay.room_participants (room_id, participant_id, nickname, role,"
            " joined_at, connection_duration, left_at, ip_address, leave_reason)"
            " VALUES ($1, $2, $3, 'listener', $4, $5, $6, '2001:db8::7', 'left')",
            room,
            uuid4(),
            f"{name}{number}",
            at,
            None if number == 4 else 90.0,
            None if number == 4 else at,
        )
        await tables.execute(
            "INSERT INTO relay.audit_log (event_type, user_id, room_id, created_at, details)"
            " VALUES ('room_joined', $1, $2, $3, $4::text::jsonb)",
            user,
            room,
            at,
            json.dumps({"of": name}),
        )
    return str(user), str(room)


async def test_everybody_reads_what_is_theirs_page_by_page(
    tables: Connection, reports: PostgresReports
) -> None:
    ann, hall = await add_owner(tables, "ann")
    await add_owner(tables, "bob")
    stays: list[Any] = []
    lines: list[Any] = []

    async def more_stays(after: Place | None) -> Sequence[Any]:
        return await reports.participants(hall, viewer=ann, live=None, after=after, limit=2)

    async def more_lines(after: Place | None) -> Sequence[Any]:
        return await reports.audit(AuditFilter(), viewer=ann, after=after, limit=2)

    for kept, read in ((stays, more_stays), (lines, more_lines)):
        while page := await read(kept[-1].place if kept else None):
            assert len(page) <= 2
            kept += page
        places = [row.place for row in kept]
        assert len(places) == 5
        assert places == sorted(places, reverse=True)
    assert {stay.nickname for stay in stays} == {f"ann{number}" for number in range(5)}
    assert stays[-1].joined_at % 1_000_000 == 123456
    assert {stay.address for stay in stays} == {"2001:db8::7"}
    assert {line.details["of"] for line in lines} == {"ann"}
    live = await reports.participants(hall, viewer=ann, live=True, after=None, limit=9)
    assert [stay.nickname for stay in live] == ["ann4"]
    assert (live[0].left_at, live[0].duration_s) == (None, None)
    past = await reports.participants(hall, viewer=ann, live=False, after=None, limit=9)
    assert {stay.duration_s for stay in past} == {90.0}


async def test_somebody_elses_room_tells_nothing_even_a_public_one(
    tables: Connection, reports: PostgresReports
) -> None:
    ann, _ = await add_owner(tables, "ann")
    _, bobs = await add_owner(tables, "bob")
    days = (TODAY, TODAY + timedelta(days=2))
    assert await reports.participants(bobs, viewer=ann, live=None, after=None, limit=9) == []
    assert (await reports.statistics(bobs, viewer=ann)).sessions == 0
    assert await reports.days(bobs, *days, viewer=ann) == []
    both = await reports.audit(AuditFilter(room=bobs), viewer=ann, after=None, limit=9)
    assert both == []
    everybody = await reports.audit(AuditFilter(), viewer=None, after=None, limit=99)
    assert len(everybody) == 10


async def test_today_is_as_of_now_and_the_rest_as_of_the_last_computation(
    tables: Connection, reports: PostgresReports
) -> None:
    ann, hall = await add_owner(tables, "ann")
    span = (TODAY - timedelta(days=40), TODAY + timedelta(days=2))
    days = await reports.days(hall, *span, viewer=ann)
    open_s = (datetime.now(UTC) - BEGIN).total_seconds() - 120
    minutes = sum(day.total_listen_minutes for day in days)
    assert minutes == pytest.approx(4 * 1.5 + open_s / 60, abs=0.5)
    assert max(day.peak_listeners for day in days) >= 4
    statistics = await reports.statistics(hall, viewer=ann)
    assert (statistics.participants, statistics.sessions) == (5, 5)
    assert statistics.listen_seconds == pytest.approx(4 * 90 + open_s, abs=30)


async def test_of_several_servers_one_at_a_time_computes(
    tables: Connection, analytics: Analytics
) -> None:
    _, hall = await add_owner(tables, "ann")
    count = "SELECT count(*) FROM relay.room_analytics WHERE room_id = $1"
    async with tables.transaction():
        await tables.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        assert await analytics.compute() is False
    assert await tables.fetchval(count, hall) == 0
    assert await analytics.compute() is True
    assert await tables.fetchval(count, hall) >= 1
