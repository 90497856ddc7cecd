"""Who sees what: every table and view of the catalog, as two users, without any WHERE."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from roomserver.store.database import Connection, Database

RELATIONS = """
SELECT relname, relkind::text, relrowsecurity, (
    SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1
) AS first_column
FROM pg_class c
WHERE relnamespace = 'relay'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
READABLE = """
SELECT c.relname, array_agg(a.attname ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped
WHERE relnamespace = 'relay'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_column_privilege('authenticated', c.oid, attnum, 'SELECT')
GROUP BY 1
"""
# Of what nobody sees a column.
CLOSED = frozenset(
    {
        *("refresh_tokens", "account_invites", "invites", "servers", "outbox_progress"),
        *("dead_letters", "migrations"),
    }
)
SECRET = "secret-"  # each secret in the tables begins so
WRITES = (
    "INSERT INTO relay.{} DEFAULT VALUES",
    "UPDATE relay.{0} SET {1} = {1}",
    "DELETE FROM relay.{}",
    "TRUNCATE relay.{}",
    "SELECT {1} FROM relay.{0} FOR UPDATE",
    "ALTER TABLE relay.{} ADD mine integer",
    "ALTER TABLE relay.{} DISABLE ROW LEVEL SECURITY",
    "DROP TABLE relay.{}",
    "CREATE TRIGGER mine AFTER INSERT ON relay.{} EXECUTE FUNCTION relay.touch()",
)


class Person:
    """A user of whom there is a row in every table, and what of the tables is the user's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.id = uuid4()
        self.own: dict[str, set[UUID]] = {}

    def owns(self, table: str, row: UUID) -> None:
        self.own.setdefault(table, set()).add(row)


async def insert(tables: Connection, table: str, **fields: Any) -> UUID:
    """A new row; its id."""
    names = ", ".join(fields)
    values = ", ".join(f"${number}" for number in range(1, len(fields) + 1))
    query = f"INSERT INTO relay.{table} ({names}) VALUES ({values}) RETURNING *"
    row: UUID = await tables.fetchval(query, *fields.values())
    return row


@pytest.fixture
async def people(tables: Connection) -> tuple[Person, Person]:
    """Two who have everything, each also in the other's rooms."""
    anna, bert = Person("anna"), Person("bert")
    for person in (anna, bert):
        await insert(
            tables,
            "users",
            id=person.id,
            email=f"{person.name}@example.org",
            password_hash=f"{SECRET}{person.name}",
        )
        person.owns("users", person.id)
    server = await insert(tables, "servers", id=uuid4(), url="http://server")
    await insert(tables, "outbox_progress", stream_id=uuid4())
    await insert(
        tables,
        "dead_letters",
        stream_id=uuid4(),
        seq=1,
        kind="Left",
        payload=f'"{SECRET}"',
        error="no",
    )
    for person, other in ((anna, bert), (bert, anna)):
        await fill(tables, person, other, server)
    return anna, bert


async def fill(tables: Connection, person: Person, other: Person, server: UUID) -> None:
    secret = f"{SECRET}{person.name}"
    until = await tables.fetchval("SELECT now() + interval '1 hour'")
    for number, (public, closed) in enumerate(((False, False), (True, False), (True, True))):
        room = await insert(
            tables,
            "audio_rooms",
            code=f"{person.name}{number}",
            created_by=person.id,
            password_hash=secret,
            public=public,
            server_id=server,
            active=not closed,
            state="closed" if closed else "active",
            closed_at=await tables.fetchval("SELECT CASE WHEN $1 THEN now() END", closed),
        )
        person.owns("audio_rooms", room)
        person.owns("room_statistics_view", room)
        if not closed:
            person.owns("active_rooms_view", room)
        for who in (person, other, None):
            stay = await insert(
                tables,
                "room_participants",
                room_id=room,
                user_id=who and who.id,
                participant_id=uuid4(),
                role="listener",
                nickname=f"in {person.name}'s",
                ip_address="10.0.0.1",
            )
            person.owns("room_participants", stay)
            if who is other:
                other.owns("room_participants", stay)
        day = await tables.fetchval("SELECT current_date")
        person.owns(
            "room_analytics", await insert(tables, "room_analytics", room_id=room, date=day)
        )
        ban = await insert(
            tables, "room_bans", room_id=room, user_id=other.id, created_by=person.id
        )
        person.owns("room_bans", ban)
        await insert(
            tables,
            "invites",
            room_id=room,
            created_by=person.id,
            secret_hash=uuid4().bytes,
            expires_at=until,
        )
        line = await insert(
            tables, "audit_log", event_type="room_created", user_id=person.id, room_id=room
        )
        person.owns("audit_log", line)
        # Of nobody: that somebody tried to get into the room is not told through this role.
        await insert(tables, "audit_log", event_type="room_access_denied", room_id=room)
    preset = await insert(tables, "mix_presets", user_id=person.id, name="mine")
    person.owns("mix_presets", preset)
    await insert(tables, "mix_presets", participant_id=uuid4(), name="a guest's")
    await insert(
        tables,
        "refresh_tokens",
        user_id=person.id,
        hash=uuid4().bytes,
        family=uuid4(),
        expires_at=until,
    )
    await insert(
        tables, "account_invites", created_by=person.id, hash=uuid4().bytes, expires_at=until
    )


