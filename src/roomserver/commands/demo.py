"""`roomserver demo`: a server with sixteen channels of live audio to listen to."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from roomserver.clients.wire import MAX_CHANNELS
from roomserver.commands.client_options import run
from roomserver.commands.console import fail, stderr
from roomserver.config import ConfigError


def demo(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="TCP port; 0 takes a free one.")
    ] = 8080,
    channels: Annotated[
        int, typer.Option("--channels", min=1, max=MAX_CHANNELS, help="How many sounds.")
    ] = 16,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="End after so long.")
    ] = None,
    buffer_ms: Annotated[
        float | None, typer.Option("--buffer-ms", help="Fixed jitter buffer; default: adaptive.")
    ] = None,
) -> None:
    """Serve a room with sixteen recognisable sounds, and say how to listen to them."""
    from roomserver.clients.demo import DemoOptions, run_demo  # with it comes the whole server
    from roomserver.clients.meters import Display
    from roomserver.logs import configure_logging

    configure_logging("console", "warning")
    options = DemoOptions(host, port, channels, seconds, buffer_ms)
    try:
        run(
            run_demo(
                options,
                lambda line: stderr.print(Text(line), soft_wrap=True),
                lambda title: Display(stderr, title),
            )
        )
    except ConfigError as error:
        fail(str(error), code=1)


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("demo")(demo)
