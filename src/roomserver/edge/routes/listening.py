"""What listeners need: the way into a room, and the rooms that anyone may find."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from msgspec import Struct

from roomserver.auth.passwords import attempt_id
from roomserver.auth.tokens import InviteToken
from roomserver.discreet import Discreet
from roomserver.edge.elsewhere import locate_guessed, wrong_server
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.limits import Usage
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import Password, read_password
from roomserver.edge.services import Services
from roomserver.protocol.client import Name, RoomName, TokenText
from roomserver.protocol.codes import Role, RoomState
from roomserver.rooms.invites import Invites
from roomserver.rooms.room import Room
from roomserver.store.database import DatabaseAwayError
from roomserver.store.records import Account, AuditEvent, Elsewhere


class JoinRequest(Discreet, rename="camel"):
    """Body of `POST /auth/room/join`; `roomCode` may also be the room's id."""

    room_code: RoomName
    password: Password | None = None  # a room without one is open to everyone
    invite: TokenText | None = None  # in place of the password
    nickname: Name | None = None


class JoinAnswer(Struct, rename="camel"):
    """Its answer; the token is a listener's."""

    room_id: str
    room_token: str
    room_name: str
    listener_count: int
    state: RoomState


class PublicRoom(Struct, rename="camel"):
    """A room in the list of public ones; `createdAt` in Unix us."""

    room_id: str
    room_code: str
    name: str
    state: RoomState
    has_broadcaster: bool
    live: bool  # there is something to hear
    open: bool  # without a password
    listener_count: int
    created_at: int
    metadata: dict[str, Any]


class PublicRooms(Struct, rename="camel"):
    """Answer of `GET /api/rooms/public`."""

    rooms: list[PublicRoom]
    next: str | None


api = Api()
FULL_RETRY_S = 30.0


@api.post(
    "/auth/room/join",
    problems=[
        ProblemCode.INVALID_CREDENTIALS,
        ProblemCode.BANNED,
        ProblemCode.DATABASE_AWAY,
        ProblemCode.ROOM_CLOSED,
        ProblemCode.ROOM_FULL,
        ProblemCode.RATE_LIMITED,
        ProblemCode.BUSY,
        ProblemCode.WRONG_SERVER,
    ],
)
async def join_room(call: Call, body: JoinRequest, account: Account | None = None) -> JoinAnswer:
    """Lets a listener into a room. An unknown room and a wrong password look alike."""
    services = call.services
    if account is None and (at_once := join_at_once(services, call.limit_key, body)) is not None:
        for usage in at_once.usages:
            call.tell(usage)
        return at_once.answer
    password = None if body.password is None else read_password(body.password)
    room = services.rooms.find(body.room_code)
    subject = room.id if room is not None else body.room_code.upper()
    limits = services.limits
    key = (call.limit_key, subject)
    same = attempt_id(subject, password or (body.invite or "").encode())
    if room is not None and body.invite and services.invites.read(room.id, body.invite):
        # We wrote it, so that nobody guesses: a hall that comes with an invite each is one attempt.
        same = attempt_id(subject, b"")
    user = account.id if account is not None else None
    async with (
        _one_use(services.invites) as use,
        call.limited(limits.join_address, call.limit_key, same=same, quiet=True) as of_address,
        call.limited(limits.join_failures, *key, same=same) as of_room,
        call.limited(limits.joins, *key) as join,
    ):
        elsewhere = None
        is_here = room is not None
        if room is None:
            elsewhere = await locate_guessed(services, body.room_code)
            room = services.rooms.find(body.room_code)  # it may be ours since
        if body.invite is None:
            may_enter = await _may_enter(
                services, room or elsewhere, subject, password, asker=call.limit_key
            )
        elif room is not None:
            invite = services.invites.read(room.id, body.invite)
            if invite is not None:  # nobody uses one at a closed door
                _check_entrance(room, call.limit_key, user)
            may_enter = invite is not None and await use(invite)
        else:
            there = elsewhere.id if elsewhere is not None else ""
            may_enter = services.invites.read(there, body.invite) is not None
        if not may_enter:
            of_address.count()
            of_room.count()
            if is_here:  # a refusal takes as long, whether there is such a room or not
                await locate_guessed(services, body.room_code)
            raise Problem(
                ProblemCode.INVALID_CREDENTIALS, "no such room, or the password is wrong"
            ).audited(AuditEvent.ROOM_ACCESS_DENIED, room=room.id if room is not None else None)
        if elsewhere is not None:
            raise wrong_server(elsewhere)
        assert room is not None
        join.count()
        # Much may have happened while that was found out.
        _check_entrance(room, call.limit_key, user)
        # At once: a token of the version that comes with another password is for who knows that.
        return _let_in(services, room, user, body.nickname)


