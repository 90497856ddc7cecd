"""The demonstration: a server, a room and sixteen channels of sound, all in this process.

The server is the real one, with its own PostgreSQL in a data directory that goes away at the end;
the broadcaster reaches it over HTTP and WebSocket like any other.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bcrypt
from yarl import URL

from roomserver.app import Server
from roomserver.auth.secret import SigningKeys, prepare_data_dir
from roomserver.clients.account import AccountEntry
from roomserver.clients.broadcast import Broadcaster, BroadcastOptions
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.meters import Display
from roomserver.clients.synth import SynthSource, channel_name, synthesize
from roomserver.clients.tasks import stop_on_signals
from roomserver.config import Settings
from roomserver.store.stores import open_accounts

SAMPLE_RATE: Final = 48000
ROOM_NAME: Final = "Demo"
_EMAIL: Final = "demo@example.org"
_RECORD_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to demonstrate.

    Attributes:
        host: Address to listen on.
        port: 0 takes a free one.
        channels: 1–64.
        seconds: End after so long; None: on Ctrl-C.
        buffer_ms: Fixed jitter buffer; None: adaptive.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    channels: int = 16
    seconds: float | None = None
    buffer_ms: float | None = None


async def run_demo(
    options: DemoOptions, say: Callable[[str], None], make_display: Callable[[str], Display]
) -> None:
    """Serve and broadcast until the time is over or a signal comes.

    Args:
        options: What to demonstrate.
        say: Prints a line of the instructions.
        make_display: Makes the display of the broadcaster.

    Raises:
        ClientError: The broadcast failed.
        ConfigError: The port cannot be listened on, or there is no PostgreSQL to run.
    """
    with tempfile.TemporaryDirectory(prefix="roomserver-demo-") as directory:
        # Not from the environment: a demonstration is the same everywhere.
        settings = Settings.model_construct(
            host=options.host,
            port=options.port,
            data_dir=Path(directory),
        )
        password = secrets.token_urlsafe(16)
        prepare_data_dir(settings.data_dir)
        # Before the account, or the server would warn of a used database with another key.
        SigningKeys(settings.data_dir, given=None, old=(), keep_s=settings.longest_token_s)
        hashed = await asyncio.to_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        async with open_accounts(settings) as opened:
            await opened.accounts.add_account(_EMAIL, hashed, "user")
        server = Server(settings)
        await server.start()
        try:
            async with RoomApi(_reachable(server.urls[0])) as api:
                await _broadcast(api, password, options, say, make_display)
        finally:
            await server.stop()


async def _broadcast(
    api: RoomApi,
    password: str,
    options: DemoOptions,
    say: Callable[[str], None],
    make_display: Callable[[str], Display],
) -> None:
    async def renew() -> RoomAccess:
        return await account.broadcaster_token(access.room_id)

    account = AccountEntry(api, _EMAIL, password)
    access = await account.create_room(None, name=ROOM_NAME, public=True)
    await asyncio.to_thread(_prepare, options.channels)
    broadcaster = Broadcaster(
        RoomEntry(api, access, renew),
        SynthSource(options.channels, SAMPLE_RATE),
        BroadcastOptions(
            buffer_ms=options.buffer_ms,
            channel_names=tuple(map(channel_name, range(options.channels))),
        ),
        make_display(f"{options.channels} channels in room {access.room_code} at {api.url}"),
    )
    for line in instructions(str(api.url), access.room_code):
        say(line)
    loop = asyncio.get_running_loop()
    timer = None
    if options.seconds is not None:
        timer = loop.call_later(options.seconds, broadcaster.stop)
    try:
        with broadcaster.display, stop_on_signals(broadcaster.stop):
            await broadcaster.run()
    finally:
        if timer is not None:
            timer.cancel()


def instructions(url: str, room_code: str) -> list[str]:
    """Where and how to listen, as lines to print."""
    listen = shlex.join([*executable(), "listen", "--url", url, "--room", room_code, "--open"])
    lines = [
        "Hear and mix it in a browser; the room is open, press play:",
        f"  {url.rstrip('/')}/listen/{room_code}",
        "Record every channel, in a second terminal:",
        f"  {listen} --seconds {_RECORD_SECONDS} -o demo.wav",
    ]
    player = next((p for p in ("aplay", "pw-play", "play") if shutil.which(p)), None)
    if player is not None:
        arguments = {"aplay": "aplay -q", "pw-play": "pw-play -", "play": "play -q -t wav -"}
        lines += ["Hear a stereo mix:", f"  {listen} --mix -o - | {arguments[player]}"]
    lines += [
        "Hear one voice of it:",
        f"  {listen} --solo 7 --seconds {_RECORD_SECONDS} -o solo.wav",
    ]
    return [*lines, "Ctrl-C ends the demonstration."]


def executable() -> list[str]:
    """How to call this very installation: by name when that finds it, else by its path."""
    here = Path(sys.executable).parent / "roomserver"
    found = shutil.which("roomserver")
    if found is not None and Path(found).resolve() == here.resolve():
        return ["roomserver"]
    return [str(here)] if here.exists() else [sys.executable, "-m", "roomserver"]


def _prepare(channels: int) -> None:
    """Compute the sounds before the clock runs."""
    for channel in range(channels):
        synthesize(channel, 0, 1, SAMPLE_RATE)


def _reachable(url: str) -> str:
    """The address to connect to: a server that listens everywhere also listens here."""
    parsed = URL(url)
    if parsed.host in ("0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
        return str(parsed.with_host("127.0.0.1" if parsed.host == "0.0.0.0" else "::1"))  # noqa: S104
    return url
