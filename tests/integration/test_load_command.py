"""`roomserver load`: what it tells is what a real server did."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roomserver.clients.account import AccountEntry
from roomserver.clients.connection import RoomApi
from roomserver.clients.errors import ClientError
from roomserver.clients.load import LoadRun, Progress
from roomserver.clients.load_options import LoadOptions, LoadRoom
from roomserver.clients.load_rooms import made_rooms
from roomserver.clients.wav import WavWriter
from roomserver.clients.wire import Encoding
from support.certificates import write_certificate
from support.command import Command
from support.live import EMAIL, ROOM_PASSWORD
from support.server import PASSWORD, ServerProcess

Run = Callable[..., Command]
RATE = 8000
SMALL = ("--rate", str(RATE), "--channels", "2")


@pytest.fixture
def run(server: ServerProcess) -> Iterator[Run]:
    """Starts `roomserver load` against the server; all are gone at the end of the test."""
    running: list[Command] = []

    def start(*arguments: str, url: str = server.url, **options: Any) -> Command:
        options = {"stdout": subprocess.PIPE, **options}
        running.append(Command(url, *arguments, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def load(run: Run, *arguments: str, **options: Any) -> Command:
    """A load of rooms with sources of their own, reported in JSON.

    Their buffer is so large that no sound stops because the machine stood still for a moment.
    """
    return run(
        "load", "--email", EMAIL, "--json", "--buffer-ms", "1000", *SMALL, *arguments, **options
    )


def report_of(command: Command, *, code: int = 0) -> Any:
    """What it says at its end, for which it is waited."""
    assert command.process.stdout is not None
    said = command.process.stdout.read()
    assert command.end() == code, command.said
    return json.loads(said)


def test_every_frame_that_was_due_is_counted(run: Run, server: ServerProcess) -> None:
    command = load(
        run, "-n", "40", "--rooms", "3", "--seconds", "1.5", "--expect-all", "--ramp", "80",
        "--threads", "2", "--pid", str(server.pid),
    )  # fmt: skip
    report = report_of(command)
    assert (report["format"], report["complete"], report["interrupted"]) == (1, True, False)
    assert (report["wanted"], report["joined"], report["failed"], report["lost"]) == (40, 40, 0, 0)
    assert report["rooms"] == 3
    assert report["shared_token"] is False
    assert report["joining_s"] >= 39 / 80
    assert set(report["groups"]) == {"listening"}
    listening = report["groups"]["listening"]
    # 50 frames a second, from each one's joining on.
    assert 40 * 1.5 * 50 <= listening["due"] <= 40 * (1.5 + report["joining_s"] + 1) * 50
    assert listening["delivered"] == listening["due"]
    assert (listening["missing"], listening["gaps"], listening["worst"]) == (0, 0, 1.0)
    assert listening["bytes"] >= listening["delivered"] * (36 + RATE // 50 * 4)
    assert report["delay_steady"]["count"] >= 40 * 1.4 * 50
    assert 0 < report["delay_steady"]["p50"] <= report["delay_steady"]["p99"]
    assert report["join"]["count"] == 40
    assert report["bytes_per_s"] == pytest.approx(40 * 50 * (36 + RATE // 50 * 4), rel=0.3)
    assert report["server"]["cores"] > 0
    assert report["server"]["sockets"] >= 43
    assert min(report["server"]["resident"]) > 1 << 20
    names = {thread["name"] for thread in report["threads"]}
    assert names == {"listeners 0", "listeners 1", "sources", "python"}
    assert all(0 < thread["load"] < 1 for thread in report["threads"])
    assert report["errors"] == {}


def on_air(run: Run, directory: Path, frame_ms: int = 10) -> str:
    """Code of a room in which somebody broadcasts three channels, which are heard."""
    path = directory / f"in-{frame_ms}.wav"
    writer = WavWriter(path, 3, RATE, Encoding.S16LE)
    writer.write(np.zeros((RATE, 3), np.int16))
    writer.close()
    broadcast = run(
        "broadcast", str(path), "--loop", "--email", EMAIL, "--create",
        "--frame-ms", str(frame_ms), "--buffer-ms", "1000",
    )  # fmt: skip
    code = broadcast.wait_for(r"room (\w{6})")[1]
    heard = run("listen", "--room", code, "--seconds", "0.1", "-o", str(directory / "heard.wav"))
    assert heard.end() == 0, heard.said
    return code


def test_frames_that_did_not_come_are_missing(run: Run, tmp_path: Path) -> None:
    code = on_air(run, tmp_path)
    command = run(
        "load", "--room", code, "-n", "5", "--seconds", "5", "--share-token", "--expect-all",
        "--json",
    )  # fmt: skip
    command.wait_for("everybody listens")
    # Listeners that are stopped for longer than the server's max_lag_ms get none of what passed.
    # That may be found as late as 1.5 s after: a ping a second, and half of one without a pong.
    command.signal_group(signal.SIGSTOP)
    time.sleep(3)
    command.signal_group(signal.SIGCONT)
    report = report_of(command, code=1)
    listening = report["groups"]["listening"]
    assert report["shared_token"] is True
    assert listening["gaps"] >= 5
    assert listening["missing"] == listening["due"] - listening["delivered"] > 5 * 50
    assert listening["worst"] < 0.95
    assert re.search(r"error: 0 listeners did not join, \d+ frames are missing", command.said)


def test_stalled_and_slow_listeners_are_counted_apart(run: Run, tmp_path: Path) -> None:
    # So that little fits into the sockets' buffers, the stream is a large one.
    with ServerProcess.start(tmp_path, "--evict-after-s", "1.5") as own:
        own.add_user()
        command = load(
            run, "-n", "20", "--seconds", "6", "--stalled", "20%", "--slow", "10%",
            "--slow-bandwidth", "20000", "--rate", "48000", "--channels", "16", url=own.url,
        )  # fmt: skip
        report = report_of(command)
    groups = report["groups"]
    assert [groups[name]["listeners"] for name in ("listening", "slow", "stalled")] == [14, 2, 4]
    assert groups["stalled"]["gone"] == 4
    assert groups["stalled"]["missing"] > groups["stalled"]["due"] / 2
    assert 0 < groups["slow"]["delivered"] < groups["slow"]["due"] / 2
    assert groups["listening"]["missing"] == 0
    assert groups["listening"]["gone"] == 0
    assert report["lost"] >= 4


def test_a_storm_brings_everybody_back(run: Run) -> None:
    command = load(run, "-n", "30", "--seconds", "3", "--storm", "0.5", "--storm-share", "60%")
    report = report_of(command)
    storm = report["storm"]
    assert (storm["dropped"], storm["returned"]) == (18, 18)
    assert storm["attempts"] >= 18
    assert 0.05 < storm["seconds"] < 2.5
    assert storm["silence"]["count"] == 18
    assert (report["lost"], report["returned"]) == (18, 18)
    # They go on where they were (`from`), so that nothing was missed and nothing counts twice.
    listening = report["groups"]["listening"]
    assert (listening["missing"], listening["gone"]) == (0, 0)


def test_mixes_change_at_the_pace_that_was_asked_for(run: Run) -> None:
    command = load(
        run, "-n", "10", "--seconds", "2", "--mode", "mix", "--own-mixes", "--mix-changes", "50",
        "--encoding", "pcm_f32le", "--interval-ms", "60",
    )  # fmt: skip
    report = report_of(command)
    assert 60 <= report["mixes"]["sent"] <= 50 * report["steady_s"] + 1
    assert report["mixes"]["answered"] == report["mixes"]["sent"]
    assert report["mixes"]["answer"]["p99"] > 0
    assert report["groups"]["listening"]["missing"] == 0
    # Stereo in float32, whatever the room has.
    assert report["bytes_per_s"] == pytest.approx(10 * 50 * (36 + RATE // 50 * 8), rel=0.3)


def test_ctrl_c_gives_the_report_so_far(run: Run) -> None:
    command = load(run, "-n", "10", "--seconds", "60")
    command.wait_for("everybody listens")
    command.process.send_signal(signal.SIGINT)
    report = report_of(command)
    assert report["interrupted"] is True
    assert report["joined"] == 10
    assert report["steady_s"] < 30
    assert report["groups"]["listening"]["missing"] == 0


def in_process(api: RoomApi, count: int = 1) -> AbstractAsyncContextManager[list[LoadRoom]]:
    """Rooms for a `LoadRun` in the test's own process."""
    return made_rooms(AccountEntry(api, EMAIL, PASSWORD), count, ROOM_PASSWORD)


