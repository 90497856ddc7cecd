"""Accounts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import asyncpg

from roomserver.store.database import Connection, Database
from roomserver.store.interfaces import EmailTakenError, InviteRefusedError
from roomserver.store.records import (
    KEEP_INVITES_S,
    UNUSABLE_HASH,
    Account,
    AccountInvite,
    Place,
    RefreshToken,
    Rotation,
    anonymous_email,
)

ACCOUNT = """
SELECT id::text, email, password_hash, role, extract(epoch FROM created_at)::float8 AS created_at,
    extract(epoch FROM disabled_at)::float8 AS disabled_at, session_version
FROM relay.users
"""
INVITE = """
SELECT id::text, hash, email, role, created_by::text,
    extract(epoch FROM created_at)::float8 AS created_at,
    extract(epoch FROM expires_at)::float8 AS expires_at,
    extract(epoch FROM used_at)::float8 AS used_at, used_by::text,
    extract(epoch FROM revoked_at)::float8 AS revoked_at
FROM relay.account_invites
"""
# Somebody waits for an answer: after so long it is 503.
ANSWER_S = 3.0
# What ends sessions, and what makes or rotates their tokens, goes one after the other for each
# account: else a successor made meanwhile would outlive its family.
LOCKED = "WHERE id = $1 FOR NO KEY UPDATE"
LOCKED_HOLDER = (
    "WHERE id = (SELECT user_id FROM relay.refresh_tokens WHERE hash = $1) FOR NO KEY UPDATE"
)
ADD_REFRESH = (
    "INSERT INTO relay.refresh_tokens (user_id, hash, family, issued_at, expires_at, parent)"
    " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id"
)
CHILD_USED = (
    "SELECT EXISTS (SELECT FROM relay.refresh_tokens WHERE parent = $1 AND used_at IS NOT NULL)"
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
    "DELETE FROM relay.account_invites WHERE used_by = $1 OR lower(email)"
    " = (SELECT lower(email) FROM relay.users WHERE id = $1)",
    "DELETE FROM relay.mix_presets WHERE user_id = $1",
    # The whole address: it may be a part of another. What could not be read is one text, in which
    # it stands between quotes.
    "DELETE FROM relay.dead_letters WHERE position($1::uuid::text IN payload::text) > 0 OR EXISTS ("
    " SELECT FROM relay.users,"
    " jsonb_path_query(payload, 'strict $.** ? (@.type() == \"string\")') found,"
    " lower(found #>> '{}') said"
    " WHERE relay.users.id = $1 AND lower(email) = ANY (said || string_to_array(said, '\"')))",
)


class PostgresAccountStore:
    """Implements `AccountStore`; every method may raise DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await _add_account(connection, email, password_hash, role)

    async def redeem_account_invite(
        self, invite: bytes, email: str, password_hash: bytes, *, now: float
    ) -> Account:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            # FOR UPDATE: of two that come at once, the second finds it used.
            row = await connection.fetchrow(
                "SELECT i.id, i.role FROM relay.account_invites i"
                " JOIN relay.users u ON u.id = i.created_by"
                " WHERE i.hash = $1 AND i.used_at IS NULL AND i.revoked_at IS NULL"
                " AND i.expires_at > $2 AND (i.email IS NULL OR lower(i.email) = lower($3))"
                " AND u.disabled_at IS NULL AND u.role = 'admin' FOR UPDATE OF i",
                invite,
                _time(now),
                email.strip(),
            )
            if row is None:
                raise InviteRefusedError
            account = await _add_account(connection, email, password_hash, row["role"])
            await connection.execute(
                "UPDATE relay.account_invites SET used_at = $2, used_by = $3 WHERE id = $1",
                row["id"],
                _time(now),
                account.id,
            )
            return account

    async def add_account_invite(self, invite: AccountInvite) -> None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            await connection.execute(
                "DELETE FROM relay.account_invites WHERE expires_at < $1",
                _time(invite.created_at - KEEP_INVITES_S),
            )
            await connection.execute(
                "INSERT INTO relay.account_invites"
                " (id, hash, email, role, created_by, created_at, expires_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                *(invite.id, invite.hash, invite.email, invite.role, invite.created_by),
                *(_time(invite.created_at), _time(invite.expires_at)),
            )

    async def list_account_invites(
        self, *, after: Place | None = None, limit: int = 100
    ) -> list[AccountInvite]:
        return [AccountInvite(**row) for row in await self._page(INVITE, after, limit)]

    async def revoke_account_invite(self, invite_id: str, *, now: float) -> bool:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            revoked = await connection.fetchval(
                "UPDATE relay.account_invites SET revoked_at = coalesce(revoked_at, $2)"
                " WHERE id = $1 AND used_at IS NULL RETURNING true",
                invite_id,
                _time(now),
            )
            return bool(revoked)

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

    async def list_accounts(self, *, after: Place | None = None, limit: int = 100) -> list[Account]:
        return [_made(row) for row in await self._page(ACCOUNT, after, limit)]

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

    async def disabled_among(self, account_ids: Collection[str]) -> set[str]:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            rows = await connection.fetch(
                "SELECT id::text FROM relay.users"
                " WHERE disabled_at IS NOT NULL AND id = ANY($1::uuid[])",
                list(account_ids),
            )
        return {row["id"] for row in rows}

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

    async def add_refresh_token(self, token: RefreshToken, *, session_version: int) -> bool:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            account = await _account(connection, LOCKED, token.user)
            if account is None or account.disabled_at is not None:
                return False
            if account.session_version != session_version:
                return False
            await _add_token(connection, token, parent=None)
            return True

    async def rotate_refresh_token(
        self, presented: bytes, successor: bytes, *, now: float, life_s: float, grace_s: float
    ) -> tuple[Rotation, Account | None]:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            account = await _account(connection, LOCKED_HOLDER, presented)
            token = await connection.fetchrow(
                "SELECT id, user_id::text AS user, family::text,"
                " extract(epoch FROM used_at)::float8 AS used_at"
                " FROM relay.refresh_tokens"
                " WHERE hash = $1 AND expires_at > $2 AND revoked_at IS NULL",
                presented,
                _time(now),
            )
            if token is None or account is None or account.disabled_at is not None:
                return Rotation.UNKNOWN, None
            if token["used_at"] is not None and (
                now - token["used_at"] > grace_s
                or await connection.fetchval(CHILD_USED, token["id"])
            ):
                await _revoke(connection, token["family"], now)
                return Rotation.REUSED, account
            following = RefreshToken(successor, token["family"], token["user"], now, now + life_s)
            await connection.execute(
                "UPDATE relay.refresh_tokens SET used_at = coalesce(used_at, $2), successor = $3"
                " WHERE id = $1",
                token["id"],
                _time(now),
                await _add_token(connection, following, parent=token["id"]),
            )
            return Rotation.ROTATED, account

    async def revoke_refresh_family(self, presented: bytes, *, now: float) -> str | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            account = await _account(connection, LOCKED_HOLDER, presented)
            if account is None:
                return None
            family = await connection.fetchval(
                "SELECT family::text FROM relay.refresh_tokens WHERE hash = $1", presented
            )
            await _revoke(connection, family, now)
            return account.id

    async def _page(self, query: str, after: Place | None, limit: int) -> list[asyncpg.Record]:
        """Rows of a table with `created_at` and `id`, newest first, from after a place."""
        where = "WHERE (created_at, id) < ($2, $3)" if after is not None else ""
        place = (after.time, after.id) if after is not None else ()
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await connection.fetch(
                f"{query} {where} ORDER BY created_at DESC, id DESC LIMIT $1", limit, *place
            )

    async def _change(
        self, account_id: str, change: str, *values: object, ended: float | None = None
    ) -> Account | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return await _change(connection, account_id, change, *values, ended=ended)

    async def close(self) -> None:
        """Nothing to finish; the database is closed by whoever opened it."""


async def _account(connection: Connection, where: str, value: object) -> Account | None:
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
            "UPDATE relay.users SET session_version = session_version + 1 WHERE id = $1", account_id
        )
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
        row["session_version"],
    )


async def _add_account(
    connection: Connection, email: str, password_hash: bytes, role: Literal["user", "admin"]
) -> Account:
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


async def _add_token(connection: Connection, token: RefreshToken, *, parent: UUID | None) -> object:
    """Its id. parent: the one that was exchanged for it."""
    return await connection.fetchval(
        ADD_REFRESH,
        token.user,
        token.hash,
        token.family,
        _time(token.issued_at),
        _time(token.expires_at),
        parent,
    )


async def _revoke(connection: Connection, family: str, now: float) -> None:
    await connection.execute(
        "UPDATE relay.refresh_tokens SET revoked_at = $2 WHERE family = $1 AND revoked_at IS NULL",
        family,
        _time(now),
    )


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
