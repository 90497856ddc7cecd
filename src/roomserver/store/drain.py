"""From the outbox into PostgreSQL, exactly once.

A batch of events is one transaction, which also says how far this outbox has been taken over; the
outbox forgets them afterwards. A crash between the two sends the batch again, and its numbers tell
that it is known. What the database refuses is sought out event by event and never blocks the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address

import asyncpg
import msgspec
import structlog
from msgspec import structs

from roomserver.protocol.codes import RoomState
from roomserver.store.database import Connection, Database, DatabaseAwayError
from roomserver.store.events import (
    Audited,
    Counted,
    Event,
    Joined,
    Left,
    RoomChanged,
    Unreadable,
    encode_event,
)
from roomserver.store.faultpoints import fault_point
from roomserver.store.outbox import Entry, Outbox
from roomserver.store.records import AuditRecord, ParticipantRecord, RoomRecord

BATCH = 1000
# How long what is not a full batch may wait for more, unless somebody waits for the database.
GATHER_S = 0.05
RETRY_FROM_S = 0.1
RETRY_TO_S = 5.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 1 to 9999, in Unix s: PostgreSQL knows others, but what is read there is a datetime.
CALENDAR_FROM_S = -62_135_596_800.0
CALENDAR_TO_S = 253_402_300_800.0

PROGRESS = """
INSERT INTO relay.outbox_progress AS p (stream_id) VALUES ($1)
ON CONFLICT (stream_id) DO UPDATE SET last_seq = p.last_seq
RETURNING last_seq
"""
KNOWN = "SELECT last_seq FROM relay.outbox_progress WHERE stream_id = $1"
ADVANCE = "UPDATE relay.outbox_progress SET last_seq = $2 WHERE stream_id = $1"
ROOM = """
INSERT INTO relay.audio_rooms AS r (
    id, code, name, password_hash, created_by, created_at, active, public, permanent, state,
    suspended_until, metadata, max_listeners, version, closed_at, close_reason, channel_names,
    grace_s, token_version, held, server_id
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, password_hash = excluded.password_hash, active = excluded.active,
    public = excluded.public, permanent = excluded.permanent, state = excluded.state,
    suspended_until = excluded.suspended_until, metadata = excluded.metadata,
    max_listeners = excluded.max_listeners, version = greatest(r.version, excluded.version),
    closed_at = excluded.closed_at, close_reason = excluded.close_reason,
    channel_names = excluded.channel_names, grace_s = excluded.grace_s,
    token_version = excluded.token_version, held = excluded.held
WHERE r.active AND CASE
    WHEN excluded.active THEN r.version < excluded.version
    -- That nobody came back to it is said by the server that has the room, and by no other.
    WHEN excluded.close_reason IN ('source_gone', 'expired') THEN
        r.version < excluded.version
        AND (r.server_id IS NULL OR r.server_id IS NOT DISTINCT FROM excluded.server_id)
    -- What somebody closed stays closed, whatever another server made of the room meanwhile.
    ELSE true
END
"""
# The bans of a room are those that its record has, if it is the one that the database has.
BANS = """
INSERT INTO relay.room_bans (
    id, room_id, participant_id, user_id, address, reason, created_by, created_at
)
SELECT b.id, r.id, b.participant_id, u.id, b.address::cidr, b.reason, c.id, b.created_at
FROM unnest(
    $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::timestamptz[]
) AS b (id, participant_id, user_id, address, reason, created_by, created_at)
JOIN relay.audio_rooms r ON r.id = $1 AND r.version = $2
LEFT JOIN relay.users u ON u.id = b.user_id
LEFT JOIN relay.users c ON c.id = b.created_by
WHERE num_nonnulls(b.participant_id, u.id, b.address) >= 1
ON CONFLICT (id) DO UPDATE SET lifted_at = NULL
"""
LIFTED = """
UPDATE relay.room_bans b SET lifted_at = now()
FROM relay.audio_rooms r
WHERE r.id = $1 AND r.version = $2 AND b.room_id = r.id AND b.lifted_at IS NULL
    AND b.id <> ALL($3::uuid[])
"""
# Of comings and goings there are many: one JSON text of them all, in which times are Unix s, costs
# us a fraction of row by row, or of arrays, for whose elements asyncpg works in Python's objects.
STAY = """
INSERT INTO relay.room_participants AS p (
    id, room_id, user_id, participant_id, nickname, client_id, role, joined_at, left_at,
    connection_duration, leave_reason, ip_address, user_agent, frames_sent, frames_dropped,
    avg_latency_ms, server_id
)
SELECT
    id, room_id, user_id, participant_id, nickname, client_id, role, to_timestamp(joined_at),
    to_timestamp(left_at), connection_duration, leave_reason, ip_address, user_agent, frames_sent,
    frames_dropped, avg_latency_ms, $2::uuid
FROM json_to_recordset($1::json) AS stay (
    id uuid, room_id uuid, user_id uuid, participant_id uuid, nickname text, client_id text,
    role text, joined_at float8, left_at float8, connection_duration float8, leave_reason text,
    ip_address inet, user_agent text, frames_sent bigint, frames_dropped bigint,
    avg_latency_ms float8
)
ON CONFLICT (id) DO UPDATE SET
    left_at = excluded.left_at, connection_duration = excluded.connection_duration,
    leave_reason = excluded.leave_reason,
    frames_sent = greatest(p.frames_sent, excluded.frames_sent),
    frames_dropped = greatest(p.frames_dropped, excluded.frames_dropped),
    avg_latency_ms = coalesce(excluded.avg_latency_ms, p.avg_latency_ms)
WHERE p.left_at IS NULL OR p.leave_reason = 'server_lost'
"""
AUDIT = """
INSERT INTO relay.audit_log (
    id, event_type, user_id, room_id, ip_address, user_agent, details, created_at
)
SELECT
    id, event_type, user_id, room_id, ip_address, user_agent, details, to_timestamp(created_at)
FROM json_to_recordset($1::json) AS line (
    id uuid, event_type text, user_id uuid, room_id uuid, ip_address inet, user_agent text,
    details jsonb, created_at float8
)
ON CONFLICT (id) DO NOTHING
"""
DEAD = """
INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error)
VALUES ($1, $2, $3, $4::text::jsonb, $5)
ON CONFLICT (stream_id, seq) DO NOTHING
"""

# This server, should the database have lost it; its next heartbeat says the rest.
HERE = "INSERT INTO relay.servers (id, url) VALUES ($1, '') ON CONFLICT DO NOTHING"

# What is wrong with an event itself. Everything else is the state of the database, and passes.
REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,  # of Python's own: a time that no calendar has, for instance
    OverflowError,
)

log = structlog.stdlib.get_logger("roomserver.drain")


class Drain:
    """Takes the outbox's events to the database for as long as it runs. One event loop."""

    def __init__(
        self,
        outbox: Outbox,
        database: Database,
        *,
        server_id: str | None,
        room: Callable[[str], RoomRecord | None],
    ) -> None:
        """server_id: whose rooms and stays these are.
        room: this server's own copy of a room, made again when the database has lost it.
        """
        self._server_id = server_id
        self._outbox = outbox
        self._database = database
        self._room = room
        self._more = asyncio.Event()
        self._taken_over = asyncio.Condition()
        self._hurry = asyncio.Event()  # set while `_waiters` wait
        self._waiters = 0
        self._reached = 0  # up to this number the database has everything
        self._counts_on = False
        self._task: asyncio.Task[None] | None = None
        self.away: str | None = None  # why nothing is taken over at the moment
        self.dead_letters = 0

    def start(self) -> None:
        """Begins with what an earlier run left; once is enough."""
        if self._task is not None:
            return
        loop = asyncio.get_running_loop()
        self._outbox.on_written(lambda: loop.call_soon_threadsafe(self._more.set))
        self._more.set()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends; what has not been taken over waits in the outbox."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def reached(self, seq: int) -> None:
        """Returns when the database has all events up to this number."""
        self._waiters += 1
        self._hurry.set()
        try:
            async with self._taken_over:
                await self._taken_over.wait_for(lambda: self._reached >= seq)
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._hurry.clear()

    async def _run(self) -> None:
        delay = RETRY_FROM_S
        while True:
            await self._more.wait()
            self._more.clear()
            try:
                if not self._counts_on:
                    await self._count_on()
                await self._take_all()
                delay = RETRY_FROM_S
            except Exception as error:  # nothing may end this: the outbox would only grow
                self._keep_away(error)
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
                delay = min(2 * delay, RETRY_TO_S)
                self._more.set()

    async def _count_on(self) -> None:
        """Sees to it that new events have numbers that are new to the database."""
        async with self._database.transaction() as connection:
            known = await connection.fetchval(KNOWN, self._outbox.stream_id)
        if known is not None and await self._outbox.count_from(known):
            log.warning(
                "outbox_put_back",
                hint="the outbox is a copy, older than what the database has of it; what the copy"
                " holds is known there, what happens from now on counts as new",
            )
        self._counts_on = True

    async def _take_all(self) -> None:
        """Takes over what is there, batch by batch."""
        while True:
            last = self._outbox.last_seq  # before it is read: nothing up to here comes later
            entries = await self._outbox.read(self._reached, BATCH)
            fault_point("drain:read")
            if entries:
                last = entries[-1].seq
                await self.take_over(entries)
                fault_point("drain:committed")
            if self.away is not None:
                log.info("database_back", waiting=self._outbox.waiting)
                self.away = None
            async with self._taken_over:
                self._reached = max(self._reached, last)
                self._taken_over.notify_all()
            if not entries:
                return
            await self._outbox.acknowledge(last)
            if len(entries) < BATCH:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), GATHER_S)

    def _keep_away(self, error: Exception) -> None:
        """Nothing can be taken over for now."""
        reason = str(error) if isinstance(error, DatabaseAwayError) else _name(error)
        if self.away is None and isinstance(error, DatabaseAwayError):
            log.warning("database_away", reason=reason)
        elif self.away is None:
            log.error("drain_failed", reason=reason, exc_info=error)
        self.away = reason

    async def take_over(self, entries: Sequence[Entry]) -> None:
        """One transaction for all of them, or, if something in it is refused, with each on its own.

        Raises DatabaseAwayError, asyncpg.PostgresError; then none or all have been taken over.
        """
        try:
            async with self._database.transaction() as connection:
                new = await self._new(connection, entries)
                await self._apply(connection, [entry.event for entry in new])
                fault_point("drain:applied")
                await self._advance(connection, entries)
                fault_point("drain:advanced")
        except REFUSED as error:
            log.warning("batch_refused", reason=_name(error), events=len(entries))
            async with self._database.transaction() as connection:
                if self._server_id is not None:
                    await connection.execute(HERE, self._server_id)
                for entry in await self._new(connection, entries):
                    await self._one(connection, entry)
                await self._advance(connection, entries)

    async def _new(self, connection: Connection, entries: Sequence[Entry]) -> list[Entry]:
        """Those that the database does not have; the row is ours until the transaction ends."""
        last = await connection.fetchval(PROGRESS, self._outbox.stream_id)
        fault_point("drain:begun")
        return [entry for entry in entries if entry.seq > last]

    async def _advance(self, connection: Connection, entries: Sequence[Entry]) -> None:
        await connection.execute(ADVANCE, self._outbox.stream_id, entries[-1].seq)

    async def _one(self, connection: Connection, entry: Entry) -> None:
        """An event by itself: without what the database does not know, else as a dead letter."""
        event = entry.event
        try:
            if isinstance(event, Unreadable):
                raise ValueError(event.error)
            async with connection.transaction():
                await self._apply(connection, [await self._mended(connection, event)])
        except REFUSED as error:
            kind = type(event).__name__
            log.error("event_refused", kind=kind, reason=_name(error))
            self.dead_letters += 1
            await connection.execute(
                DEAD, self._outbox.stream_id, entry.seq, kind, _payload(event), _message(error)
            )

    async def _mended(self, connection: Connection, event: Event) -> Event:
        """The event with nobody in place of an unknown user; its room is made again if need be."""
        match event:
            case RoomChanged(room):
                owner = await _known_user(connection, room.created_by)
                return RoomChanged(replace(room, created_by=owner))
            case Audited(id, record):
                user = await _known_user(connection, record.user)
                known = await self._known_room(connection, record.room)
                return Audited(id, structs.replace(record, user=user, room=known))
            case Joined(stay) | Left(stay) | Counted(stay):
                await self._known_room(connection, stay.room)
                user = await _known_user(connection, stay.user)
                return type(event)(structs.replace(stay, user=user))

    async def _apply(self, connection: Connection, events: Iterable[Event | Unreadable]) -> None:
        """What happened, in groups: rooms first, for the rest stands in them."""
        rooms: dict[str, RoomRecord] = {}  # as each of them is at the end
        audits: dict[str, AuditRecord] = {}  # by id
        stays: dict[str, ParticipantRecord] = {}  # as each of them is at the end
        for event in events:
            match event:
                case Unreadable(error=error):
                    raise ValueError(error)
                case RoomChanged(room):
                    before = rooms.get(room.id)
                    if before is None or (
                        before.state is not RoomState.CLOSED and before.version < room.version
                    ):
                        rooms[room.id] = room
                case Audited(id, record):
                    audits[id] = record
                case Joined(stay) | Left(stay) | Counted(stay):
                    known = stays.get(stay.id)
                    if known is None or known.left_at is None:
                        stays[stay.id] = stay
        if rooms:
            rows = [(*_room_row(room), self._server_id) for room in rooms.values()]
            await connection.executemany(ROOM, rows)
            await connection.executemany(LIFTED, [_ban_ids(room) for room in rooms.values()])
            banning = [_ban_columns(room) for room in rooms.values() if room.bans]
            await connection.executemany(BANS, banning)
        if stays:
            rows_of_stays = _json([_stay_row(stay) for stay in stays.values()])
            await connection.execute(STAY, rows_of_stays, self._server_id)
        if audits:
            await write_audit(connection, audits)

    async def _known_room(self, connection: Connection, room: str | None) -> str | None:
        if room is None or await connection.fetchval(
            "SELECT true FROM relay.audio_rooms WHERE id = $1", room
        ):
            return room
        ours = self._room(room)
        if ours is None:
            return None
        owner = await _known_user(connection, ours.created_by)
        row = _room_row(replace(ours, created_by=owner))
        await connection.execute(ROOM, *row, self._server_id)
        return room


