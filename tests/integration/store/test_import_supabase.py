"""`roomserver import-supabase`: from a database with the Node server's tables, odd rows and all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import bcrypt
import pytest
from typer.testing import CliRunner, Result

from roomserver.cli import app
from roomserver.store.database import Connection
from support.api_client import Api
from support.postgres import Cluster, url
from support.server import ServerProcess

NODE = """
DROP SCHEMA IF EXISTS auth CASCADE;
CREATE SCHEMA auth;
CREATE TABLE auth.users (
    id uuid PRIMARY KEY, email varchar(255), encrypted_password varchar(255),
    created_at timestamptz DEFAULT '2024-01-01Z', banned_until timestamptz
);
CREATE TABLE public.audio_rooms (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code text, password_hash text,
    created_by uuid REFERENCES auth.users, created_at timestamptz DEFAULT '2024-02-01Z',
    updated_at timestamptz DEFAULT '2024-02-02Z', active boolean DEFAULT true,
    public boolean DEFAULT false, suspended_until timestamptz, metadata jsonb
);
CREATE TABLE public.room_participants (
    room_id uuid, user_id uuid, nickname text, client_id text, role text,
    joined_at timestamptz DEFAULT '2024-02-01 20:00Z', left_at timestamptz,
    connection_duration integer
);
CREATE TABLE public.room_analytics (
    id bigserial PRIMARY KEY, room_id uuid, date date, peak_listeners integer,
    total_listen_minutes numeric, total_listeners integer, avg_latency_ms numeric,
    total_packets_sent bigint, total_packets_received bigint
);
CREATE TABLE public.audit_log (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text, user_id uuid, room_id uuid,
    ip_address text, user_agent text, details jsonb, created_at timestamptz DEFAULT '2024-02-01Z'
);
"""
NO_NODE = """
DROP TABLE IF EXISTS public.audio_rooms, public.room_participants, public.room_analytics,
    public.audit_log;
DROP SCHEMA IF EXISTS auth CASCADE;
"""
# Everything that is the Node server's, to see that nothing in it changed.
STATE = " UNION ALL ".join(
    f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t"
    for table in ("auth.users", "audio_rooms", "room_participants", "room_analytics", "audit_log")
)


@pytest.fixture
async def node(tables: Connection) -> AsyncIterator[Connection]:
    """A connection to the database in which the Node server's tables are beside ours."""
    await tables.execute(NO_NODE + NODE)
    yield tables
    await tables.execute(NO_NODE)


def hashed(password: str, prefix: str = "$2b$") -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", prefix)


async def add_user(node: Connection, email: str | None, password_hash: str | None) -> UUID:
    user = uuid4()
    query = "INSERT INTO auth.users (id, email, encrypted_password) VALUES ($1, $2, $3)"
    await node.execute(query, user, email, password_hash)
    return user


async def add_room(node: Connection, owner: UUID | None, code: str, **fields: object) -> UUID:
    room: UUID = await node.fetchval(
        "INSERT INTO public.audio_rooms (code, created_by, password_hash, metadata)"
        " VALUES ($1, $2, $3, '{}') RETURNING id",
        code,
        owner,
        hashed(f"room {code}"),
    )
    for name, value in fields.items():
        await node.execute(f"UPDATE public.audio_rooms SET {name} = $2 WHERE id = $1", room, value)
    return room


async def run(cluster: Cluster, *options: str, source: str | None = None) -> Result:
    return await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["import-supabase", *options],
        env=cluster.variables() | {"ROOMSERVER_IMPORT_FROM": source or url(cluster.connection)},
    )


async def imported(cluster: Cluster, *options: str) -> list[str]:
    """What it says."""
    done = await run(cluster, *options)
    assert done.exit_code == 0, done.output
    return [line.strip() for line in done.stdout.splitlines()]


def told(said: list[str], reason: str) -> list[str]:
    """The rows that are named for a reason."""
    at = next(index for index, line in enumerate(said) if line.endswith(reason))
    count = int(said[at].split(":")[0].rsplit(", ")[1])
    return said[at + 1 : at + 1 + count]


