"""Stores: accounts in their file, refresh tokens, rooms in memory."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from roomserver.auth.accounts import Accounts, InvalidEmailError, check_email
from roomserver.auth.passwords import PasswordPool
from roomserver.auth.tokens import Keys, TokenError, Tokens
from roomserver.protocol.codes import Role, RoomCloseReason, RoomState
from roomserver.store.accounts import AccountFile, FileAccountStore
from roomserver.store.interfaces import CodeTakenError
from roomserver.store.memory import CODE_REST_S, MemoryRoomStore
from roomserver.store.migrations import load_migrations
from roomserver.store.records import Account, AccountInvite, AuditEvent, LeaveReason, RoomRecord
from support.clock import Clock

PASSWORD = b"correct horse"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileAccountStore]:
    store = await FileAccountStore.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(store: FileAccountStore, clock: Clock) -> AsyncIterator[Accounts]:
    pool = PasswordPool("accounts", rounds=4, threads=1, queue=8)
    await store.add_account("Ann@Example.org", await pool.hash(PASSWORD), "user")
    tokens = Tokens(Keys(b"x" * 32), access_s=900, room_s=900, now=clock)
    yield Accounts(store, pool, tokens, refresh_s=604_800, now=clock)
    pool.close()


async def test_an_account_added_by_another_process_is_there_at_once(
    store: FileAccountStore, tmp_path: Path
) -> None:
    with AccountFile(tmp_path) as other:
        other.add_account("bob@example.org", b"hash", "user")
    assert await store.account_by_email("bob@example.org") is not None


def test_many_writers_at_once_wait_for_each_other(tmp_path: Path) -> None:
    def add(number: int) -> None:
        with AccountFile(tmp_path) as file:
            file.add_account(f"user{number}@example.org", b"hash", "user")

    async def all_at_once() -> None:
        await asyncio.gather(*(asyncio.to_thread(add, number) for number in range(8)))

    asyncio.run(all_at_once())
    with AccountFile(tmp_path) as file:
        assert file.count_accounts() == 8


def test_the_file_is_for_its_owner_alone_and_survives(tmp_path: Path) -> None:
    with AccountFile(tmp_path) as file:
        account = file.add_account("ann@example.org", b"hash", "user")
    assert (tmp_path / "accounts.db").stat().st_mode & 0o777 == 0o600
    with AccountFile(tmp_path) as file:
        assert file.account_by_id(account.id) == account


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with AccountFile(tmp_path):
        pass
    db = sqlite3.connect(tmp_path / "accounts.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="newer version"):
        AccountFile(tmp_path)


async def test_a_disabled_account_can_do_nothing(
    accounts: Accounts, store: FileAccountStore, tmp_path: Path
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    db = sqlite3.connect(tmp_path / "accounts.db")
    with db:
        db.execute("UPDATE users SET disabled_at = 1")
    db.close()
    assert await accounts.login("ann@example.org", PASSWORD) is None
    with pytest.raises(TokenError):
        await accounts.authenticate(session.access_token)
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)


async def test_refresh_tokens_are_kept_as_hashes(accounts: Accounts, tmp_path: Path) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    db = sqlite3.connect(tmp_path / "accounts.db")
    dump = "\n".join(db.iterdump())
    db.close()
    assert "refresh_tokens" in dump
    assert session.refresh_token not in dump
    assert session.refresh_token.encode().hex() not in dump.lower()


@pytest.mark.parametrize("email", ["", "ann", "a@b@c", "a b@c", "a@b\0", "@", "a@" + "b" * 253])
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(InvalidEmailError):
        check_email(email)


def test_records_do_not_show_hashes() -> None:
    account = Account("id", "ann@example.org", b"$2b$hash", "user", 0.0)
    assert "$2b$hash" not in repr(account)


def record(code: str = "ABCDEF", room: str = "1") -> RoomRecord:
    return RoomRecord(room, code, "name", b"hash", "owner", 0.0, False, {})


async def test_a_code_rests_for_thirty_days_after_its_room_was_closed() -> None:
    clock = Clock()
    store = MemoryRoomStore(now=clock)
    await store.create_room(record())
    with pytest.raises(CodeTakenError):
        await store.create_room(record(room="2"))
    store.room_changed(replace(record(), state=RoomState.CLOSED))
    assert await store.open_rooms() == []
    clock.now += CODE_REST_S - 1
    with pytest.raises(CodeTakenError):
        await store.create_room(record(room="2"))
    clock.now += 2
    await store.create_room(record(room="2"))
    assert [room.id for room in await store.open_rooms()] == ["2"]


def test_closed_lists_in_the_schema_are_those_of_the_code() -> None:
    schema = "".join(migration.sql for migration in load_migrations())
    lists = {}
    for table, columns in re.findall(r"CREATE TABLE relay\.(\w+) \((.*?)^\);", schema, re.M | re.S):
        for column, values in re.findall(r"CHECK \((\w+) IN \((.*?)\)\)", columns, re.S):
            lists[f"{table}.{column}"] = sorted(re.findall(r"'(\w+)'", values))
    assert lists == {
        "users.role": sorted(get_args(get_type_hints(Account)["role"])),
        "account_invites.role": sorted(get_args(get_type_hints(AccountInvite)["role"])),
        "audio_rooms.state": sorted(map(str, RoomState)),
        "audio_rooms.close_reason": sorted(map(str, RoomCloseReason)),
        "room_participants.role": sorted(map(str, Role)),
        "room_participants.leave_reason": sorted(map(str, LeaveReason)),
        "audit_log.event_type": sorted(map(str, AuditEvent)),
    }
