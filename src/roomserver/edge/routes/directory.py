"""Who one is, and which rooms there are: one's own, and for administrators everybody's."""

from __future__ import annotations

from msgspec import Struct

from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import ProblemCode
from roomserver.edge.requests import UUID
from roomserver.edge.rooms import OWN_RECORD, OWN_ROOM, RoomAnswer, open_room, own_record
from roomserver.protocol.codes import RoomCloseReason
from roomserver.store.database import DatabaseAwayError
from roomserver.store.directory import RoomFilter
from roomserver.store.records import Account, AuditEvent


class Me(Struct, rename="camel"):
    """Answer of `GET /api/broadcaster/me`; `createdAt` in Unix us."""

    user_id: str
    email: str
    role: str
    created_at: int


class OwnRoomsQuery(PageQuery):
    """Which of one's rooms: open ones, closed ones, or all."""

    active: bool | None = None


class RoomsQuery(OwnRoomsQuery):
    """Which of all rooms."""

    owner: UUID | None = None
    public: bool | None = None


class RoomsAnswer(Struct, rename="camel"):
    """A page of rooms, newest first."""

    rooms: list[RoomAnswer]
    next: str | None


api = Api()


@api.get("/api/broadcaster/me", problems=[ProblemCode.DATABASE_AWAY])
async def me(call: Call, account: Account) -> Me:
    """Whose access token this is."""
    if not account.email:
        raise DatabaseAwayError("the account is not known without the database")
    return Me(account.id, account.email, account.role, round(account.created_at * 1_000_000))


@api.get("/api/broadcaster/rooms", problems=[ProblemCode.DATABASE_AWAY])
async def own_rooms(call: Call, account: Account, query: OwnRoomsQuery) -> RoomsAnswer:
    """One's own rooms, newest first, closed ones too."""
    which = RoomFilter(owner=account.id, active=query.active)
    return await _page(call, query, which, viewer=account.id)


@api.get("/api/broadcaster/rooms/{room}", problems=OWN_RECORD)
async def own_room(call: Call, account: Account) -> RoomAnswer:
    """One of one's own rooms, also when it is closed."""
    record = await own_record(call, account)
    return RoomAnswer.of(record, call.services.rooms.find(record.id))


@api.get("/api/admin/rooms", admin=True)
async def all_rooms(call: Call, account: Account, query: RoomsQuery) -> RoomsAnswer:
    """Everybody's rooms, newest first, closed ones too."""
    which = RoomFilter(owner=query.owner, active=query.active, public=query.public)
    return await _page(call, query, which, viewer=None)


@api.delete(
    "/api/admin/rooms/{room}",
    admin=True,
    problems=[*OWN_ROOM, ProblemCode.NOT_KEPT],
)
async def close_any_room(call: Call, account: Account) -> None:
    """Closes anybody's room for good."""
    room = open_room(call)
    await call.services.room_control.close(room, RoomCloseReason.CLOSED_BY_ADMIN)
    call.audit(
        AuditEvent.ROOM_CLOSED,
        room=room.id,
        reason=RoomCloseReason.CLOSED_BY_ADMIN,
        owner=room.record.created_by,
    )
    await call.services.rooms.written()  # that it is in the audit log, too


async def _page(
    call: Call, query: PageQuery, which: RoomFilter, *, viewer: str | None
) -> RoomsAnswer:
    rooms = call.services.rooms
    found = await call.services.room_directory.page(
        which, here=rooms.records(), after=query.after, limit=query.fetch, viewer=viewer
    )
    page, following = cut_page(query, found, lambda record: record.place)
    return RoomsAnswer([RoomAnswer.of(record, rooms.find(record.id)) for record in page], following)
