"""What the rest of the server needs of a store.

Reads and what a caller must know to be kept are coroutines. Everything that merely happened
(`room_changed`, joins, leaves, audit) is told by a plain call that returns at once: rooms and
audio never wait for a store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol

from roomserver.store.figures import StoreFigures
from roomserver.store.records import (
    Account,
    AccountInvite,
    AuditRecord,
    Elsewhere,
    ParticipantRecord,
    Place,
    RefreshToken,
    RoomRecord,
    Rotation,
)


class EmailTakenError(Exception):
    """There is an account with this address already."""


class InviteRefusedError(Exception):
    """An invite that does not exist, or does no longer hold, or is for another address."""


class CodeTakenError(Exception):
    """A room has or recently had this code."""


class AccountStore(Protocol):
    """Accounts and their refresh tokens."""

    async def add_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        """A new account. Raises EmailTakenError (case does not count)."""

    async def redeem_account_invite(
        self, invite: bytes, email: str, password_hash: bytes, *, now: float
    ) -> Account:
        """A new account by an invite (as a hash), which is used up by it, in one transaction.

        Raises InviteRefusedError, and EmailTakenError, after which the invite still holds.
        """

    async def add_account_invite(self, invite: AccountInvite) -> None:
        """Keeps an invite, and forgets those that expired long ago."""

    async def list_account_invites(
        self, *, after: Place | None = None, limit: int = 100
    ) -> Sequence[AccountInvite]:
        """Invites, newest first, at most `limit`; those that come after the place `after`."""

    async def revoke_account_invite(self, invite_id: str, *, now: float) -> bool:
        """Makes an invite worthless; whether there is one that was not used yet."""

    async def account_by_email(self, email: str) -> Account | None:
        """The account with this address, in any case."""

    async def account_by_id(self, account_id: str) -> Account | None:
        """The account with this id."""

    async def count_accounts(self) -> int:
        """How many accounts there are."""

    async def list_accounts(
        self, *, after: Place | None = None, limit: int = 100
    ) -> Sequence[Account]:
        """Accounts, newest first, at most `limit`; those that come after the place `after`."""

    async def set_password(
        self, account_id: str, password_hash: bytes, *, now: float
    ) -> Account | None:
        """Another password, which ends all sessions. The account; None if there is none."""

    async def set_role(self, account_id: str, role: Literal["user", "admin"]) -> Account | None:
        """What the account may do. The account; None if there is none."""

    async def set_disabled(self, account_id: str, disabled: bool, *, now: float) -> Account | None:
        """Shuts an account out, which ends all sessions at once, or lets it in again.

        The account; None if there is none.
        """

    async def disabled_among(self, account_ids: Collection[str]) -> set[str]:
        """Those of the accounts that are disabled."""

    async def anonymise_account(self, account_id: str, *, now: float) -> Account | None:
        """Takes from an account, and from what is kept of it, all that says who it was.

        It stays as a disabled account without a usable password, so that what refers to it holds.
        The account as it is now; None if there is none.
        """

    async def add_refresh_token(self, token: RefreshToken, *, session_version: int) -> bool:
        """Keeps the first token of a family.

        False, and not kept, when the account was disabled or its sessions were ended meanwhile.
        """

    async def rotate_refresh_token(
        self, presented: bytes, successor: bytes, *, now: float, life_s: float, grace_s: float
    ) -> tuple[Rotation, Account | None]:
        """Exchanges a token for its successor (both as hashes), in one transaction.

        A token that was used before still passes within `grace_s` of that and while no successor
        of it was used (two tabs, a lost answer). Otherwise its whole family is revoked.
        """

    async def revoke_refresh_family(self, presented: bytes, *, now: float) -> str | None:
        """Revokes all tokens that descend from the same login as this one; whose they were."""

    async def close(self) -> None:
        """Finishes what is under way."""


class LookupsBusyError(Exception):
    """Too many ask where rooms are."""


class OpenRooms(Protocol):
    """What a store that is shared with other servers asks of the rooms that are open here."""

    def take_up(self, records: Iterable[RoomRecord]) -> None:
        """These are ours from now on; those that are open already stay as they are."""

    def is_running(self, room: str) -> bool:
        """Whether a source is registered in it."""

    def stays(self) -> Collection[str]:
        """Those that go on here, by id."""

    def renew(self, record: RoomRecord) -> None:
        """Another server changed it, or closed it."""

    def keep(self, room: str, version: int) -> None:
        """It is ours still, where another had version `version`: what it is is told again."""

    def let_go(self, room: str, url: str | None) -> None:
        """It is at another server now, which is told to everyone in it."""


class RoomStore(Protocol):
    """Rooms, who was in them, and the audit log."""

    async def create_room(self, room: RoomRecord) -> bool:
        """Keeps a new room; whether it is in the database already.

        Raises CodeTakenError (a code is not used again for 30 days), and OutboxError when the room
        could not be kept.
        """

    def room_changed(self, room: RoomRecord) -> None:
        """The room is now as this says."""

    async def keep_room(self, room: RoomRecord) -> None:
        """Keeps what a room shall be before it is so. Raises OutboxError; nothing is kept then."""

    @property
    def shared(self) -> bool:
        """Whether rooms may be at another server."""

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        """The open room with this id or code that another server has.

        Of a room that nobody has, this server takes care itself: `Rooms.find` knows it then.

        guess: whoever asks has shown nothing yet; only so many are answered in a second, and while
            the database is away each is answered as if there were no such room.

        Raises LookupsBusyError, and DatabaseAwayError to whoever does not just guess.
        """

    async def open_rooms(self) -> Sequence[RoomRecord]:
        """All rooms that are not closed."""

    def participant_joined(self, participant: ParticipantRecord) -> None:
        """A stay began."""

    def participant_counted(self, participant: ParticipantRecord) -> None:
        """How far a stay has come; told from time to time, for a server that does not end well."""

    def participant_left(self, participant: ParticipantRecord) -> None:
        """A stay ended; holds all of it, so that a lost join costs nothing."""

    def audit(self, record: AuditRecord) -> None:
        """Adds a line to the audit log."""

    def figures(self) -> StoreFigures:
        """How the store is doing."""

    async def reachable(self) -> bool:
        """Whether the database, if there is one, is ready, now or a second ago; tells soon."""

    async def written(self) -> None:
        """Returns when all that was told so far will survive a crash. Raises OutboxError."""

    async def close(self) -> None:
        """Finishes what is under way."""