@pytest.mark.parametrize("cluster", ["newest"], indirect=True)
async def test_imported_users_log_in_and_imported_rooms_are_joined(
    cluster: Cluster, node: Connection, tmp_path: Path
) -> None:
    prefixes = {"anna": "$2a$", "bert": "$2b$", "cleo": "$2y$"}
    users = {
        name: await add_user(node, f"{name}@example.org", hashed(f"of {name}", prefix))
        for name, prefix in prefixes.items()
    }
    codes = ("ABC234", "lower7", "Mixed0", "with-dash_and more")
    rooms = {code: await add_room(node, users["anna"], code) for code in codes}
    before = await node.fetch(STATE)

    with await asyncio.to_thread(
        ServerProcess.start, tmp_path, env=cluster.variables()
    ) as server:  # while it runs; it takes the rooms up with its next heartbeat
        said = await imported(cluster)
        assert "auth.users: 3 read, 3 added, 0 updated, 0 known already, 0 not taken" in said
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            for name in prefixes:
                assert await api.login(f"{name}@example.org", f"of {name}")
            query = "SELECT count(server_id) FROM relay.audio_rooms"
            async with asyncio.timeout(60):
                while await node.fetchval(query) < len(codes):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                while (  # noqa: ASYNC110 - nor does the server
                    (await api.call("GET", "/health")).body["rooms"] < len(codes)
                ):
                    await asyncio.sleep(0.02)
            for code, room in rooms.items():
                answer = await api.call(
                    "POST",
                    "/auth/room/join",
                    json={"roomCode": code, "password": f"room {code}"},
                )
                assert answer.status == 200, answer
                assert answer.body["roomId"] == str(room)
    hashes = await node.fetch("SELECT password_hash FROM relay.users ORDER BY email")
    assert [row[0][:4] for row in hashes] == list(prefixes.values())
    assert await node.fetch(STATE) == before


async def test_a_second_run_takes_what_is_new(cluster: Cluster, node: Connection) -> None:
    anna = await add_user(node, "anna@example.org", hashed("x"))
    room = await add_room(node, anna, "ABC234", metadata='{"name": "Hall", "big": 12345678901234}')
    stay = "INSERT INTO public.room_participants (room_id, client_id, role, left_at) VALUES "
    await node.execute(f"{stay} ($1, 'open', 'listener', NULL)", room)
    await node.execute(f"{stay} ($1, 'gone', 'listener', '2024-02-01 20:10Z')", room)
    await node.execute(
        "INSERT INTO public.room_analytics (room_id, date, peak_listeners, total_listen_minutes)"
        " VALUES ($1, '2024-02-01', 2, 10.5)",
        room,
    )
    await node.execute("INSERT INTO public.audit_log (event_type) VALUES ('room_created')")
    await imported(cluster)
    again = await imported(cluster)
    counts = [line for line in again if " read, " in line]
    assert len(counts) == 5
    assert all("0 added, 0 updated" in line and "0 not taken" in line for line in counts)

    await add_user(node, "bert@example.org", hashed("y"))
    await node.execute(f"{stay} ($1, 'new', 'broadcaster', '2024-02-01 21:00Z')", room)
    await node.execute(
        "UPDATE public.room_participants SET left_at = '2024-02-01 20:30Z',"
        " connection_duration = 1799 WHERE client_id = 'open'"
    )
    await node.execute("UPDATE public.audio_rooms SET active = false")
    said = await imported(cluster)
    assert "auth.users: 2 read, 1 added, 0 updated, 1 known already, 0 not taken" in said
    assert "public.audio_rooms: 1 read, 0 added, 1 updated, 0 known already, 0 not taken" in said
    assert (
        "public.room_participants: 3 read, 1 added, 1 updated, 1 known already, 0 not taken" in said
    )
    row = await node.fetchrow(
        "SELECT name, state, closed_at::date::text, metadata -> 'big' FROM relay.audio_rooms"
    )
    assert row is not None
    assert tuple(row) == ("Hall", "closed", "2024-02-02", "12345678901234")
    stays = await node.fetch(
        "SELECT client_id, connection_duration, leave_reason FROM relay.room_participants"
        " ORDER BY 1"
    )
    assert [tuple(row) for row in stays] == [
        ("gone", 600, None),
        ("new", 3600, None),
        ("open", 1799, None),
    ]
    day = await node.fetchrow(
        "SELECT peak_listeners, total_listen_minutes, final FROM relay.room_analytics"
    )
    assert day is not None
    assert tuple(day) == (2, 10.5, True)