async def test_a_run_that_ends_before_everybody_joined_is_not_complete(
    server: ServerProcess,
) -> None:
    def show(progress: Progress) -> None:
        if progress.joined >= 10:
            ended.stop()

    options = LoadOptions(listeners=1000, ramp=20, sample_rate=RATE, share_token=True)
    async with RoomApi(server.url) as api, in_process(api) as rooms:
        ended = LoadRun(api, rooms, options, show)
        report = await ended.run()
    assert report.interrupted
    assert 10 <= report.joined < report.wanted == 1000
    assert (report.failed, report.groups["listening"].missing) == (0, 0)
    assert not report.complete


async def test_the_load_of_its_threads_and_of_python_is_all_that_its_process_uses(
    server: ServerProcess,
) -> None:
    options = LoadOptions(listeners=20, seconds=1, sample_rate=RATE, pid=os.getpid())
    async with RoomApi(server.url) as api, in_process(api) as rooms:
        report = await LoadRun(api, rooms, options, lambda progress: None).run()
    assert [thread.name for thread in report.threads] == ["listeners 0", "sources", "python"]
    assert all(thread.load > 0 for thread in report.threads)
    assert report.server is not None
    # The process whose CPU time is looked at as the server's is its own.
    assert sum(thread.load for thread in report.threads) == pytest.approx(
        report.server.cores, rel=0.1, abs=0.02
    )


