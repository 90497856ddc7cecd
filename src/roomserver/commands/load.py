"""`roomserver load`: how many listeners does a server serve?"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from roomserver.clients.account import AccountEntry
from roomserver.clients.connection import RoomApi
from roomserver.clients.load import LoadRun, Progress, Show
from roomserver.clients.load_options import LoadOptions, LoadRoom
from roomserver.clients.load_report import LoadReport
from roomserver.clients.load_rooms import made_rooms
from roomserver.clients.tasks import stop_on_signals
from roomserver.clients.wire import FRAME_LENGTHS_MS, MAX_CHANNELS, SAMPLE_RATES, Encoding
from roomserver.commands.client_options import (
    CaFile,
    PasswordStdin,
    RoomPassword,
    finite,
    password_or_ask,
    run,
)
from roomserver.commands.console import fail, stderr
from roomserver.commands.load_tables import progress_line, report_tables
from roomserver.protocol.client import MAX_INTERVAL_MS

_ROOMS = "What is listened to"
_SOURCE = "Sources, in rooms that the load makes"
_LISTENERS = "How it is listened"
_TROUBLE = "Trouble"
_CLIENT = "The load client, and what it looks at"
_QUIET_LINE_EVERY_S = 10.0  # where there is no terminal
# What the load client takes, or a kernel has.
_MAX_LISTENERS = 1 << 24
_MAX_IN_FLIGHT = 1 << 20
_MAX_PER_SECOND = 1e6
_MAX_BANDWIDTH = 1 << 40
_MAX_PID = 1 << 22
_OTHER_DESCRIPTORS = 50  # those of Python, and of the connections that look at the rooms


def load(
    url: Annotated[str, typer.Argument(help="The server.", envvar="ROOMSERVER_URL")],
    listeners: Annotated[
        int, typer.Option("--listeners", "-n", min=1, max=_MAX_LISTENERS, help="How many.")
    ],
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, callback=finite, help="How long, once all have joined."),
    ] = 10.0,
    email: Annotated[
        str | None,
        typer.Option(
            "--email",
            help="Account that makes rooms with sources, and closes them.",
            envvar="ROOMSERVER_EMAIL",
            rich_help_panel=_ROOMS,
        ),
    ] = None,
    account_password: Annotated[
        str | None,
        typer.Option(
            "--account-password",
            help="The account's password; better given as ROOMSERVER_ACCOUNT_PASSWORD.",
            envvar="ROOMSERVER_ACCOUNT_PASSWORD",
            rich_help_panel=_ROOMS,
        ),
    ] = None,
    rooms: Annotated[
        int, typer.Option("--rooms", min=1, help="How many are made.", rich_help_panel=_ROOMS)
    ] = 1,
    room: Annotated[
        list[str] | None,
        typer.Option(
            "--room",
            help="Code or id of a room that has a source. Repeatable.",
            rich_help_panel=_ROOMS,
        ),
    ] = None,
    password: RoomPassword = None,
    password_stdin: PasswordStdin = False,
    is_open: Annotated[
        bool, typer.Option("--open", help="They have no password.", rich_help_panel=_ROOMS)
    ] = False,
    ca_file: CaFile = None,
    channels: Annotated[
        int,
        typer.Option("--channels", min=1, max=MAX_CHANNELS, rich_help_panel=_SOURCE),
    ] = 2,
    rate: Annotated[int, typer.Option("--rate", help="In Hz.", rich_help_panel=_SOURCE)] = 48000,
    frame_ms: Annotated[
        int,
        typer.Option("--frame-ms", help="5, 10, 20, 40 or 60.", rich_help_panel=_SOURCE),
    ] = 20,
    source_encoding: Annotated[
        Encoding, typer.Option("--source-encoding", rich_help_panel=_SOURCE)
    ] = Encoding.S16LE,
    buffer_ms: Annotated[
        float | None,
        typer.Option(
            "--buffer-ms",
            min=1,
            max=1000,
            callback=finite,
            help="Fixed jitter buffer; default: adaptive.",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    ramp: Annotated[
        float,
        typer.Option(
            "--ramp",
            min=0,
            max=_MAX_PER_SECOND,
            callback=finite,
            help="Joins per second; 0: as many as will.",
            rich_help_panel=_LISTENERS,
        ),
    ] = 0.0,
    in_flight: Annotated[
        int,
        typer.Option(
            "--in-flight",
            min=1,
            max=_MAX_IN_FLIGHT,
            help="Listeners on their way in at a time.",
            rich_help_panel=_LISTENERS,
        ),
    ] = 64,
    share_token: Annotated[
        bool,
        typer.Option(
            "--share-token",
            help="One token for all of a room: no join over HTTP each, no password checked. The"
            " server has to let it: --max-connections-per-participant 0.",
            rich_help_panel=_LISTENERS,
        ),
    ] = False,
    mode: Annotated[
        str, typer.Option("--mode", help="multichannel or mix.", rich_help_panel=_LISTENERS)
    ] = "multichannel",
    encoding: Annotated[
        Encoding, typer.Option("--encoding", help="Of the frames.", rich_help_panel=_LISTENERS)
    ] = Encoding.S16LE,
    interval_ms: Annotated[
        int,
        typer.Option(
            "--interval-ms",
            min=0,
            max=MAX_INTERVAL_MS,
            help="Least distance between sends.",
            rich_help_panel=_LISTENERS,
        ),
    ] = 0,
    own_mixes: Annotated[
        bool,
        typer.Option(
            "--own-mixes",
            help="With --mode mix: every listener has its own.",
            rich_help_panel=_LISTENERS,
        ),
    ] = False,
    mix_changes: Annotated[
        float,
        typer.Option(
            "--mix-changes",
            min=0,
            max=_MAX_PER_SECOND,
            callback=finite,
            help="With --mode mix: changes per second, over all listeners.",
            rich_help_panel=_LISTENERS,
        ),
    ] = 0.0,
    stalled: Annotated[
        str,
        typer.Option(
            "--stalled",
            help="10%: so many read nothing once they have joined. To see the server reset them,"
            " --seconds has to be longer than its evict_after_s.",
            rich_help_panel=_TROUBLE,
        ),
    ] = "0%",
    slow: Annotated[
        str,
        typer.Option(
            "--slow", help="10%: so many read --slow-bandwidth.", rich_help_panel=_TROUBLE
        ),
    ] = "0%",
    slow_bandwidth: Annotated[
        int,
        typer.Option(
            "--slow-bandwidth",
            min=1,
            max=_MAX_BANDWIDTH,
            help="Bytes per second of each.",
            rich_help_panel=_TROUBLE,
        ),
    ] = 16_000,
    storm_s: Annotated[
        float | None,
        typer.Option(
            "--storm",
            min=0,
            callback=finite,
            help="So many seconds after all have joined, connections break at once; --in-flight of"
            " them come back at a time.",
            rich_help_panel=_TROUBLE,
        ),
    ] = None,
    storm_share: Annotated[
        str,
        typer.Option("--storm-share", help="Whose: 100% or less.", rich_help_panel=_TROUBLE),
    ] = "100%",
    threads: Annotated[
        int,
        typer.Option("--threads", min=1, max=64, help="For listeners.", rich_help_panel=_CLIENT),
    ] = 1,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            "--bind",
            help="Local address to connect from, when one has too few ports. Repeatable.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(
            "--pid",
            min=1,
            max=_MAX_PID,
            help="The server's process on this machine: its CPU and memory are told.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="The report as JSON on standard output.", rich_help_panel=_CLIENT
        ),
    ] = False,
    expect_all: Annotated[
        bool,
        typer.Option(
            "--expect-all",
            help="Exit code 1 when not everybody joined, or a frame was missing.",
            rich_help_panel=_CLIENT,
        ),
    ] = False,
) -> None:
    """Load a server with listeners and say what they got.

    With --email in rooms of its own with sources of its own, with --room in those that are there.
    Frames delivered are told against frames due, with delays from tick to receipt, the server's
    CPU and memory with --pid, and the load client's own load: whether it was the bottleneck.
    Ctrl-C ends it early, with the report so far.
    """
    if (email is None) == (not room):
        fail("either --email for rooms that the load makes, or --room CODE for those there are")
    if mode not in ("multichannel", "mix"):
        fail("--mode: multichannel or mix")
    if mode != "mix" and (own_mixes or mix_changes):
        fail("--own-mixes and --mix-changes need --mode mix")
    if rate not in SAMPLE_RATES:
        fail(f"--rate: one of {', '.join(map(str, SAMPLE_RATES))}")
    if frame_ms not in FRAME_LENGTHS_MS:
        fail("--frame-ms: 5, 10, 20, 40 or 60")
    if storm_s is not None and storm_s >= seconds:
        fail(f"--storm has to come before the {seconds:g} s of --seconds are over")
    options = LoadOptions(
        listeners=listeners,
        seconds=seconds,
        ramp=ramp,
        in_flight=in_flight,
        channels=channels,
        sample_rate=rate,
        frame_ms=frame_ms,
        source_encoding=source_encoding,
        buffer_ms=buffer_ms,
        mode=mode,
        encoding=encoding,
        interval_ms=interval_ms,
        own_mixes=own_mixes,
        mix_changes=mix_changes,
        slow=_share(slow, "--slow"),
        slow_bandwidth=slow_bandwidth,
        stalled=_share(stalled, "--stalled"),
        storm_s=storm_s,
        storm=_share(storm_share, "--storm-share"),
        share_token=share_token,
        bind=tuple(bind or ()),
        threads=threads,
        pid=pid,
    )
    if options.groups[0] < 1:
        fail("--slow and --stalled: somebody has to listen")
    # A socket each, and an epoll and an eventfd for each thread, of which one has the sources.
    sockets = listeners + (rooms if email is not None else 0)
    _raise_descriptor_limit(sockets + 2 * (threads + 1) + _OTHER_DESCRIPTORS)
    account: tuple[str, str] | None = None
    given: list[LoadRoom] = []
    if email is not None:
        account = (
            email,
            password_or_ask(account_password, "Account password", from_stdin=password_stdin),
        )
    else:
        assert room is not None
        given = _given_rooms(room, password, is_open=is_open, from_stdin=password_stdin)
    reports: list[LoadReport] = []

    async def main() -> None:
        async with RoomApi(url, ca_file=ca_file) as api, _rooms(api, account, rooms, given) as all_:
            with _display(listeners) as show:
                test = LoadRun(api, all_, options, show)
                with stop_on_signals(test.stop):
                    reports.append(await test.run())

    run(main())
    [report] = reports
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1))
    else:
        output = Console(highlight=False)
        for table in report_tables(report):
            output.print(table, soft_wrap=isinstance(table, Text))
    if expect_all and not report.complete:
        missing = report.groups["listening"].missing
        away = report.wanted - report.joined
        fail(f"{away} listeners did not join, {missing} frames are missing", code=1)


@asynccontextmanager
async def _rooms(
    api: RoomApi, account: tuple[str, str] | None, count: int, given: list[LoadRoom]
) -> AsyncIterator[list[LoadRoom]]:
    if account is None:
        yield given
        return
    entry = AccountEntry(api, *account)
    async with made_rooms(entry, count, secrets.token_urlsafe(12)) as made:
        yield made


def _given_rooms(
    names: list[str], password: str | None, *, is_open: bool, from_stdin: bool
) -> list[LoadRoom]:
    """Rooms with their passwords: one for all, unless standard input has a line for each."""
    if is_open:
        return [LoadRoom(name, None) for name in names]
    first = password_or_ask(password, "Room password", from_stdin=from_stdin)
    others = [first] * (len(names) - 1)
    if from_stdin and password is None:
        others = [sys.stdin.readline().rstrip("\r\n") or first for _ in others]
    return [LoadRoom(name, secret) for name, secret in zip(names, [first, *others], strict=True)]


def _share(text: str, option: str) -> float:
    """Parse ``10%``."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or not text.endswith("%"):
        fail(f"{option}: a share like 10%, not {text!r}")
    return share


def _raise_descriptor_limit(needed: int) -> None:
    """Each listener is a descriptor, and the usual limit is made for programs without many."""
    if sys.platform != "linux":
        fail("load: it needs Linux", code=1)
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        fail(
            f"so many listeners and sources need {needed} open files, and this process may have "
            f"{hard}: raise that as root (`ulimit -Hn {needed}`), or load from more processes"
        )


@contextmanager
def _display(listeners: int) -> Iterator[Show]:
    """A line that changes on a terminal, else one that is printed now and then."""
    if not stderr.is_terminal:
        stage, said_at = "", 0.0

        def tell(progress: Progress) -> None:
            nonlocal stage, said_at
            now = time.monotonic()
            if progress.stage != stage or now - said_at >= _QUIET_LINE_EVERY_S:
                stage, said_at = progress.stage, now
                stderr.print(progress_line(progress, listeners))

        yield tell
        return
    with Live(Text(""), console=stderr, refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(progress_line(progress, listeners))


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("load")(load)
