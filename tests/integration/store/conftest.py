"""PostgreSQL in all ways in which it is used, and databases in it that are empty or up to date.

Each cluster is made once and has one database, which tests have one after the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from roomserver.store.database import Connection, Database
from roomserver.store.embedded import OLDEST_MAJOR
from roomserver.store.migrations import load_migrations, migrate, pending
from support.postgres import Cluster, pgbouncer, postgres

# One statement for all tables, at whose end none refers to another any more. TRUNCATE makes new
# files, and takes twenty times as long.
CLEAR = """
SELECT format(
    'WITH %s SELECT', string_agg(format('%1$I AS (DELETE FROM relay.%1$I)', tablename), ', ')
)
FROM pg_tables WHERE schemaname = 'relay' AND tablename <> 'migrations'
"""


@pytest.fixture(scope="session")
def newest() -> Iterator[Cluster]:
    """The version that a server brings with it."""
    with postgres() as server:
        yield Cluster(server)


@pytest.fixture(scope="session")
def pooled(newest: Cluster) -> Iterator[Cluster]:
    """The same through pgbouncer in transaction mode."""
    with pgbouncer(newest.server) as socket:
        yield Cluster(newest.server, socket)


@pytest.fixture(scope="session")
def oldest() -> Iterator[Cluster]:
    """The oldest version that is supported, through pgbouncer in transaction mode."""
    with postgres(OLDEST_MAJOR) as server, pgbouncer(server) as socket:
        yield Cluster(server, socket)


@pytest.fixture(scope="session", params=["newest", "pooled", "oldest"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The newest PostgreSQL, with and without a pooler, and the oldest behind one.

    A test that takes long and can't depend on that names one:
    `@pytest.mark.parametrize("cluster", ["newest"], indirect=True)`.
    """
    cluster: Cluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture
async def direct(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection of the test's own, past the pooler, to whatever the last test left."""
    connection = await asyncpg.connect(**cluster.connection)
    yield connection
    if not connection.is_closed():
        await connection.close()


@pytest.fixture
async def empty(direct: Connection) -> Connection:
    """A connection to a database in which there is nothing."""
    await direct.execute("DROP SCHEMA IF EXISTS relay CASCADE")
    return direct


@pytest.fixture
async def tables(direct: Connection) -> Connection:
    """A connection to a database that is up to date and has no rows."""
    if await pending(direct, load_migrations()):
        await direct.execute("DROP SCHEMA IF EXISTS relay CASCADE")
        await migrate(direct)
    else:
        await direct.execute(await direct.fetchval(CLEAR))
    return direct


@pytest.fixture
async def database(cluster: Cluster, tables: Connection) -> AsyncIterator[Database]:
    """As a server uses it; up to date and without rows."""
    database = cluster.database()
    yield database
    await database.close()