async def test_a_server_is_found_at_whichever_of_its_addresses_it_listens(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name's addresses the first may be one without a server, as localhost's ::1 often is."""
    real = socket.getaddrinfo

    def addresses(host: Any, *rest: Any, **named: Any) -> list[Any]:
        if host != "hall.test":
            return real(host, *rest, **named)
        return [*real("127.0.0.2", *rest, **named), *real("127.0.0.1", *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    url = server.url.replace("127.0.0.1", "hall.test")
    assert url != server.url
    options = LoadOptions(listeners=3, seconds=0.5, sample_rate=RATE)
    async with RoomApi(url) as api, in_process(api) as rooms:
        report = await LoadRun(api, rooms, options, lambda progress: None).run()
    assert (report.joined, report.errors) == (3, {})
    assert report.groups["listening"].delivered > 0


def test_listeners_that_are_refused_are_counted_with_the_reason(run: Run, tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--join-success-limit", "5 per minute") as own:
        own.add_user()
        command = load(run, "-n", "10", "--seconds", "1", "--expect-all", url=own.url)
        report = report_of(command, code=1)
    # The load itself joined once, to see the room.
    assert (report["wanted"], report["joined"], report["failed"]) == (10, 4, 6)
    [(what, times)] = report["errors"].items()
    assert re.fullmatch(r"HTTP/1\.1 429 .*: rate_limited", what)
    assert times == 6
    assert report["groups"]["listening"]["missing"] == 0
    assert report["complete"] is False
    assert "error: 6 listeners did not join, 0 frames are missing" in command.said


def test_where_a_token_is_for_few_the_setting_is_named(run: Run, tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--max-connections-per-participant", "3") as own:
        own.add_user()
        command = load(
            run, "-n", "10", "--seconds", "1", "--share-token", "--expect-all", url=own.url
        )
        report = report_of(command, code=1)
    # The load itself listened with it before, whose end is perhaps not known yet.
    assert report["joined"] in (2, 3)
    assert report["joined"] + report["failed"] == 10
    assert any("max_connections_per_participant" in what for what in report["errors"])


def test_a_process_that_ends_leaves_the_rest_of_the_report(run: Run) -> None:
    with subprocess.Popen(["sleep", "600"]) as watched:
        command = load(run, "-n", "5", "--seconds", "3", "--pid", str(watched.pid))
        command.wait_for("everybody listens")
        watched.kill()
        watched.wait()
        report = report_of(command)
    assert any(what.startswith(f"process {watched.pid}:") for what in report["errors"])
    assert report["groups"]["listening"]["missing"] == 0


def test_a_room_that_is_there_is_listened_to_and_told_in_tables(run: Run, tmp_path: Path) -> None:
    code = on_air(run, tmp_path)
    command = run("load", "--room", code, "-n", "8", "--seconds", "1", "--expect-all")
    assert command.process.stdout is not None
    said = command.process.stdout.read().decode()
    assert command.end() == 0, command.said
    assert "8 of 8 listeners in 1 room" in said
    assert re.search(r"listening +8 +([\d,]+) +\1 +100 % +0 +0 +100 % +0", said), said
    assert re.search(r"ms +count +p50 +p99 +p99\.9 +max", said), said
    assert re.search(r"received +[\d.]+ Mbit/s, [\d.]+ MiB in all", said), said
    for words in ("delay together", "received", "own listeners 0", "round trip", "bottleneck"):
        assert words in said


def test_each_room_is_held_to_its_own_frames(run: Run, tmp_path: Path) -> None:
    rooms = [option for ms in (10, 60) for option in ("--room", on_air(run, tmp_path, ms))]
    command = run("load", *rooms, "-n", "4", "--seconds", "2", "--expect-all", "--json")
    report = report_of(command)
    listening, per_s = report["groups"]["listening"], 2 * (1000 / 10 + 1000 / 60)
    assert listening["missing"] == 0
    assert 1.9 * per_s <= listening["due"] <= (3 + report["joining_s"]) * per_s


async def test_a_second_room_without_a_source_is_told(
    run: Run, tmp_path: Path, server: ServerProcess
) -> None:
    heard = LoadRoom(await asyncio.to_thread(on_air, run, tmp_path), ROOM_PASSWORD)
    options = LoadOptions(listeners=2, seconds=0.5, sample_rate=RATE)

    async def load_of(*rooms: LoadRoom) -> None:
        await LoadRun(api, rooms, options, lambda progress: None).run()

    async with RoomApi(server.url) as api, in_process(api) as [room]:
        await load_of(heard)
        silent = replace(room, source=None)
        with pytest.raises(ClientError, match=f"room {silent.name} has no source; with --email"):
            await load_of(heard, silent)


def test_more_listeners_than_files_may_be_open_are_refused_at_once(run: Run) -> None:
    command = load(run, "-n", "500", prefix=("prlimit", "--nofile=400:400"))
    assert command.end() == 2
    assert re.search(r"need 55\d open files, and this process may have 400", command.said)


def test_over_tls_the_certificate_is_looked_at(run: Run, tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "hall")
    tls = ("--tls-cert", str(chain), "--tls-key", str(key))
    with ServerProcess.start(tmp_path / "data", *tls) as own:
        own.add_user()
        options = ("-n", "10", "--seconds", "1", "--ca-file", str(chain), "--expect-all")
        report = report_of(load(run, *options, url=own.url))
    assert report["groups"]["listening"]["missing"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--room", "ABCDEF"), "no .*room|room.* no"),
        (("--email", EMAIL, "--pid", "4194304"), "process 4194304"),
        (("--email", EMAIL, "--bind", "nowhere"), "no address"),
    ],
)
def test_what_the_server_or_the_machine_refuses_is_one_line(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    command = run("load", "-n", "2", *arguments)
    assert command.end() == 1
    assert re.search(f"error: .*(?:{words})", command.said), command.said
