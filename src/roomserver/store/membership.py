"""One of several servers on a database: who it is, that it lives, and which rooms are its own."""

from __future__ import annotations

from datetime import datetime

import structlog

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.database import Database
from roomserver.store.migrations import bring_up_to_date
from roomserver.store.records import BanRecord, RoomRecord

HEARTBEAT_S = 10.0
# Whose heartbeat is older has left its rooms to whoever takes them.
STALE_S = 60.0

# The heartbeat of an earlier run stays: it tells how long that lived.
HERE = """
INSERT INTO relay.servers (id, url) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET url = excluded.url, started_at = now()
RETURNING xmax = 0 AND EXISTS (SELECT FROM relay.servers WHERE id <> $1)
"""
ALIVE = "UPDATE relay.servers SET heartbeat = now() WHERE id = $1"
# A stay whose end nobody could tell lasted as long as its server is known to have lived.
END_STAYS = """
UPDATE relay.room_participants p
SET left_at = greatest(p.joined_at, s.heartbeat), leave_reason = 'server_lost',
    connection_duration = extract(epoch FROM greatest(p.joined_at, s.heartbeat) - p.joined_at)
FROM relay.servers s
WHERE p.server_id = s.id AND p.left_at IS NULL
    AND (s.id = $1 OR s.heartbeat < now() - make_interval(secs => $2))
"""
# One statement: of two servers that want a room, the one that comes second finds it taken.
CLAIM = """
UPDATE relay.audio_rooms r SET server_id = $1
WHERE r.active AND (
    r.server_id IS NULL OR (r.server_id = $1 AND $3) OR r.server_id IN (
        SELECT id FROM relay.servers WHERE heartbeat < now() - make_interval(secs => $2)
    )
)
RETURNING id::text, code, name, password_hash, created_by::text, created_at, public, metadata,
    state, permanent, suspended_until, held, closed_at, close_reason, max_listeners, channel_names,
    grace_s, token_version, version
"""
BANS = """
SELECT room_id::text AS room, id::text, participant_id::text AS participant, user_id::text AS user,
    CASE WHEN family(address) = 4 THEN host(address) ELSE address::text END AS address, reason,
    created_by::text, extract(epoch FROM created_at)::float8 AS created_at
FROM relay.room_bans WHERE room_id = ANY($1::uuid[]) AND lifted_at IS NULL ORDER BY created_at, id
"""
RELEASE = "UPDATE relay.audio_rooms SET server_id = NULL WHERE server_id = $1 AND active"


log = structlog.stdlib.get_logger("roomserver.store")


class Membership:
    """This server among those of the database. Every method may raise DatabaseAwayError."""

    def __init__(self, database: Database, server_id: str, url: str) -> None:
        self._database = database
        self._id = server_id
        self._url = url

    async def register(self) -> None:
        """Brings the schema up to date and makes this server known. Raises MigrationError."""
        await bring_up_to_date(self._database)
        async with self._database.transaction() as transaction:
            new_to_others = await transaction.fetchval(HERE, self._id, self._url)
        if new_to_others:
            log.warning(
                "new_data_directory_for_a_used_database",
                hint="other servers have used this database, this data_dir never has: what waits in"
                " the outbox of another is not here, and a server's rooms come here when it has"
                f" been gone for {STALE_S:.0f} s. If this is not a further server, it is the wrong"
                " data_dir, or one that was lost",
            )

    async def end_stays(self) -> None:
        """Ends the stays that this server's last run, or a dead server, left open."""
        async with self._database.transaction() as connection:
            await connection.execute(END_STAYS, self._id, STALE_S)
            await connection.execute(ALIVE, self._id)

    async def claim(self, *, own: bool) -> list[RoomRecord]:
        """Takes the open rooms that were released or a dead server's; with `own` all it has."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(CLAIM, self._id, STALE_S, own)
            banning = await connection.fetch(BANS, [row["id"] for row in rows])
        bans: dict[str, list[BanRecord]] = {}
        for ban in banning:
            fields = dict(ban)
            bans.setdefault(fields.pop("room"), []).append(BanRecord(**fields))
        return [
            RoomRecord(
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
                bans=tuple(bans.get(row["id"], ())),
                version=row["version"],
            )
            for row in rows
        ]

    async def beat(self) -> None:
        """Says that this server lives."""
        async with self._database.transaction() as connection:
            await connection.execute(ALIVE, self._id)

    async def release(self) -> None:
        """Leaves the rooms to whoever wants them."""
        async with self._database.transaction() as connection:
            await connection.execute(RELEASE, self._id)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("ascii")


def _unix(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
