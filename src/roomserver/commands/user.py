"""`roomserver user`: accounts, also while the server runs (they share the data directory)."""

from __future__ import annotations

import sqlite3
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
from roomserver.config import ConfigError, load_settings
from roomserver.store.accounts import AccountFile
from roomserver.store.interfaces import EmailTakenError

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
        with AccountFile(settings.data_dir) as accounts:
            accounts.add_account(email, hashed, "admin" if admin else "user")
    except (ConfigError, InvalidEmailError, InvalidPasswordError) as error:
        fail(str(error))
    except EmailTakenError:
        fail(f"there is an account for {email} already", code=1)
    except (OSError, sqlite3.Error) as error:
        fail(f"accounts in {settings.data_dir}: {error}", code=1)
    stderr.print(f"added {email}", markup=False)


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
