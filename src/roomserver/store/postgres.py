"""Accounts in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import asyncpg

from roomserver.store.database import Connection, Database
from roomserver.store.interfaces import EmailTakenError
from roomserver.store.records import (
    UNUSABLE_HASH,
    Account,
    RefreshToken,
    Rotation,
    anonymous_email,
)

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
# What says who the user $1 is, apart from the account itself. Attempts to log in are not by the
# account, but may name its address.
ANONYMISE = (
    "UPDATE relay.room_participants SET nickname = NULL, client_id = NULL, ip_address = NULL,"
    " user_agent = NULL WHERE user_id = $1",
    "UPDATE relay.audit_log SET ip_address = NULL, user_agent = NULL, details = '{}'"
    " WHERE user_id = $1 OR lower(details ->> 'email')"
    " = (SELECT lower(email) FROM relay.users WHERE id = $1)",
    "UPDATE relay.room_bans SET address = NULL, reason = NULL WHERE user_id = $1",
    "DELETE FROM relay.mix_presets WHERE user_id = $1",
    "DELETE FROM relay.dead_letters WHERE position($1::text IN payload::text) > 0",
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

    async def list_accounts(self, *, after: str = "", limit: int = 100) -> list[Account]:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            rows = await connection.fetch(
                f"{ACCOUNT} WHERE lower(email) > lower($1) ORDER BY lower(email) LIMIT $2",
                after.strip(),
                limit,
            )
        return [_made(row) for row in rows]

    async def set_password(
        self, account_id: str, password_hash: bytes, *, now: float
    ) -> Account | None:
        hashed = password_hash.decode("ascii")
        return await self._change(account_id, "password_hash = $2", hashed, ended=now)

    async def set_role(self, account_id: str, role: Literal["user", "admin"]) -> Account | None:
        return await self._change(account_id, "role = $2", role)

    async def set_disabled(self, account_id: str, disabled: bool, *, now: float) -> Account | None:
        if not disabled:
            return await self._change(account_id, "disabled_at = NULL")
        return await self._change(
            account_id, "disabled_at = coalesce(disabled_at, $2)", _time(now), ended=now
        )

    async def anonymise_account(self, account_id: str, *, now: float) -> Account | None:
        async with self._database.transaction() as connection:
            for statement in ANONYMISE:
                await connection.execute(statement, account_id)
            return await _change(
                connection,
                account_id,
                "email = $2, password_hash = $3, role = 'user',"
                " disabled_at = coalesce(disabled_at, $4)",
                *(anonymous_email(account_id), UNUSABLE_HASH.decode("ascii"), _time(now)),
                ended=now,
            )

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

    async def _change(
        self, account_id: str, change: str, *values: object, ended: float | None = None
    ) -> Account | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await _change(connection, account_id, change, *values, ended=ended)

    async def close(self) -> None:
        """Nothing to finish; the database is closed by whoever opened it."""


async def _account(connection: Connection, where: str, value: str) -> Account | None:
    row = await connection.fetchrow(f"{ACCOUNT} {where}", value)
    return None if row is None else _made(row)


async def _change(
    connection: Connection,
    account_id: str,
    change: str,
    *values: object,
    ended: float | None = None,
) -> Account | None:
    """Changes an account, and with `ended` ends its sessions at that time."""
    await connection.execute(
        f"UPDATE relay.users SET {change} WHERE id = $1",  # noqa: S608 - ours
        account_id,
        *values,
    )
    if ended is not None:
        await connection.execute(
            "UPDATE relay.refresh_tokens SET revoked_at = $2"
            " WHERE user_id = $1 AND revoked_at IS NULL",
            account_id,
            _time(ended),
        )
    return await _account(connection, "WHERE id = $1", account_id)


def _made(row: asyncpg.Record) -> Account:
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