@asynccontextmanager
async def acting_as(tables: Connection, claims: str) -> AsyncIterator[None]:
    """What is done inside is done as `authenticated`, with the claims of a token, and undone."""
    transaction = tables.transaction()
    await transaction.start()
    try:
        await tables.execute("SET LOCAL ROLE authenticated")
        await tables.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        yield
    finally:
        await transaction.rollback()


async def everything(tables: Connection, claims: str) -> dict[str, list[asyncpg.Record]]:
    """All that somebody gets of everything that may be asked."""
    readable = await tables.fetch(READABLE)
    async with acting_as(tables, claims):
        return {
            row["relname"]: await tables.fetch(
                f"SELECT {', '.join(row['columns'])} FROM relay.{row['relname']}"
            )
            for row in readable
        }


def claims_of(person: Person) -> str:
    return f'{{"sub": "{person.id}"}}'


async def test_each_sees_what_is_their_own_and_nothing_else(
    tables: Connection, people: tuple[Person, Person]
) -> None:
    relations = {row["relname"] for row in await tables.fetch(RELATIONS)}
    for person in people:
        seen = await everything(tables, claims_of(person))
        # A table or view of which this test knows nothing is one about which nobody has thought.
        assert set(seen) == relations - CLOSED
        assert set(seen) == set(person.own)
        for table, rows in seen.items():
            assert {row["id"] for row in rows} == person.own[table], table
            assert len(rows) == len(person.own[table])
        assert SECRET not in repr(seen)


async def test_a_user_gets_the_same_from_a_server_s_pool(
    database: Database, tables: Connection, people: tuple[Person, Person]
) -> None:
    """The claims of one transaction are not those of the next on the same connection."""

    async def rooms(claims: dict[str, Any] | None) -> set[UUID]:
        async with database.transaction(claims=claims) as connection:
            return {row[0] for row in await connection.fetch("SELECT id FROM relay.audio_rooms")}

    anna, bert = people
    every = anna.own["audio_rooms"] | bert.own["audio_rooms"]
    asked: list[dict[str, Any] | None] = [{"sub": str(anna.id)}, {"sub": str(bert.id)}, {}, None]
    found = await asyncio.gather(*(rooms(claims) for _ in range(20) for claims in asked))
    assert found == [anna.own["audio_rooms"], bert.own["audio_rooms"], set(), every] * 20


@pytest.mark.parametrize("claims", ["", "{}", '{"sub": null}', f'{{"sub": "{UUID(int=1)}"}}'])
async def test_who_is_nobody_sees_nothing(
    tables: Connection, people: tuple[Person, Person], claims: str
) -> None:
    seen = await everything(tables, claims)
    assert {table: rows for table, rows in seen.items() if rows} == {}


async def test_hashes_tokens_and_invites_are_not_to_be_read(
    tables: Connection, people: tuple[Person, Person]
) -> None:
    readable = {row["relname"]: row["columns"] for row in await tables.fetch(READABLE)}
    assert not CLOSED & set(readable)
    for columns in readable.values():
        for word in ("hash", "token", "secret", "invite", "session_version", "family"):
            assert not [column for column in columns if word in column]
    for query in (
        "SELECT password_hash FROM relay.users",
        "SELECT password_hash FROM relay.audio_rooms",
        "SELECT * FROM relay.users",
        *(f"SELECT count(*) FROM relay.{table}" for table in CLOSED),
    ):
        async with acting_as(tables, claims_of(people[0])):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await tables.fetch(query)


