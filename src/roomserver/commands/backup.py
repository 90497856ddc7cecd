"""`roomserver backup` and `roomserver restore`: all that a server's database holds, in a file."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from roomserver.auth.secret import prepare_data_dir
from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import (
    given_settings,
    refuse_pooler,
)
from roomserver.config import ConfigError, Settings
from roomserver.store.backup import BackupError, Manifest, back_up
from roomserver.store.backup import restore as restore_backup
from roomserver.store.database import DatabaseAwayError
from roomserver.store.migrations import MigrationError
from roomserver.store.stores import open_database, replace_database


@given_settings
def backup(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="Where to write it; as secret as the database.")],
) -> None:
    """Back up the database and what waits for it, also while the server runs."""

    async def work() -> Manifest:
        async with open_database(settings, share=True, make=False) as database:
            return await back_up(database, settings.data_dir, file)

    manifest = _run(work())
    stderr.print(f"{file}: {_contents(manifest)}", markup=False)
    if manifest.waiting is None:
        stderr.print(f"no outbox in {settings.data_dir}: only the database is in it", markup=False)


@given_settings
def restore(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="A backup.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away what is in the database.")
    ] = False,
) -> None:
    """Restore a backup, while no server runs, into PostgreSQL of any version."""

    async def work() -> Manifest:
        refuse_pooler(settings)
        prepare_data_dir(settings.data_dir)
        async with replace_database(settings, overwrite=overwrite) as database:
            return await restore_backup(database, file, overwrite=overwrite)

    manifest = _run(work())
    made = manifest.made_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    stderr.print(f"restored from {made}: {_contents(manifest)}", markup=False)


def _run(work: Coroutine[object, object, Manifest]) -> Manifest:
    try:
        return asyncio.run(work)
    except ConfigError as error:
        fail(str(error))
    except (BackupError, MigrationError) as error:
        fail(str(error), code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}", code=1)


def _contents(manifest: Manifest) -> str:
    waiting = manifest.waiting or 0
    return (
        f"{manifest.rows} rows in {len(manifest.tables)} tables of PostgreSQL {manifest.postgres}, "
        f"{waiting} events from the outbox"
    )


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("backup")(backup)
    app.command("restore")(restore)
