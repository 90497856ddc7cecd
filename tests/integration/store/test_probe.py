"""Whether the database answers, for many who ask."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomserver.store.database import Connection, Database
from roomserver.store.probe import KEPT_S, Probe
from support.clock import Clock
from support.postgres import Cluster

pytestmark = pytest.mark.parametrize("cluster", ["newest"], indirect=True)


class Counting(Database):
    """Its transactions are counted."""

    transactions = 0

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Connection]:
        self.transactions += 1
        async with super().transaction(**options) as connection:
            yield connection


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Counting]:
    database = Counting(cluster.connection)
    yield database
    await database.close()


async def test_it_is_asked_once_for_all_who_ask_in_the_same_second(database: Counting) -> None:
    clock = Clock()
    probe = Probe(database, clock)
    assert await asyncio.gather(*(probe.answers() for _ in range(50))) == [True] * 50
    clock.now += KEPT_S - 0.01
    assert await probe.answers()
    assert database.transactions == 1
    clock.now += 0.01
    assert await asyncio.gather(*(probe.answers() for _ in range(50))) == [True] * 50
    assert database.transactions == 2
    await probe.close()


async def test_who_goes_away_does_not_take_the_answer_from_others(database: Counting) -> None:
    probe = Probe(database, Clock())
    gone, waiting = asyncio.create_task(probe.answers()), asyncio.create_task(probe.answers())
    await asyncio.sleep(0)
    gone.cancel()
    assert await waiting
    assert gone.cancelled()
    assert database.transactions == 1
    await probe.close()


async def test_that_it_hangs_is_said_in_time_and_holds_as_long(
    cluster: Cluster, database: Counting
) -> None:
    clock = Clock()
    probe = Probe(database, clock)
    assert await probe.answers()
    clock.now += KEPT_S
    cluster.signal_all(signal.SIGSTOP)
    try:
        assert not await probe.answers()
    finally:
        cluster.signal_all(signal.SIGCONT)
    assert not await probe.answers()
    clock.now += KEPT_S
    assert await probe.answers()
    await probe.close()