async def test_nobody_writes(tables: Connection, people: tuple[Person, Person]) -> None:
    for row in await tables.fetch(RELATIONS):
        name = row["relname"]
        for write in WRITES:
            async with acting_as(tables, claims_of(people[0])):
                with pytest.raises(asyncpg.PostgresError) as caught:
                    await tables.execute(write.format(name, row["first_column"]))
            # Of a view some of that is no statement at all.
            expected = asyncpg.InsufficientPrivilegeError
            if row["relkind"] == "v":
                assert isinstance(
                    caught.value,
                    (
                        expected,
                        asyncpg.WrongObjectTypeError,
                        asyncpg.ObjectNotInPrerequisiteStateError,
                    ),
                ), (write, name)
            else:
                assert isinstance(caught.value, expected), (write, name)
    for statement in (
        "CREATE TABLE relay.mine (id uuid)",
        "CREATE FUNCTION relay.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION relay.current_user_id OWNER TO authenticated",
        "CREATE POLICY mine ON relay.users USING (true)",
    ):
        async with acting_as(tables, claims_of(people[0])):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await tables.execute(statement)


async def gaps(tables: Connection) -> set[str]:
    """Relations through which somebody could see what is not their own, by what they are."""
    readable = {row["relname"] for row in await tables.fetch(READABLE)}
    policies = {
        row["tablename"]
        for row in await tables.fetch("SELECT tablename FROM pg_policies WHERE schemaname='relay'")
    }
    invoker = {
        row["relname"]
        for row in await tables.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'relay'::regnamespace"
            " AND 'security_invoker=true' = ANY (reloptions)"
        )
    }
    found = set()
    for row in await tables.fetch(RELATIONS):
        name, kind = row["relname"], row["relkind"]
        if kind in "rp":
            fine = row["relrowsecurity"] and (name in CLOSED or name in policies)
        else:
            fine = kind == "v" and name in invoker
        if not fine or (name in readable and name in CLOSED):
            found.add(name)
    definers = await tables.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'relay'::regnamespace AND prosecdef"
        " AND has_function_privilege('authenticated', oid, 'EXECUTE')"
    )
    return found | {row["proname"] for row in definers}


@pytest.mark.parametrize(
    "addition",
    [
        "CREATE TABLE relay.later (id uuid)",
        "CREATE TABLE relay.later (id uuid); GRANT SELECT ON relay.later TO authenticated",
        "CREATE TABLE relay.later (id uuid); ALTER TABLE relay.later ENABLE ROW LEVEL SECURITY",
        "CREATE VIEW relay.later AS SELECT id FROM relay.audio_rooms",
        "CREATE MATERIALIZED VIEW relay.later AS SELECT id FROM relay.audio_rooms",
        "CREATE FUNCTION relay.later() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT count(*) FROM relay.users'",
    ],
)
async def test_what_is_added_without_a_policy_is_found(tables: Connection, addition: str) -> None:
    assert await gaps(tables) == set()
    transaction = tables.transaction()
    await transaction.start()
    await tables.execute(addition)
    assert await gaps(tables) == {"later"}
    await transaction.rollback()


async def test_no_role_but_the_owner_and_users_gets_at_anything(tables: Connection) -> None:
    rows = await tables.fetch("""
        SELECT DISTINCT r.rolname FROM pg_class c, pg_roles r
        WHERE c.relnamespace = 'relay'::regnamespace AND c.relkind IN ('r', 'v')
            AND NOT r.rolsuper AND r.rolname NOT LIKE 'pg\\_%' AND r.oid <> c.relowner
            AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
    """)
    assert {row["rolname"] for row in rows} <= {"authenticated"}
    everybody = await tables.fetch(
        "SELECT relname FROM pg_class, aclexplode(relacl) WHERE grantee = 0"
        " AND relnamespace = 'relay'::regnamespace"
    )
    assert everybody == []
    owner = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    assert await tables.fetchval(owner) is False  # the service needs to be neither
