"""`roomserver purge`: what has been kept long enough goes, as it does daily in a running server."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from roomserver.commands.console import fail
from roomserver.commands.server_options import given_settings
from roomserver.config import ConfigError, Settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.migrations import (
    MigrationError,
    bring_up_to_date,
    describe,
    load_migrations,
    pending,
)
from roomserver.store.retention import AnotherPurgesError, Purged, Retention
from roomserver.store.stores import open_database


@given_settings
def purge(
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, say what would be done.")
    ] = False,
) -> None:
    """Forget what has been kept as long as the settings keep_..._days say."""
    try:
        purged = asyncio.run(_run(settings, dry_run=dry_run))
    except ConfigError as error:
        fail(str(error))
    except (MigrationError, AnotherPurgesError) as error:
        fail(f"database: {error}", code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}", code=1)
    verb = "would be" if dry_run else "were"
    for what, rows, done in (
        ("audit lines", purged.audit, "deleted"),
        ("stays", purged.participants, "deleted"),
        ("addresses", purged.addresses, "cleared"),
        ("dead letters", purged.dead_letters, "deleted"),
        ("presets of guests", purged.presets, "deleted"),
        ("refresh tokens", purged.refresh_tokens, "deleted"),
        ("invites", purged.invites, "deleted"),
    ):
        typer.echo(f"{rows} {what} {verb} {done}")


async def _run(settings: Settings, *, dry_run: bool) -> Purged:
    async with open_database(settings, share=True, make=not dry_run) as database:
        if dry_run:
            async with database.transaction() as connection:
                if missing := await pending(connection, load_migrations()):
                    raise MigrationError(f"{describe(missing)} missing: run `roomserver migrate`")
        else:
            await bring_up_to_date(database)
        retention = Retention.of(settings, database)
        return await (retention.look() if dry_run else retention.purge())


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("purge")(purge)
