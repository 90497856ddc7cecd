"""What an owner does with those in a room: kick, ban, and a hand on their mix."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from roomserver.edge.addresses import client_address, limit_key
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import UUID
from roomserver.edge.rooms import OWN_ROOM, own_room
from roomserver.ids import new_id
from roomserver.protocol.client import NO_CONTROL, MixFields
from roomserver.protocol.server import MixState
from roomserver.rooms.connection import Connection
from roomserver.rooms.moderation import MAX_BANS, TooManyBansError, Whom
from roomserver.rooms.room import Room
from roomserver.store.records import Account, AuditEvent, BanRecord

Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROL)]


class KickRequest(Struct, rename="camel", kw_only=True):
    """Body of `POST …/kick`: who is meant, by any of three, and what they are told."""

    client_id: UUID | None = None  # one connection
    participant_id: UUID | None = None
    user_id: UUID | None = None
    reason: Reason | None = None


class KickAnswer(Struct, rename="camel"):
    """How many connections were closed."""

    closed: int


class BanRequest(Struct, rename="camel", kw_only=True):
    """Body of `POST …/ban`.

    `address` is an IP address, of which an IPv6 one stands for its /64; `withAddress` bans that
    from which who is meant is connected. `dryRun` only says how many connections would be closed.
    """

    participant_id: UUID | None = None
    user_id: UUID | None = None
    address: Annotated[str, Meta(min_length=2, max_length=64)] | None = None
    with_address: bool = False
    reason: Reason | None = None
    dry_run: bool = False


class Ban(Struct, rename="camel", kw_only=True):
    """A ban in force; `createdAt` in Unix us."""

    ban_id: str
    participant_id: str | None
    user_id: str | None
    address: str | None
    reason: str | None
    created_by: str | None
    created_at: int

    @classmethod
    def of(cls, ban: BanRecord) -> Ban:
        """As it is kept."""
        return cls(
            ban_id=ban.id,
            participant_id=ban.participant,
            user_id=ban.user,
            address=ban.address,
            reason=ban.reason,
            created_by=ban.created_by,
            created_at=round(ban.created_at * 1e6),
        )


class BanAnswer(Struct, rename="camel"):
    """The ban, null after a dry run, and how many connections it closed or would close."""

    ban: Ban | None
    hits: int


class BanList(Struct, rename="camel"):
    """Answer of `GET …/bans`, newest first; `next` is null on the last page."""

    bans: list[Ban]
    next: str | None


class MixAnswer(Struct, rename="camel"):
    """A listener's mix in force."""

    participant_id: str
    mix: MixState


api = Api()


@api.post("/api/broadcaster/rooms/{room}/kick", problems=OWN_ROOM)
async def kick(call: Call, account: Account, body: KickRequest) -> KickAnswer:
    """Closes connections of the room; they may come again."""
    room = own_room(call, account)
    whom = Whom(body.client_id, body.participant_id, body.user_id)
    if whom == Whom():
        raise _nobody("clientId, participantId or userId")
    kicked = call.services.moderation.kick(room, whom, body.reason)
    for connection in kicked:
        _audit(call, AuditEvent.PARTICIPANT_KICKED, room, connection, reason=body.reason)
    return KickAnswer(len(kicked))


