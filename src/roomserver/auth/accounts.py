"""Accounts: login, and refresh tokens that are rotated with every use."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from roomserver.auth.passwords import PasswordPool
from roomserver.auth.tokens import TokenError, Tokens
from roomserver.ids import new_id
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import AccountStore
from roomserver.store.records import Account, AccountInvite, RefreshToken, Rotation

REFRESH_GRACE_S = 30.0
# Accounts seen lately, for when the database can't be asked.
REMEMBERED = 10_000
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class InvalidEmailError(ValueError):
    """Not an e-mail address."""


def check_email(email: str) -> str:
    """The address without surrounding space. Raises InvalidEmailError."""
    email = email.strip()
    if len(email) > 254 or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise InvalidEmailError("that is not an e-mail address")
    return email


class StolenTokenError(TokenError):
    """A refresh token that was used before came again; all that descend from its login ended."""

    def __init__(self, account: Account) -> None:
        super().__init__("the refresh token is not valid")
        self.account = account


@dataclass(frozen=True, slots=True)
class Session:
    """What a login or a refresh gives."""

    account: Account
    access_token: str
    refresh_token: str


class Accounts:
    """Logins over an account store."""

    def __init__(
        self,
        store: AccountStore,
        pool: PasswordPool,
        tokens: Tokens,
        *,
        refresh_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self._pool = pool
        self._tokens = tokens
        self._refresh_s = refresh_s
        self._now = now
        self._seen: OrderedDict[str, Account] = OrderedDict()

    @property
    def refresh_s(self) -> float:
        """Life of a refresh token in seconds."""
        return self._refresh_s

    async def login(
        self, email: str, password: bytes, *, asker: str | None = None
    ) -> Session | None:
        """None when address or password is wrong, in the time of one bcrypt either way.

        `asker` is the address it comes from, as for the pool. Raises PoolFullError.
        """
        account = None
        with contextlib.suppress(InvalidEmailError):
            account = await self.store.account_by_email(check_email(email))
        hashed = account.password_hash if account is not None else None
        right = await self._pool.check(password, hashed, asker=asker)
        if not right or account is None or account.disabled_at is not None:
            return None
        return await self._begin(account)

    async def register(self, email: str, password: bytes, *, invite: str | None) -> Session:
        """Makes an account and logs it in; with an `invite` that is used up by it.

        Raises InvalidEmailError, InviteRefusedError, EmailTakenError, PoolFullError.
        """
        email = check_email(email)
        hashed = await self._pool.hash(password)
        if invite is None:
            account = await self.store.add_account(email, hashed, "user")
        else:
            account = await self.store.redeem_account_invite(
                _hash(invite), email, hashed, now=self._now()
            )
        session = await self._begin(account)
        if session is None:
            raise TokenError("the account is disabled")
        return session

    async def add(self, email: str, password: bytes, role: Literal["user", "admin"]) -> Account:
        """Makes an account. Raises InvalidEmailError, EmailTakenError, PoolFullError."""
        return await self.store.add_account(
            check_email(email), await self._pool.hash(password), role
        )

    async def change_password(self, account: Account, old: bytes, new: bytes) -> Session | None:
        """Gives an account another password, which ends all its sessions, and begins a new one.

        None when the old password is wrong. Raises PoolFullError.
        """
        known = await self.store.account_by_id(account.id)
        if known is None or not await self._pool.check(old, known.password_hash):
            return None
        changed = await self.store.set_password(
            account.id, await self._pool.hash(new), now=self._now()
        )
        if changed is None:
            return None
        self._remember(changed)
        return await self._begin(changed)

    async def set_disabled(self, account_id: str, disabled: bool) -> Account | None:
        """Shuts an account out, which ends its sessions at once, or lets it in again."""
        account = await self.store.set_disabled(account_id, disabled, now=self._now())
        if account is not None:
            self._remember(account)
        return account

    async def invite(
        self,
        *,
        email: str | None,
        role: Literal["user", "admin"],
        by: Account,
        life_s: float,
    ) -> tuple[AccountInvite, str]:
        """Leave to make one account, and the token that proves it. Raises InvalidEmailError."""
        token = secrets.token_urlsafe(32)
        now = self._now()
        invite = AccountInvite(
            id=new_id(),
            hash=_hash(token),
            email=check_email(email) if email is not None else None,
            role=role,
            created_by=by.id,
            created_at=now,
            expires_at=now + life_s,
        )
        await self.store.add_account_invite(invite)
        return invite, token

    async def revoke_invite(self, invite_id: str) -> bool:
        """Makes an invite worthless; whether there is one that was not used yet."""
        return await self.store.revoke_account_invite(invite_id, now=self._now())

    async def refresh(self, presented: str) -> Session:
        """Exchanges a refresh token. Raises TokenError; theft (an old token) ends its family."""
        successor = secrets.token_urlsafe(32)
        outcome, account = await self.store.rotate_refresh_token(
            _hash(presented),
            _hash(successor),
            now=self._now(),
            life_s=self._refresh_s,
            grace_s=REFRESH_GRACE_S,
        )
        if outcome is Rotation.REUSED and account is not None:
            raise StolenTokenError(account)
        if outcome is not Rotation.ROTATED or account is None:
            raise TokenError("the refresh token is not valid")
        return self._session(account, successor)

    async def logout(self, presented: str) -> str | None:
        """Revokes the token's family; whose it was, None for an unknown token."""
        return await self.store.revoke_refresh_family(_hash(presented), now=self._now())

    async def authenticate(self, access_token: str, *, in_doubt: bool = False) -> Account:
        """Whose access token this is. Raises TokenError, and without `in_doubt` DatabaseAwayError.

        `in_doubt`: while the database is away a good token is believed, for its short life, unless
        it was known here that the account is disabled or its sessions were ended; the account is
        nobody special then. Rooms go on without the database.
        """
        token = self._tokens.read_access(access_token)
        try:
            account = await self.store.account_by_id(token.user)
        except DatabaseAwayError:
            if not in_doubt:
                raise
            account = self._seen.get(token.user)
            nobody = Account(token.user, "", b"", "user", 0.0, session_version=token.version)
            account = replace(account or nobody, email="", role="user")
        else:
            if account is not None:
                self._remember(account)
        if account is None or account.disabled_at is not None:
            raise TokenError("the account is gone or disabled")
        if account.session_version != token.version:
            raise TokenError("the session was ended")
        return account

    async def _begin(self, account: Account) -> Session | None:
        """A session for an account; None when it was disabled, or all were ended, meanwhile."""
        refresh = secrets.token_urlsafe(32)
        now = self._now()
        token = RefreshToken(_hash(refresh), new_id(), account.id, now, now + self._refresh_s)
        version = account.session_version
        if not await self.store.add_refresh_token(token, session_version=version):
            return None
        return self._session(account, refresh)

    def _remember(self, account: Account) -> None:
        before = self._seen.get(account.id)
        if before is not None and before.session_version > account.session_version:
            return  # this was read earlier
        self._seen[account.id] = replace(account, password_hash=b"")
        self._seen.move_to_end(account.id)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _session(self, account: Account, refresh: str) -> Session:
        access = self._tokens.issue_access(account.id, version=account.session_version)
        return Session(account, access, refresh)


def _hash(token: str) -> bytes:
    # 256 random bits need no salt and no slow hash.
    return hashlib.sha256(token.encode()).digest()
