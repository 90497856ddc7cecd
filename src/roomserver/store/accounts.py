"""Accounts in a file of the data directory (SQLite, write-ahead log).

`AccountFile` is the file itself, for one thread at a time; the command line uses it directly,
also while a server runs on the same directory. `FileAccountStore` is what a server uses: the same
in a thread of its own, so that no disk is waited for in the event loop.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from roomserver.ids import new_id
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

FILE_NAME = "accounts.db"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0

SCHEMA = """
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,        -- the address without case
    password_hash BLOB NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    disabled_at REAL,
    created_at REAL NOT NULL,
    session_version INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE account_invites (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    email TEXT,
    role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    created_by TEXT NOT NULL REFERENCES users (id),
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL,
    used_by TEXT REFERENCES users (id),
    revoked_at REAL
) STRICT;
CREATE INDEX account_invites_created_at ON account_invites (created_at);
CREATE TABLE refresh_tokens (
    hash BLOB PRIMARY KEY,
    family TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    parent BLOB REFERENCES refresh_tokens (hash) ON DELETE SET NULL,
    issued_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL,
    revoked_at REAL
) STRICT;
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_parent ON refresh_tokens (parent);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);
"""
ACCOUNT = (
    "SELECT id, email, password_hash, role, created_at, disabled_at, session_version FROM users"
)
INVITE = (
    "SELECT id, hash, email, role, created_by, created_at, expires_at, used_at, used_by, revoked_at"
    " FROM account_invites"
)


class AccountFile:
    """The file. Every method is one transaction; to be used by the thread that opened it."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / FILE_NAME
        path.touch(mode=0o600)  # before SQLite makes it with the process's mask
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            with _Transaction(self._db):
                self._migrate(path)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> AccountFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        """See `AccountStore`."""
        with _Transaction(self._db):
            return self._insert_account(email, password_hash, role)

    def redeem_account_invite(
        self, invite: bytes, email: str, password_hash: bytes, *, now: float
    ) -> Account:
        """See `AccountStore`."""
        with _Transaction(self._db):
            row = self._one(
                "SELECT i.email, i.role FROM account_invites i JOIN users u ON u.id = i.created_by"
                " WHERE i.hash = ? AND i.used_at IS NULL AND i.revoked_at IS NULL"
                " AND i.expires_at > ? AND u.disabled_at IS NULL AND u.role = 'admin'",
                *(invite, now),
            )
            if row is None or (row[0] is not None and email_key(row[0]) != email_key(email)):
                raise InviteRefusedError
            account = self._insert_account(email, password_hash, row[1])
            self._db.execute(
                "UPDATE account_invites SET used_at = ?, used_by = ? WHERE hash = ?",
                (now, account.id, invite),
            )
            return account

    def add_account_invite(self, invite: AccountInvite) -> None:
        """See `AccountStore`."""
        with _Transaction(self._db):
            self._db.execute(
                "DELETE FROM account_invites WHERE expires_at < ?",
                (invite.created_at - KEEP_INVITES_S,),
            )
            self._db.execute(
                "INSERT INTO account_invites"
                " (id, hash, email, role, created_by, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(invite.id, invite.hash, invite.email, invite.role, invite.created_by),
                    *(invite.created_at, invite.expires_at),
                ),
            )

    def list_account_invites(
        self, *, after: Place | None = None, limit: int = 100
    ) -> list[AccountInvite]:
        """See `AccountStore`."""
        return [AccountInvite(*row) for row in self._page(INVITE, after, limit)]

    def revoke_account_invite(self, invite_id: str, *, now: float) -> bool:
        """See `AccountStore`."""
        with _Transaction(self._db):
            revoked = self._db.execute(
                "UPDATE account_invites SET revoked_at = coalesce(revoked_at, ?)"
                " WHERE id = ? AND used_at IS NULL",
                (now, invite_id),
            )
            return revoked.rowcount > 0

    def account_by_email(self, email: str) -> Account | None:
        """See `AccountStore`."""
        return self._account("WHERE email_key = ?", email_key(email))

    def account_by_id(self, account_id: str) -> Account | None:
        """See `AccountStore`."""
        return self._account("WHERE id = ?", account_id)

    def count_accounts(self) -> int:
        """See `AccountStore`."""
        return int(self._one("SELECT count(*) FROM users")[0])

    def list_accounts(self, *, after: Place | None = None, limit: int = 100) -> list[Account]:
        """See `AccountStore`."""
        return [Account(*row) for row in self._page(ACCOUNT, after, limit)]

    def set_password(self, account_id: str, password_hash: bytes, *, now: float) -> Account | None:
        """See `AccountStore`."""
        return self._change(account_id, "password_hash = ?", password_hash, ended=now)

    def set_role(self, account_id: str, role: Literal["user", "admin"]) -> Account | None:
        """See `AccountStore`."""
        return self._change(account_id, "role = ?", role)

    def set_disabled(self, account_id: str, disabled: bool, *, now: float) -> Account | None:
        """See `AccountStore`."""
        if not disabled:
            return self._change(account_id, "disabled_at = NULL")
        return self._change(account_id, "disabled_at = coalesce(disabled_at, ?)", now, ended=now)

    def disabled_among(self, account_ids: Collection[str]) -> set[str]:
        """See `AccountStore`."""
        query = (
            "SELECT id FROM users WHERE disabled_at IS NOT NULL"
            " AND id IN (SELECT value FROM json_each(?))"
        )
        with closing(self._db.execute(query, (json.dumps(list(account_ids)),))) as cursor:
            return {row[0] for row in cursor}

    def anonymise_account(self, account_id: str, *, now: float) -> Account | None:
        """See `AccountStore`."""
        with _Transaction(self._db):  # the account last, so that it can be done again
            account = self.account_by_id(account_id)
            if account is None:
                return None
            invites = self._db.execute("SELECT id, email, used_by FROM account_invites").fetchall()
            for invite_id, email, used_by in invites:
                if used_by == account_id or email_key(email or "") == email_key(account.email):
                    self._db.execute("DELETE FROM account_invites WHERE id = ?", (invite_id,))
        email = anonymous_email(account_id)
        return self._change(
            account_id,
            "email = ?, email_key = ?, password_hash = ?, role = 'user',"
            " disabled_at = coalesce(disabled_at, ?)",
            *(email, email_key(email), UNUSABLE_HASH, now),
            ended=now,
        )

    def add_refresh_token(self, token: RefreshToken, *, session_version: int) -> bool:
        """See `AccountStore`."""
        with _Transaction(self._db):
            self._db.execute("DELETE FROM refresh_tokens WHERE expires_at < ?", (token.issued_at,))
            account = self.account_by_id(token.user)
            if account is None or account.disabled_at is not None:
                return False
            if account.session_version != session_version:
                return False
            self._insert_token(token, parent=None)
            return True

    def rotate_refresh_token(
        self, presented: bytes, successor: bytes, *, now: float, life_s: float, grace_s: float
    ) -> tuple[Rotation, Account | None]:
        """See `AccountStore`."""
        with _Transaction(self._db):
            row = self._one(
                "SELECT family, user_id, used_at FROM refresh_tokens"
                " WHERE hash = ? AND expires_at > ? AND revoked_at IS NULL",
                presented,
                now,
            )
            account = self._account("WHERE id = ?", row[1]) if row else None
            if account is None or account.disabled_at is not None:
                return Rotation.UNKNOWN, None
            family, user, used_at = row
            if used_at is not None and (
                now - used_at > grace_s
                or self._one(
                    "SELECT 1 FROM refresh_tokens WHERE parent = ? AND used_at IS NOT NULL",
                    presented,
                )
            ):
                self._revoke(family, now)
                return Rotation.REUSED, account
            self._db.execute(
                "UPDATE refresh_tokens SET used_at = coalesce(used_at, ?) WHERE hash = ?",
                (now, presented),
            )
            self._insert_token(
                RefreshToken(successor, family, user, now, now + life_s), parent=presented
            )
            return Rotation.ROTATED, account

    def revoke_refresh_family(self, presented: bytes, *, now: float) -> str | None:
        """See `AccountStore`."""
        with _Transaction(self._db):
            row = self._one("SELECT family, user_id FROM refresh_tokens WHERE hash = ?", presented)
            if row is None:
                return None
            self._revoke(row[0], now)
            return str(row[1])

    def _change(
        self, account_id: str, change: str, *values: object, ended: float | None = None
    ) -> Account | None:
        """Changes an account, and with `ended` ends its sessions at that time."""
        with _Transaction(self._db):
            self._db.execute(
                f"UPDATE users SET {change} WHERE id = ?",  # noqa: S608 - ours
                (*values, account_id),
            )
            if ended is not None:
                self._db.execute(
                    "UPDATE users SET session_version = session_version + 1 WHERE id = ?",
                    (account_id,),
                )
                self._db.execute(
                    "UPDATE refresh_tokens SET revoked_at = ?"
                    " WHERE user_id = ? AND revoked_at IS NULL",
                    (ended, account_id),
                )
            return self.account_by_id(account_id)

    def _migrate(self, path: Path) -> None:
        version = int(self._one("PRAGMA user_version")[0])
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"{path} was written by a newer version of roomserver")

    def _insert_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        account = Account(new_id(), email.strip(), password_hash, role, time.time())
        try:
            self._db.execute(
                "INSERT INTO users (id, email, email_key, password_hash, role, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(account.id, account.email, email_key(email)),
                    *(password_hash, role, account.created_at),
                ),
            )
        except sqlite3.IntegrityError:
            raise EmailTakenError(email) from None
        return account

    def _insert_token(self, token: RefreshToken, parent: bytes | None) -> None:
        self._db.execute(
            "INSERT INTO refresh_tokens (hash, family, user_id, parent, issued_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (token.hash, token.family, token.user, parent, token.issued_at, token.expires_at),
        )

    def _revoke(self, family: str, now: float) -> None:
        self._db.execute(
            "UPDATE refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL",
            (now, family),
        )

    def _account(self, where: str, value: str) -> Account | None:
        row = self._one(f"{ACCOUNT} {where}", value)
        return Account(*row) if row else None

    def _page(self, query: str, after: Place | None, limit: int) -> list[tuple[Any, ...]]:
        """Rows of a table with `created_at` and `id`, newest first, from after a place."""
        at_us = "CAST(round(created_at * 1000000) AS INTEGER)"
        where = f"WHERE ({at_us}, id) < (?, ?)" if after is not None else ""
        place = (after.at_us, str(after.id)) if after is not None else ()
        page = f"{query} {where} ORDER BY {at_us} DESC, id DESC LIMIT ?"
        with closing(self._db.execute(page, (*place, limit))) as cursor:
            return cursor.fetchall()

    def _one(self, query: str, *values: object) -> Any:
        with closing(self._db.execute(query, values)) as cursor:
            return cursor.fetchone()


