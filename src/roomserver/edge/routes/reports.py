"""What there is to read afterwards: who was in a room, its figures, and the audit log."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Self

from msgspec import Meta, Struct, field

from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import UUID
from roomserver.edge.rooms import OWN_RECORD, own_record
from roomserver.protocol.codes import RoomState
from roomserver.store.records import Account, AuditEvent, DayRecord, RoomRecord, StatisticsRecord
from roomserver.store.reports import AuditFilter, AuditRow, StayRow

MOST_DAYS = 366
USUAL_DAYS = 30
DAY = timedelta(days=1)
EARLIEST, LATEST = date(1970, 1, 1), date(9000, 1, 1)  # with room for a year on both sides

Microseconds = Annotated[int, Meta(ge=0, le=2**53)]


class RoomSummary(Struct, rename="camel"):
    """Which room it is about."""

    room_id: str
    room_code: str
    name: str
    state: RoomState
    metadata: dict[str, Any]

    @classmethod
    def of(cls, record: RoomRecord) -> Self:
        return cls(record.id, record.code, record.name, record.state, record.metadata)


class ParticipantsQuery(PageQuery):
    """Whom: those who are there, those who were, or all."""

    live: bool | None = None


class Stay(Struct, rename="camel", kw_only=True):
    """One stay of a participant. Times in Unix us; `leftAt` and `durationS` are null meanwhile.

    `framesSent`: to a listener; of a broadcaster, packets that came from it.
    """

    participant_id: str
    user_id: str | None
    nickname: str | None
    client_id: str | None
    role: str
    joined_at: int
    left_at: int | None
    duration_s: float | None
    leave_reason: str | None
    address: str | None
    user_agent: str | None
    frames_sent: int
    frames_dropped: int
    avg_latency_ms: float | None

    @classmethod
    def of(cls, row: StayRow) -> Self:
        return cls(
            participant_id=row.participant,
            user_id=row.user,
            nickname=row.nickname,
            client_id=row.client,
            role=row.role,
            joined_at=row.joined_at,
            left_at=row.left_at,
            duration_s=row.duration_s,
            leave_reason=row.reason,
            address=row.address,
            user_agent=row.user_agent,
            frames_sent=row.frames_sent,
            frames_dropped=row.frames_dropped,
            avg_latency_ms=row.latency_ms,
        )


class ParticipantsAnswer(Struct, rename="camel"):
    """A page of stays, newest first."""

    room: RoomSummary
    participants: list[Stay]
    next: str | None


class StatisticsAnswer(Struct, rename="camel"):
    """A room's whole life, broadcasters left out."""

    room: RoomSummary
    participants: int
    sessions: int
    listen_seconds: float
    average_session_seconds: float
    peak_listeners: int

    @classmethod
    def of(cls, room: RoomSummary, record: StatisticsRecord) -> Self:
        return cls(
            room,
            record.participants,
            record.sessions,
            record.listen_seconds,
            record.average_session_seconds,
            record.peak_listeners,
        )


class DaysQuery(Struct, rename="camel"):
    """From which day to which (UTC), both included."""

    from_: date | None = field(default=None, name="from")
    to: date | None = None


class DayAnswer(Struct, rename="camel"):
    """A room on one day (UTC)."""

    date: date
    peak_listeners: int
    total_listen_minutes: float
    total_listeners: int
    avg_latency_ms: float | None
    total_packets_sent: int
    total_packets_received: int
    final: bool

    @classmethod
    def of(cls, record: DayRecord) -> Self:
        return cls(
            record.date,
            record.peak_listeners,
            record.total_listen_minutes,
            record.total_listeners,
            record.avg_latency_ms,
            record.total_packets_sent,
            record.total_packets_received,
            record.final,
        )


class AnalyticsAnswer(Struct, rename="camel"):
    """The days on which somebody was there, oldest first."""

    room: RoomSummary
    days: list[DayAnswer]


