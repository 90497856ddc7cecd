"""The rooms of a load test are closed at its end, whatever it was."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from roomserver.clients.connection import RoomAccess
from roomserver.clients.errors import ClientError
from roomserver.clients.load_rooms import made_rooms


class Rooms:
    """An account at a server that refuses a room and takes its time with those after it."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()
        self.open: set[str] = set()

    async def create_room(self, password: str, *, name: str) -> RoomAccess:
        if name == "load 2":
            await asyncio.sleep(0)  # the others are on their way by then
            self.refused.set()
            raise ClientError("too many rooms")
        if name != "load 1":
            await self.refused.wait()
            await asyncio.sleep(0)
        self.open.add(name)
        return RoomAccess(name, "", room_code=name)

    async def close_room(self, room: str) -> None:
        self.open.remove(room)


async def test_rooms_that_were_made_are_closed_when_another_is_refused() -> None:
    account = Rooms()
    with pytest.raises(ClientError, match="too many rooms"):
        async with made_rooms(cast(Any, account), 4, "password"):
            raise AssertionError("there are not as many as were asked for")
    assert account.open == set()
    await asyncio.sleep(0.01)
    assert account.open == set(), "one was made after the end"
