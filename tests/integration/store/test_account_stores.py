"""What every account store does, in its file and in PostgreSQL alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roomserver.auth.accounts import Accounts
from roomserver.auth.passwords import PasswordPool
from roomserver.auth.tokens import TokenError, Tokens
from roomserver.store.accounts import FileAccountStore
from roomserver.store.database import Connection, Database
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.interfaces import AccountStore, EmailTakenError
from roomserver.store.postgres import PostgresAccountStore
from support.clock import Clock

PASSWORD = b"correct horse"


@pytest.fixture(params=["file", "postgres"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: EmbeddedPostgres, tables: Connection
) -> AsyncIterator[AccountStore]:
    if request.param == "file":
        file = await FileAccountStore.open(tmp_path)
        yield file
        await file.close()
    else:
        database = Database(cluster.connection)
        yield PostgresAccountStore(database)
        await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(store: AccountStore, clock: Clock) -> AsyncIterator[Accounts]:
    pool = PasswordPool("accounts", rounds=4, threads=1, queue=8)
    await store.add_account("Ann@Example.org", await pool.hash(PASSWORD), "user")
    tokens = Tokens(b"x" * 32, access_s=900, room_s=900, now=clock)
    yield Accounts(store, pool, tokens, refresh_s=604_800, now=clock)
    pool.close()


async def test_an_account_is_found_in_any_case_and_stays_one(store: AccountStore) -> None:
    added = await store.add_account("Ann@Example.org", b"hash", "admin")
    assert await store.account_by_email(" ann@example.ORG ") == added
    assert await store.account_by_id(added.id) == added
    assert await store.account_by_email("bob@example.org") is None
    with pytest.raises(EmailTakenError):
        await store.add_account("ANN@example.org", b"hash", "user")
    assert await store.count_accounts() == 1


async def test_login_needs_the_right_password_of_a_known_account(accounts: Accounts) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    assert (await accounts.authenticate(session.access_token)).email == "Ann@Example.org"
    assert await accounts.login("ann@example.org", b"wrong") is None
    assert await accounts.login("bob@example.org", PASSWORD) is None


async def test_a_refresh_token_is_exchanged_with_every_use(
    accounts: Accounts, clock: Clock
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    for _ in range(5):
        clock.now += 3600
        previous, session = session, await accounts.refresh(session.refresh_token)
        assert session.refresh_token != previous.refresh_token
        assert await accounts.authenticate(session.access_token)


async def test_an_old_token_ends_its_whole_family(accounts: Accounts, clock: Clock) -> None:
    first = await accounts.login("ann@example.org", PASSWORD)
    other = await accounts.login("ann@example.org", PASSWORD)
    assert first is not None
    assert other is not None
    second = await accounts.refresh(first.refresh_token)
    third = await accounts.refresh(second.refresh_token)
    # Used, and its successor used as well: whoever has it took it from somewhere.
    with pytest.raises(TokenError):
        await accounts.refresh(first.refresh_token)
    for token in (second.refresh_token, third.refresh_token):
        with pytest.raises(TokenError):
            await accounts.refresh(token)
    assert await accounts.refresh(other.refresh_token)
    clock.now += 1


async def test_two_tabs_or_a_lost_answer_are_not_theft(accounts: Accounts, clock: Clock) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    one = await accounts.refresh(session.refresh_token)
    clock.now += 29
    two = await accounts.refresh(session.refresh_token)
    clock.now += 3600
    assert await accounts.refresh(one.refresh_token)
    assert await accounts.refresh(two.refresh_token)


async def test_the_predecessor_is_good_for_half_a_minute_only(
    accounts: Accounts, clock: Clock
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    successor = await accounts.refresh(session.refresh_token)
    clock.now += 31
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    with pytest.raises(TokenError):
        await accounts.refresh(successor.refresh_token)


async def test_a_refresh_token_expires_and_a_logout_ends_it(
    accounts: Accounts, clock: Clock
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    await accounts.logout(session.refresh_token)
    await accounts.logout("unknown")
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    clock.now += 604_801
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    assert await accounts.login("ann@example.org", PASSWORD)
