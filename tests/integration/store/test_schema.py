"""The database's schema: how it comes into being, and what it promises."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from roomserver.store.database import Connection
from roomserver.store.membership import CLAIM
from roomserver.store.migrations import (
    Migration,
    MigrationError,
    administrator_sql,
    load_migrations,
    migrate,
    pending,
)
from roomserver.store.postgres import ANONYMISE
from support.postgres import Cluster

TABLES = "FROM pg_class c WHERE relnamespace = 'relay'::regnamespace AND relkind = 'r'"


async def shape(connection: Connection) -> list[tuple[Any, ...]]:
    """All that the schema says of its tables, views, policies and functions."""
    rows = await connection.fetch("""
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'relay'
        UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
        WHERE schemaname = 'relay'
        UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
        FROM pg_constraint WHERE connamespace = 'relay'::regnamespace
        UNION ALL SELECT tablename, policyname, qual, '', '' FROM pg_policies
        WHERE schemaname = 'relay'
        UNION ALL SELECT proname, '', pg_get_functiondef(oid), proacl::text, '' FROM pg_proc
        WHERE pronamespace = 'relay'::regnamespace
    """)
    return sorted(tuple(map(str, row)) for row in rows)


# ---- coming into being ----


async def test_servers_that_start_at_once_migrate_once(cluster: Cluster, empty: Connection) -> None:
    others = [await asyncpg.connect(**cluster.connection) for _ in range(3)]
    applied = await asyncio.gather(*(migrate(connection) for connection in [empty, *others]))
    for connection in others:
        await connection.close()
    assert sorted(map(len, applied)) == [0, 0, 0, len(load_migrations())]
    assert await pending(empty, load_migrations()) == ()


async def test_what_is_printed_for_an_administrator_is_what_migrate_does(
    empty: Connection,
) -> None:
    await migrate(empty)
    migrated = await shape(empty)
    await empty.execute("DROP SCHEMA relay CASCADE")
    role = await empty.fetchval("SELECT current_user::text")
    await empty.execute(administrator_sql(role, load_migrations()))
    assert await shape(empty) == migrated
    assert await migrate(empty) == ()


async def test_a_migration_that_was_changed_is_refused(tables: Connection) -> None:
    first, *rest = load_migrations()
    changed = [Migration(first.version, first.name, first.sql + "-- a word more"), *rest]
    with pytest.raises(MigrationError, match=r"0001 .* must never change"):
        await migrate(tables, changed)


async def test_a_database_of_a_later_release_is_refused(tables: Connection) -> None:
    with pytest.raises(MigrationError, match="install a later release"):
        await migrate(tables, load_migrations()[:1])


async def test_refresh_tokens_that_were_there_know_what_they_were_exchanged_for(
    empty: Connection,
) -> None:
    await migrate(empty, load_migrations()[:2])
    user = await empty.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ('a@b', '') RETURNING id"
    )
    add = (
        "INSERT INTO relay.refresh_tokens (user_id, hash, family, successor, expires_at)"
        " VALUES ($1, $2, gen_random_uuid(), $3, now() + interval '1 day') RETURNING id"
    )
    second = await empty.fetchval(add, user, b"second", None)
    first = await empty.fetchval(add, user, b"first", second)
    await migrate(empty)
    parents = await empty.fetch("SELECT id, parent FROM relay.refresh_tokens")
    assert dict(map(tuple, parents)) == {first: None, second: first}


async def test_a_migration_that_fails_leaves_nothing(empty: Connection) -> None:
    first, *_ = load_migrations()
    broken = Migration(2, "broken", "CREATE TABLE relay.half (n int); SELECT no_such_thing;")
    with pytest.raises(MigrationError, match=r"0002 broken: .*no_such_thing"):
        await migrate(empty, [first, broken])
    assert await empty.fetchval("SELECT to_regclass('relay.half')") is None
    assert await pending(empty, [first, broken]) == (broken,)


async def test_a_role_that_may_not_make_roles_is_told_what_to_do(
    cluster: Cluster, empty: Connection
) -> None:
    # Without the role `authenticated`: as if it were the first start.
    await empty.execute("""
        DROP OWNED BY authenticated;
        DROP ROLE authenticated;
        DROP ROLE IF EXISTS humble;
        CREATE ROLE humble LOGIN PASSWORD 'humble';
        GRANT CREATE ON DATABASE roomserver TO humble;
    """)
    humble = await asyncpg.connect(
        **(cluster.connection | {"user": "humble", "password": "humble"})
    )
    try:
        with pytest.raises(MigrationError, match=r"administrator run what .*--print-sql"):
            await migrate(humble)
        assert await humble.fetchval("SELECT to_regnamespace('relay')") is None
    finally:
        await humble.close()
        await empty.execute("REVOKE CREATE ON DATABASE roomserver FROM humble; DROP ROLE humble")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0001_a.sql", "0003_c.sql"], "0002 is missing"),
        (["0001_a.sql", "0001_b.sql"], "two of one"),
        (["first.sql"], "not named like"),
    ],
)
def test_files_out_of_line_are_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=complaint):
        load_migrations(tmp_path)


# ---- what it promises ----


async def test_every_foreign_key_has_an_index(tables: Connection) -> None:
    without = await tables.fetch("""
        SELECT conrelid::regclass::text, conname FROM pg_constraint k
        WHERE contype = 'f' AND connamespace = 'relay'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1]
        )
    """)
    assert [tuple(row) for row in without] == []


async def test_what_is_asked_often_or_of_much_is_found_by_an_index(tables: Connection) -> None:
    await tables.execute("""
        INSERT INTO relay.audio_rooms (code, active, state, closed_at)
            SELECT 'OLD' || n, false, 'closed', now() FROM generate_series(1, 20000) n;
        INSERT INTO relay.audio_rooms (code) SELECT 'NEW' || n FROM generate_series(1, 20) n;
        INSERT INTO relay.audit_log (event_type, details)
            SELECT 'login_failure', jsonb_build_object('email', n || '@example.org')
            FROM generate_series(1, 20000) n;
        ANALYZE relay.audio_rooms, relay.audit_log;
    """)

    async def plan(statement: str) -> str:
        # As for a statement that was prepared: with whatever parameter.
        async with tables.transaction():
            await tables.execute(f"PREPARE asked (uuid) AS {statement}")
            await tables.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            user = "00000000-0000-0000-0000-000000000000"
            rows = await tables.fetch(f"EXPLAIN EXECUTE asked ('{user}')")
            await tables.execute("DEALLOCATE asked")
        return "\n".join(row[0] for row in rows)

    claim = await plan(CLAIM)
    assert "audio_rooms_open_server_id" in claim
    assert "Seq Scan on audio_rooms" not in claim
    (of_the_audit_log,) = [each for each in ANONYMISE if "relay.audit_log" in each]
    anonymise = await plan(of_the_audit_log)
    assert "audit_log_email" in anonymise
    assert "Seq Scan on audit_log" not in anonymise


async def test_every_table_has_row_level_security(tables: Connection) -> None:
    without = await tables.fetch(f"SELECT relname {TABLES} AND NOT relrowsecurity")
    assert [row["relname"] for row in without] == []
    views = await tables.fetch("""
        SELECT relname FROM pg_class WHERE relnamespace = 'relay'::regnamespace
        AND relkind = 'v' AND NOT 'security_invoker=true' = ANY (coalesce(reloptions, '{}'))
    """)
    assert [row["relname"] for row in views] == []


async def add_user(tables: Connection, email: str) -> UUID:
    user: UUID = await tables.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ($1, 'x') RETURNING id", email
    )
    return user


async def add_room(tables: Connection, owner: UUID, code: str, *, public: bool = False) -> UUID:
    room: UUID = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code, created_by, public) VALUES ($1, $2, $3) RETURNING id",
        code,
        owner,
        public,
    )
    return room


@pytest.mark.parametrize("seed", range(5))
async def test_statistics_count_every_stay_once(tables: Connection, seed: int) -> None:
    rng = random.Random(seed)
    room = await add_room(tables, await add_user(tables, "a@example.org"), "ROOM")
    people = [uuid4() for _ in range(8)]
    stays = []
    for _ in range(40):
        begin = rng.randrange(100)
        stays.append((rng.choice(people), begin, begin + rng.randrange(1, 30)))
    await tables.executemany(
        "INSERT INTO relay.room_participants (room_id, participant_id, role, joined_at, left_at)"
        " VALUES ($1, $2, 'listener', to_timestamp($3), to_timestamp($4))",
        [(room, person, float(begin), float(end)) for person, begin, end in stays],
    )
    await tables.execute(  # whoever broadcasts is no listener
        "INSERT INTO relay.room_participants (room_id, participant_id, role)"
        " VALUES ($1, $2, 'broadcaster')",
        room,
        uuid4(),
    )

    row = await tables.fetchrow("SELECT * FROM relay.room_statistics_view")

    assert row is not None
    listened = [end - begin for _, begin, end in stays]
    assert row["participants"] == len({person for person, _, _ in stays})
    assert row["sessions"] == len(stays)
    assert row["listen_seconds"] == sum(listened)
    assert row["average_session_seconds"] == pytest.approx(sum(listened) / len(stays))
    present = [sum(b <= second < e for _, b, e in stays) for second in range(130)]
    assert row["peak_listeners"] == max(present)


async def test_addresses_differ_in_more_than_case(tables: Connection) -> None:
    await add_user(tables, "Anna@example.org")
    with pytest.raises(asyncpg.UniqueViolationError):
        await add_user(tables, "anna@EXAMPLE.org")


async def test_a_code_is_of_one_open_room(tables: Connection) -> None:
    owner = await add_user(tables, "a@example.org")
    first = await add_room(tables, owner, "SAME")
    with pytest.raises(asyncpg.UniqueViolationError):
        await add_room(tables, owner, "SAME")
    await tables.execute(
        "UPDATE relay.audio_rooms SET state = 'closed', active = false, closed_at = now()"
        " WHERE id = $1",
        first,
    )
    await add_room(tables, owner, "SAME")


async def test_every_change_of_a_room_is_dated(tables: Connection) -> None:
    room = await add_room(tables, await add_user(tables, "a@example.org"), "ROOM")
    await tables.execute("UPDATE relay.audio_rooms SET updated_at = to_timestamp(0)")
    age = "SELECT now() - updated_at < '1 minute' FROM relay.audio_rooms WHERE id = $1"
    assert await tables.fetchval(age, room) is True


@pytest.mark.parametrize(
    "change",
    [
        "state = 'elsewhere'",
        "state = 'closed'",
        "active = false",
        "suspended_until = now()",
        "metadata = '[]'",
        "max_listeners = -1",
        "channel_names = '{}'",
        "code = ''",
        "created_by = gen_random_uuid()",
    ],
)
async def test_a_room_that_makes_no_sense_is_refused(tables: Connection, change: str) -> None:
    await add_room(tables, await add_user(tables, "a@example.org"), "ROOM")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await tables.execute(f"UPDATE relay.audio_rooms SET {change}")
