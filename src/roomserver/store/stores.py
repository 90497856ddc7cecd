"""Which stores a server has: in memory, or in a PostgreSQL that is its own or another's."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from roomserver.config import ConfigError, Settings
from roomserver.ids import new_id
from roomserver.store.accounts import FileAccountStore
from roomserver.store.analytics import Analytics
from roomserver.store.database import Database, DatabaseAwayError
from roomserver.store.directory import RoomDirectory
from roomserver.store.drain import write_audit
from roomserver.store.durable import DurableRoomStore
from roomserver.store.embedded import EmbeddedError, EmbeddedPostgres
from roomserver.store.interfaces import AccountStore, RoomStore
from roomserver.store.invites import InviteStore, MemoryInviteStore, PostgresInviteStore
from roomserver.store.memory import MemoryRoomStore
from roomserver.store.migrations import MigrationError, bring_up_to_date
from roomserver.store.outbox import Outbox, OutboxError
from roomserver.store.periodic import periodically
from roomserver.store.postgres import PostgresAccountStore
from roomserver.store.presets import MemoryPresetStore, PostgresPresetStore, PresetStore
from roomserver.store.records import AuditRecord
from roomserver.store.reports import MemoryReports, PostgresReports, Reports
from roomserver.store.retention import Retention

# After a start there is more urgent work.
FIRST_PURGE_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What a server keeps things in."""

    accounts: AccountStore
    rooms: RoomStore
    directory: RoomDirectory
    reports: Reports
    presets: PresetStore
    invites: InviteStore


@asynccontextmanager
async def open_stores(settings: Settings, *, url: str) -> AsyncIterator[Stores]:
    """The stores that the settings name; closed, and what waits handed over, at the end.

    url: where clients find this server. Raises ConfigError.
    """
    async with AsyncExitStack() as stack:
        if settings.in_memory:
            memory = MemoryRoomStore()
            yield Stores(
                await stack.enter_async_context(_account_file(settings)),
                memory,
                RoomDirectory(None),
                MemoryReports(memory, time.time),
                MemoryPresetStore(),
                MemoryInviteStore(),
            )
            return
        database = await stack.enter_async_context(open_database(settings))
        try:
            outbox = Outbox(settings.data_dir, capacity=settings.outbox_events)
            rooms = DurableRoomStore(outbox, database, url=url, lease_s=settings.lease_s)
            stack.push_async_callback(rooms.close)
            await rooms.open()
            analytics = Analytics(database)
            await stack.enter_async_context(
                periodically(
                    "analytics",
                    analytics.compute,
                    interval_s=settings.analytics_interval_s,
                    ready=lambda: rooms.ready,
                )
            )
            await stack.enter_async_context(
                periodically(
                    "purge",
                    Retention.of(settings, database).turn,
                    interval_s=settings.purge_interval_s,
                    # A server may not run for a whole interval.
                    first_after_s=min(FIRST_PURGE_AFTER_S, settings.purge_interval_s),
                    ready=lambda: rooms.ready,
                )
            )
        except MigrationError as error:
            raise ConfigError(f"database: {error}") from None
        except OutboxError as error:
            raise ConfigError(f"outbox: {error}") from None
        except OSError as error:
            raise ConfigError(f"outbox in {settings.data_dir}: {error}") from None
        yield Stores(
            PostgresAccountStore(database),
            rooms,
            RoomDirectory(database),
            PostgresReports(database, analytics),
            PostgresPresetStore(database),
            PostgresInviteStore(database),
        )


@dataclass(frozen=True, slots=True)
class OpenAccounts:
    """The accounts alone, and the audit log beside them; without a database there is none."""

    accounts: AccountStore
    database: Database | None

    async def audit(self, record: AuditRecord) -> None:
        """Adds a line to the audit log. Raises DatabaseAwayError."""
        if self.database is not None:
            async with self.database.transaction() as connection:
                await write_audit(connection, {new_id(): record})


@asynccontextmanager
async def open_accounts(settings: Settings) -> AsyncIterator[OpenAccounts]:
    """The accounts alone, also while a server runs. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        if settings.in_memory:
            yield OpenAccounts(await stack.enter_async_context(_account_file(settings)), None)
            return
        database = await stack.enter_async_context(open_database(settings, share=True))
        try:
            await bring_up_to_date(database)
        except (MigrationError, DatabaseAwayError) as error:
            raise ConfigError(f"database: {error}") from None
        yield OpenAccounts(PostgresAccountStore(database), database)


@asynccontextmanager
async def _account_file(settings: Settings) -> AsyncIterator[AccountStore]:
    try:
        accounts = await FileAccountStore.open(settings.data_dir)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"accounts in {settings.data_dir}: {error}") from None
    try:
        yield accounts
    finally:
        await accounts.close()


@asynccontextmanager
async def open_database(
    settings: Settings, *, share: bool = False, make: bool = True
) -> AsyncIterator[Database]:
    """The database that the settings name; a private one is started, and stopped at the end.

    share: a private database that another process runs is used as it is.
    make: a private database is made if there is none.

    Raises ConfigError, also when the settings name none.
    """
    if settings.in_memory:
        raise ConfigError("database_url is 'none': there is no database")
    async with AsyncExitStack() as stack:
        address: str | dict[str, Any] = settings.database_url.get_secret_value()
        if settings.has_private_database:
            try:
                postgres = EmbeddedPostgres(settings.data_dir)
                if not make and not postgres.exists():
                    raise ConfigError(f"there is no database in {settings.data_dir} yet")
                if not (share and postgres.runs_elsewhere()):
                    await _start(postgres)
                    stack.push_async_callback(asyncio.to_thread, postgres.stop)
                address = postgres.connection
            except EmbeddedError as error:
                raise ConfigError(str(error)) from None
        # A private database has no pooler before it.
        pooler = "none" if settings.has_private_database else settings.database_pooler
        database = Database(address, pooler=pooler)
        stack.push_async_callback(database.close)
        yield database


@asynccontextmanager
async def replace_database(settings: Settings, *, overwrite: bool) -> AsyncIterator[Database]:
    """A database to be filled; a private one takes the old one's place when that has succeeded.

    overwrite: there may be an old one. Raises ConfigError.
    """
    if not settings.has_private_database:
        async with open_database(settings) as database:
            yield database
        return
    postgres = EmbeddedPostgres(settings.data_dir, fresh=True)
    if postgres.exists() and not overwrite:
        raise ConfigError(
            f"there is a database in {settings.data_dir}; with --overwrite it is thrown away"
        )
    try:
        await _start(postgres)
        database = Database(postgres.connection)
        try:
            yield database
        finally:
            await database.close()
        await asyncio.to_thread(postgres.adopt)
    except EmbeddedError as error:
        raise ConfigError(str(error)) from None
    finally:
        await asyncio.to_thread(postgres.stop)


async def _start(postgres: EmbeddedPostgres) -> None:
    """Starts it in a thread. Who is cancelled does not wait until it has recovered from a crash."""
    starting = asyncio.create_task(asyncio.to_thread(postgres.start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        postgres.break_off()
        await asyncio.wait({starting})
        if starting.exception() is None:  # it was ready already
            await asyncio.to_thread(postgres.stop)
        raise
