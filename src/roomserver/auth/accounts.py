"""Accounts: login, and refresh tokens that are rotated with every use."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from roomserver.auth.passwords import PasswordPool
from roomserver.auth.tokens import TokenError, Tokens
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import AccountStore
from roomserver.store.records import Account, RefreshToken, Rotation

REFRESH_GRACE_S = 30.0
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


class InvalidEmailError(ValueError):
    """Not an e-mail address."""


def check_email(email: str) -> str:
    """The address without surrounding space. Raises InvalidEmailError."""
    email = email.strip()
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise InvalidEmailError("that is not an e-mail address")
    return email


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
        self._store = store
        self._pool = pool
        self._tokens = tokens
        self._refresh_s = refresh_s
        self._now = now

    async def login(self, email: str, password: bytes) -> Session | None:
        """None when address or password is wrong, in the time of one bcrypt either way.

        Raises PoolFullError.
        """
        account = await self._store.account_by_email(email)
        hashed = account.password_hash if account is not None else None
        right = await self._pool.check(password, hashed)
        if not right or account is None or account.disabled_at is not None:
            return None
        refresh = secrets.token_urlsafe(32)
        now = self._now()
        await self._store.add_refresh_token(
            RefreshToken(_hash(refresh), str(uuid.uuid4()), account.id, now, now + self._refresh_s)
        )
        return self._session(account, refresh)

    async def refresh(self, presented: str) -> Session:
        """Exchanges a refresh token. Raises TokenError; theft (an old token) ends its family."""
        successor = secrets.token_urlsafe(32)
        outcome, account = await self._store.rotate_refresh_token(
            _hash(presented),
            _hash(successor),
            now=self._now(),
            life_s=self._refresh_s,
            grace_s=REFRESH_GRACE_S,
        )
        if outcome is not Rotation.ROTATED or account is None:
            raise TokenError("the refresh token is not valid")
        return self._session(account, successor)

    async def logout(self, presented: str) -> None:
        """Revokes the token's family; an unknown token is no error."""
        await self._store.revoke_refresh_family(_hash(presented), now=self._now())

    async def authenticate(self, access_token: str) -> Account:
        """Whose access token this is. Raises TokenError."""
        token = self._tokens.read_access(access_token)
        try:
            account = await self._store.account_by_id(token.user)
        except DatabaseAwayError:
            # Rooms go on without the database; the token was good when it was there.
            return Account(token.user, "", b"", "user", 0.0)
        if account is None or account.disabled_at is not None:
            raise TokenError("the account is gone or disabled")
        return account

    def _session(self, account: Account, refresh: str) -> Session:
        return Session(account, self._tokens.issue_access(account.id), refresh)


def _hash(token: str) -> bytes:
    # 256 random bits need no salt and no slow hash.
    return hashlib.sha256(token.encode()).digest()
