"""`roomserver listen`: hear a room, meter it, record it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from roomserver.clients.connection import Message, RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.listen import Listener, ListenOptions
from roomserver.clients.meters import Display
from roomserver.clients.recorder import Recorder
from roomserver.clients.tasks import stop_on_signals
from roomserver.clients.wire import MAX_CHANNELS, Encoding
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
from roomserver.protocol.client import MAX_BURST_MS, MAX_INTERVAL_MS

_MIX = "Stereo mix (each option turns it on)"


def listen(
    url: Url = DEFAULT_URL,
    room: Room = None,
    password: RoomPassword = None,
    password_stdin: PasswordStdin = False,
    is_open: Annotated[
        bool, typer.Option("--open", help="The room is open: it has no password.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="How the room shows us.")] = None,
    ca_file: CaFile = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Record to this WAV file; - for standard output."),
    ] = None,
    channels: Annotated[
        str | None, typer.Option("--channels", help="0,5,15: these only. Default: all.")
    ] = None,
    encoding: Annotated[
        Encoding, typer.Option("--encoding", help="Of the frames and the recording.")
    ] = Encoding.S16LE,
    interval_ms: Annotated[
        int,
        typer.Option(
            "--interval-ms", min=0, max=MAX_INTERVAL_MS, help="Least distance between sends."
        ),
    ] = 0,
    burst_ms: Annotated[
        int,
        typer.Option(
            "--burst-ms", min=0, max=MAX_BURST_MS, help="Recent audio at once on joining."
        ),
    ] = 0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.001, help="End after so much audio.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the source ends.")] = False,
    mix: Annotated[
        bool, typer.Option("--mix", help="All channels, as they are.", rich_help_panel=_MIX)
    ] = False,
    fader: Annotated[
        list[str] | None,
        typer.Option(
            "--fader", help="CHANNEL=GAIN, linear, 0 to 4. Repeatable.", rich_help_panel=_MIX
        ),
    ] = None,
    pan: Annotated[
        list[str] | None,
        typer.Option(
            "--pan", help="CHANNEL=PAN, -1 left to 1 right. Repeatable.", rich_help_panel=_MIX
        ),
    ] = None,
    mute: Annotated[
        list[int] | None,
        typer.Option("--mute", help="Leave a channel out. Repeatable.", rich_help_panel=_MIX),
    ] = None,
    solo: Annotated[
        list[int] | None,
        typer.Option("--solo", help="Hear only such channels. Repeatable.", rich_help_panel=_MIX),
    ] = None,
    master: Annotated[
        float | None,
        typer.Option("--master", help="Gain over all, 0 to 4.", rich_help_panel=_MIX),
    ] = None,
) -> None:
    """Listen to a room: level meters and delay on a terminal, a recording with -o.

    Survives a source that goes and comes back, and a broken connection. Ends on Ctrl-C, when the
    room is closed, after --seconds, or with --once at the end of the source.
    """
    if room is None:
        fail("--room: the code of a room")
    mix_fields: Message | None = None
    if mix or fader or pan or mute or solo or master is not None:
        mix_fields = mix_message(fader or [], pan or [], mute or [], solo or [], master)
        if channels is not None:
            fail("--channels picks channels apart; in a mix use --mute and --solo")
    wanted = number_list(channels, "--channels")
    if any(not 0 <= channel < MAX_CHANNELS for channel in wanted):
        fail(f"--channels: 0 to {MAX_CHANNELS - 1}")
    options = ListenOptions(
        channels=tuple(sorted(set(wanted))) or None,
        mix=mix_fields,
        encoding=encoding,
        interval_ms=interval_ms,
        burst_ms=burst_ms,
        nickname=name,
        seconds=seconds,
        once=once,
    )
    if output == "-" and sys.stdout.isatty():
        fail("-o -: a terminal is no place for audio; pipe it into a player")
    secret = None
    if not is_open:
        secret = password_or_ask(password, "Room password", from_stdin=password_stdin)

    async def main() -> None:
        async with RoomApi(url, ca_file=ca_file) as api:

            async def join() -> RoomAccess:
                return await api.join(room, secret, nickname=name)

            access = await join()
            title = f"listening to {access.name or room} on {api.url}"
            with Display(stderr, title) as display:
                listener = Listener(
                    RoomEntry(api, access, join),
                    options,
                    display,
                    Recorder(output) if output is not None else None,
                )
                try:
                    with stop_on_signals(listener.stop):
                        await listener.run()
                finally:
                    summary = listener.summary()
            stderr.print(Text(summary))

    run(main())


def mix_message(
    faders: list[str], pans: list[str], mutes: list[int], solos: list[int], master: float | None
) -> Message:
    """The fields of ``setMix`` from options."""
    message: Message = {}
    if faders:
        message["faders"] = _by_channel(faders, "--fader", default=1.0, low=0, high=4)
    if pans:
        message["pans"] = _by_channel(pans, "--pan", default=0.0, low=-1, high=1)
    for field, option, switched in (("mutes", "--mute", mutes), ("solos", "--solo", solos)):
        if switched:
            for channel in switched:
                _check_channel(channel, option)
            message[field] = [channel in switched for channel in range(max(switched) + 1)]
    if master is not None:
        if not 0 <= master <= 4:
            fail("--master: 0 to 4")
        message["master"] = master
    return message


def _by_channel(
    items: list[str], option: str, *, default: float, low: float, high: float
) -> list[float]:
    values: dict[int, float] = {}
    for item in items:
        channel, _, value = item.partition("=")
        try:
            number = int(channel)
            values[number] = float(value)
        except ValueError:
            fail(f"{option}: CHANNEL=VALUE, such as 0=0.5, not {item!r}")
        _check_channel(number, option)
        if not low <= values[number] <= high:
            fail(f"{option} {item}: {low:g} to {high:g}")
    return [values.get(channel, default) for channel in range(max(values) + 1)]


def _check_channel(channel: int, option: str) -> None:
    if not 0 <= channel < MAX_CHANNELS:
        fail(f"{option}: there is no channel {channel}")


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("listen")(listen)