async def write_audit(connection: Connection, records: Mapping[str, AuditRecord]) -> None:
    """Adds lines to the audit log, each by an id by which it is known if it comes twice."""
    rows = [_audit_row(each, record) for each, record in records.items()]
    await connection.execute(AUDIT, _json(rows))


def _name(error: Exception) -> str:
    """For the log: details of the database's errors hold what no log may hold."""
    constraint = getattr(error, "constraint_name", None)
    return f"{type(error).__name__} {constraint}" if constraint else type(error).__name__


def _message(error: Exception) -> str:
    """For those who look at dead letters: without the row, which stands beside it."""
    return str(error.args[0]) if error.args else type(error).__name__


def _payload(event: Event | Unreadable) -> str:
    """The event as JSON that PostgreSQL takes."""
    if isinstance(event, Unreadable):
        return json.dumps({"data": event.data.decode(errors="replace").replace("\0", "\ufffd")})
    return encode_event(event).decode().replace("\\u0000", "\\ufffd")


async def _known_user(connection: Connection, user: str | None) -> str | None:
    if user is None:
        return None
    query = "SELECT id::text FROM relay.users WHERE id = $1"
    known: str | None = await connection.fetchval(query, user)
    return known


def _room_row(room: RoomRecord) -> tuple[object, ...]:
    return (
        room.id,
        room.code,
        room.name,
        room.password_hash.decode("ascii") if room.password_hash is not None else None,
        room.created_by,
        _time(room.created_at),
        room.state is not RoomState.CLOSED,
        room.public,
        room.permanent,
        room.state.value,
        _time(room.suspended_until),
        room.metadata,
        room.max_listeners,
        room.version,
        _time(room.closed_at),
        room.close_reason,
        room.channel_names or None,
        room.grace_s,
        room.token_version,
        room.held,
    )


