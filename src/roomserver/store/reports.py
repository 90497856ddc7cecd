"""What people read afterwards: who was in a room, its figures, and the audit log.

What is read on behalf of a user is read as that user, bound by the database's policies. Without a
database the same is made of what the process remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from roomserver.store import sweep
from roomserver.store.analytics import Analytics
from roomserver.store.database import Database
from roomserver.store.memory import MemoryRoomStore
from roomserver.store.records import (
    AuditRecord,
    DayRecord,
    ParticipantRecord,
    Place,
    StatisticsRecord,
)

ANSWER_S = 5.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PARTICIPANTS = """
SELECT id, participant_id::text AS participant, user_id::text AS user, nickname,
    client_id AS client, role, joined_at, left_at, connection_duration AS duration_s,
    leave_reason AS reason, host(ip_address) AS address, user_agent, frames_sent, frames_dropped,
    avg_latency_ms AS latency_ms
FROM relay.room_participants
WHERE room_id = $1 AND ($2::boolean IS NULL OR (left_at IS NULL) = $2)
    AND ($3::timestamptz IS NULL OR (joined_at, id) < ($3, $4::uuid))
ORDER BY joined_at DESC, id DESC LIMIT $5
"""
STATISTICS = """
SELECT participants, sessions, listen_seconds, average_session_seconds, peak_listeners
FROM relay.room_statistics_view WHERE id = $1
"""
DAYS = """
SELECT date, peak_listeners, total_listen_minutes, total_listeners, avg_latency_ms,
    total_packets_sent, total_packets_received, final
FROM relay.room_analytics WHERE room_id = $1 AND date >= $2 AND date < $3 ORDER BY date
"""
AUDIT = """
SELECT id, event_type AS event, created_at AS at, host(ip_address) AS address,
    user_id::text AS user, room_id::text AS room, user_agent, details
FROM relay.audit_log
WHERE ($1::uuid IS NULL OR user_id = $1) AND ($2::uuid IS NULL OR room_id = $2)
    AND ($3::text IS NULL OR event_type = $3)
    AND ($4::timestamptz IS NULL OR created_at >= $4)
    AND ($5::timestamptz IS NULL OR created_at < $5)
    AND ($6::timestamptz IS NULL OR (created_at, id) < ($6, $7::uuid))
ORDER BY created_at DESC, id DESC LIMIT $8
"""


@dataclass(frozen=True, slots=True)
class StayRow:
    """A stay as it is read; `place` is where it stands in the list. Times in Unix us."""

    place: Place
    participant: str
    user: str | None
    nickname: str | None
    client: str | None
    role: str
    joined_at: int
    left_at: int | None
    duration_s: float | None
    reason: str | None
    address: str | None
    user_agent: str | None
    frames_sent: int
    frames_dropped: int
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A line of the audit log as it is read. `at` in Unix us."""

    place: Place
    event: str
    at: int
    address: str | None
    user: str | None
    room: str | None
    user_agent: str | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which lines; None is any. Times in Unix us, `until` is not in it."""

    user: str | None = None
    room: str | None = None
    event: str | None = None
    since: int | None = None
    until: int | None = None

    def admits(self, record: AuditRecord) -> bool:
        """Whether the line is one of them."""
        at = round(record.at * 1e6)
        return (
            self.user in (None, record.user)
            and self.room in (None, record.room)
            and self.event in (None, record.event.value)
            and (self.since is None or self.since <= at)
            and (self.until is None or at < self.until)
        )


class Reports(Protocol):
    """Reads. `viewer` is on whose behalf; a room is named by its id.

    Every method may raise DatabaseAwayError.
    """

    async def participants(
        self, room: str, *, viewer: str, live: bool | None, after: Place | None, limit: int
    ) -> Sequence[StayRow]:
        """Stays in a room, newest first; `live`: only those that go on, or those that are over."""

    async def statistics(self, room: str, *, viewer: str) -> StatisticsRecord:
        """A room's whole life."""

    async def days(
        self, room: str, since: date, until: date, *, viewer: str
    ) -> Sequence[DayRecord]:
        """The days from `since` to before `until` on which somebody was there, oldest first."""

    async def audit(
        self, which: AuditFilter, *, viewer: str | None, after: Place | None, limit: int
    ) -> Sequence[AuditRow]:
        """Lines of the audit log, newest first; of everybody for None as `viewer`."""


