"""The rooms that a load test makes for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from roomserver.clients.account import AccountEntry
from roomserver.clients.errors import ClientError
from roomserver.clients.load_options import LoadRoom

_AT_A_TIME: Final = 16


@asynccontextmanager
async def made_rooms(
    account: AccountEntry, count: int, password: str
) -> AsyncIterator[list[LoadRoom]]:
    """Rooms of an account, closed at the end.

    Raises:
        ClientError: One was refused; those that were made by then are closed.
    """
    rooms: list[LoadRoom] = []
    refused: list[ClientError] = []
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def make(number: int) -> None:
        async with gate:
            if refused:
                return
            try:
                access = await account.create_room(password, name=f"load {number + 1}")
            except ClientError as error:
                refused.append(error)
            else:
                rooms.append(LoadRoom(access.room_code, password, access))

    async def close(room: LoadRoom) -> None:
        async with gate:
            assert room.source is not None
            await account.close_room(room.source.room_id)

    try:
        await make(0)  # logs in, which is done once
        await asyncio.gather(*(make(number) for number in range(1, count)))
        if refused:
            raise refused[0]
        yield rooms
    finally:
        closed = await asyncio.gather(*map(close, rooms), return_exceptions=True)
        for result in closed:
            if isinstance(result, BaseException) and not isinstance(result, ClientError):
                raise result
