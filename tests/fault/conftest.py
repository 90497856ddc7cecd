"""PostgreSQL for servers that are killed, cut off and started again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from roomserver.store.database import Connection
from roomserver.store.migrations import migrate
from support.postgres import Cluster, postgres


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgres() as server:
        yield Cluster(server)


@pytest.fixture
async def tables(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection to a database that is up to date and empty."""
    connection = await asyncpg.connect(**cluster.connection)
    await connection.execute("DROP SCHEMA IF EXISTS relay CASCADE")
    await migrate(connection)
    yield connection
    if not connection.is_closed():
        await connection.close()
