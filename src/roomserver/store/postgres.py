"""Accounts in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import asyncpg

from roomserver.store.database import Connection, Database
from roomserver.store.interfaces import EmailTakenError
from roomserver.store.records import Account, RefreshToken, Rotation

ACCOUNT = """
SELECT id::text, email, password_hash, role, extract(epoch FROM created_at)::float8 AS created_at,
    extract(epoch FROM disabled_at)::float8 AS disabled_at
FROM relay.users
"""
# Somebody waits for an answer: after so long it is 503.
ANSWER_S = 3.0
ADD_REFRESH = (
    "INSERT INTO relay.refresh_tokens (user_id, hash, family, issued_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5) RETURNING id"
)


class PostgresAccountStore:
    """Implements `AccountStore`; every method may raise DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            try:
                user = await connection.fetchval(
                    "INSERT INTO relay.users (email, password_hash, role) VALUES ($1, $2, $3)"
                    " RETURNING id::text",
                    email.strip(),
                    password_hash.decode("ascii"),
                    role,
                )
            except asyncpg.UniqueViolationError:
                raise EmailTakenError(email) from None
            account = await _account(connection, "WHERE id = $1", user)
        assert account is not None
        return account

    async def account_by_email(self, email: str) -> Account | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await _account(connection, "WHERE lower(email) = lower($1)", email.strip())

    async def account_by_id(self, account_id: str) -> Account | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await _account(connection, "WHERE id = $1", account_id)

    async def count_accounts(self) -> int:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM relay.users")
            return count

    async def add_refresh_token(self, token: RefreshToken) -> None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            await connection.execute(
                "DELETE FROM relay.refresh_tokens WHERE user_id = $1 AND expires_at < $2",
                token.user,
                _time(token.issued_at),
            )
            await _add_token(connection, token)

    async def rotate_refresh_token(
        self, presented: bytes, successor: bytes, *, now: float, life_s: float, grace_s: float
    ) -> tuple[Rotation, Account | None]:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            # FOR UPDATE: of two tabs that come at once, the second sees what the first has done.
            token = await connection.fetchrow(
                "SELECT id, user_id::text AS user, family::text,"
                " extract(epoch FROM used_at)::float8 AS used_at, successor"
                " FROM relay.refresh_tokens"
                " WHERE hash = $1 AND expires_at > $2 AND revoked_at IS NULL FOR UPDATE",
                presented,
                _time(now),
            )
            account = await _account(connection, "WHERE id = $1", token["user"]) if token else None
            if token is None or account is None or account.disabled_at is not None:
                return Rotation.UNKNOWN, None
            if token["used_at"] is not None and (
                now - token["used_at"] > grace_s
                or await connection.fetchval(
                    "SELECT used_at IS NOT NULL FROM relay.refresh_tokens WHERE id = $1",
                    token["successor"],
                )
            ):
                await _revoke(connection, token["family"], now)
                return Rotation.REUSED, account
            following = RefreshToken(successor, token["family"], token["user"], now, now + life_s)
            await connection.execute(
                "UPDATE relay.refresh_tokens SET used_at = coalesce(used_at, $2), successor = $3"
                " WHERE id = $1",
                token["id"],
                _time(now),
                await _add_token(connection, following),
            )
            return Rotation.ROTATED, account

    async def revoke_refresh_family(self, presented: bytes, *, now: float) -> None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            family = await connection.fetchval(
                "SELECT family FROM relay.refresh_tokens WHERE hash = $1", presented
            )
            if family is not None:
                await _revoke(connection, str(family), now)

    async def close(self) -> None:
        """Nothing to finish; the database is closed by whoever opened it."""


async def _account(connection: Connection, where: str, value: str) -> Account | None:
    row = await connection.fetchrow(f"{ACCOUNT} {where}", value)
    if row is None:
        return None
    return Account(
        row["id"],
        row["email"],
        row["password_hash"].encode("ascii"),
        row["role"],
        row["created_at"],
        row["disabled_at"],
    )


async def _add_token(connection: Connection, token: RefreshToken) -> object:
    """Its id."""
    return await connection.fetchval(
        ADD_REFRESH,
        token.user,
        token.hash,
        token.family,
        _time(token.issued_at),
        _time(token.expires_at),
    )


async def _revoke(connection: Connection, family: str, now: float) -> None:
    await connection.execute(
        "UPDATE relay.refresh_tokens SET revoked_at = $2 WHERE family = $1 AND revoked_at IS NULL",
        family,
        _time(now),
    )


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
