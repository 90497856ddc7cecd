"""What the commands share: a console for messages, and errors as one plain line."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """Says `message` on standard error and ends the command with exit code `code`."""
    stderr.print(Text.assemble(("error: ", "bold red"), message))
    raise typer.Exit(code)
