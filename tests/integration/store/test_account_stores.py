"""What every account store does, in its file and in PostgreSQL alike."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest

from roomserver.auth.accounts import Accounts, Session
from roomserver.auth.passwords import PasswordPool
from roomserver.auth.tokens import Keys, TokenError, Tokens
from roomserver.store.accounts import FileAccountStore
from roomserver.store.database import Connection
from roomserver.store.interfaces import AccountStore, EmailTakenError, InviteRefusedError
from roomserver.store.postgres import PostgresAccountStore
from roomserver.store.records import Account, Place
from support.clock import Clock
from support.postgres import Cluster

PASSWORD = b"correct horse"


@pytest.fixture(params=["file", "postgres"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: Cluster, tables: Connection
) -> AsyncIterator[AccountStore]:
    if request.param == "file":
        file = await FileAccountStore.open(tmp_path)
        yield file
        await file.close()
    else:
        database = cluster.database()
        yield PostgresAccountStore(database)
        await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(store: AccountStore, clock: Clock) -> AsyncIterator[Accounts]:
    pool = PasswordPool("accounts", rounds=4, threads=1, queue=8)
    await store.add_account("Ann@Example.org", await pool.hash(PASSWORD), "user")
    tokens = Tokens(Keys(b"x" * 32), access_s=900, room_s=900, now=clock)
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


@pytest.mark.parametrize("used", [0, 1])
async def test_after_any_of_two_tabs_went_on_their_token_is_stolen(
    accounts: Accounts, used: int
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    tabs = [await accounts.refresh(session.refresh_token) for _ in range(2)]
    following = await accounts.refresh(tabs[used].refresh_token)
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    for each in (tabs[1 - used], following):
        with pytest.raises(TokenError):
            await accounts.refresh(each.refresh_token)


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


async def test_accounts_are_listed_newest_first_a_page_at_a_time(store: AccountStore) -> None:
    made = [await store.add_account(f"{n}@example.org", b"hash", "user") for n in range(4)]

    def last(page: Sequence[Account]) -> Place:
        return Place.of(page[-1].created_at, page[-1].id)

    first = await store.list_accounts(limit=3)
    assert list(first) == made[:0:-1]
    rest = await store.list_accounts(after=last(first), limit=3)
    assert list(rest) == made[:1]
    assert list(await store.list_accounts(after=last(rest))) == []


async def test_a_disabled_account_is_out_at_once_and_everywhere(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    sessions = [await accounts.login("ann@example.org", PASSWORD) for _ in range(2)]
    first, second = (session for session in sessions if session is not None)
    changed = await store.set_disabled(first.account.id, True, now=clock.now)
    assert changed is not None
    assert changed.disabled_at == clock.now
    with pytest.raises(TokenError):
        await accounts.refresh(first.refresh_token)
    with pytest.raises(TokenError):
        await accounts.authenticate(second.access_token)
    assert await accounts.login("ann@example.org", PASSWORD) is None
    again = await store.set_disabled(first.account.id, True, now=clock.now + 9)
    assert again is not None
    assert again.disabled_at == changed.disabled_at
    assert await store.disabled_among([first.account.id, str(uuid.uuid4())]) == {first.account.id}

    changed = await store.set_disabled(first.account.id, False, now=clock.now)
    assert changed is not None
    assert changed.disabled_at is None
    with pytest.raises(TokenError):  # what was ended stays so
        await accounts.refresh(second.refresh_token)
    assert await accounts.login("ann@example.org", PASSWORD) is not None


async def test_a_new_password_ends_the_sessions_of_the_old_one(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    hashed = bcrypt.hashpw(b"another", bcrypt.gensalt(4))
    assert await store.set_password(session.account.id, hashed, now=clock.now) is not None
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    assert await accounts.login("ann@example.org", PASSWORD) is None
    assert await accounts.login("ann@example.org", b"another") is not None


async def test_a_role_changes(store: AccountStore) -> None:
    account = await store.add_account("ann@example.org", b"hash", "user")
    assert await store.set_role(account.id, "admin") == replace(account, role="admin")
    assert await store.account_by_id(account.id) == replace(account, role="admin")


async def test_an_anonymised_account_is_nobodys(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    session = await accounts.login("ann@example.org", PASSWORD)
    assert session is not None
    changed = await store.anonymise_account(session.account.id, now=clock.now)
    assert changed is not None
    assert changed == await store.account_by_id(session.account.id)
    assert "ann" not in changed.email
    assert changed.disabled_at == clock.now
    with pytest.raises(TokenError):
        await accounts.refresh(session.refresh_token)
    assert await store.account_by_email("ann@example.org") is None
    assert await accounts.login("ann@example.org", PASSWORD) is None
    await store.set_disabled(changed.id, False, now=clock.now)
    assert await accounts.login(changed.email, PASSWORD) is None  # it has no password
    # The address is free for somebody else, and it may be done again.
    await store.add_account("ann@example.org", b"hash", "user")
    assert await store.anonymise_account(changed.id, now=clock.now) is not None


async def test_whom_a_store_does_not_know_it_does_not_change(store: AccountStore) -> None:
    nobody = str(uuid.uuid4())
    assert await store.set_password(nobody, b"hash", now=1.0) is None
    assert await store.set_role(nobody, "admin") is None
    assert await store.set_disabled(nobody, True, now=1.0) is None
    assert await store.anonymise_account(nobody, now=1.0) is None


async def invite(accounts: Accounts, store: AccountStore, email: str | None = None) -> str:
    admin = await store.account_by_email("ann@example.org")
    assert admin is not None
    await store.set_role(admin.id, "admin")
    _, token = await accounts.invite(email=email, role="user", by=admin, life_s=3600)
    return token


async def test_no_invite_keeps_the_address_of_an_anonymised_account(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    used = await invite(accounts, store, "bob@example.org")
    bob = (await accounts.register("bob@example.org", b"secret", invite=used)).account
    await invite(accounts, store, "Bob@Example.org")  # too late, and so of no use
    await invite(accounts, store, "jobob@example.org")
    await invite(accounts, store)
    assert await store.anonymise_account(bob.id, now=clock.now) is not None
    kept = {each.email for each in await store.list_account_invites()}
    assert kept == {"jobob@example.org", None}


async def test_an_invite_does_not_outlive_its_administrator(
    accounts: Accounts, store: AccountStore
) -> None:
    token = await invite(accounts, store)
    admin = await store.account_by_email("ann@example.org")
    assert admin is not None
    await store.set_role(admin.id, "user")
    with pytest.raises(InviteRefusedError):
        await accounts.register("bob@example.org", b"secret", invite=token)
    await store.set_role(admin.id, "admin")
    await store.set_disabled(admin.id, True, now=1.0)
    with pytest.raises(InviteRefusedError):
        await accounts.register("bob@example.org", b"secret", invite=token)


async def test_an_invite_makes_one_account(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    token = await invite(accounts, store)
    with pytest.raises(EmailTakenError):
        await accounts.register("ANN@example.org", b"secret", invite=token)
    results = await asyncio.gather(
        *(accounts.register(f"{n}@example.org", b"secret", invite=token) for n in range(5)),
        return_exceptions=True,
    )
    (session,) = [result for result in results if not isinstance(result, BaseException)]
    assert all(isinstance(r, InviteRefusedError) for r in results if r is not session)
    assert await store.count_accounts() == 2
    (kept,) = await store.list_account_invites()
    assert (kept.used_by, kept.used_at) == (session.account.id, clock.now)
    assert not await accounts.revoke_invite(kept.id)


async def test_an_invite_holds_for_its_address_until_it_expires_or_is_revoked(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    bound = await invite(accounts, store, "bob@example.org")
    for token in (bound, "nonsense"):
        with pytest.raises(InviteRefusedError):
            await accounts.register("carl@example.org", b"secret", invite=token)
    assert await accounts.register("BOB@example.org", b"secret", invite=bound)
    revoked, expired = [await invite(accounts, store) for _ in range(2)]
    newest, second, _ = await store.list_account_invites()
    assert await store.list_account_invites(
        after=Place.of(newest.created_at, newest.id), limit=1
    ) == [second]
    for kept in (newest, second):
        if kept.hash == hashlib.sha256(revoked.encode()).digest():
            assert await accounts.revoke_invite(kept.id)
    assert not await accounts.revoke_invite(str(uuid.uuid4()))
    clock.now += 3601
    for token in (revoked, expired):
        with pytest.raises(InviteRefusedError):
            await accounts.register("carl@example.org", b"secret", invite=token)


async def test_no_session_outlives_a_password_that_changed_meanwhile(
    accounts: Accounts, store: AccountStore, clock: Clock
) -> None:
    """Refreshes, logins and logouts at the same time as what ends all sessions."""
    password = PASSWORD
    for number in range(10):
        session = await accounts.login("ann@example.org", password)
        assert session is not None
        another = f"secret {number}".encode()
        *results, changed = await asyncio.gather(
            *(accounts.refresh(session.refresh_token) for _ in range(3)),
            *(accounts.login("ann@example.org", password) for _ in range(3)),
            accounts.change_password(session.account, password, another),
            return_exceptions=True,
        )
        assert isinstance(changed, Session)
        for result in results:
            if isinstance(result, Session):
                with pytest.raises(TokenError):
                    await accounts.refresh(result.refresh_token)
                with pytest.raises(TokenError):
                    await accounts.authenticate(result.access_token)
        assert await accounts.authenticate(changed.access_token)
        assert await accounts.refresh(changed.refresh_token)
        password = another


async def test_a_successor_made_while_its_family_ends_ends_with_it(
    accounts: Accounts, clock: Clock
) -> None:
    for end in ("logout", "theft"):
        for _ in range(10):
            first = await accounts.login("ann@example.org", PASSWORD)
            assert first is not None
            second = await accounts.refresh(first.refresh_token)
            third = await accounts.refresh(second.refresh_token)
            ending = (
                accounts.logout(third.refresh_token)
                if end == "logout"
                else accounts.refresh(first.refresh_token)
            )
            fourth, _ = await asyncio.gather(
                accounts.refresh(third.refresh_token), ending, return_exceptions=True
            )
            if isinstance(fourth, Session):
                with pytest.raises(TokenError):
                    await accounts.refresh(fourth.refresh_token)
