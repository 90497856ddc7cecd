"""`roomserver import-supabase`: from the Node server's database into this server's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich import progress

from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import given_settings
from roomserver.config import ConfigError, Settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.migrations import MigrationError, bring_up_to_date
from roomserver.store.stores import open_database
from roomserver.store.supabase import Outcome, Progress, SourceError, import_supabase

NAMED = 20  # rows for each reason


@given_settings
def run(
    settings: Settings,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="ROOMSERVER_IMPORT_FROM",
            show_envvar=True,
            help="postgresql:// address of the Node server's database, which is only read.",
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help=f"Name all rows, not {NAMED} for each reason.")
    ] = False,
) -> None:
    """Take over users, rooms, participants, analytics and audit log of the Node server.

    It may be done again, also while the server runs: what is here already stays as it is.
    """
    try:
        outcomes = asyncio.run(_run(settings, source))
    except ConfigError as error:
        fail(str(error))
    except MigrationError as error:
        fail(f"database: {error}", code=1)
    except SourceError as error:
        fail(f"the source: {error}", code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}; what was taken over stays, so run it again", code=1)
    for outcome in outcomes:
        _tell(outcome, None if every else NAMED)


async def _run(settings: Settings, source: str) -> list[Outcome]:
    async with open_database(settings, share=True) as database:
        await bring_up_to_date(database)
        with progress.Progress(
            "{task.description}",
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=stderr,
        ) as bars:
            current: list[progress.TaskID] = []
            return await import_supabase(
                source,
                database,
                Progress(
                    begins=lambda name, rows: current.append(bars.add_task(name, total=rows)),
                    advances=lambda rows: bars.advance(current[-1], rows),
                ),
            )


def _tell(outcome: Outcome, most: int | None) -> None:
    refused = sum(map(len, outcome.refused.values()))
    typer.echo(
        f"{outcome.name}: {outcome.read} read, {outcome.added} added, {outcome.updated} updated, "
        f"{outcome.known} known already, {refused} not taken"
    )
    _name("not taken", outcome.refused, most)
    _name("taken", outcome.altered, most)


def _name(what: str, rows: Mapping[str, Sequence[str]], most: int | None) -> None:
    for reason, names in rows.items():
        typer.echo(f"  {what}, {len(names)}: {reason}")
        for name in names[:most]:
            typer.echo(f"    {name}")
        if most is not None and len(names) > most:
            typer.echo(f"    and {len(names) - most} more (--all)")


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("import-supabase")(run)
