"""One of several servers on a database: who it is, that it lives, and which rooms are its own.

A server that sends no heartbeat for as long as its lease has left its rooms to whoever takes them.
It may be alive all the same, cut off from the database, and go on with them. When it is back and
finds a room with another server, it keeps the room if a source plays here and none plays there;
otherwise it lets go of it and tells everyone in it where the room is. A room that plays is never
ended for that: if it plays at both, both go on until one of them is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.database import Connection, Database
from roomserver.store.migrations import bring_up_to_date
from roomserver.store.records import BanRecord, Elsewhere, RoomRecord

LEASE_S = 60.0
BEATS_PER_LEASE = 6
# How long somebody waits to hear where a room is.
ANSWER_S = 1.0

FURTHER = """
SELECT NOT EXISTS (SELECT FROM relay.servers WHERE id = $1) AND EXISTS (SELECT FROM relay.servers)
"""
HEARTBEAT = "SELECT heartbeat FROM relay.servers WHERE id = $1"
ALIVE = """
INSERT INTO relay.servers (id, url, lease_s) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET
    url = excluded.url, lease_s = excluded.lease_s, heartbeat = now()
"""
STARTED = "UPDATE relay.servers SET started_at = now() WHERE id = $1"
STALE = "SELECT id FROM relay.servers WHERE heartbeat < now() - make_interval(secs => lease_s)"
OPEN_STAYS = """
SELECT id::text FROM relay.room_participants WHERE server_id = $1 AND left_at IS NULL
"""
# A stay whose end nobody could tell lasted as long as its server is known to have lived.
END_STAYS = """
UPDATE relay.room_participants
SET left_at = greatest(joined_at, ended), leave_reason = 'server_lost',
    connection_duration = extract(epoch FROM greatest(joined_at, ended) - joined_at)
FROM coalesce($2, now()) ended
WHERE id = ANY ($1::uuid[]) AND left_at IS NULL
"""
END_STAYS_OF_THE_DEAD = """
UPDATE relay.room_participants p
SET left_at = greatest(p.joined_at, s.heartbeat), leave_reason = 'server_lost',
    connection_duration = extract(epoch FROM greatest(p.joined_at, s.heartbeat) - p.joined_at)
FROM relay.servers s
WHERE p.server_id = s.id AND p.left_at IS NULL
    AND s.id <> $1 AND s.heartbeat < now() - make_interval(secs => s.lease_s)
"""
ROOM = """
    r.id::text, r.code, r.name, r.password_hash, r.created_by::text, r.created_at, r.public,
    r.metadata, r.state, r.permanent, r.suspended_until, r.held, r.closed_at, r.close_reason,
    r.max_listeners, r.channel_names, r.grace_s, r.token_version, r.version
"""
# One statement: of two servers that want a room, the one that comes second finds it taken.
CLAIM = f"""
UPDATE relay.audio_rooms r SET server_id = $1
WHERE r.active AND (r.server_id IS NULL OR r.server_id = ANY (ARRAY({STALE} AND id <> $1)))
RETURNING {ROOM}
"""  # noqa: S608
OWN = f"SELECT {ROOM} FROM relay.audio_rooms r WHERE r.active AND r.server_id = $1"  # noqa: S608
KNOWN = "SELECT id::text FROM relay.audio_rooms WHERE id = ANY ($1::uuid[])"
# Of the rooms that are open here, those that the database knows otherwise.
STRAYS = f"""
SELECT {ROOM}, r.server_id::text, s.url
FROM unnest($2::uuid[], $3::bigint[]) AS ours (room, version)
JOIN relay.audio_rooms r ON r.id = ours.room
LEFT JOIN relay.servers s ON s.id = r.server_id
WHERE NOT r.active OR r.server_id IS DISTINCT FROM $1 OR r.version > ours.version
"""  # noqa: S608 - of constants
# From a server at which nothing plays, also if that has given the room up meanwhile.
RECLAIM = f"""
UPDATE relay.audio_rooms r
SET server_id = $1, active = true, state = 'waiting', suspended_until = NULL, closed_at = NULL,
    close_reason = NULL
WHERE r.id = $2 AND (
    (r.active AND (r.state <> 'active' OR r.server_id IN ({STALE})))
    OR r.close_reason IN ('source_gone', 'expired')
)
RETURNING r.version
"""  # noqa: S608
BANS = """
SELECT room_id::text AS room, id::text, participant_id::text AS participant, user_id::text AS user,
    CASE WHEN family(address) = 4 THEN host(address) ELSE address::text END AS address, reason,
    created_by::text, extract(epoch FROM created_at)::float8 AS created_at
FROM relay.room_bans WHERE room_id = ANY($1::uuid[]) AND lifted_at IS NULL ORDER BY created_at, id
"""
LOCATE = f"""
SELECT r.id::text, r.password_hash, r.created_by::text, s.url,
    s.id IS NULL OR s.id IN ({STALE}) AS abandoned