class _Transaction:
    """A transaction that takes the write lock at once: waiting happens here or nowhere."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def email_key(email: str) -> str:
    """What makes two addresses the same: case and surrounding space do not count."""
    return email.strip().casefold()


P = ParamSpec("P")
R = TypeVar("R")


class FileAccountStore:
    """Implements `AccountStore` over an `AccountFile` in a thread of its own."""

    def __init__(self, thread: ThreadPoolExecutor, file: AccountFile) -> None:
        self._thread = thread
        self._file = file

    @classmethod
    async def open(cls, data_dir: Path) -> FileAccountStore:
        """Opens or makes the file. Raises sqlite3.Error or OSError."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="accounts")
        try:
            loop = asyncio.get_running_loop()
            file = await loop.run_in_executor(thread, AccountFile, data_dir)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, file)

    async def close(self) -> None:
        await self._run(AccountFile.close)
        self._thread.shutdown(wait=True)

    async def add_account(
        self, email: str, password_hash: bytes, role: Literal["user", "admin"]
    ) -> Account:
        return await self._run(AccountFile.add_account, email, password_hash, role)

    async def redeem_account_invite(
        self, invite: bytes, email: str, password_hash: bytes, *, now: float
    ) -> Account:
        return await self._run(
            AccountFile.redeem_account_invite, invite, email, password_hash, now=now
        )

    async def add_account_invite(self, invite: AccountInvite) -> None:
        await self._run(AccountFile.add_account_invite, invite)

    async def list_account_invites(
        self, *, after: Place | None = None, limit: int = 100
    ) -> list[AccountInvite]:
        return await self._run(AccountFile.list_account_invites, after=after, limit=limit)

    async def revoke_account_invite(self, invite_id: str, *, now: float) -> bool:
        return await self._run(AccountFile.revoke_account_invite, invite_id, now=now)

    async def account_by_email(self, email: str) -> Account | None:
        return await self._run(AccountFile.account_by_email, email)

    async def account_by_id(self, account_id: str) -> Account | None:
        return await self._run(AccountFile.account_by_id, account_id)

    async def count_accounts(self) -> int:
        return await self._run(AccountFile.count_accounts)

    async def list_accounts(self, *, after: Place | None = None, limit: int = 100) -> list[Account]:
        return await self._run(AccountFile.list_accounts, after=after, limit=limit)

    async def set_password(
        self, account_id: str, password_hash: bytes, *, now: float
    ) -> Account | None:
        return await self._run(AccountFile.set_password, account_id, password_hash, now=now)

    async def set_role(self, account_id: str, role: Literal["user", "admin"]) -> Account | None:
        return await self._run(AccountFile.set_role, account_id, role)

    async def set_disabled(self, account_id: str, disabled: bool, *, now: float) -> Account | None:
        return await self._run(AccountFile.set_disabled, account_id, disabled, now=now)

    async def disabled_among(self, account_ids: Collection[str]) -> set[str]:
        return await self._run(AccountFile.disabled_among, account_ids)

    async def anonymise_account(self, account_id: str, *, now: float) -> Account | None:
        return await self._run(AccountFile.anonymise_account, account_id, now=now)

    async def add_refresh_token(self, token: RefreshToken, *, session_version: int) -> bool:
        return await self._run(
            AccountFile.add_refresh_token, token, session_version=session_version
        )

    async def rotate_refresh_token(
        self, presented: bytes, successor: bytes, *, now: float, life_s: float, grace_s: float
    ) -> tuple[Rotation, Account | None]:
        return await self._run(
            AccountFile.rotate_refresh_token,
            presented,
            successor,
            now=now,
            life_s=life_s,
            grace_s=grace_s,
        )

    async def revoke_refresh_family(self, presented: bytes, *, now: float) -> str | None:
        return await self._run(AccountFile.revoke_refresh_family, presented, now=now)

    async def _run(
        self,
        work: Callable[Concatenate[AccountFile, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._file, *args, **kwargs))