class Joined(NamedTuple):
    """What `join_at_once` says: the answer, and what is left of the limits."""

    answer: JoinAnswer
    usages: Sequence[Usage]


def join_at_once(services: Services, limit_key: str, body: JoinRequest) -> Joined | None:
    """The plain case: somebody without an account brings what is known to open the room.

    Nothing is waited for, so that a hall that comes at once is let in without a task for each. None
    and nothing counted: `join_room` finds out.
    """
    room = services.rooms.find(body.room_code)
    if room is None or body.invite is not None:
        return None
    key = (limit_key, room.id)
    try:
        password = b"" if body.password is None else read_password(body.password)
        attempt = attempt_id(room.id, password)
        hashed = room.record.password_hash
        if hashed is not None and not services.room_passwords.knows(room.id, attempt, hashed):
            return None
        _check_entrance(room, limit_key, None)
    except Problem:
        return None
    limits = services.limits
    failures, joins = limits.join_failures, limits.joins
    if not (
        limits.join_address.admits((limit_key,), attempt)
        and failures.admits(key, attempt)
        and joins.admits(key)
    ):
        return None
    joins.count(key)
    return Joined(
        _let_in(services, room, None, body.nickname),
        (joins.usage(*key), failures.usage(*key)),
    )


def _let_in(services: Services, room: Room, user: str | None, nickname: str | None) -> JoinAnswer:
    token, _ = services.tokens.issue_room(
        room.id,
        Role.LISTENER,
        version=room.record.token_version,
        user=user,
        nickname=nickname,
    )
    return JoinAnswer(room.id, token, room.record.name, len(room.listeners), room.state)


@asynccontextmanager
async def _one_use(invites: Invites) -> AsyncIterator[Callable[[InviteToken], Awaitable[bool]]]:
    """Uses an invite, and tells whether it holds; who is refused after all has not used it."""
    used: list[InviteToken] = []

    async def use(invite: InviteToken) -> bool:
        if await invites.redeem(invite):
            used.append(invite)
        return bool(used)

    try:
        yield use
    except Problem:
        with suppress(DatabaseAwayError):
            for invite in used:
                await invites.give_back(invite)
        raise


def _check_entrance(room: Room, limit_key: str, user: str | None) -> None:
    """Raises Problem when nobody may come in now, nobody from there, or not this user."""
    if room.state is RoomState.CLOSED:
        raise Problem(ProblemCode.ROOM_CLOSED, "the room was closed")
    if room.bans.refuse_newcomer(user, limit_key, owner=room.record.created_by):
        raise Problem(ProblemCode.BANNED, "you are banned from the room").audited(
            AuditEvent.ROOM_ACCESS_DENIED, room=room.id
        )
    if room.is_full:
        raise Problem.later(
            ProblemCode.ROOM_FULL, "the room is full", after_s=FULL_RETRY_S
        ).audited(AuditEvent.ROOM_ACCESS_DENIED, room=room.id)


async def _may_enter(
    services: Services,
    room: Room | Elsewhere | None,
    subject: str,
    password: bytes | None,
    *,
    asker: str,
) -> bool:
    """Whether the password is the room's, or it needs none. Raises PoolFullError."""
    hashed = _password_hash(room)
    if room is not None and hashed is None:
        return True
    if password is None:
        return False
    named = subject if room is None else room.id  # as `forget` is told it
    right = await services.room_passwords.check(named, password, hashed, asker=asker)
    # Meanwhile the room may have got another password.
    return right and room is not None and _password_hash(room) == hashed


def _password_hash(room: Room | Elsewhere | None) -> bytes | None:
    if room is None:
        return None
    return room.record.password_hash if isinstance(room, Room) else room.password_hash


@api.get("/api/rooms/public")
async def public_rooms(call: Call, query: PageQuery) -> PublicRooms:
    """Rooms that may be listed, newest first."""
    rooms = call.services.rooms
    found = rooms.public(query.after, query.fetch)
    page, following = cut_page(query, found, lambda room: room.record.place)
    listed = [
        PublicRoom(
            room_id=room.id,
            room_code=room.record.code,
            name=room.record.name,
            state=room.state,
            has_broadcaster=room.has_broadcaster,
            live=room.is_live,
            open=room.record.password_hash is None,
            listener_count=len(room.listeners),
            created_at=round(room.record.created_at * 1e6),
            metadata=room.record.metadata,
        )
        for room in page
    ]
    return PublicRooms(listed, following)
