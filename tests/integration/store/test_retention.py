"""What is kept for a while only, and what goes when it has been kept long enough."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from roomserver.cli import app
from roomserver.store.analytics import LOCK_KEY as ANALYTICS_LOCK_KEY
from roomserver.store.database import Connection, Database
from roomserver.store.retention import LOCK_KEY, AnotherPurgesError, Purged, Retention
from support.postgres import Cluster
from support.server import ServerProcess

AGES = (500, 400, 60, 40, 3, 0)  # days
ADDRESS = "10.0.0.1"
LETTER = (
    """{"type": "left", "stay": {"address": "10.0.0.1", "user_agent": "a", "nickname": "Ann"}}"""
)


def retention(database: Database, audit: int, addresses: int, participants: int) -> Retention:
    """In batches smaller than what there is."""
    return Retention(
        database,
        audit_days=audit,
        addresses_days=addresses,
        participants_days=participants,
        batch=2,
    )


@pytest.fixture
async def room(tables: Connection) -> UUID:
    """A room in which something happened on many days: three of everything for each age."""
    room: UUID = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code) VALUES ('ROOM') RETURNING id"
    )
    for age in AGES:
        at = datetime.now(UTC) - timedelta(days=age)
        for _ in range(3):
            await tables.execute(
                "INSERT INTO relay.audit_log (event_type, ip_address, user_agent, created_at)"
                " VALUES ('room_joined', $1::text::inet, 'browser', $2)",
                ADDRESS,
                at,
            )
            await add_stay(tables, room, at - timedelta(minutes=30), at)
            await tables.execute(
                "INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error, created_at)"
                " VALUES (gen_random_uuid(), 1, 'Left', $1, 'no', $2)",
                LETTER,
                at,
            )
    return room


async def add_stay(tables: Connection, room: UUID, joined: datetime, left: datetime | None) -> None:
    await tables.execute(
        "INSERT INTO relay.room_participants (room_id, participant_id, role, joined_at, left_at,"
        " connection_duration, ip_address, user_agent)"
        " VALUES ($1, $2, 'listener', $3, $4, $5, '10.0.0.1', 'browser')",
        room,
        uuid4(),
        joined,
        left,
        None if left is None else (left - joined).total_seconds(),
    )


async def ages(tables: Connection, table: str, column: str, where: str = "true") -> set[int]:
    """Of which ages there are rows; each in threes."""
    rows = await tables.fetch(
        f"SELECT round(extract(epoch FROM now() - {column}) / 86400)::int, count(*)"
        f" FROM relay.{table} WHERE {where} GROUP BY 1"
    )
    assert {row[1] for row in rows} <= {3}
    return {row[0] for row in rows}


async def test_presets_of_guests_are_kept_for_a_month(
    database: Database, tables: Connection
) -> None:
    user = await tables.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ('o@x.example', '') RETURNING id"
    )
    await tables.execute(
        "INSERT INTO relay.mix_presets (user_id, participant_id, name, updated_at) VALUES"
        " ($1, NULL, 'old', now() - interval '400 days'),"
        " (NULL, gen_random_uuid(), 'old', now() - interval '31 days'),"
        " (NULL, gen_random_uuid(), 'new', now() - interval '29 days')",
        user,
    )
    keeps = retention(database, 365, 30, 365)
    assert await keeps.look() == await keeps.purge() == Purged(presets=1)
    assert await tables.fetchval("SELECT count(*) FROM relay.mix_presets") == 2


async def test_refresh_tokens_and_invites_go_when_they_are_over(
    database: Database, tables: Connection, room: UUID
) -> None:
    user = await tables.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ('o@x.example', '') RETURNING id"
    )
    day = timedelta(days=1)
    now = datetime.now(UTC)
    parent = None
    for left in (-2 * day, -day, -timedelta(minutes=1), timedelta(minutes=1)):
        parent = await tables.fetchval(
            "INSERT INTO relay.refresh_tokens"
            " (user_id, hash, family, issued_at, expires_at, parent)"
            " VALUES ($1, uuid_send(gen_random_uuid()), gen_random_uuid(), $2, $3, $4)"
            " RETURNING id",
            *(user, now - 7 * day, now + left, parent),
        )
    for left in (-day, -timedelta(minutes=1), timedelta(minutes=1)):
        await tables.execute(
            "INSERT INTO relay.invites (room_id, created_by, secret_hash, created_at, expires_at)"
            " VALUES ($1, $2, uuid_send(gen_random_uuid()), $3, $4)",
            *(room, user, now - 7 * day, now + left),
        )
    for left in (-31 * day, -29 * day, timedelta(minutes=1)):  # administrators look at them
        await tables.execute(
            "INSERT INTO relay.account_invites (created_by, hash, created_at, expires_at)"
            " VALUES ($1, uuid_send(gen_random_uuid()), $2, $3)",
            *(user, now - 40 * day, now + left),
        )
    keeps = retention(database, 0, 0, 0)
    expected = Purged(refresh_tokens=3, invites=3)
    assert await keeps.look() == await keeps.purge() == expected
    kept = await tables.fetchrow("SELECT expires_at, parent FROM relay.refresh_tokens")
    assert tuple(kept or ()) == (now + timedelta(minutes=1), None)
    assert await tables.fetchval("SELECT min(expires_at) FROM relay.invites") > now
    assert await tables.fetchval("SELECT count(*) FROM relay.account_invites") == 2
    assert await keeps.look() == Purged()


async def test_what_is_old_goes_and_the_rest_stays(
    database: Database, tables: Connection, room: UUID
) -> None:
    keeps = retention(database, 365, 30, 365)
    # Of each three of an age: two ages are gone, two more lost their address.
    expected = Purged(audit=6, participants=6, dead_letters=6, addresses=18)
    assert await keeps.look() == expected
    assert await ages(tables, "audit_log", "created_at") == set(AGES)  # that changed nothing
    assert await keeps.purge() == expected

    for table, column in (("audit_log", "created_at"), ("room_participants", "left_at")):
        assert await ages(tables, table, column) == {60, 40, 3, 0}
        for kept in ("ip_address", "user_agent"):
            assert await ages(tables, table, column, f"{kept} IS NOT NULL") == {3, 0}
    assert await ages(tables, "dead_letters", "created_at") == {60, 40, 3, 0}
    letters = await tables.fetch("SELECT payload::text FROM relay.dead_letters ORDER BY created_at")
    assert [ADDRESS in row["payload"] for row in letters] == [False] * 6 + [True] * 6
    assert all("Ann" in row["payload"] for row in letters)
    assert await keeps.look() == Purged()
    assert await keeps.purge() == Purged()


async def test_the_figures_of_days_are_made_before_their_stays_go(
    database: Database, tables: Connection, room: UUID
) -> None:
    # One that reached over the horizon, and over many days, and one that does still.
    joined = datetime.now(UTC) - timedelta(days=450)
    await add_stay(tables, room, joined, joined + timedelta(days=440))
    await add_stay(tables, room, joined, None)
    await retention(database, 0, 0, 365).purge()

    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 3 * 4 + 2
    horizon = datetime.now(UTC).date() - timedelta(days=365)
    rows = await tables.fetch(
        "SELECT date, total_listeners, total_listen_minutes, final FROM relay.room_analytics"
    )
    days = {row["date"]: row for row in rows}
    assert all(row["final"] for row in rows)
    assert max(days) == horizon - timedelta(days=1)
    old = (datetime.now(UTC) - timedelta(days=500)).date()
    minutes = sum(row["total_listen_minutes"] for day, row in days.items() if day <= old)
    assert minutes == pytest.approx(90)
    assert days[horizon - timedelta(days=1)]["total_listen_minutes"] == pytest.approx(2 * 1440)
    await retention(database, 0, 0, 365).purge()
    again = await tables.fetch(
        "SELECT date, total_listeners, total_listen_minutes, final FROM relay.room_analytics"
    )
    assert {row["date"]: row for row in again} == days


async def test_nothing_of_what_could_not_be_read_outlives_addresses(
    database: Database, tables: Connection
) -> None:
    for age in 3 * (40, 3):
        await tables.execute(
            "INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error, created_at)"
            " VALUES (gen_random_uuid(), 1, 'Unreadable', $1, 'no', now() - $2::interval)",
            '{"data": "{\\"stay\\": {\\"address\\": \\"10.0.0.1\\"}"}',
            timedelta(days=age),
        )
    assert (await retention(database, 365, 30, 365).purge()).addresses == 3
    assert await ages(tables, "dead_letters", "created_at", "payload::text LIKE '%10.0%'") == {3}
    assert (await retention(database, 365, 30, 365).purge()).addresses == 0


async def test_zero_is_for_ever(database: Database, tables: Connection, room: UUID) -> None:
    keeps = retention(database, 0, 0, 0)
    assert await keeps.look() == await keeps.purge() == Purged()
    assert await ages(tables, "audit_log", "created_at", "ip_address IS NOT NULL") == set(AGES)
    assert await tables.fetchval("SELECT count(*) FROM relay.room_analytics WHERE final") == 0
    # Addresses alone.
    assert (await retention(database, 0, 30, 0).purge()).addresses == 4 * 9
    assert await ages(tables, "audit_log", "created_at") == set(AGES)


async def test_one_server_at_a_time(database: Database, tables: Connection, room: UUID) -> None:
    keeps = retention(database, 365, 30, 365)
    async with tables.transaction():
        await tables.execute(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
        with pytest.raises(AnotherPurgesError):
            await keeps.purge()
        assert await ages(tables, "audit_log", "created_at") == set(AGES)
    # Who computes the daily figures is waited for.
    async with tables.transaction():
        await tables.execute(f"SELECT pg_advisory_xact_lock({ANALYTICS_LOCK_KEY})")
        purging = asyncio.create_task(keeps.purge())
        async with asyncio.timeout(60):
            # Of the audit log they see each transaction that has ended.
            while await tables.fetchval("SELECT count(*) FROM relay.audit_log") > 12:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 18
    await purging
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 12


async def test_the_command_says_what_it_would_do_and_does_it(
    cluster: Cluster, tables: Connection, room: UUID
) -> None:
    variables = cluster.variables() | {"ROOMSERVER_KEEP_ADDRESSES_DAYS": "50"}

    async def purge(*options: str) -> list[str]:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["purge", *options], env=variables)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    assert await purge("--dry-run") == [
        "6 audit lines would be deleted",
        "6 stays would be deleted",
        "9 addresses would be cleared",
        "6 dead letters would be deleted",
        "0 presets of guests would be deleted",
        "0 refresh tokens would be deleted",
        "0 invites would be deleted",
    ]
    assert await ages(tables, "audit_log", "created_at") == set(AGES)
    assert "6 audit lines were deleted" in await purge()
    assert await ages(tables, "audit_log", "created_at") == {60, 40, 3, 0}
    assert "0 audit lines were deleted" in await purge()


@pytest.mark.parametrize("cluster", ["newest"], indirect=True)
async def test_a_running_server_does_it_by_itself(
    cluster: Cluster, tables: Connection, room: UUID, tmp_path: Path
) -> None:
    options = ("--purge-interval-s", "0.2")
    with await asyncio.to_thread(
        ServerProcess.start, tmp_path, *options, env=cluster.variables()
    ) as server:
        purged = await asyncio.to_thread(server.wait_for_event, "purged", timeout=60)
        assert (purged["audit"], purged["participants"], purged["addresses"]) == (6, 6, 18)
    assert await ages(tables, "audit_log", "created_at") == {60, 40, 3, 0}


async def test_without_a_database_nothing_is_purged() -> None:
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["purge", "--database-url", "none"])
    assert refused.exit_code == 2
    assert "there is no database" in refused.stderr
