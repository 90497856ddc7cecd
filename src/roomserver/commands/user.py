"""`roomserver user`: accounts, also while the server runs (they share the data directory)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import bcrypt
import typer
from rich.prompt import Prompt

from roomserver.auth.accounts import InvalidEmailError, check_email
from roomserver.auth.passwords import InvalidPasswordError, password_bytes
from roomserver.auth.secret import prepare_data_dir
from roomserver.commands.console import fail, stderr
from roomserver.config import ConfigError, Settings, load_settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import EmailTakenError
from roomserver.store.stores import open_accounts

users = typer.Typer(help="Accounts of broadcasters.", no_args_is_help=True)


@users.callback()
def group() -> None:
    """Accounts of broadcasters."""


@users.command("add")
def add(
    email: Annotated[str, typer.Argument(help="Address to log in with.")],
    admin: Annotated[bool, typer.Option("--admin", help="May administer the server.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Data directory of the server.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file of the server.")
    ] = None,
) -> None:
    """Add an account. A server that runs on the same directory knows it at once."""
    try:
        options = {} if data_dir is None else {"data_dir": data_dir}
        settings = load_settings(config, **options)
        email = check_email(email)
        password = password_bytes(_read_password(from_stdin=password_stdin))
        prepare_data_dir(settings.data_dir)
        hashed = bcrypt.hashpw(password, bcrypt.gensalt(settings.bcrypt_rounds))
        asyncio.run(_add(settings, email, hashed, admin=admin))
    except (ConfigError, InvalidEmailError, InvalidPasswordError) as error:
        fail(str(error))
    except EmailTakenError:
        fail(f"there is an account for {email} already", code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}", code=1)
    stderr.print(f"added {email}", markup=False)


async def _add(settings: Settings, email: str, password_hash: bytes, *, admin: bool) -> None:
    async with open_accounts(settings) as accounts:
        await accounts.add_account(email, password_hash, "admin" if admin else "user")


def _read_password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail("no terminal to ask for a password on; give it with --password-stdin")
    password = Prompt.ask("Password", password=True, console=stderr)
    if Prompt.ask("Again", password=True, console=stderr) != password:
        fail("the passwords differ")
    return password


def register(app: typer.Typer) -> None:
    """Adds the group of commands to `app`."""
    app.add_typer(users, name="user")