async def test_odd_rows_are_taken_as_far_as_they_go_or_named(
    cluster: Cluster, node: Connection
) -> None:
    anna = await add_user(node, "Anna@Example.org", hashed("x"))
    double = await add_user(node, "aNNa@example.ORG", hashed("x"))
    first, second = sorted((anna, double))
    linked = await add_user(node, "linked@example.org", None)
    crypt = await add_user(node, "crypt@example.org", "$1$salt$hash")
    dear = await add_user(node, "dear@example.org", hashed("x").replace("$04$", "$31$"))
    phone = await add_user(node, None, hashed("x"))
    no_address = await add_user(node, "not an address", hashed("x"))
    banned = await add_user(node, "banned@example.org", hashed("x"))
    await node.execute("UPDATE auth.users SET banned_until = 'infinity' WHERE id = $1", banned)

    whole = await add_room(node, first, "WHOLE")
    orphan = await add_room(node, second, "ORPHAN", metadata=None)
    open_room = await add_room(node, first, "OPEN", password_hash=None, public=None)
    suspended = await add_room(node, first, "SUSP", metadata="[1]")
    await node.execute(
        "UPDATE public.audio_rooms SET suspended_until = '2124-01-01Z' WHERE id = $1", suspended
    )
    twins = [await add_room(node, first, "TWIN") for _ in range(2)]
    closed_twin = await add_room(node, first, "TWIN", active=False)
    long = await add_room(node, first, "x" * 65)

    nobody, nowhere = uuid4(), uuid4()
    stays = [
        (whole, first, None, "c1", "listener", None),  # no nickname, and still open
        (whole, nobody, "Unknown", "c2", "listener", "2024-02-01 20:01Z"),
        (whole, None, "Guest", None, "broadcaster", "2024-02-01 20:02Z"),
        (whole, None, "Guest", "c3", "engineer", None),
        (nowhere, None, "Lost", "c4", "listener", None),
        (whole, None, "Back", "c5", "listener", "2024-02-01 19:00Z"),
        (whole, None, "L" * 201, "c6", "listener", None),
    ]
    await node.executemany(
        "INSERT INTO public.room_participants"
        " (room_id, user_id, nickname, client_id, role, left_at)"
        " VALUES ($1, $2, $3, $4, $5, $6::text::timestamptz)",
        stays,
    )
    await node.executemany(
        "INSERT INTO public.audit_log (event_type, user_id, room_id, ip_address, details)"
        " VALUES ($1, $2, $3, $4, $5)",
        [
            ("login_success", first, None, "10.0.0.1", None),
            ("room_joined", nobody, nowhere, "2001:db8::1", '{"a": 1}'),
            ("party_started", None, None, None, None),
            ("room_left", None, None, "not an address", None),
        ],
    )
    await node.execute(
        "INSERT INTO public.room_analytics (room_id, date) VALUES ($1, '2024-02-01')", nowhere
    )

    said = await imported(cluster, "--all")

    assert "auth.users: 8 read, 5 added, 0 updated, 0 known already, 3 not taken" in said
    assert told(said, "another account has its address") == [str(second)]
    assert told(said, "it has no e-mail address") == [str(phone)]
    assert told(said, "that is not an e-mail address") == [str(no_address)]
    assert told(said, "without a password there: needs a new password") == [str(linked)]
    assert set(told(said, "no bcrypt hash that can be checked: needs a new password")) == {
        str(crypt),
        str(dear),
    }
    assert told(said, "deleted or banned there, so disabled") == [str(banned)]
    out = await node.fetch("SELECT id FROM relay.users WHERE disabled_at IS NOT NULL")
    assert [row["id"] for row in out] == [banned]

    assert "public.audio_rooms: 8 read, 6 added, 0 updated, 0 known already, 2 not taken" in said
    assert told(said, "an open room has its code") == [str(max(twins))]
    assert told(said, 'violates check constraint "audio_rooms_code_check"') == [str(long)]
    assert told(said, "without a password, so open to everyone") == [str(open_room)]
    rows = await node.fetch("SELECT id, state, created_by, metadata::text FROM relay.audio_rooms")
    rooms = {row["id"]: tuple(row)[1:] for row in rows}
    assert rooms == {
        whole: ("waiting", first, "{}"),
        orphan: ("waiting", None, "{}"),
        open_room: ("waiting", first, "{}"),
        suspended: ("suspended", first, '{"value": [1]}'),
        min(twins): ("waiting", first, "{}"),
        closed_twin: ("closed", first, "{}"),
    }

    taken = "public.room_participants: 7 read, 3 added, 0 updated, 0 known already, 4 not taken"
    assert taken in said
    for reason in (
        "its role is neither broadcaster nor listener",
        "its room is not here",
        "it left before it joined",
        'violates check constraint "room_participants_nickname_check"',
    ):
        assert len(told(said, reason)) == 1
    rows = await node.fetch(
        "SELECT nickname, user_id, left_at IS NULL, leave_reason, connection_duration"
        " FROM relay.room_participants ORDER BY nickname"
    )
    assert [tuple(row) for row in rows] == [
        ("Guest", None, False, None, 120),
        ("Unknown", None, False, None, 60),
        (None, first, False, "server_lost", 0),
    ]
    assert "public.audit_log: 4 read, 2 added, 0 updated, 0 known already, 2 not taken" in said
    rows = await node.fetch("SELECT user_id, room_id, details FROM relay.audit_log ORDER BY 1")
    assert [tuple(row) for row in rows] == [(first, None, "{}"), (None, None, '{"a": 1}')]


