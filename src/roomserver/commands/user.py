"""`roomserver user`: accounts, also while the server runs (they share the data directory)."""

from __future__ import annotations

import typer

users = typer.Typer(help="Accounts of broadcasters.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the group of commands to `app`."""
    app.add_typer(users, name="user")