class OwnAuditQuery(PageQuery):
    """Which lines of the audit log; times in Unix us, `until` is not in it."""

    event: AuditEvent | None = None
    room: UUID | None = None
    since: Microseconds | None = None
    until: Microseconds | None = None


class AuditQuery(OwnAuditQuery):
    """Which lines of everybody's."""

    user: UUID | None = None


class AuditLine(Struct, rename="camel"):
    """One line; `at` in Unix us."""

    event: str
    at: int
    user_id: str | None
    room_id: str | None
    address: str | None
    user_agent: str | None
    details: dict[str, Any]

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        return cls(row.event, row.at, row.user, row.room, row.address, row.user_agent, row.details)


class AuditAnswer(Struct, rename="camel"):
    """A page of the audit log, newest first."""

    entries: list[AuditLine]
    next: str | None


api = Api()


@api.get("/api/broadcaster/rooms/{room}/participants", problems=OWN_RECORD)
async def participants(
    call: Call, account: Account, query: ParticipantsQuery
) -> ParticipantsAnswer:
    """Who is in a room and who was, newest first."""
    room = await own_record(call, account)
    found = await call.services.reports.participants(
        room.id, viewer=account.id, live=query.live, after=query.after, limit=query.fetch
    )
    page, following = cut_page(query, found, lambda row: row.place)
    return ParticipantsAnswer(RoomSummary.of(room), [Stay.of(row) for row in page], following)


@api.get("/api/broadcaster/rooms/{room}/statistics", problems=OWN_RECORD)
async def statistics(call: Call, account: Account) -> StatisticsAnswer:
    """Figures of a room's whole life."""
    room = await own_record(call, account)
    found = await call.services.reports.statistics(room.id, viewer=account.id)
    return StatisticsAnswer.of(RoomSummary.of(room), found)


@api.get("/api/broadcaster/rooms/{room}/analytics", problems=OWN_RECORD)
async def analytics(call: Call, account: Account, query: DaysQuery) -> AnalyticsAnswer:
    """Figures of a room day by day; of the last 30 days unless told."""
    first, last = _days(query)
    room = await own_record(call, account)
    found = await call.services.reports.days(room.id, first, last + DAY, viewer=account.id)
    return AnalyticsAnswer(RoomSummary.of(room), [DayAnswer.of(day) for day in found])


@api.get("/api/audit", problems=[ProblemCode.DATABASE_AWAY])
async def own_audit(call: Call, account: Account, query: OwnAuditQuery) -> AuditAnswer:
    """What oneself did, and was refused, newest first."""
    return await _audit(call, query, user=account.id, viewer=account.id)


@api.get("/api/admin/audit", admin=True)
async def all_audit(call: Call, account: Account, query: AuditQuery) -> AuditAnswer:
    """What everybody did, and was refused, newest first."""
    return await _audit(call, query, user=query.user, viewer=None)


async def _audit(
    call: Call, query: OwnAuditQuery, *, user: str | None, viewer: str | None
) -> AuditAnswer:
    which = AuditFilter(
        user=user,
        room=query.room,
        event=query.event.value if query.event is not None else None,
        since=query.since,
        until=query.until,
    )
    found = await call.services.reports.audit(
        which, viewer=viewer, after=query.after, limit=query.fetch
    )
    page, following = cut_page(query, found, lambda row: row.place)
    return AuditAnswer([AuditLine.of(row) for row in page], following)


def _days(query: DaysQuery) -> tuple[date, date]:
    """First and last. Raises Problem (400)."""
    last = query.to or datetime.now(UTC).date()
    if not EARLIEST <= last <= LATEST:
        raise Problem(ProblemCode.INVALID_REQUEST, "in the query: no room is of that time")
    first = query.from_ or last - (USUAL_DAYS - 1) * DAY
    if not 0 <= (last - first).days < MOST_DAYS:
        raise Problem(
            ProblemCode.INVALID_REQUEST,
            f"in the query: from comes before to, and at most {MOST_DAYS} days are asked for",
        )
    return first, last
