"""`roomserver broadcast`: send a file or standard input into a room."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.text import Text

from roomserver.clients.account import AccountEntry
from roomserver.clients.broadcast import Broadcaster, BroadcastOptions
from roomserver.clients.connection import RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError
from roomserver.clients.meters import Display
from roomserver.clients.source import SampleSource, open_source
from roomserver.clients.tasks import stop_on_signals
from roomserver.clients.wire import FRAME_LENGTHS_MS, Encoding
from roomserver.commands.client_options import (
    DEFAULT_URL,
    CaFile,
    PasswordStdin,
    Room,
    RoomPassword,
    Url,
    number_list,
    password_or_ask,
    run,
)
from roomserver.commands.console import fail, stderr

_SOURCE = "What is sent"
_SENDING = "How it is sent"


def broadcast(
    file: Annotated[str, typer.Argument(help="WAV file (RF64 too), or - for standard input.")],
    url: Url = DEFAULT_URL,
    room: Room = None,
    password: RoomPassword = None,
    email: Annotated[
        str | None,
        typer.Option("--email", help="Account of the broadcaster.", envvar="ROOMSERVER_EMAIL"),
    ] = None,
    account_password: Annotated[
        str | None,
        typer.Option(
            "--account-password",
            help="The account's password; better given as ROOMSERVER_ACCOUNT_PASSWORD.",
            envvar="ROOMSERVER_ACCOUNT_PASSWORD",
        ),
    ] = None,
    password_stdin: PasswordStdin = False,
    create: Annotated[
        bool, typer.Option("--create", help="Create a room with --password and print its code.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the created room.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="List the created room publicly.")
    ] = False,
    is_open: Annotated[
        bool, typer.Option("--open", help="The created room has no password.")
    ] = False,
    permanent: Annotated[
        bool, typer.Option("--permanent", help="The created room outlives its broadcasts.")
    ] = False,
    ca_file: CaFile = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Begin again at the end.", rich_help_panel=_SOURCE)
    ] = False,
    raw_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Raw PCM instead of WAV: s16le or f32le.", rich_help_panel=_SOURCE
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="Of raw PCM.", rich_help_panel=_SOURCE)
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", help="Of raw PCM, in Hz.", rich_help_panel=_SOURCE)
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="The source is a live capture: its clock sets the pace.",
            rich_help_panel=_SOURCE,
        ),
    ] = False,
    channel_names: Annotated[
        str | None,
        typer.Option("--channel-names", help="kick,snare,…", rich_help_panel=_SOURCE),
    ] = None,
    encoding: Annotated[
        Encoding | None,
        typer.Option(
            "--encoding", help="Default: 16 bit if the source is.", rich_help_panel=_SENDING
        ),
    ] = None,
    frame_ms: Annotated[
        int,
        typer.Option(
            "--frame-ms", help="The room's frames: 5, 10, 20, 40 or 60.", rich_help_panel=_SENDING
        ),
    ] = 20,
    buffer_ms: Annotated[
        float | None,
        typer.Option(
            "--buffer-ms", help="Fixed jitter buffer; default: adaptive.", rich_help_panel=_SENDING
        ),
    ] = None,
    packet_samples: Annotated[
        str | None,
        typer.Option(
            "--packet-samples",
            help="Samples per packet; several (127,1,441) take turns. Default: 10 ms.",
            rich_help_panel=_SENDING,
        ),
    ] = None,
    channels_per_packet: Annotated[
        int | None,
        typer.Option(
            "--channels-per-packet", min=1, help="Default: all.", rich_help_panel=_SENDING
        ),
    ] = None,
) -> None:
    """Broadcast a WAV file, or audio from standard input, into a room in real time.

    With --create a new room, else the own room named by --room. Ends at the end of the file, or
    on Ctrl-C, after what was sent has been played.
    """
    sizes = number_list(packet_samples, "--packet-samples")
    if any(size < 1 for size in sizes):
        fail("--packet-samples: 1 or more")
    if frame_ms not in FRAME_LENGTHS_MS:
        fail("--frame-ms: 5, 10, 20, 40 or 60")
    if email is None:
        fail("--email: a broadcaster needs an account (roomserver user add EMAIL)")
    if create == (room is not None):
        fail("either --room CODE for an own room, or --create for a new one")
    if file == "-" and password_stdin:
        fail("--password-stdin: standard input is the audio; use the environment variables")
    account = password_or_ask(account_password, "Account password", from_stdin=password_stdin)
    room_password = None
    if create and not is_open:
        room_password = password_or_ask(password, "Room password", from_stdin=password_stdin)
    try:
        source = open_source(
            file, raw_format=raw_format, channels=channels, sample_rate=rate, loop=loop
        )
    except ClientError as error:
        fail(str(error), code=1)
    names = tuple(channel_names.split(",")) if channel_names else None
    if names is not None and len(names) > source.channels:
        source.close()
        fail(f"--channel-names: {len(names)} names for {source.channels} channels")
    options = BroadcastOptions(
        encoding=encoding,
        frame_ms=frame_ms,
        buffer_ms=buffer_ms,
        packet_samples=sizes,
        channels_per_packet=channels_per_packet,
        channel_names=names,
        live=live,
    )

    async def main() -> None:
        async with RoomApi(url, ca_file=ca_file) as api:
            entry = AccountEntry(api, email, account)

            async def renew() -> RoomAccess:
                return await entry.broadcaster_token(access.room_id)

            if create:
                access = await entry.create_room(
                    room_password, name=name, public=public, permanent=permanent
                )
                stderr.print(f"room {access.room_code} ({access.name})", markup=False)
            else:
                access = RoomAccess(room_id=room or "", room_token="")
                access = await renew()
            await _broadcast(RoomEntry(api, access, renew), source, options)

    with closing(source):
        run(main())


async def _broadcast(entry: RoomEntry, source: SampleSource, options: BroadcastOptions) -> None:
    title = f"broadcasting {source.name} to {entry.api.url}"
    with Display(stderr, title) as display:
        broadcaster = Broadcaster(entry, source, options, display)
        with stop_on_signals(broadcaster.stop):
            await broadcaster.run()
    stderr.print(Text("played to the end"))


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("broadcast")(broadcast)
