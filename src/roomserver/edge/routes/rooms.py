"""Rooms, as their owners make, use and close them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from roomserver.discreet import Discreet
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import ProblemCode
from roomserver.edge.requests import Password, read_password
from roomserver.edge.rooms import (
    OWN_ROOM,
    ChannelNames,
    Grace,
    Label,
    ListenerLimit,
    own_room,
    read_listener_limit,
    read_metadata,
)
from roomserver.protocol.codes import Role, RoomCloseReason
from roomserver.store.records import Account, AuditEvent


class CreateRoomRequest(Discreet, rename="camel"):
    """Body of `POST /auth/room/create`."""

    password: Password | None = None  # without one the room is open to everyone
    name: Label | None = None
    public: bool = False
    permanent: bool = False
    metadata: dict[str, Any] | None = None
    max_listeners: ListenerLimit | None = None
    channel_names: ChannelNames | None = None
    grace_s: Grace | None = None


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
    password = None if body.password is None else read_password(body.password)
    metadata = read_metadata(body.metadata)
    max_listeners = read_listener_limit(call, body.max_listeners)
    async with call.limited(services.limits.create, account.id) as attempt:
        room, persisted = await services.rooms.create(
            owner=account.id,
            password=password,
            name=(body.name or "").strip() or None,
            public=body.public,
            permanent=body.permanent,
            metadata=metadata,
            max_listeners=max_listeners,
            channel_names=body.channel_names,
            grace_s=body.grace_s,
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
    room = own_room(call, account)
    await call.services.room_control.close(room, RoomCloseReason.CLOSED_BY_OWNER)
    call.audit(AuditEvent.ROOM_CLOSED, room=room.id, reason=RoomCloseReason.CLOSED_BY_OWNER)
    await call.services.rooms.written()  # that it is in the audit log, too
