"""Rooms as people look them up: open and closed ones, page by page, newest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from roomserver.protocol.codes import RoomState
from roomserver.store.database import Database
from roomserver.store.records import Place, RoomRecord

ANSWER_S = 3.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# As the fields of a RoomRecord; hashes and token versions are nothing to look at.
ROOMS = """
SELECT id::text, code, name, CASE WHEN open THEN NULL ELSE ''::bytea END AS password_hash,
    created_by::text, extract(epoch FROM created_at)::float8 AS created_at, public, metadata, state,
    permanent, extract(epoch FROM suspended_until)::float8 AS suspended_until, held,
    extract(epoch FROM closed_at)::float8 AS closed_at, close_reason, max_listeners, channel_names,
    grace_s
FROM relay.audio_rooms
"""
PAGE = f"""
{ROOMS}
WHERE ($1::uuid IS NULL OR created_by = $1)
    AND ($2::boolean IS NULL OR active = $2)
    AND ($3::boolean IS NULL OR public = $3)
    AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
ORDER BY created_at DESC, id DESC LIMIT $6
"""
# An old code may have been given again.
ONE = f"""
{ROOMS}
WHERE created_by = $1 AND (id = $2 OR code IN ($3, upper($3)))
ORDER BY active DESC, created_at DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFilter:
    """Which rooms; None is any."""

    owner: str | None = None
    active: bool | None = None  # open or closed
    public: bool | None = None

    def admits(self, room: RoomRecord) -> bool:
        """Whether the room is one of them."""
        return (
            self.owner in (None, room.created_by)
            and self.active in (None, room.state is not RoomState.CLOSED)
            and self.public in (None, room.public)
        )


class RoomDirectory:
    """Rooms of a database, and those that this server knows better: they are newer here.

    Without a database there are only those. A record of the database has no password hash (it is
    empty, or None for an open room) and no versions.
    """

    def __init__(self, database: Database | None) -> None:
        self._database = database

    async def page(
        self,
        which: RoomFilter,
        *,
        here: Iterable[RoomRecord],
        after: Place | None,
        limit: int,
        viewer: str | None = None,
    ) -> Sequence[RoomRecord]:
        """The next rooms, newest first.

        here: those of this server.
        viewer: on whose behalf it is read, as whom the database may be asked; None: the server.

        Raises DatabaseAwayError.
        """
        found: dict[str, RoomRecord] = {}
        if self._database is not None:
            claims = {"sub": viewer} if viewer is not None else None
            async with self._database.transaction(claims=claims, within_s=ANSWER_S) as connection:
                rows = await connection.fetch(
                    PAGE,
                    which.owner,
                    which.active,
                    which.public,
                    EPOCH + timedelta(microseconds=after.at_us) if after is not None else None,
                    after.id if after is not None else None,
                    limit,
                )
            found = {row["id"]: _record(row) for row in rows}
        found |= {room.id: room for room in here}
        rooms = [
            room
            for room in found.values()
            if which.admits(room) and (after is None or room.place < after)
        ]
        return sorted(rooms, key=lambda room: room.place, reverse=True)[:limit]

    async def find(self, name: str, *, owner: str) -> RoomRecord | None:
        """The room of this owner with this id or code. Raises DatabaseAwayError."""
        if self._database is None:
            return None
        try:
            room_id = UUID(name)
        except ValueError:
            room_id = None
        claims = {"sub": owner}
        async with self._database.transaction(claims=claims, within_s=ANSWER_S) as connection:
            row = await connection.fetchrow(ONE, owner, room_id, name)
        return None if row is None else _record(row)


def _record(row: Any) -> RoomRecord:
    return msgspec.convert(dict(row), RoomRecord)
