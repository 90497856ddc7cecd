"""What the Node server kept in its Supabase database, copied into ours.

The source is read in one transaction that can't write and sees one moment. Rows are taken in
batches, each in a transaction of ours. Ids stay as they are, so that a second run finds what it
took and adds what is new. A row that can't be taken stops nothing: it is counted, and named with
the reason.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from roomserver.auth.accounts import InvalidEmailError, check_email
from roomserver.protocol.codes import Role
from roomserver.store.database import AWAY, CONNECT_TIMEOUT_S, Connection, Database
from roomserver.store.records import UNUSABLE_HASH, AuditEvent

BATCH = 500
# Of rows whose source has no ids: a second run makes the same.
NAMESPACE = uuid.UUID("5b1d0f3e-6a57-4f0e-9d0c-8a4f4a5c2f10")
BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
ROUNDS = range(4, 17)  # more would keep a thread busy for minutes


class SourceError(Exception):
    """The source can't be read; the message says why."""


class RefusedRowError(Exception):
    """A row that can't be taken, and why."""


Row = dict[str, Any]


@dataclass
class Outcome:
    """What became of a table's rows."""

    name: str
    read: int = 0
    added: int = 0
    updated: int = 0
    # Why rows were taken otherwise than they stood, or not at all, and which.
    altered: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def known(self) -> int:
        """How many were there already."""
        return self.read - self.added - self.updated - sum(map(len, self.refused.values()))


