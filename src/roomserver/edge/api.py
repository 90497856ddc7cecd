"""The REST interface: its bodies and its routes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

import relaycore
from roomserver.auth.accounts import InvalidEmailError, check_email
from roomserver.auth.passwords import PoolFullError, attempt_id
from roomserver.edge.addresses import limit_key
from roomserver.edge.failures import Attempt, FailureLimiter, TooManyFailuresError
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import authenticate, read_body, read_password
from roomserver.edge.services import SERVICES
from roomserver.protocol.client import NO_CONTROL, Name, RoomName
from roomserver.protocol.codes import Role, RoomCloseReason, RoomState
from roomserver.rooms.room import Room
from roomserver.store.records import Account, AuditEvent

MAX_METADATA_BYTES = 16_384
BUSY_RETRY_S = 5.0

Password = Annotated[str, Meta(max_length=1024)]  # bcrypt's own limit is told apart, by bytes


class LoginRequest(Struct, rename="camel"):
    """Body of `POST /auth/broadcaster`."""

    email: Annotated[str, Meta(min_length=1, max_length=254)]
    password: Password


class LoginAnswer(Struct, rename="camel"):
    """Its answer."""

    access_token: str
    refresh_token: str


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


class JoinRequest(Struct, rename="camel"):
    """Body of `POST /auth/room/join`; `roomCode` may also be the room's id."""

    room_code: RoomName
    password: Password
    nickname: Name | None = None


class JoinAnswer(Struct, rename="camel"):
    """Its answer; the token is a listener's."""

    room_id: str
    room_token: str
    room_name: str
    listener_count: int
    state: RoomState


class RoomTokenAnswer(Struct, rename="camel"):
    """Answer of `POST /api/broadcaster/rooms/{roomId}/token`; `expiresAt` in Unix us."""

    room_id: str
    room_token: str
    expires_at: int


class PublicRoom(Struct, rename="camel"):
    """A room in the list of public ones; `createdAt` in Unix us."""

    room_id: str
    room_code: str
    name: str
    state: RoomState
    has_broadcaster: bool
    listener_count: int
    created_at: int
    metadata: dict[str, Any]


class PublicRooms(Struct):
    """Answer of `GET /api/rooms/public`."""

    rooms: list[PublicRoom]


class Health(Struct):
    """Answer of `GET /health`."""

    status: str
    version: str
    rooms: int
    connections: int