async def test_more_rows_than_one_batch(cluster: Cluster, node: Connection) -> None:
    room = await add_room(node, None, "BIG")
    await node.execute(
        "INSERT INTO public.room_participants (room_id, client_id, role, left_at)"
        " SELECT $1, 'c' || n, CASE WHEN n % 600 = 0 THEN 'odd' ELSE 'listener' END,"
        " '2024-02-01 20:30Z' FROM generate_series(1, 1800) n",
        room,
    )
    said = await imported(cluster)
    counts = "1800 read, 1797 added, 0 updated, 0 known already, 3 not taken"
    assert f"public.room_participants: {counts}" in said
    assert await node.fetchval("SELECT count(*) FROM relay.room_participants") == 1797


async def test_a_source_that_can_not_be_read_is_told(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    away = f"postgresql://u:hidden@/d?host={tmp_path}"
    for source, complaint in (
        (url(cluster.connection), "has no table auth.users"),
        (url(cluster.connection | {"password": "hidden"}), "password authentication failed"),
        (away, "can't be reached"),
        ("mysql://u:hidden@h/d", "that is no postgresql:// address"),
    ):
        refused = await run(cluster, source=source)
        assert refused.exit_code == 1
        assert complaint in refused.stderr
        assert "hidden" not in refused.output
    await tables.execute(NO_NODE + NODE + "ALTER TABLE audio_rooms DROP code")
    refused = await run(cluster)
    await tables.execute(NO_NODE)
    assert "public.audio_rooms has no column code" in refused.stderr


async def test_without_a_database_there_is_nowhere_to_import_to() -> None:
    refused = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["import-supabase", "--from", "postgresql://h/d", "--database-url", "none"],
    )
    assert refused.exit_code == 2
    assert "there is no database" in refused.stderr
