"""What is done again and again."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from roomserver.store.database import DatabaseAwayError
from roomserver.store.periodic import periodically


@pytest.mark.parametrize(
    "error",
    [
        DatabaseAwayError("away"),
        asyncpg.PostgresError("refused"),
        asyncpg.InterfaceError("another operation is in progress"),
        OSError("the disk is full"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", ["ready", "work"])
async def test_whatever_fails_there_is_another_turn(error: Exception, where: str) -> None:
    calls = 0
    again = asyncio.Event()

    def fail_once(at: str) -> None:
        nonlocal calls
        if at != where:
            return
        calls += 1
        if calls == 1:
            raise error
        again.set()

    def ready() -> bool:
        fail_once("ready")
        return True

    async def work() -> None:
        fail_once("work")

    async with periodically("purge", work, interval_s=0.001, ready=ready):
        await asyncio.wait_for(again.wait(), 10)
