"""A PostgreSQL for a module's tests, and databases in it that are empty or up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from roomserver.store.database import Connection
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.migrations import migrate
from support.postgres import open_directory


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedPostgres]:
    with open_directory() as directory:
        database = EmbeddedPostgres(directory)
        database.start()
        try:
            yield database
        finally:
            database.stop()


@pytest.fixture
async def empty(cluster: EmbeddedPostgres) -> AsyncIterator[Connection]:
    """A connection to a database in which there is nothing."""
    connection = await asyncpg.connect(**cluster.connection)
    await connection.execute("DROP SCHEMA IF EXISTS relay CASCADE")
    yield connection
    if not connection.is_closed():
        await connection.close()


@pytest.fixture
async def tables(empty: Connection) -> Connection:
    """A connection to a database that is up to date."""
    await migrate(empty)
    return empty
