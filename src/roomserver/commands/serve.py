"""`roomserver serve`: its options are the fields of `Settings`, made from them at import."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from roomserver.commands.console import fail
from roomserver.config import CONFIG_VARIABLE, ConfigError, Settings, load_settings

# A secret on a command line can be read by every user of the machine.
NOT_ON_COMMAND_LINE = frozenset({"secret", "old_secrets", "metrics_token"})


def serve(config: Path | None = None, **options: Any) -> None:
    """Run the server until SIGTERM or SIGINT.

    Each option is also an environment variable (--max-lag-ms: ROOMSERVER_MAX_LAG_MS) and a key of
    the TOML file (max_lag_ms). The key that signs tokens is taken from those two alone (secret).
    """
    try:
        settings = load_settings(config, **{k: v for k, v in options.items() if v is not None})
        from roomserver.app import run  # the event loop and the native core load only here

        code = run(settings)
    except ConfigError as error:
        fail(str(error))
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    command = cast(Any, serve)
    command.__signature__ = _signature()
    app.command("serve")(command)


def _signature() -> inspect.Signature:
    """One keyword per setting. Values stay text: `Settings` alone says what they mean."""
    config = typer.Option(
        "--config", "-c", help="TOML file with any of these settings.", envvar=CONFIG_VARIABLE
    )
    parameters = [
        _parameter("config", Annotated[Path | None, config]),
        *(
            _parameter(name, _annotation(name, field))
            for name, field in Settings.model_fields.items()
            if name not in NOT_ON_COMMAND_LINE
        ),
    ]
    return inspect.Signature(parameters)


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _annotation(name: str, field: FieldInfo) -> Any:
    flag = "--" + name.replace("_", "-")
    extra = cast(dict[str, str], field.json_schema_extra)
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        default = default.get_secret_value()  # a default is no secret
    shown = "" if default in (None, (), "") else f" Default: {default}."
    is_switch = field.annotation is bool
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if is_switch else flag,
        help=f"{field.description}{shown}",
        rich_help_panel=extra["panel"],
        metavar=None if is_switch else "VALUE",
        show_default=False,
    )
    return Annotated[bool | None if is_switch else str | None, option]
