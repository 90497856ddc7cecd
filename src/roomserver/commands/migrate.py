"""`roomserver migrate`: the schema of the server's database."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import Config, DatabaseUrl, DataDir, server_settings
from roomserver.config import EMBEDDED, ConfigError, Settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.migrations import (
    Migration,
    MigrationError,
    administrator_sql,
    bring_up_to_date,
    load_migrations,
    pending,
)
from roomserver.store.stores import open_database


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; end with 1 if something is missing.")
    ] = False,
    print_sql: Annotated[
        bool,
        typer.Option("--print-sql", help="Print what is missing, for an administrator to run."),
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Bring the database's schema up to date, as a server does when it starts."""
    if check and print_sql:
        fail("--check and --print-sql are two things")
    try:
        settings = server_settings(config, data_dir=data_dir, database_url=database_url)
        _refuse(settings, print_sql=print_sql)
        if print_sql:
            typer.echo(asyncio.run(_sql(settings)), nl=False)
        elif check:
            _check(settings)
        else:
            asyncio.run(_migrate(settings))
    except ConfigError as error:
        fail(str(error))
    except MigrationError as error:
        fail(str(error), code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}", code=1)


def _refuse(settings: Settings, *, print_sql: bool) -> None:
    if settings.database_url == EMBEDDED:
        if print_sql:
            raise ConfigError("the private database needs no administrator")
    elif settings.database_pooler != "none":
        raise ConfigError(
            "migrate needs a direct connection, and database_pooler says that database_url is that "
            "of a pooler: set ROOMSERVER_DATABASE_POOLER=none and ROOMSERVER_DATABASE_URL to the "
            "database's own address"
        )


async def _migrate(settings: Settings) -> None:
    async with open_database(settings, share=True) as database:
        applied = await bring_up_to_date(database)
    for migration in applied:
        stderr.print(f"applied {migration.version:04} {migration.name}")
    if not applied:
        stderr.print("up to date")


def _check(settings: Settings) -> None:
    if settings.database_url == EMBEDDED and not EmbeddedPostgres(settings.data_dir).exists():
        fail(f"there is no database in {settings.data_dir} yet", code=1)  # and none is made
    missing, _ = asyncio.run(_look(settings))
    for migration in missing:
        stderr.print(f"missing: {migration.version:04} {migration.name}")
    if missing:
        raise typer.Exit(1)
    stderr.print("up to date")


async def _sql(settings: Settings) -> str:
    missing, role = await _look(settings)
    return administrator_sql(role, missing)


async def _look(settings: Settings) -> tuple[tuple[Migration, ...], str]:
    """What is missing, and the role that the server connects as."""
    async with (
        open_database(settings, share=True) as database,
        database.transaction() as connection,
    ):
        role: str = await connection.fetchval("SELECT current_user::text")
        return await pending(connection, load_migrations()), role


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("migrate")(migrate)