@api.post(
    "/api/broadcaster/rooms/{room}/ban",
    status=201,
    problems=[*OWN_ROOM, ProblemCode.NOT_FOUND, ProblemCode.NOT_KEPT, ProblemCode.TOO_MANY],
)
async def ban(call: Call, account: Account, body: BanRequest) -> BanAnswer:
    """Keeps somebody out of the room from now on; open connections are closed."""
    room = own_room(call, account)
    moderation = call.services.moderation
    record = BanRecord(
        id=new_id(),
        participant=body.participant_id,
        user=body.user_id,
        address=_read_address(body.address),
        reason=body.reason,
        created_by=account.id,
        created_at=room.now,
    )
    if body.with_address and record.address is None:
        whom = Whom(participant=record.participant, user=record.user)
        there = moderation.present(room, whom)
        if not there:
            raise Problem(ProblemCode.NOT_FOUND, "whose address is to be banned is not in the room")
        record = replace(record, address=_read_address(there[-1].address))
    if record.participant is None and record.user is None and record.address is None:
        raise _nobody("participantId, userId or address")
    if body.dry_run:
        return BanAnswer(None, len(moderation.hit_by(room, record)))
    try:
        closed = await moderation.ban(room, record)
    except TooManyBansError:
        raise Problem(
            ProblemCode.TOO_MANY, f"a room has at most {MAX_BANS} bans; lift some first"
        ) from None
    call.audit(
        AuditEvent.PARTICIPANT_BANNED,
        room=room.id,
        ban=record.id,
        participant=record.participant,
        banned_user=record.user,
        by_address=record.address is not None,
        reason=record.reason,
        closed=len(closed),
    )
    return BanAnswer(Ban.of(record), len(closed))


@api.get("/api/broadcaster/rooms/{room}/bans", problems=OWN_ROOM)
async def bans(call: Call, account: Account, query: PageQuery) -> BanList:
    """The bans in force, newest first."""
    in_force = sorted(own_room(call, account).record.bans, key=lambda ban: ban.place, reverse=True)
    after = query.after
    found = [ban for ban in in_force if after is None or ban.place < after]
    page, following = cut_page(query, found[: query.fetch], lambda ban: ban.place)
    return BanList([Ban.of(ban) for ban in page], following)


@api.delete(
    "/api/broadcaster/rooms/{room}/bans/{ban}",
    problems=[*OWN_ROOM, ProblemCode.NOT_FOUND, ProblemCode.NOT_KEPT],
)
async def lift_ban(call: Call, account: Account) -> None:
    """Ends a ban."""
    room = own_room(call, account)
    ban_id = call.path("ban").lower()
    if not await call.services.moderation.lift(room, ban_id):
        raise Problem(ProblemCode.NOT_FOUND, "the room has no such ban")
    call.audit(AuditEvent.BAN_LIFTED, room=room.id, ban=ban_id)


@api.get(
    "/api/broadcaster/rooms/{room}/mixes/{participant}",
    problems=[*OWN_ROOM, ProblemCode.NOT_FOUND],
)
async def mix(call: Call, account: Account) -> MixAnswer:
    """A listener's mix."""
    room = own_room(call, account)
    participant = call.path("participant").lower()
    return _mix_answer(participant, call.services.moderation.mix_of(room, participant))


@api.put(
    "/api/broadcaster/rooms/{room}/mixes/{participant}",
    problems=[*OWN_ROOM, ProblemCode.NOT_FOUND],
)
async def set_mix(call: Call, account: Account, body: MixFields) -> MixAnswer:
    """Changes a listener's mix: an engineer's hand on somebody's monitor."""
    room = own_room(call, account)
    participant = call.path("participant").lower()
    answer = _mix_answer(participant, call.services.moderation.set_mix(room, participant, body))
    if call.services.moderation.is_news(room, participant):
        call.audit(AuditEvent.MIX_SET, room=room.id, participant=participant)
    return answer


def _mix_answer(participant: str, mix: MixState | None) -> MixAnswer:
    if mix is None:
        raise Problem(ProblemCode.NOT_FOUND, "nobody of that participant id listens")
    return MixAnswer(participant, mix)


def _audit(call: Call, event: AuditEvent, room: Room, connection: Connection, **facts: Any) -> None:
    assert connection.token is not None
    call.audit(
        event,
        room=room.id,
        client=connection.client_id,
        participant=connection.token.participant,
        **facts,
    )


def _nobody(names: str) -> Problem:
    return Problem(ProblemCode.INVALID_REQUEST, f"who is meant? {names} is needed")


def _read_address(text: str | None) -> str | None:
    """As limits count it. Raises Problem (400)."""
    if text is None:
        return None
    address = client_address(text)
    if address is None:
        raise Problem(ProblemCode.INVALID_REQUEST, "that is no IP address")
    return limit_key(address)
