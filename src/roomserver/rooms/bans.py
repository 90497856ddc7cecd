"""Who may not come into a room, by participant, user or address; looked up at every entry."""

from __future__ import annotations

from collections.abc import Sequence

from roomserver.auth.tokens import RoomToken
from roomserver.store.records import BanRecord


class Bans:
    """The bans in force in one room. Immutable."""

    def __init__(self, records: Sequence[BanRecord] = ()) -> None:
        self.records = records
        """Oldest first."""
        self._participants = frozenset(ban.participant for ban in records if ban.participant)
        self._users = frozenset(ban.user for ban in records if ban.user)
        self._addresses = frozenset(ban.address for ban in records if ban.address)

    def refuse(self, token: RoomToken, address: str, *, owner: str | None) -> bool:
        """Whether the bearer of a token, who comes from `address`, may not come in.

        address: as limits count it, of IPv6 the /64.
        owner: The room's; the stage sits in the hall, so that a ban by address is none for them.
        """
        return token.participant in self._participants or self.refuse_newcomer(
            token.user, address, owner=owner
        )

    def refuse_newcomer(self, user: str | None, address: str, *, owner: str | None) -> bool:
        """The same of somebody who has no token yet; `user` is None without an account."""
        if user is not None:
            if user in self._users:
                return True
            if user == owner:
                return False
        return address in self._addresses
