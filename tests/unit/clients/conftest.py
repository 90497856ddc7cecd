"""A fake room and what clients of it need."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from rich.console import Console

from roomserver.clients.account import AccountEntry
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.meters import Display
from support.fake_room import CODE, EMAIL, PASSWORD, ROOM_PASSWORD, FakeRoom


@pytest_asyncio.fixture
async def room() -> AsyncIterator[FakeRoom]:
    async with FakeRoom() as room:
        yield room


@pytest_asyncio.fixture
async def source_entry(room: FakeRoom) -> AsyncIterator[RoomEntry]:
    async with RoomApi(room.url) as api:

        async def renew() -> RoomAccess:
            return await account.broadcaster_token(CODE)

        account = AccountEntry(api, EMAIL, PASSWORD)

        yield RoomEntry(api, await renew(), renew)


@pytest_asyncio.fixture
async def listener_entry(room: FakeRoom) -> AsyncIterator[RoomEntry]:
    async with RoomApi(room.url) as api:

        async def join() -> RoomAccess:
            return await api.join(CODE, ROOM_PASSWORD)

        yield RoomEntry(api, await join(), join)


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(log: io.StringIO) -> Display:
    return Display(Console(file=log, width=200), "test")