FROM relay.audio_rooms r LEFT JOIN relay.servers s ON s.id = r.server_id
WHERE r.active AND (r.id = $1 OR r.code IN ($2, upper($2)))
ORDER BY r.code = $2 DESC LIMIT 1
"""  # noqa: S608
RELEASE = "UPDATE relay.audio_rooms SET server_id = NULL WHERE server_id = $1 AND active"


log = structlog.stdlib.get_logger("roomserver.store")


@dataclass(frozen=True, slots=True)
class Stray:
    """A room that is open here and that the database knows otherwise."""

    room: RoomRecord  # as the database has it
    server: str | None  # whose it is
    url: str | None


class Membership:
    """This server among those of the database. Every method may raise DatabaseAwayError."""

    def __init__(self, database: Database, server_id: str, url: str, lease_s: float) -> None:
        self._database = database
        self._id = server_id
        self._url = url
        self._lease_s = lease_s
        self._registered = False
        self._lived_until: datetime | None = None  # this server's earlier run

    @property
    def heartbeat_s(self) -> float:
        """How often this server should say that it lives."""
        return self._lease_s / BEATS_PER_LEASE

    async def register(self) -> None:
        """Brings the schema up to date and makes this server known. Raises MigrationError."""
        await bring_up_to_date(self._database)
        async with self._database.transaction() as connection:
            new_to_others = await connection.fetchval(FURTHER, self._id)
            if not self._registered:
                self._lived_until = await connection.fetchval(HEARTBEAT, self._id)
            await connection.execute(ALIVE, self._id, self._url, self._lease_s)
            if not self._registered:
                await connection.execute(STARTED, self._id)
        self._registered = True
        if new_to_others:
            log.warning(
                "new_data_directory_for_a_used_database",
                hint="other servers have used this database, this data_dir never has: what waits in"
                " the outbox of another is not here, and a server's rooms come here when it has"
                " given no sign of life for its lease. If this is not a further server, it is the"
                " wrong data_dir, or one that was lost",
            )

    async def end_stays(self, living: Callable[[], Collection[str]]) -> None:
        """Ends this server's stays that the database has open and that do not go on here.

        The first time those are of the run before, which lived until its last heartbeat.

        living: those that go on, by id.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(OPEN_STAYS, self._id)
            # Asked after the database: what that has open was here before, or is over.
            over = {row["id"] for row in rows}.difference(living())
            await connection.execute(END_STAYS, list(over), self._lived_until)
        self._lived_until = None

    async def beat(self) -> None:
        """Says that this server lives."""
        async with self._database.transaction(within_s=self._lease_s) as connection:
            await connection.execute(ALIVE, self._id, self._url, self._lease_s)

    async def claim(self, *, own: bool = False) -> list[RoomRecord]:
        """Takes the open rooms that were released or a dead server's; with `own` all it has.

        Stays that a dead server left open are ended.
        """
        async with self._database.transaction() as connection:
            await connection.execute(END_STAYS_OF_THE_DEAD, self._id)
            rows = await connection.fetch(CLAIM, self._id)
            if own:
                rows = await connection.fetch(OWN, self._id)
            return await _records(connection, rows)

    async def known(self, rooms: Collection[str]) -> set[str]:
        """Those of the rooms, by id, that the database has at all."""
        async with self._database.transaction() as connection:
            return {row["id"] for row in await connection.fetch(KNOWN, list(rooms))}

    async def strays(self, ours: Mapping[str, RoomRecord]) -> list[Stray]:
        """Of the rooms that are open here, by id, those that the database knows otherwise."""
        versions = [room.version for room in ours.values()]
        async with self._database.transaction() as connection:
            rows = await connection.fetch(STRAYS, self._id, list(ours), versions)
            rooms = await _records(connection, rows)
        return [
            Stray(room, row["server_id"], row["url"]) for room, row in zip(rooms, rows, strict=True)
        ]

    async def reclaim(self, room: str) -> int | None:
        """Takes a room back unless it plays at the other server; the version it has there."""
        async with self._database.transaction() as connection:
            version: int | None = await connection.fetchval(RECLAIM, self._id, room)
            return version

    async def locate(self, name: str) -> tuple[Elsewhere, bool] | None:
        """The open room with this id or code, and whether nobody has it."""
        try:
            room_id = UUID(name)
        except ValueError:
            room_id = None
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            row = await connection.fetchrow(LOCATE, room_id, name)
        if row is None:
            return None
        found = Elsewhere(
            row["id"], row["url"] or None, _bytes(row["password_hash"]), row["created_by"]
        )
        return found, row["abandoned"]

    async def release(self) -> None:
        """Leaves the rooms to whoever wants them."""
        async with self._database.transaction() as connection:
            await connection.execute(ALIVE, self._id, self._url, self._lease_s)
            await connection.execute(RELEASE, self._id)


async def _records(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[RoomRecord]:
    """The rooms, with those who are banned from them."""
    bans: dict[str, list[BanRecord]] = {}
    for ban in await connection.fetch(BANS, [row["id"] for row in rows]) if rows else ():
        fields = dict(ban)
        bans.setdefault(fields.pop("room"), []).append(BanRecord(**fields))
    return [_record(row, bans.get(row["id"], ())) for row in rows]


def _record(row: asyncpg.Record, bans: Iterable[BanRecord]) -> RoomRecord:
    return RoomRecord(
        id=row["id"],
        code=row["code"],
        name=row["name"],
        password_hash=_bytes(row["password_hash"]),
        created_by=row["created_by"],
        created_at=row["created_at"].timestamp(),
        public=row["public"],
        metadata=row["metadata"],
        state=RoomState(row["state"]),
        permanent=row["permanent"],
        suspended_until=_unix(row["suspended_until"]),
        held=row["held"],
        closed_at=_unix(row["closed_at"]),
        close_reason=RoomCloseReason(row["close_reason"]) if row["close_reason"] else None,
        max_listeners=row["max_listeners"],
        channel_names=tuple(row["channel_names"]) if row["channel_names"] else None,
        grace_s=row["grace_s"],
        token_version=row["token_version"],
        bans=tuple(bans),
        version=row["version"],
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("ascii")


def _unix(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
