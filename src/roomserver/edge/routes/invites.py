"""Invites into a room: links that are good for so long and so many."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import read_id
from roomserver.edge.rooms import OWN_ROOM, own_room
from roomserver.rooms.room import Room
from roomserver.store.invites import TooManyInvitesError
from roomserver.store.records import Account, AuditEvent, InviteRecord

DEFAULT_S = 7 * 86_400


class RoomInviteRequest(Struct, rename="camel", kw_only=True):
    """Body of `POST …/invites`; without `maxUses` it may be used any number of times."""

    expires_in_s: Annotated[int, Meta(ge=60, le=366 * 86_400)] = DEFAULT_S
    max_uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class RoomInvite(Struct, rename="camel", kw_only=True):
    """An invite; times in Unix us."""

    invite_id: str
    created_at: int
    expires_at: int
    max_uses: int | None
    uses: int
    revoked_at: int | None

    @classmethod
    def of(cls, invite: InviteRecord) -> RoomInvite:
        """As it is kept."""
        revoked = invite.revoked_at
        return cls(
            invite_id=invite.id,
            created_at=round(invite.created_at * 1e6),
            expires_at=round(invite.expires_at * 1e6),
            max_uses=invite.max_uses,
            uses=invite.uses,
            revoked_at=round(revoked * 1e6) if revoked is not None else None,
        )


class RoomInviteAnswer(Struct, rename="camel"):
    """A new invite: its text, for `POST /auth/room/join`, and a link with it. Told once."""

    invite_id: str
    invite: str
    link: str
    expires_at: int


class RoomInvites(Struct, rename="camel"):
    """Answer of `GET …/invites`, newest first; `next` is null on the last page."""

    invites: list[RoomInvite]
    next: str | None


api = Api()


@api.post(
    "/api/broadcaster/rooms/{room}/invites",
    status=201,
    problems=[*OWN_ROOM, ProblemCode.TOO_MANY],
)
async def make_invite(call: Call, account: Account, body: RoomInviteRequest) -> RoomInviteAnswer:
    """Makes a link that lets its bearer in without the password."""
    room = own_room(call, account)
    try:
        invite, text = await call.services.invites.make(
            room, by=account.id, for_s=body.expires_in_s, max_uses=body.max_uses
        )
    except TooManyInvitesError as error:
        raise Problem(ProblemCode.TOO_MANY, f"{error}; wait until some are over") from None
    call.audit(AuditEvent.INVITE_CREATED, room=room.id, invite=invite.id, max_uses=invite.max_uses)
    return RoomInviteAnswer(
        invite.id, text, _link(call, room, text), round(invite.expires_at * 1e6)
    )


@api.get("/api/broadcaster/rooms/{room}/invites", problems=OWN_ROOM)
async def room_invites(call: Call, account: Account, query: PageQuery) -> RoomInvites:
    """The room's invites, newest first."""
    room = own_room(call, account)
    found = await call.services.invites.page(room, after=query.after, limit=query.fetch)
    page, following = cut_page(query, found, lambda invite: invite.place)
    return RoomInvites([RoomInvite.of(invite) for invite in page], following)


@api.delete(
    "/api/broadcaster/rooms/{room}/invites/{invite}",
    problems=[*OWN_ROOM, ProblemCode.NOT_FOUND],
)
async def revoke_invite(call: Call, account: Account) -> None:
    """Makes an invite worthless; who came by it stays."""
    room = own_room(call, account)
    invite = read_id(call.path("invite"), "the room has no such invite")
    if not await call.services.invites.revoke(room, invite):
        raise Problem(ProblemCode.NOT_FOUND, "the room has no such invite")
    call.audit(AuditEvent.INVITE_REVOKED, room=room.id, invite=invite)


def _link(call: Call, room: Room, text: str) -> str:
    """Its secret stands in the fragment, which no browser sends and no log sees."""
    services = call.services
    scheme = "https" if services.addresses.is_secure(call.request) else "http"
    origin = services.public_url.rstrip("/") or f"{scheme}://{call.request.host}"
    return f"{origin}/listen/{room.record.code}#invite={text}"
