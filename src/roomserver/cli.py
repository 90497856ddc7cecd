"""The `roomserver` command: a registry of the commands, which live in modules of their own."""

from __future__ import annotations

import typer

from roomserver.commands import (
    backup,
    broadcast,
    demo,
    import_supabase,
    listen,
    load,
    migrate,
    purge,
    secret,
    serve,
    user,
)
from roomserver.logs import configure_logging

app = typer.Typer(
    name="roomserver",
    help="Live multichannel audio relay: server, broadcaster and listener.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold passwords and tokens
)
serve.register(app)
user.register(app)
migrate.register(app)
backup.register(app)
import_supabase.register(app)
purge.register(app)
secret.register(app)
broadcast.register(app)
listen.register(app)
demo.register(app)
load.register(app)


def main() -> None:
    """Entry point of the `roomserver` script and of `python -m roomserver`."""
    configure_logging("console", "warning")  # of a server's parts in commands that use them
    app()


if __name__ == "__main__":
    main()
