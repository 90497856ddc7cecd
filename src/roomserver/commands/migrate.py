"""`roomserver migrate`: the schema of the server's database."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import (
    given_settings,
    refuse_pooler,
)
from roomserver.config import ConfigError, Settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.migrations import (
    Migration,
    MigrationError,
    administrator_sql,
    bring_up_to_date,
    load_migrations,
    pending,
)
from roomserver.store.stores import open_database


@given_settings
def migrate(
    settings: Settings,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; end with 1 if something is missing.")
    ] = False,
    print_sql: Annotated[
        bool,
        typer.Option("--print-sql", help="Print what is missing, for an administrator to run."),
    ] = False,
) -> None:
    """Bring the database's schema up to date, as a server does when it starts."""
    if check and print_sql:
        fail("--check and --print-sql are two things")
    try:
        refuse_pooler(settings)
        if print_sql and settings.has_private_database:
            raise ConfigError("the private database needs no administrator")
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


async def _migrate(settings: Settings) -> None:
    async with open_database(settings, share=True) as database:
        applied = await bring_up_to_date(database)
    for migration in applied:
        stderr.print(f"applied {migration.version:04} {migration.name}")
    if not applied:
        stderr.print("up to date")


def _check(settings: Settings) -> None:
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
        open_database(settings, share=True, make=False) as database,
        database.transaction() as connection,
    ):
        role: str = await connection.fetchval("SELECT current_user::text")
        return await pending(connection, load_migrations()), role


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("migrate")(migrate)