@dataclass(frozen=True)
class Table:
    """A table of the source, and what is made of its rows.

    convert: our row of one of theirs; may say in what it differs; raises RefusedRowError.
    statement: takes rows, as JSON; returns `id` of those taken, and whether each is new.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[Mapping[str, Any], Callable[[str], None]], Row]
    statement: str


# ---- their rows ----


def _user(row: Mapping[str, Any], altered: Callable[[str], None]) -> Row:
    if row["email"] is None:
        raise RefusedRowError("it has no e-mail address")
    try:
        email = check_email(row["email"])
    except InvalidEmailError as error:
        raise RefusedRowError(str(error)) from None
    out_since = row.get("deleted_at")
    banned = row.get("banned_until")
    if out_since is None and banned is not None and _utc(banned) > datetime.now(UTC):
        out_since = datetime.now(UTC)
    if out_since is not None:
        altered("deleted or banned there, so disabled")
    return {
        "id": _uuid(row["id"]),
        "email": email,
        "password_hash": _password_hash(row["encrypted_password"] or None, altered)
        or _unusable("without a password there", altered),
        "created_at": _time(row.get("created_at")) or _time(datetime.now(UTC)),
        "disabled_at": _time(out_since),
    }


def _room(row: Mapping[str, Any], altered: Callable[[str], None]) -> Row:
    code, metadata = row["code"], _json(row["metadata"])
    if not code:
        raise RefusedRowError("it has no code")
    if not isinstance(metadata, dict):
        metadata = {} if metadata is None else {"value": metadata}
    password_hash = _password_hash(row["password_hash"], altered)
    if password_hash is None:
        altered("without a password, so open to everyone")
    active, until = bool(row["active"]), row["suspended_until"]
    state = "closed" if not active else "suspended" if until is not None else "waiting"
    name = metadata.get("name")
    closed_at = row["updated_at"] or row["created_at"] or datetime.now(UTC)
    return {
        "id": _uuid(row["id"]),
        "code": str(code),
        "name": name if isinstance(name, str) and 0 < len(name) <= 200 else f"Room {code}",
        "password_hash": password_hash,
        "created_by": _uuid(row["created_by"]) if row["created_by"] else None,
        "created_at": _time(row["created_at"] or closed_at),
        "active": active,
        "public": bool(row["public"]),
        "state": state,
        "suspended_until": _time(until) if state == "suspended" else None,
        "metadata": metadata,
        "closed_at": None if active else _time(closed_at),
    }


def _stay(row: Mapping[str, Any], altered: Callable[[str], None]) -> Row:
    if row["role"] not in tuple(Role):
        raise RefusedRowError("its role is neither broadcaster nor listener")
    room, joined, left = _uuid(row["room_id"]), row["joined_at"], row["left_at"]
    if joined is None:
        raise RefusedRowError("it has no joined_at")
    user = _uuid(row["user_id"]) if row["user_id"] else None
    duration = _seconds(row["connection_duration"])
    if left is None:
        # When it ended is not known, and it must not look as if it went on.
        altered("still open there, ended here")
        left, reason = _utc(joined) + timedelta(seconds=duration or 0.0), "server_lost"
    else:
        reason = None
        if _utc(left) < _utc(joined):
            raise RefusedRowError("it left before it joined")
    parts = (room, user, row["client_id"], row["nickname"], row["role"], _time(joined))
    made = _id(row, "room_participants", *parts)
    return {
        "id": made,
        "room_id": room,
        "user_id": user,
        # Whoever it was: the user, else what one client called itself.
        "participant_id": user or _made_id("participant", room, row["client_id"] or made),
        "nickname": row["nickname"],
        "client_id": None if row["client_id"] is None else str(row["client_id"]),
        "role": row["role"],
        "joined_at": _time(joined),
        "left_at": _time(left),
        "connection_duration": (_utc(left) - _utc(joined)).total_seconds()
        if duration is None
        else duration,
        "leave_reason": reason,
    }


def _day(row: Mapping[str, Any], altered: Callable[[str], None]) -> Row:
    day: date | None = row["date"]
    if day is None:
        raise RefusedRowError("it has no date")
    if isinstance(day, datetime):
        day = day.date()
    room = _uuid(row["room_id"])
    return {
        "id": _id(row, "room_analytics", room, day.isoformat()),
        "room_id": room,
        "date": day.isoformat(),
        # Days that are over are as they were there; today goes on here.
        "final": day < datetime.now(UTC).date(),
        **{
            name: None if row[name] is None else float(row[name])
            for name in ("avg_latency_ms", "total_listen_minutes")
        },
        **{
            name: int(row[name] or 0)
            for name in (
                "peak_listeners",
                "total_listeners",
                "total_packets_sent",
                "total_packets_received",
            )
        },
    }


def _line(row: Mapping[str, Any], altered: Callable[[str], None]) -> Row:
    event, at, details = row["event_type"], row["created_at"], _json(row["details"])
    if event not in tuple(AuditEvent):
        raise RefusedRowError(f"there is no event type {str(event)[:40]!r}")
    if at is None:
        raise RefusedRowError("it has no created_at")
    if not isinstance(details, dict):
        details = {} if details is None else {"value": details}
    address = None if row["ip_address"] is None else str(row["ip_address"])
    user = _uuid(row["user_id"]) if row["user_id"] else None
    room = _uuid(row["room_id"]) if row["room_id"] else None
    return {
        "id": _id(row, "audit_log", event, user, room, address, _time(at), json.dumps(details)),
        "event_type": event,
        "user_id": user,
        "room_id": room,
        "ip_address": address,
        "user_agent": row["user_agent"],
        "details": details,
        "created_at": _time(at),
    }


# ---- our tables ----

USERS = Table(
    "auth.users",
    ("id", "email", "encrypted_password"),
    ("created_at", "deleted_at", "banned_until"),
    _user,
    """
    INSERT INTO relay.users (id, email, password_hash, created_at, disabled_at)
    SELECT * FROM jsonb_to_recordset($1) AS r (
        id uuid, email text, password_hash text, created_at timestamptz, disabled_at timestamptz
    )
    ON CONFLICT (id) DO NOTHING
    RETURNING id::text, true AS added
    """,
)
ROOMS = Table(
    "public.audio_rooms",
    (
        *("id", "code", "password_hash", "created_by", "created_at", "updated_at", "active"),
        *("public", "suspended_until", "metadata"),
    ),
    (),
    _room,
    # A second run brings a room up to date as long as no server of ours has it.
    """
    INSERT INTO relay.audio_rooms AS o (
        id, code, name, password_hash, created_by, created_at, active, public, state,
        suspended_until, metadata, closed_at
    )
    SELECT * FROM jsonb_to_recordset($1) AS r (
        id uuid, code text, name text, password_hash text, created_by uuid, created_at timestamptz,
        active boolean, public boolean, state text, suspended_until timestamptz, metadata jsonb,
        closed_at timestamptz
    )
    ON CONFLICT (id) DO UPDATE SET
        code = excluded.code, name = excluded.name, password_hash = excluded.password_hash,
        created_by = coalesce(excluded.created_by, o.created_by), active = excluded.active,
        public = excluded.public, state = excluded.state, metadata = excluded.metadata,
        suspended_until = excluded.suspended_until, closed_at = excluded.closed_at
    WHERE o.version = 1 AND o.server_id IS NULL AND (
        o.code, o.password_hash, o.created_by, o.public, o.state, o.suspended_until, o.metadata
    ) IS DISTINCT FROM (
        excluded.code, excluded.password_hash, coalesce(excluded.created_by, o.created_by),
        excluded.public, excluded.state, excluded.suspended_until, excluded.metadata
    )
    RETURNING id::text, xmax = 0 AS added
    """,
)
STAYS = Table(
    "public.room_participants",
    (
        *("room_id", "user_id", "nickname", "client_id", "role", "joined_at", "left_at"),
        "connection_duration",
    ),
    ("id",),
    _stay,
    """
    INSERT INTO relay.room_participants AS o (
        id, room_id, user_id, participant_id, nickname, client_id, role, joined_at, left_at,
        connection_duration, leave_reason
    )
    SELECT * FROM jsonb_to_recordset($1) AS r (
        id uuid, room_id uuid, user_id uuid, participant_id uuid, nickname text, client_id text,
        role text, joined_at timestamptz, left_at timestamptz,
        connection_duration double precision, leave_reason text
    )
    ON CONFLICT (id) DO UPDATE SET
        left_at = excluded.left_at, connection_duration = excluded.connection_duration,
        leave_reason = excluded.leave_reason
    WHERE o.leave_reason = 'server_lost' AND excluded.leave_reason IS NULL
    RETURNING id::text, xmax = 0 AS added
    """,
)
DAYS = Table(
    "public.room_analytics",
    (
        *("room_id", "date", "peak_listeners", "total_listen_minutes", "total_listeners"),
        *("avg_latency_ms", "total_packets_sent", "total_packets_received"),
    ),
    ("id",),
    _day,
    """
    INSERT INTO relay.room_analytics AS o (
        id, room_id, date, peak_listeners, total_listen_minutes, total_listeners, avg_latency_ms,
        total_packets_sent, total_packets_received, final
    )
    SELECT id, room_id, date, peak_listeners, coalesce(total_listen_minutes, 0), total_listeners,
        avg_latency_ms, total_packets_sent, total_packets_received, final
    FROM jsonb_to_recordset($1) AS r (
        id uuid, room_id uuid, date date, peak_listeners integer,
        total_listen_minutes double precision, total_listeners integer,
        avg_latency_ms double precision, total_packets_sent bigint, total_packets_received bigint,
        final boolean
    )
    -- A day that this server has made of the stays meanwhile: the other knew more of it.
    ON CONFLICT (room_id, date) DO UPDATE SET
        peak_listeners = excluded.peak_listeners,
        total_listen_minutes = excluded.total_listen_minutes,
        total_listeners = excluded.total_listeners, avg_latency_ms = excluded.avg_latency_ms,
        total_packets_sent = excluded.total_packets_sent,
        total_packets_received = excluded.total_packets_received, final = excluded.final
    WHERE NOT o.final AND excluded.final
    RETURNING id::text, true AS added
    """,
)
AUDIT = Table(
    "public.audit_log",
    (
        *("event_type", "user_id", "room_id", "ip_address", "user_agent", "details"),
        "created_at",
    ),
    ("id",),
    _line,
    """
    INSERT INTO relay.audit_log (
        id, event_type, user_id, room_id, ip_address, user_agent, details, created_at
    )
    SELECT * FROM jsonb_to_recordset($1) AS r (
        id uuid, event_type text, user_id uuid, room_id uuid, ip_address inet, user_agent text,
        details jsonb, created_at timestamptz
    )
    ON CONFLICT (id) DO NOTHING
    RETURNING id::text, true AS added
    """,
)
TABLES = (USERS, ROOMS, STAYS, DAYS, AUDIT)  # each after those that it refers to
COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0"
USERS_KNOWN = "SELECT id::text FROM relay.users WHERE id = ANY ($1::text[]::uuid[])"
ROOMS_KNOWN = "SELECT id::text FROM relay.audio_rooms WHERE id = ANY ($1::text[]::uuid[])"
# What the database says, in words.
TAKEN = {
    "users_email": "another account has its address",
    "audio_rooms_open_code": "an open room has its code",
}


@dataclass(frozen=True)
class Progress:
    """How far it is: called with a table's name and its number of rows, and after each batch."""

    begins: Callable[[str, int], None]
    advances: Callable[[int], None]