routes = web.RouteTableDef()


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Whether the server is alive, and how much it does."""
    services = request.app[SERVICES]
    return answer(
        Health("ok", relaycore.__version__, len(services.rooms), len(services.connections))
    )


@routes.post("/auth/broadcaster")
async def login(request: web.Request) -> web.Response:
    """Logs a broadcaster in."""
    services = request.app[SERVICES]
    body = await read_body(request, LoginRequest)
    password = read_password(body.password)
    address = services.addresses.of(request)
    account = body.email.strip().casefold()
    same = attempt_id(account, password)
    async with _attempt(services.login_failures, (account, limit_key(address)), same) as attempt:
        session = await services.accounts.login(body.email, password)
        if session is None:
            attempt.failed()
    if session is None:
        raise Problem(
            401, ProblemCode.INVALID_CREDENTIALS, "e-mail address or password is wrong"
        ).audited(AuditEvent.LOGIN_FAILURE, email=_loggable(body.email))
    services.rooms.audit(AuditEvent.LOGIN_SUCCESS, address=address, user=session.account.id)
    return answer(LoginAnswer(session.access_token, session.refresh_token))


@routes.post("/auth/room/create")
async def create_room(request: web.Request) -> web.Response:
    """Makes a room."""
    services = request.app[SERVICES]
    account = await authenticate(request)
    body = await read_body(request, CreateRoomRequest)
    password = read_password(body.password)
    if len(msgspec.json.encode(body.metadata)) > MAX_METADATA_BYTES:
        raise Problem(
            400,
            ProblemCode.INVALID_REQUEST,
            f"metadata may have at most {MAX_METADATA_BYTES} bytes",
        )
    try:
        room, persisted = await services.rooms.create(
            owner=account.id,
            password=password,
            name=(body.name or "").strip() or None,
            public=body.public,
            metadata=body.metadata,
            address=services.addresses.of(request),
        )
    except PoolFullError:
        raise _busy() from None
    token, _ = services.tokens.issue_room(room.id, Role.BROADCASTER, user=account.id)
    return answer(
        CreateRoomAnswer(room.id, room.record.code, token, room.record.name, persisted), status=201
    )


@routes.post("/auth/room/join")
async def join_room(request: web.Request) -> web.Response:
    """Lets a listener into a room. An unknown room and a wrong password look alike."""
    services = request.app[SERVICES]
    body = await read_body(request, JoinRequest)
    password = read_password(body.password)
    address = services.addresses.of(request)
    room = services.rooms.find(body.room_code)
    subject = room.id if room is not None else body.room_code.upper()
    hashed = room.record.password_hash if room is not None else None
    async with _attempt(
        services.join_failures, (limit_key(address), subject), attempt_id(subject, password)
    ) as attempt:
        if not await services.room_passwords.check(subject, password, hashed):
            attempt.failed()
            raise Problem(
                401, ProblemCode.INVALID_CREDENTIALS, "no such room, or the password is wrong"
            ).audited(AuditEvent.ROOM_ACCESS_DENIED, room=room.id if room is not None else None)
    assert room is not None
    if room.state is RoomState.CLOSED:  # while the password was checked
        raise Problem(410, ProblemCode.ROOM_CLOSED, "the room was closed")
    token, _ = services.tokens.issue_room(room.id, Role.LISTENER, nickname=body.nickname)
    return answer(JoinAnswer(room.id, token, room.record.name, len(room.listeners), room.state))


@routes.get("/api/rooms/public")
async def public_rooms(request: web.Request) -> web.Response:
    """Rooms that may be listed, newest first."""
    rooms = [
        PublicRoom(
            room_id=room.id,
            room_code=room.record.code,
            name=room.record.name,
            state=room.state,
            has_broadcaster=room.has_broadcaster,
            listener_count=len(room.listeners),
            created_at=round(room.record.created_at * 1e6),
            metadata=room.record.metadata,
        )
        for room in request.app[SERVICES].rooms.public()
    ]
    return answer(PublicRooms(rooms))


@routes.post("/api/broadcaster/rooms/{room}/token")
async def room_token(request: web.Request) -> web.Response:
    """Gives the owner another broadcaster's token."""
    services = request.app[SERVICES]
    account = await authenticate(request)
    room = _own_room(request, account)
    text, token = services.tokens.issue_room(room.id, Role.BROADCASTER, user=account.id)
    return answer(RoomTokenAnswer(room.id, text, token.expires * 1_000_000))


@routes.delete("/api/broadcaster/rooms/{room}")
async def close_room(request: web.Request) -> web.Response:
    """Closes a room for good."""
    services = request.app[SERVICES]
    account = await authenticate(request)
    services.rooms.close(_own_room(request, account), RoomCloseReason.CLOSED_BY_OWNER)
    await services.rooms.written()
    return web.Response(status=204)


def answer(body: Struct, status: int = 200) -> web.Response:
    """A JSON answer. Most carry tokens, and none is worth caching."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _loggable(email: str) -> str | None:
    """The address if it is one: people type passwords into the wrong field."""
    try:
        return check_email(email)
    except InvalidEmailError:
        return None


def _own_room(request: web.Request, account: Account) -> Room:
    services = request.app[SERVICES]
    name = request.match_info["room"]
    room = services.rooms.find(name)
    if room is None:
        if services.rooms.was_closed(name):
            raise Problem(410, ProblemCode.ROOM_CLOSED, "the room was closed")
        raise Problem(404, ProblemCode.ROOM_NOT_FOUND, "there is no such room")
    if room.record.created_by != account.id:
        raise Problem(403, ProblemCode.NOT_ALLOWED, "the room belongs to somebody else").audited(
            AuditEvent.ROOM_ACCESS_DENIED, user=account.id, room=room.id
        )
    return room


@asynccontextmanager
async def _attempt(
    limiter: FailureLimiter, key: tuple[str, ...], same: Hashable
) -> AsyncIterator[Attempt]:
    """An attempt with a password: 429 after too many failures, 503 when too many wait."""
    try:
        async with limiter.attempt(*key, same=same) as attempt:
            yield attempt
    except TooManyFailuresError as error:
        raise Problem.later(
            429,
            ProblemCode.RATE_LIMITED,
            "too many failed attempts",
            after_s=error.retry_after_s,
        ).audited(retry_s=math.ceil(error.retry_after_s)) from None
    except PoolFullError:
        raise _busy() from None


def _busy() -> Problem:
    return Problem.later(
        503, ProblemCode.BUSY, "too many passwords are being checked", after_s=BUSY_RETRY_S
    )
