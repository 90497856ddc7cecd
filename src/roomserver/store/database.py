"""The connection to PostgreSQL: a pool, transactions, and what it means when there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
CLOSE_S = 2.0
POOL_SIZE = 10

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# What asyncpg raises when the database is not to be reached, is going or coming, or has no
# connection to spare: all of it passes.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.InvalidAuthorizationSpecificationError,  # password changed, there or here
    asyncpg.InvalidCatalogNameError,  # not made yet, or being restored
    asyncpg.InternalClientError,
)


class DatabaseAwayError(Exception):
    """The database can't be reached now; what needs it has to wait, or to be refused with 503."""


class Database:
    """A pool of connections, opened when it is first needed and again after the database was away.

    address: a postgresql:// URL, or keyword arguments of asyncpg.connect.
    pooler: "transaction" for one in between that gives a connection away between transactions
        (pgbouncer, Supabase's): nothing may be prepared or set for longer than one.
    """

    def __init__(
        self,
        address: str | dict[str, Any],
        *,
        pooler: Literal["none", "transaction"] = "none",
    ) -> None:
        self._options: dict[str, Any] = {"dsn": address} if isinstance(address, str) else address
        self.pooled = pooler == "transaction"
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Closes every connection; those in use are waited for, but not for long."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), CLOSE_S)
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def transaction(
        self, *, claims: dict[str, Any] | None = None, within_s: float | None = None
    ) -> AsyncIterator[Connection]:
        """One transaction; with `claims` as the user of a token, bound by the policies.

        within_s: after so long the database counts as away: somebody waits.

        Raises DatabaseAwayError when the database is away at its beginning, in it or at its end;
        then it may have been committed or not.
        """
        try:
            async with asyncio.timeout(within_s):
                pool = await self._open()
                async with (
                    pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection,
                    _transaction(connection),  # type: ignore[arg-type]  # a proxy of one
                ):
                    if claims is not None:
                        await connection.execute("SET LOCAL ROLE authenticated")
                        await connection.execute(
                            "SELECT set_config('request.jwt.claims', $1, true)", json.dumps(claims)
                        )
                    yield connection  # type: ignore[misc]
        except AWAY as error:
            raise DatabaseAwayError(str(error) or type(error).__name__) from error

    async def connect(self) -> Connection:
        """A connection of one's own, for what takes more than a transaction: not of a pooler.

        Raises DatabaseAwayError.
        """
        try:
            return await asyncpg.connect(
                **self._options,
                timeout=CONNECT_TIMEOUT_S,
                statement_cache_size=0 if self.pooled else 100,
            )
        except AWAY as error:
            raise DatabaseAwayError(str(error) or type(error).__name__) from error

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    **self._options,
                    min_size=1,
                    max_size=POOL_SIZE,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    statement_cache_size=0 if self.pooled else 100,
                    init=_prepare,
                )
            return self._pool


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction that nobody waits for who does not wait any more.

    asyncpg would ask a database that does not answer to cancel what it does, and to roll back.
    """
    transaction = connection.transaction()
    started = False
    try:
        try:
            await transaction.start()
            started = True
            yield
        except Exception:
            if started and not connection.is_closed():
                await transaction.rollback()
            raise
        await transaction.commit()
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def _prepare(connection: Connection) -> None:
    # In a transaction, since it asks the database what jsonb is in several steps, between which a
    # pooler could give it another connection.
    async with connection.transaction():
        await connection.set_type_codec(
            "jsonb",
            encoder=lambda value: msgspec.json.encode(value).decode(),
            decoder=msgspec.json.decode,
            schema="pg_catalog",
        )
        # As the text it is here too: Python's own addresses are slow to make.
        await connection.set_type_codec(
            "inet", encoder=str, decoder=str, schema="pg_catalog", format="text"
        )