def _ban_ids(room: RoomRecord) -> tuple[object, ...]:
    return room.id, room.version, [ban.id for ban in room.bans]


def _ban_columns(room: RoomRecord) -> tuple[object, ...]:
    bans = room.bans
    return (
        *_ban_ids(room),
        [ban.participant for ban in bans],
        [ban.user for ban in bans],
        [ban.address for ban in bans],
        [ban.reason for ban in bans],
        [ban.created_by for ban in bans],
        [_time(ban.created_at) for ban in bans],
    )


def _stay_row(stay: ParticipantRecord) -> dict[str, object]:
    return {
        "id": stay.id,
        "room_id": stay.room,
        "user_id": stay.user,
        "participant_id": stay.participant,
        "nickname": stay.nickname,
        "client_id": stay.connection,
        "role": stay.role,
        "joined_at": _seconds(stay.joined_at),
        "left_at": _seconds(stay.left_at),
        "connection_duration": stay.duration_s,
        "leave_reason": stay.reason,
        "ip_address": _address(stay.address),
        "user_agent": stay.user_agent,
        "frames_sent": stay.frames_sent,
        "frames_dropped": stay.frames_dropped,
        "avg_latency_ms": stay.latency_ms,
    }


def _audit_row(id: str, record: AuditRecord) -> dict[str, object]:  # noqa: A002 - the column's name
    return {
        "id": id,
        "event_type": record.event,
        "user_id": record.user,
        "room_id": record.room,
        "ip_address": _address(record.address),
        "user_agent": record.user_agent,
        "details": record.details,
        "created_at": _seconds(record.at),
    }


def _json(rows: Sequence[Mapping[str, object]]) -> str:
    return msgspec.json.encode(rows).decode()


@lru_cache(maxsize=4096)
def _address(text: str | None) -> str | None:
    """What is no address, as behind a Unix socket whose proxy says none, is not kept."""
    try:
        return None if text is None else str(ip_address(text))
    except ValueError:
        return None


def _seconds(unix_s: float | None) -> float | None:
    """The time as it is. Raises ValueError for one that no calendar has, as infinity and NaN."""
    if unix_s is None or CALENDAR_FROM_S <= unix_s < CALENDAR_TO_S:
        return unix_s
    raise ValueError("no calendar has this time")


def _time(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else EPOCH + timedelta(seconds=unix_s)
