"""Rooms in requests and answers: what the routes about them share."""

from __future__ import annotations

from typing import Annotated, Any, Self

from msgspec import Meta, Struct

from roomserver.edge.endpoints import Call
from roomserver.edge.metadata import check_metadata
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.protocol.client import MAX_CHANNELS, NO_CONTROL, Name
from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.rooms.room import Room
from roomserver.store.records import Account, AuditEvent, RoomRecord

Label = Annotated[str, Meta(max_length=120, pattern=NO_CONTROL)]
ListenerLimit = Annotated[int, Meta(ge=1, le=1_000_000)]
ChannelNames = Annotated[tuple[Name, ...], Meta(max_length=MAX_CHANNELS)]
Grace = Annotated[float, Meta(ge=0, le=86_400)]

NO_SUCH_ROOM = "there is no such room"

OWN_RECORD = (ProblemCode.ROOM_NOT_FOUND, ProblemCode.DATABASE_AWAY)
"""What `own_record` refuses with."""

OWN_ROOM = (
    ProblemCode.ROOM_NOT_FOUND,
    ProblemCode.ROOM_CLOSED,
    ProblemCode.WRONG_SERVER,
    ProblemCode.BUSY,
    ProblemCode.DATABASE_AWAY,
)
"""What `own_room` and `open_room` refuse with, and the look for a room that is not here."""


class RoomAnswer(Struct, rename="camel", kw_only=True):
    """A room as its owner, or an administrator, sees it. Times in Unix us."""

    room_id: str
    room_code: str
    owner: str | None
    name: str
    state: RoomState
    suspended_until: int | None
    held: bool  # suspended by its owner: no source until it is resumed
    open: bool  # without a password
    public: bool
    permanent: bool
    metadata: dict[str, Any]
    max_listeners: int | None  # None: as many as the server admits
    channel_names: tuple[str, ...]
    grace_s: float | None  # None: as the server has it
    created_at: int
    closed_at: int | None
    close_reason: RoomCloseReason | None
    has_broadcaster: bool
    live: bool  # there is something to hear
    listener_count: int | None  # None: it is open on another server

    @classmethod
    def of(cls, record: RoomRecord, room: Room | None) -> Self:
        """room: the same room, if it is open here."""
        is_closed = record.state is RoomState.CLOSED
        return cls(
            room_id=record.id,
            room_code=record.code,
            owner=record.created_by,
            name=record.name,
            state=record.state,
            suspended_until=_us(record.suspended_until),
            held=record.held,
            open=record.password_hash is None,
            public=record.public,
            permanent=record.permanent,
            metadata=record.metadata,
            max_listeners=record.max_listeners or None,
            channel_names=record.channel_names or (),
            grace_s=record.grace_s,
            created_at=round(record.created_at * 1_000_000),
            closed_at=_us(record.closed_at),
            close_reason=record.close_reason,
            has_broadcaster=room is not None and room.has_broadcaster,
            live=room is not None and room.is_live,
            listener_count=len(room.listeners) if room else 0 if is_closed else None,
        )


# A code is quickly guessed. So that nobody learns by trying which rooms there are, somebody else's
# is like none, also in one's own lines of the audit log.


async def own_record(call: Call, account: Account) -> RoomRecord:
    """The room that the path names, also when it is closed or on another server.

    Raises Problem when there is none, or it is somebody else's, and DatabaseAwayError.
    """
    services = call.services
    name = call.path("room")
    room = services.rooms.find(name)
    record = room.record if room is not None else services.rooms.closed(name)
    if record is None:
        record = await services.room_directory.find(name, owner=account.id)
    if record is None or record.created_by != account.id:
        raise _not_theirs(account)
    return record


def own_room(call: Call, account: Account) -> Room:
    """The room that the path names. Raises Problem when it is not open here, or not theirs."""
    name = call.path("room")
    rooms = call.services.rooms
    room = rooms.find(name)
    record = room.record if room is not None else rooms.closed(name)
    if record is None or record.created_by != account.id:
        raise _not_theirs(account)
    return open_room(call)


def open_room(call: Call) -> Room:
    """The room that the path names, whosoever it is. Raises Problem when it is not open here."""
    name = call.path("room")
    rooms = call.services.rooms
    room = rooms.find(name)
    if room is None:
        if rooms.closed(name) is not None:
            raise Problem(ProblemCode.ROOM_CLOSED, "the room was closed")
        raise Problem(ProblemCode.ROOM_NOT_FOUND, NO_SUCH_ROOM)
    return room


def read_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """The metadata, if it can be kept. Raises Problem (400)."""
    if metadata is None:
        return {}
    check_metadata(metadata)
    return metadata


def read_listener_limit(call: Call, limit: int | None) -> int:
    """The limit as a record has it: 0 is the server's own. Raises Problem (400)."""
    most = call.services.rooms.max_listeners
    if limit is not None and 0 < most < limit:
        raise Problem(
            ProblemCode.INVALID_REQUEST, f"this server admits at most {most} listeners to a room"
        )
    return limit or 0


def read_name(name: str | None, code: str) -> str:
    """The name; that of a room without one is made of its code."""
    return (name or "").strip() or f"Room {code}"


def _not_theirs(account: Account) -> Problem:
    problem = Problem(ProblemCode.ROOM_NOT_FOUND, NO_SUCH_ROOM)
    return problem.audited(AuditEvent.ROOM_ACCESS_DENIED, user=account.id)


def _us(unix_s: float | None) -> int | None:
    return None if unix_s is None else round(unix_s * 1_000_000)
