"""Options of the commands that work on what a server keeps: its settings, from the same places."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias

import typer

from roomserver.commands.console import fail
from roomserver.config import CONFIG_VARIABLE, ConfigError, Settings, load_settings

DataDir: TypeAlias = Annotated[
    Path | None, typer.Option("--data-dir", help="Data directory of the server.")
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file of the server.", envvar=CONFIG_VARIABLE),
]
DatabaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--database-url", help="Database of the server; better in the environment."),
]


P = ParamSpec("P")


def given_settings(command: Callable[Concatenate[Settings, P], None]) -> Callable[..., None]:
    """A command whose first parameter is the server's settings: options say where they are."""

    def run(
        *arguments: Any,
        data_dir: DataDir = None,
        database_url: DatabaseUrl = None,
        config: Config = None,
        **options: Any,
    ) -> None:
        try:
            settings = server_settings(config, data_dir=data_dir, database_url=database_url)
        except ConfigError as error:
            fail(str(error))
        command(settings, *arguments, **options)

    # What typer makes the command line of: the command's own parameters, then these.
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    where = [
        parameter
        for parameter in inspect.signature(run, eval_str=True).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + where
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def server_settings(
    config: Path | None, *, data_dir: Path | None = None, database_url: str | None = None
) -> Settings:
    """The server's settings, with what was given on the command line. Raises ConfigError."""
    given: dict[str, Any] = {"data_dir": data_dir, "database_url": database_url}
    return load_settings(config, **{k: v for k, v in given.items() if v is not None})


def refuse_pooler(settings: Settings) -> None:
    """For what can't be done through a pooler. Raises ConfigError."""
    if settings.database_pooler != "none" and not settings.has_private_database:
        raise ConfigError(
            "this needs a direct connection, and database_pooler says that database_url is that of "
            "a pooler: set ROOMSERVER_DATABASE_POOLER=none and ROOMSERVER_DATABASE_URL to the "
            "database's own address"
        )
