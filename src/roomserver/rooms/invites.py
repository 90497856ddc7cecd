"""Invites: a signed link brings its bearer into a room without the password, so many times."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence

from roomserver.auth.tokens import InviteToken, TokenError, Tokens
from roomserver.ids import new_id
from roomserver.rooms.room import Room
from roomserver.store.invites import InviteStore
from roomserver.store.records import InviteRecord, Place


class Invites:
    """Invites of all rooms. Every coroutine may raise DatabaseAwayError."""

    def __init__(
        self, store: InviteStore, tokens: Tokens, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._now = now

    async def make(
        self, room: Room, *, by: str, for_s: float, max_uses: int | None
    ) -> tuple[InviteRecord, str]:
        """A new invite, and the text that is good for it, which is not kept.

        Raises TooManyInvitesError.
        """
        secret = secrets.token_urlsafe(24)
        now = self._now()
        expires = int(now + for_s)
        invite = InviteRecord(new_id(), room.id, _hash(secret), by, now, float(expires), max_uses)
        await self._store.add(invite)
        return invite, self._tokens.sign_invite(InviteToken(invite.id, room.id, secret, expires))

    def read(self, room_id: str, text: str) -> InviteToken | None:
        """What the text says, if we wrote it for this room and it has not expired."""
        try:
            token = self._tokens.read_invite(text)
        except TokenError:
            return None
        return token if token.room == room_id else None

    async def redeem(self, token: InviteToken) -> bool:
        """Uses the invite once; whether it still holds."""
        return await self._store.redeem(token.id, token.room, _hash(token.secret), now=self._now())

    async def give_back(self, token: InviteToken) -> None:
        """Takes a use back: it let nobody in."""
        await self._store.give_back(token.id, token.room)

    async def revoke(self, room: Room, invite_id: str) -> bool:
        """Makes it worthless; whether the room has one of this id that was not."""
        return await self._store.revoke(invite_id, room.id, now=self._now())

    async def page(self, room: Room, *, after: Place | None, limit: int) -> Sequence[InviteRecord]:
        """The room's invites, newest first."""
        return await self._store.page(room.id, after=after, limit=limit)


def _hash(secret: str) -> bytes:
    # 192 random bits need no salt and no slow hash.
    return hashlib.sha256(secret.encode()).digest()
