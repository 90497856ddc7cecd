"""`roomserver secret`: the key that signs tokens, also while the server runs."""

from __future__ import annotations

from typing import Annotated

import typer

from roomserver.auth.secret import rotate
from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import Config, DataDir, server_settings
from roomserver.config import ConfigError

secret = typer.Typer(help="The key that signs tokens.", no_args_is_help=True)


@secret.callback()
def group() -> None:
    """The key that signs tokens."""


@secret.command("rotate")
def rotate_key(
    revoke: Annotated[
        bool, typer.Option("--revoke", help="The old key was told: its tokens are worthless now.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Sign with a new key from now on; tokens of the old one are good until they expire.

    A server that runs on the same directory takes the new key up within seconds.
    """
    try:
        settings = server_settings(config, data_dir=data_dir)
        if settings.secret is not None:
            fail("the key is in the settings: a new one goes to secret, the old one to old_secrets")
        rotate(settings.data_dir, keep_s=settings.longest_token_s, revoke=revoke)
    except ConfigError as error:
        fail(str(error))
    stderr.print("there is a new key")


def register(app: typer.Typer) -> None:
    """Adds the group of commands to `app`."""
    app.add_typer(secret, name="secret")
