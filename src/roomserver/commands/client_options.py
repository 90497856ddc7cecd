"""Options and habits that `broadcast`, `listen` and `demo` share."""

from __future__ import annotations

import math
import sys
from collections.abc import Coroutine
from typing import Annotated, Any

import typer
import uvloop
from rich.prompt import Prompt

from roomserver.clients.errors import ClientError
from roomserver.commands.console import fail, stderr

Url = Annotated[str, typer.Option("--url", help="The server.", envvar="ROOMSERVER_URL")]
Room = Annotated[
    str | None, typer.Option("--room", help="Code or id of the room.", envvar="ROOMSERVER_ROOM")
]
RoomPassword = Annotated[
    str | None,
    typer.Option(
        "--password",
        help="The room's password; better given as ROOMSERVER_PASSWORD.",
        envvar="ROOMSERVER_PASSWORD",
    ),
]
PasswordStdin = Annotated[
    bool,
    typer.Option(
        "--password-stdin", help="Read missing passwords from standard input, a line each."
    ),
]
CaFile = Annotated[
    str | None, typer.Option("--ca-file", help="Certificates (PEM) to trust for https.")
]

DEFAULT_URL = "http://127.0.0.1:8080"


def finite(value: float | None) -> float | None:
    """Callback of an option that is a number: bounds may let NaN pass, and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def password_or_ask(given: str | None, what: str, *, from_stdin: bool) -> str:
    """A password that was given, is on standard input, or is asked for on a terminal."""
    if given is not None:
        return given
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail(f"{what}: not given, and there is no terminal to ask for it on")
    return Prompt.ask(what, password=True, console=stderr)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a client in an event loop of its own; its errors become one line and exit code 1."""
    try:
        uvloop.run(main)
    except ClientError as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def number_list(text: str | None, what: str) -> tuple[int, ...]:
    """Parse ``0,5,15``; nothing gives nothing."""
    try:
        return tuple(int(item) for item in text.split(",")) if text else ()
    except ValueError:
        fail(f"{what}: whole numbers with commas between, not {text!r}")
