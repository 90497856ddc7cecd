"""Rooms, as their owners make, use and close them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import Password, read_password
from roomserver.protocol.client import NO_CONTROL
from roomserver.protocol.codes import Role, RoomCloseReason
from roomserver.rooms.room import Room
from roomserver.store.records import Account, AuditEvent

MAX_METADATA_BYTES = 16_384
OWN_ROOM = (ProblemCode.ROOM_NOT_FOUND, ProblemCode.ROOM_CLOSED, ProblemCode.NOT_ALLOWED)
"""What `own_room` refuses with."""


class CreateRoomRequest(Struct, rename="camel"):
    """Body of `POST /auth/room/create`."""

    password: Password
    name: Annotated[str, Meta(max_length=120, pattern=NO_CONTROL)] | None = None
    public: bool = False
    metadata: dict[str, Any] | None = None


class CreateRoomAnswer(Struct, rename="camel"):
    """Its answer; the token is a broadcaster's."""

    room_id: str
    room_code: str
    room_token: str
    name: str
    persisted: bool


class RoomTokenAnswer(Struct, rename="camel"):
    """Answer of `POST /api/broadcaster/rooms/{roomId}/token`; `expiresAt` in Unix us."""

    room_id: str
    room_token: str
    expires_at: int


api = Api()


@api.post(
    "/auth/room/create",
    status=201,
    problems=[ProblemCode.BUSY, ProblemCode.NOT_KEPT, ProblemCode.RATE_LIMITED],
)
async def create_room(call: Call, account: Account, body: CreateRoomRequest) -> CreateRoomAnswer:
    """Makes a room."""
    services = call.services
    password = read_password(body.password)
    if len(msgspec.json.encode(body.metadata)) > MAX_METADATA_BYTES:
        raise Problem(
            ProblemCode.INVALID_REQUEST, f"metadata may have at most {MAX_METADATA_BYTES} bytes"
        )
    async with call.limited(services.limits.create, account.id) as attempt:
        room, persisted = await services.rooms.create(
            owner=account.id,
            password=password,
            name=(body.name or "").strip() or None,
            public=body.public,
            metadata=body.metadata,
        )
        attempt.count()
    call.audit(AuditEvent.ROOM_CREATED, user=account.id, room=room.id, code=room.record.code)
    token, _ = services.tokens.issue_room(
        room.id, Role.BROADCASTER, version=room.record.token_version, user=account.id
    )
    return CreateRoomAnswer(room.id, room.record.code, token, room.record.name, persisted)


@api.post("/api/broadcaster/rooms/{room}/token", problems=OWN_ROOM)
async def room_token(call: Call, account: Account) -> RoomTokenAnswer:
    """Gives the owner another broadcaster's token."""
    services = call.services
    room = own_room(call, account)
    text, token = services.tokens.issue_room(
        room.id, Role.BROADCASTER, version=room.record.token_version, user=account.id
    )
    return RoomTokenAnswer(room.id, text, token.expires * 1_000_000)


@api.delete("/api/broadcaster/rooms/{room}", problems=[*OWN_ROOM, ProblemCode.NOT_KEPT])
async def close_room(call: Call, account: Account) -> None:
    """Closes a room for good."""
    rooms = call.services.rooms
    rooms.close(own_room(call, account), RoomCloseReason.CLOSED_BY_OWNER)
    await rooms.written()


def own_room(call: Call, account: Account) -> Room:
    """The room that the path names. Raises Problem when it is not open here, or not theirs."""
    name = call.path("room")
    rooms = call.services.rooms
    room = rooms.find(name)
    if room is None:
        if rooms.was_closed(name):
            raise Problem(ProblemCode.ROOM_CLOSED, "the room was closed")
        raise Problem(ProblemCode.ROOM_NOT_FOUND, "there is no such room")
    if room.record.created_by != account.id:
        raise Problem(ProblemCode.NOT_ALLOWED, "the room belongs to somebody else").audited(
            AuditEvent.ROOM_ACCESS_DENIED, user=account.id, room=room.id
        )
    return room