async def import_supabase(address: str, target: Database, progress: Progress) -> list[Outcome]:
    """Copies everything from the database at `address`. `target` has to be up to date.

    Raises SourceError and, for the target, DatabaseAwayError; what was copied before stays.
    """
    source = await _connect(address)
    try:
        async with source.transaction(isolation="repeatable_read", readonly=True):
            columns = [await _columns(source, table) for table in TABLES]
            return [
                await _copy(source, target, table, names, progress)
                for table, names in zip(TABLES, columns, strict=True)
            ]
    finally:
        with contextlib.suppress(*AWAY):
            await source.close(timeout=CONNECT_TIMEOUT_S)


async def _connect(address: str) -> Connection:
    try:
        # No statement is kept: it may be the address of a pooler.
        return await asyncpg.connect(address, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    except asyncpg.PostgresError as error:
        raise SourceError(str(error)) from None
    except ValueError:  # asyncpg's may repeat the address, which has a password
        raise SourceError("that is no postgresql:// address") from None
    except AWAY as error:
        raise SourceError(f"can't be reached: {str(error) or type(error).__name__}") from None


async def _read(reading: Awaitable[Any]) -> Any:
    """Reads from the source."""
    try:
        return await reading
    except asyncpg.PostgresError as error:
        raise SourceError(str(error)) from None
    except AWAY as error:
        raise SourceError(f"went away: {str(error) or type(error).__name__}") from None


async def _columns(source: Connection, table: Table) -> list[str]:
    there = {row["attname"] for row in await _read(source.fetch(COLUMNS, table.name))}
    if not there:
        raise SourceError(f"has no table {table.name}, or it may not be read")
    if missing := set(table.required) - there:
        raise SourceError(f"{table.name} has no column {', '.join(sorted(missing))}")
    return [*table.required, *(name for name in table.optional if name in there)]


async def _copy(
    source: Connection, target: Database, table: Table, columns: list[str], progress: Progress
) -> Outcome:
    outcome = Outcome(table.name)
    names = ", ".join(f'"{name}"' for name in columns)
    count = await _read(source.fetchval(f"SELECT count(*) FROM {table.name}"))  # noqa: S608 - ours
    progress.begins(table.name, count)
    query = f"SELECT {names} FROM {table.name} ORDER BY {names}"  # noqa: S608 - ours
    cursor = await _read(source.cursor(query))
    while rows := await _read(cursor.fetch(BATCH)):
        outcome.read += len(rows)
        async with target.transaction() as connection:
            await _take(connection, table, rows, outcome)
        progress.advances(len(rows))
    return outcome


async def _take(
    connection: Connection, table: Table, rows: Sequence[asyncpg.Record], outcome: Outcome
) -> None:
    ours: list[tuple[str, Row]] = []
    for row in map(dict, rows):
        name = _name(row)
        notes: list[str] = []
        try:
            made = table.convert(row, notes.append)
        except RefusedRowError as error:
            outcome.refused[str(error)].append(name)
            continue
        for note in notes:
            outcome.altered[note].append(name)
        ours.append((name, made))
    ours = await _known(connection, ours, outcome)
    try:
        async with connection.transaction():
            _count(outcome, await _put(connection, table, [made for _, made in ours]))
    except asyncpg.PostgresError:
        for name, made in ours:  # one of them is refused, the rest is not
            try:
                async with connection.transaction():
                    _count(outcome, await _put(connection, table, [made]))
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
                constraint = getattr(error, "constraint_name", None)
                outcome.refused[TAKEN.get(constraint or "", error.args[0])].append(name)


async def _put(connection: Connection, table: Table, rows: list[Row]) -> list[asyncpg.Record]:
    return await connection.fetch(table.statement, rows)


def _count(outcome: Outcome, taken: Sequence[asyncpg.Record]) -> None:
    added = sum(row["added"] for row in taken)
    outcome.added += added
    outcome.updated += len(taken) - added


async def _known(
    connection: Connection, rows: list[tuple[str, Row]], outcome: Outcome
) -> list[tuple[str, Row]]:
    """The rows without users that we don't have; without those whose room we don't have."""
    users = {row.get(column) for _, row in rows for column in ("user_id", "created_by")}
    rooms = {row.get("room_id") for _, row in rows}
    users = {row["id"] for row in await connection.fetch(USERS_KNOWN, list(users - {None}))}
    rooms = {row["id"] for row in await connection.fetch(ROOMS_KNOWN, list(rooms - {None}))}
    kept = []
    for name, row in rows:
        if row.get("room_id") not in (None, *rooms):
            if "event_type" not in row:
                outcome.refused["its room is not here"].append(name)
                continue
            outcome.altered["its room is not here, so it is of none"].append(name)
            row["room_id"] = None
        for column in ("user_id", "created_by"):
            if row.get(column) not in (None, *users):
                outcome.altered["its user is not here, so it is nobody's"].append(name)
                row[column] = None
        kept.append((name, row))
    return kept


# ---- values ----


def _name(row: Row) -> str:
    """What a row is called in messages: never by what it keeps secret."""
    if row.get("id") is not None:
        return str(row["id"])
    keys = ("room_id", "client_id", "event_type", "date", "joined_at", "created_at")
    return " ".join(str(row[key]) for key in keys if row.get(key) is not None)


def _id(row: Mapping[str, Any], kind: str, *parts: object) -> str:
    """The row's own id, else one made of what it says."""
    try:
        return _uuid(row["id"])
    except (KeyError, RefusedRowError):
        return _made_id(kind, row.get("id"), *parts)


def _made_id(*parts: object) -> str:
    return str(uuid.uuid5(NAMESPACE, json.dumps([None if p is None else str(p) for p in parts])))


def _uuid(value: object) -> str:
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise RefusedRowError("an id in it is no UUID") from None


def _password_hash(value: str | None, altered: Callable[[str], None]) -> str | None:
    """A hash that may be checked with."""
    if value is None:
        return None
    match = BCRYPT.fullmatch(value)
    if match is None or int(match[1]) not in ROUNDS:
        return _unusable("its password hash is no bcrypt hash that can be checked", altered)
    return value


def _unusable(why: str, altered: Callable[[str], None]) -> str:
    altered(f"{why}: needs a new password")
    return UNUSABLE_HASH.decode("ascii")


def _utc(value: datetime) -> datetime:
    """Times without a zone are UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _time(value: datetime | None) -> str | None:
    return None if value is None else _utc(value).isoformat()


def _json(value: object) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
