"""Invites and presets: what the database keeps of them is what memory does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from roomserver.protocol.server import MixState
from roomserver.store import invites, presets
from roomserver.store.database import Connection, Database, DatabaseAwayError
from roomserver.store.invites import InviteStore, TooManyInvitesError
from roomserver.store.presets import Owner, PresetStore, TooManyPresetsError
from roomserver.store.records import InviteRecord

NOW = 1_800_000_000.0
MIX = MixState(
    faders=(0.1, 1.0, 4.0), pans=(-1.0, 0.3), mutes=(True, False), solos=(False,), master=0.7
)


@pytest.fixture(params=["memory", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def room_and_owner(tables: Connection) -> tuple[str, str]:
    owner = await tables.fetchval(
        "INSERT INTO relay.users (email, password_hash) VALUES ('o@x.example', '')"
        " RETURNING id::text"
    )
    room = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code, created_by) VALUES ('CODE', $1) RETURNING id::text",
        owner,
    )
    return room, owner


@pytest.fixture
async def invite_store(kind: str, database: Database) -> AsyncIterator[InviteStore]:
    if kind == "memory":
        yield invites.MemoryInviteStore()
    else:
        yield invites.PostgresInviteStore(database)


@pytest.fixture
async def preset_store(kind: str, database: Database) -> AsyncIterator[PresetStore]:
    if kind == "memory":
        yield presets.MemoryPresetStore()
    else:
        yield presets.PostgresPresetStore(database)


def new_invite(room_and_owner: tuple[str, str], number: int = 0, **fields: Any) -> InviteRecord:
    room, owner = room_and_owner
    defaults = {"expires_at": NOW + 3600.0, "created_at": NOW + number}
    secret = b"secret %d" % number
    return InviteRecord(str(uuid4()), room, secret, owner, **(defaults | fields))


async def test_an_invite_is_good_as_often_as_it_says(
    invite_store: InviteStore, room_and_owner: tuple[str, str]
) -> None:
    invite = new_invite(room_and_owner, max_uses=7)
    await invite_store.add(invite)

    async def use(secret: bytes = invite.hash, now: float = NOW) -> bool:
        return await invite_store.redeem(invite.id, invite.room, secret, now=now)

    assert not await use(b"another secret")
    assert not await use(now=NOW + 3601)
    assert not await invite_store.redeem(invite.id, str(uuid4()), invite.hash, now=NOW)
    assert not await invite_store.redeem(str(uuid4()), invite.room, invite.hash, now=NOW)
    assert sum(await asyncio.gather(*(use() for _ in range(50)))) == 7
    (kept,) = await invite_store.page(invite.room, after=None, limit=10)
    assert (kept.id, kept.uses, kept.max_uses) == (invite.id, 7, 7)
    assert (kept.created_at, kept.expires_at) == (invite.created_at, invite.expires_at)


async def test_a_use_that_let_nobody_in_is_given_back(
    invite_store: InviteStore, room_and_owner: tuple[str, str]
) -> None:
    invite = new_invite(room_and_owner, max_uses=1)
    await invite_store.add(invite)

    async def use() -> bool:
        return await invite_store.redeem(invite.id, invite.room, invite.hash, now=NOW)

    assert await use()
    await invite_store.give_back(invite.id, invite.room)
    assert (await invite_store.page(invite.room, after=None, limit=10))[0].uses == 0
    assert await use()
    assert not await use()
    for _ in range(2):  # what was not taken is not given back
        await invite_store.give_back(invite.id, invite.room)
    assert (await invite_store.page(invite.room, after=None, limit=10))[0].uses == 0
    await invite_store.give_back(str(uuid4()), invite.room)


async def test_a_revoked_invite_is_good_no_more(
    invite_store: InviteStore, room_and_owner: tuple[str, str]
) -> None:
    invite = new_invite(room_and_owner)
    await invite_store.add(invite)
    assert await invite_store.redeem(invite.id, invite.room, invite.hash, now=NOW)
    assert not await invite_store.revoke(invite.id, str(uuid4()), now=NOW)
    assert await invite_store.revoke(invite.id, invite.room, now=NOW + 1)
    assert not await invite_store.revoke(invite.id, invite.room, now=NOW + 2)
    assert not await invite_store.redeem(invite.id, invite.room, invite.hash, now=NOW)
    (kept,) = await invite_store.page(invite.room, after=None, limit=10)
    assert (kept.uses, kept.revoked_at) == (1, NOW + 1)


async def test_invites_are_listed_newest_first_and_bounded(
    invite_store: InviteStore,
    room_and_owner: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invites, "MOST", 5)
    made = [new_invite(room_and_owner, number, expires_at=NOW + 100) for number in range(5)]
    for invite in made:
        await invite_store.add(invite)
    with pytest.raises(TooManyInvitesError):
        await invite_store.add(new_invite(room_and_owner, 6))
    newest = await invite_store.page(made[0].room, after=None, limit=2)
    older = await invite_store.page(made[0].room, after=newest[-1].place, limit=10)
    assert [i.id for i in (*newest, *older)] == [i.id for i in reversed(made)]
    await invite_store.add(new_invite(room_and_owner, 200))  # those before are over
    assert len(await invite_store.page(made[0].room, after=None, limit=10)) == 1


async def test_an_invite_into_a_room_that_the_database_does_not_know_has_to_wait(
    database: Database, room_and_owner: tuple[str, str]
) -> None:
    store = invites.PostgresInviteStore(database)
    with pytest.raises(DatabaseAwayError):
        await store.add(new_invite((str(uuid4()), room_and_owner[1])))


async def test_a_preset_is_loaded_as_it_was_saved(
    preset_store: PresetStore, room_and_owner: tuple[str, str]
) -> None:
    for owner in (Owner(room_and_owner[1], str(uuid4())), Owner(None, str(uuid4()))):
        assert await preset_store.load(owner, "mine") is None
        await preset_store.save(owner, "mine", MixState())
        await preset_store.save(owner, "mine", MIX)
        await preset_store.save(owner, "Ärger; DROP TABLE", MixState())
        assert await preset_store.load(owner, "mine") == MIX
        assert sorted(await preset_store.names(owner)) == ["mine", "Ärger; DROP TABLE"]
        assert await preset_store.delete(owner, "mine")
        assert not await preset_store.delete(owner, "mine")
        assert await preset_store.names(Owner(None, str(uuid4()))) == []


async def test_presets_of_one_owner_are_bounded_however_fast_they_come(
    preset_store: PresetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "MOST", 3)
    owner = Owner(None, str(uuid4()))

    async def save(name: str) -> bool:
        try:
            await preset_store.save(owner, name, MIX)
        except TooManyPresetsError:
            return False
        return True

    assert sum(await asyncio.gather(*(save(str(number)) for number in range(6)))) == 3
    assert all([await save(name) for name in await preset_store.names(owner)])