class PostgresReports:
    """Implements `Reports` over a database."""

    def __init__(self, database: Database, analytics: Analytics) -> None:
        self._database = database
        self._analytics = analytics

    async def participants(
        self, room: str, *, viewer: str, live: bool | None, after: Place | None, limit: int
    ) -> Sequence[StayRow]:
        rows = await self._fetch(viewer, PARTICIPANTS, room, live, *_place(after), limit)
        return [_row(StayRow, row, row["joined_at"]) for row in rows]

    async def statistics(self, room: str, *, viewer: str) -> StatisticsRecord:
        rows = await self._fetch(viewer, STATISTICS, room)
        # A room that was just made may not have come to the database yet.
        return StatisticsRecord(**rows[0]) if rows else sweep.statistics((), 0.0)

    async def days(
        self, room: str, since: date, until: date, *, viewer: str
    ) -> Sequence[DayRecord]:
        await self._analytics.refresh(room, since, until)
        rows = await self._fetch(viewer, DAYS, room, since, until)
        return [DayRecord(**row) for row in rows]

    async def audit(
        self, which: AuditFilter, *, viewer: str | None, after: Place | None, limit: int
    ) -> Sequence[AuditRow]:
        rows = await self._fetch(
            viewer,
            AUDIT,
            which.user,
            which.room,
            which.event,
            _time(which.since),
            _time(which.until),
            *_place(after),
            limit,
        )
        return [_row(AuditRow, row, row["at"]) for row in rows]

    async def _fetch(
        self, viewer: str | None, query: str, *arguments: object
    ) -> list[asyncpg.Record]:
        claims = {"sub": viewer} if viewer is not None else None
        async with self._database.transaction(claims=claims, within_s=ANSWER_S) as connection:
            return await connection.fetch(query, *arguments)


class MemoryReports:
    """Implements `Reports` over what a process remembers; who may ask is asked elsewhere."""

    def __init__(self, store: MemoryRoomStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    async def participants(
        self, room: str, *, viewer: str, live: bool | None, after: Place | None, limit: int
    ) -> Sequence[StayRow]:
        rows = [
            _stay_row(stay) for stay in self._stays(room) if live in (None, stay.left_at is None)
        ]
        return _page(rows, after, limit)

    async def statistics(self, room: str, *, viewer: str) -> StatisticsRecord:
        return sweep.statistics(self._stays(room), self._now())

    async def days(
        self, room: str, since: date, until: date, *, viewer: str
    ) -> Sequence[DayRecord]:
        return sweep.days(self._stays(room), since, until, self._now())

    async def audit(
        self, which: AuditFilter, *, viewer: str | None, after: Place | None, limit: int
    ) -> Sequence[AuditRow]:
        numbered = enumerate(
            self._store.audit_log, self._store.audited - len(self._store.audit_log)
        )
        rows = [_audit_row(number, each) for number, each in numbered if which.admits(each)]
        return _page(rows, after, limit)

    def _stays(self, room: str) -> list[ParticipantRecord]:
        return [
            stay
            for stays in (self._store.stays, self._store.present.values())
            for stay in stays
            if stay.room == room
        ]


Row = TypeVar("Row", StayRow, AuditRow)


def _page(rows: Iterable[Row], after: Place | None, limit: int) -> list[Row]:
    rest = [row for row in rows if after is None or row.place < after]
    return sorted(rest, key=lambda row: row.place, reverse=True)[:limit]


def _row(kind: type[Row], row: asyncpg.Record, at: datetime) -> Row:
    fields: dict[str, Any] = {
        key: _us(value) if isinstance(value, datetime) else value for key, value in row.items()
    }
    return kind(place=Place(_us(at), fields.pop("id")), **fields)


def _stay_row(stay: ParticipantRecord) -> StayRow:
    joined_at = _unix_us(stay.joined_at)
    return StayRow(
        place=Place(joined_at, UUID(stay.id)),
        participant=stay.participant,
        user=stay.user,
        nickname=stay.nickname,
        client=stay.connection,
        role=stay.role.value,
        joined_at=joined_at,
        left_at=None if stay.left_at is None else _unix_us(stay.left_at),
        duration_s=stay.duration_s,
        reason=None if stay.reason is None else stay.reason.value,
        address=stay.address,
        user_agent=stay.user_agent,
        frames_sent=stay.frames_sent,
        frames_dropped=stay.frames_dropped,
        latency_ms=stay.latency_ms,
    )


def _audit_row(number: int, record: AuditRecord) -> AuditRow:
    at = _unix_us(record.at)
    return AuditRow(
        place=Place(at, UUID(int=number)),
        event=record.event.value,
        at=at,
        address=record.address,
        user=record.user,
        room=record.room,
        user_agent=record.user_agent,
        details=msgspec.to_builtins(record.details),
    )


def _place(after: Place | None) -> tuple[datetime | None, UUID | None]:
    return (None, None) if after is None else (_time(after.at_us), after.id)


def _time(unix_us: int | None) -> datetime | None:
    return None if unix_us is None else EPOCH + timedelta(microseconds=unix_us)


def _us(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _unix_us(unix_s: float) -> int:
    return round(unix_s * 1_000_000)
