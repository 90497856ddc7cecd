"""`roomserver user`: accounts, also while the server runs (they share the data directory)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeAlias, TypeVar

import bcrypt
import typer
from rich.prompt import Confirm, Prompt

from roomserver.auth.accounts import InvalidEmailError, check_email
from roomserver.auth.passwords import (
    LEAST_ACCOUNT_PASSWORD,
    InvalidPasswordError,
    password_bytes,
)
from roomserver.auth.secret import prepare_data_dir
from roomserver.commands.console import fail, stderr
from roomserver.commands.server_options import given_settings
from roomserver.config import ConfigError, Settings
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import AccountStore, EmailTakenError
from roomserver.store.records import Account, AuditEvent, AuditRecord, Place
from roomserver.store.stores import OpenAccounts, open_accounts

PAGE = 100
users = typer.Typer(help="Accounts of broadcasters.", no_args_is_help=True)

Email: TypeAlias = Annotated[str, typer.Argument(help="Address the account logs in with.")]
PasswordStdin: TypeAlias = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
R = TypeVar("R")


class AccountRole(StrEnum):
    """What an account may do."""

    USER = "user"
    ADMIN = "admin"


@users.callback()
def group() -> None:
    """Accounts of broadcasters. A server that runs knows every change at once."""


@users.command("add")
@given_settings
def add(
    settings: Settings,
    email: Email,
    admin: Annotated[bool, typer.Option("--admin", help="May administer the server.")] = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Add an account."""
    try:
        email = check_email(email)
    except InvalidEmailError as error:
        fail(str(error))
    hashed = _hash_password(settings, from_stdin=password_stdin)
    role = AccountRole.ADMIN if admin else AccountRole.USER

    async def work(opened: OpenAccounts) -> None:
        account = await opened.accounts.add_account(email, hashed, role.value)
        await _audit(opened, AuditEvent.ACCOUNT_CREATED, account, role=role.value)

    _with_accounts(settings, work)
    stderr.print(f"added {email}", markup=False)


@users.command("list")
@given_settings
def list_all(settings: Settings) -> None:
    """List the accounts by address: address, role, state, since when, id; between them tabs."""

    async def every(opened: OpenAccounts) -> list[Account]:
        found: list[Account] = []
        place = None
        while page := await opened.accounts.list_accounts(after=place, limit=PAGE):
            found += page
            place = Place.of(page[-1].created_at, page[-1].id)
        return sorted(found, key=lambda account: account.email.casefold())

    for account in _with_accounts(settings, every):
        state = "active" if account.disabled_at is None else "disabled"
        since = datetime.fromtimestamp(account.created_at, UTC).strftime("%Y-%m-%d")
        typer.echo("\t".join((account.email, account.role, state, since, account.id)))


@users.command("password")
@given_settings
def password(settings: Settings, email: Email, password_stdin: PasswordStdin = False) -> None:
    """Give an account another password; it has to log in again everywhere."""
    hashed = _hash_password(settings, from_stdin=password_stdin)
    _change(
        settings,
        email,
        lambda store, user: store.set_password(user, hashed, now=time.time()),
        AuditEvent.PASSWORD_CHANGED,
    )
    stderr.print(f"{email} has a new password", markup=False)


@users.command("role")
@given_settings
def role(
    settings: Settings,
    email: Email,
    to: Annotated[AccountRole, typer.Argument(metavar="ROLE", help="user or admin.")],
) -> None:
    """Say whether an account may administer the server."""
    _change(
        settings,
        email,
        lambda store, user: store.set_role(user, to.value),
        AuditEvent.ACCOUNT_ROLE_CHANGED,
        role=to.value,
    )
    stderr.print(f"{email} is {to.value} now", markup=False)


@users.command("disable")
@given_settings
def disable(settings: Settings, email: Email) -> None:
    """Shut an account out, at once and everywhere; its rooms are closed, a running server's too."""
    _change(
        settings,
        email,
        lambda store, user: store.set_disabled(user, True, now=time.time()),
        AuditEvent.ACCOUNT_DISABLED,
    )
    stderr.print(f"{email} is disabled", markup=False)


@users.command("enable")
@given_settings
def enable(settings: Settings, email: Email) -> None:
    """Let a disabled account in again; it has to log in."""
    _change(
        settings,
        email,
        lambda store, user: store.set_disabled(user, False, now=time.time()),
        AuditEvent.ACCOUNT_ENABLED,
    )
    stderr.print(f"{email} is enabled", markup=False)


@users.command("anonymise")
@given_settings
def anonymise(
    settings: Settings,
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Forget who an account was, for good.

    Its address, its password, its presets, and its names and addresses in the lists of participants
    and in the audit log are gone afterwards; its rooms and figures stay, as nobody's.
    """
    if not yes:
        if not sys.stdin.isatty():
            fail("that can't be undone; say --yes")
        if not Confirm.ask(f"Forget {email} for good?", console=stderr, default=False):
            raise typer.Exit(1)
    _change(
        settings,
        email,
        lambda store, user: store.anonymise_account(user, now=time.time()),
        AuditEvent.ACCOUNT_ANONYMISED,
    )
    stderr.print("the account is nobody's now", markup=False)


def _with_accounts(settings: Settings, work: Callable[[OpenAccounts], Awaitable[R]]) -> R:
    """What `work` makes of the accounts; ends the command when it can't."""

    async def run() -> R:
        async with open_accounts(settings) as opened:
            return await work(opened)

    try:
        prepare_data_dir(settings.data_dir)
        return asyncio.run(run())
    except ConfigError as error:
        fail(str(error))
    except EmailTakenError as error:
        fail(f"there is an account for {error} already", code=1)
    except DatabaseAwayError as error:
        fail(f"the database is away: {error}", code=1)


def _change(
    settings: Settings,
    email: str,
    change: Callable[[AccountStore, str], Awaitable[Account | None]],
    event: AuditEvent,
    **facts: Any,
) -> None:
    """Changes the account of this address, given its id, and adds that to the audit log."""

    async def work(opened: OpenAccounts) -> Account | None:
        account = await opened.accounts.account_by_email(email)
        if account is None or await change(opened.accounts, account.id) is None:
            return None
        await _audit(opened, event, account, **facts)
        return account

    if _with_accounts(settings, work) is None:
        fail(f"there is no account for {email}", code=1)


async def _audit(opened: OpenAccounts, event: AuditEvent, account: Account, **facts: Any) -> None:
    """Nobody did it whom the server knows: whoever may use the command is its operator."""
    details = {"account": account.id, **facts, "by": "command line"}
    await opened.audit(AuditRecord(event, time.time(), details=details))


def _hash_password(settings: Settings, *, from_stdin: bool) -> bytes:
    try:
        data = password_bytes(_read_password(from_stdin=from_stdin), least=LEAST_ACCOUNT_PASSWORD)
    except InvalidPasswordError as error:
        fail(str(error))
    return bcrypt.hashpw(data, bcrypt.gensalt(settings.bcrypt_rounds))


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
