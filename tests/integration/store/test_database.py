"""Transactions, and a database that does not answer."""

from __future__ import annotations

import asyncio
import signal
import time

import asyncpg
import pytest

from roomserver.store.database import Connection, Database, DatabaseAwayError
from support.postgres import Cluster


async def count(database: Database) -> int:
    async with database.transaction() as connection:
        rows: int = await connection.fetchval("SELECT count(*) FROM relay.users")
        return rows


async def add(database: Database, email: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO relay.users (email, password_hash) VALUES ($1, '')", email
        )
        if email == "wrong":
            raise ValueError(email)


@pytest.mark.parametrize(
    ("cluster", "major"), [("newest", 18), ("pooled", 18), ("oldest", 15)], indirect=["cluster"]
)
async def test_the_versions_that_are_supported_are_those_that_are_tested(
    cluster: Cluster, major: int
) -> None:
    database = cluster.database()
    async with database.transaction() as connection:
        version = await connection.fetchval("SELECT current_setting('server_version_num')::int")
    await database.close()
    assert version // 10_000 == major
    assert database.pooled == (cluster.pooler is not None)


async def test_what_fails_leaves_nothing_and_the_connection_is_good(
    database: Database, tables: Connection
) -> None:
    await add(database, "one@x.example")
    with pytest.raises(ValueError, match="wrong"):
        await add(database, "wrong")
    with pytest.raises(asyncpg.UniqueViolationError):
        await add(database, "ONE@x.example")
    assert await count(database) == 1


@pytest.mark.parametrize("cluster", ["newest"], indirect=True)
async def test_nobody_waits_longer_than_they_said_for_a_database_that_hangs(
    cluster: Cluster, database: Database, tables: Connection
) -> None:
    assert await count(database) == 0
    cluster.signal_all(signal.SIGSTOP)  # it takes what it is sent, and answers nothing
    try:
        begun = time.monotonic()
        with pytest.raises(DatabaseAwayError):
            async with database.transaction(within_s=0.5) as connection:
                await connection.execute("SELECT 1")
        with pytest.raises(DatabaseAwayError):
            async with asyncio.timeout(10), database.transaction(within_s=0.5):
                pass
        waited = time.monotonic() - begun
    finally:
        cluster.signal_all(signal.SIGCONT)
    assert waited < 4  # a busy machine; asyncpg by itself would wait for 30 s
    assert await count(database) == 0
