"""Invites into rooms, whose uses are counted exactly: in PostgreSQL, or in memory."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import asyncpg

from roomserver.store.database import Database, DatabaseAwayError
from roomserver.store.records import InviteRecord, Place

MOST = 1000  # of a room
ANSWER_S = 3.0

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('invites ' || $1, 0))"
COUNT = "SELECT count(*) FROM relay.invites WHERE room_id = $1"
FORGET = "DELETE FROM relay.invites WHERE room_id = $1 AND expires_at < $2"
ADD = """
INSERT INTO relay.invites (id, room_id, created_by, secret_hash, created_at, expires_at, max_uses)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
# One statement, so that of two that come at once the second sees what the first has used.
REDEEM = """
UPDATE relay.invites SET uses = uses + 1
WHERE id = $1 AND room_id = $2 AND secret_hash = $3 AND revoked_at IS NULL AND expires_at > $4
    AND (max_uses IS NULL OR uses < max_uses)
RETURNING true
"""
GIVE_BACK = "UPDATE relay.invites SET uses = uses - 1 WHERE id = $1 AND uses > 0"
REVOKE = """
UPDATE relay.invites SET revoked_at = $3 WHERE id = $1 AND room_id = $2 AND revoked_at IS NULL
RETURNING true
"""
PAGE = """
SELECT id::text, room_id::text AS room, secret_hash AS hash, created_by::text,
    extract(epoch FROM created_at)::float8 AS created_at,
    extract(epoch FROM expires_at)::float8 AS expires_at, max_uses, uses,
    extract(epoch FROM revoked_at)::float8 AS revoked_at
FROM relay.invites
WHERE room_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
ORDER BY created_at DESC, id DESC LIMIT $4
"""


class TooManyInvitesError(Exception):
    """The room has as many as it may."""


class InviteStore(Protocol):
    """Every method may raise DatabaseAwayError."""

    async def add(self, invite: InviteRecord) -> None:
        """Keeps an invite, and forgets those of its room that are over.

        Raises TooManyInvitesError.
        """

    async def redeem(self, invite_id: str, room: str, secret_hash: bytes, *, now: float) -> bool:
        """Uses it once; whether it holds."""

    async def give_back(self, invite_id: str, room: str) -> None:
        """Takes a use back."""

    async def revoke(self, invite_id: str, room: str, *, now: float) -> bool:
        """Makes it worthless; whether there is one that was not."""

    async def page(self, room: str, *, after: Place | None, limit: int) -> Sequence[InviteRecord]:
        """Invites of the room, newest first, at most `limit`, that come after the place `after`."""


class PostgresInviteStore:
    """Implements `InviteStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, invite: InviteRecord) -> None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            await connection.execute(LOCK, invite.room)
            await connection.execute(FORGET, invite.room, _time(invite.created_at))
            if await connection.fetchval(COUNT, invite.room) >= MOST:
                raise _too_many()
            try:
                await connection.execute(
                    ADD,
                    invite.id,
                    invite.room,
                    invite.created_by,
                    invite.hash,
                    _time(invite.created_at),
                    _time(invite.expires_at),
                    invite.max_uses,
                )
            except asyncpg.ForeignKeyViolationError:
                raise DatabaseAwayError("the database has not been told of the room yet") from None

    async def redeem(self, invite_id: str, room: str, secret_hash: bytes, *, now: float) -> bool:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            values = (invite_id, room, secret_hash, _time(now))
            return bool(await connection.fetchval(REDEEM, *values))

    async def give_back(self, invite_id: str, room: str) -> None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            await connection.execute(GIVE_BACK, invite_id)

    async def revoke(self, invite_id: str, room: str, *, now: float) -> bool:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return bool(await connection.fetchval(REVOKE, invite_id, room, _time(now)))

    async def page(self, room: str, *, after: Place | None, limit: int) -> Sequence[InviteRecord]:
        start = (after.time, after.id) if after is not None else (None, None)
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            rows = await connection.fetch(PAGE, room, *start, limit)
        return [InviteRecord(**row) for row in rows]


class MemoryInviteStore:
    """Implements `InviteStore`."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, InviteRecord]] = {}

    async def add(self, invite: InviteRecord) -> None:
        known = self._rooms.get(invite.room, {})
        valid = {i.id: i for i in known.values() if i.expires_at >= invite.created_at}
        if len(valid) >= MOST:
            raise _too_many()
        self._rooms[invite.room] = valid | {invite.id: invite}

    async def redeem(self, invite_id: str, room: str, secret_hash: bytes, *, now: float) -> bool:
        invite = self._rooms.get(room, {}).get(invite_id)
        if (
            invite is None
            or not hmac.compare_digest(invite.hash, secret_hash)
            or invite.revoked_at is not None
            or invite.expires_at <= now
            or (invite.max_uses is not None and invite.uses >= invite.max_uses)
        ):
            return False
        self._rooms[room][invite_id] = replace(invite, uses=invite.uses + 1)
        return True

    async def give_back(self, invite_id: str, room: str) -> None:
        invite = self._rooms.get(room, {}).get(invite_id)
        if invite is not None and invite.uses > 0:
            self._rooms[room][invite_id] = replace(invite, uses=invite.uses - 1)

    async def revoke(self, invite_id: str, room: str, *, now: float) -> bool:
        invite = self._rooms.get(room, {}).get(invite_id)
        if invite is None or invite.revoked_at is not None:
            return False
        self._rooms[room][invite_id] = replace(invite, revoked_at=now)
        return True

    async def page(self, room: str, *, after: Place | None, limit: int) -> Sequence[InviteRecord]:
        found = sorted(self._rooms.get(room, {}).values(), key=lambda i: i.place, reverse=True)
        return [invite for invite in found if after is None or invite.place < after][:limit]


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def _too_many() -> TooManyInvitesError:
    return TooManyInvitesError(f"at most {MOST} invites of a room are kept")
