"""`roomserver broadcast` and `roomserver listen` as people use them: as commands."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray

from roomserver.clients.wav import WavReader, WavWriter
from roomserver.clients.wire import Encoding
from support.api_client import Api
from support.certificates import write_certificate
from support.command import SECRETS, Command
from support.live import EMAIL
from support.server import ServerProcess, command, environment

RATE = 48000


Run = Callable[..., Command]


@pytest.fixture
def run(studio: ServerProcess) -> Iterator[Run]:
    """Starts a command against the server; all are gone at the end of the test."""
    running: list[Command] = []

    def start(*arguments: str, **options: object) -> Command:
        running.append(Command(studio.url, *arguments, **options))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for each in running:
        each.close()


def tone(count: int, channels: int = 2) -> NDArray[np.int16]:
    return (np.arange(count * channels).reshape(count, channels) * 7 % 29983).astype(np.int16)


def write(path: Path, samples: NDArray[np.int16]) -> Path:
    writer = WavWriter(path, samples.shape[1], RATE, Encoding.S16LE)
    writer.write(samples)
    writer.close()
    return path


def read(path: Path) -> NDArray[np.int16]:
    reader = WavReader.open(path)
    samples = reader.read(10**9).astype(np.int16)
    reader.close()
    return samples


def contains(heard: NDArray[np.int16], sent: NDArray[np.int16]) -> bool:
    """Whether what was heard is a stretch of what was sent, repeated."""
    starts = np.flatnonzero((sent == heard[0]).all(axis=1))
    count = np.arange(heard.shape[0])
    return any(np.array_equal(sent.take(at + count, 0, mode="wrap"), heard) for at in starts)


def test_a_loop_is_heard_until_ctrl_c(run: Run, tmp_path: Path) -> None:
    sent = tone(RATE)
    source = write(tmp_path / "in.wav", sent)
    broadcast = run(
        "broadcast", str(source), "--loop", "--email", EMAIL, "--create", "--name", "Hall",
        "--buffer-ms", "1000", "--channel-names", "left,right",
    )  # fmt: skip
    code = broadcast.wait_for(r"room (\w{6}) \(Hall\)")[1]
    out = tmp_path / "out.wav"
    listen = run("listen", "--room", code, "-o", str(out), "--once")
    listen.wait_for("recording")
    assert broadcast.interrupt() == 0
    assert "played to the end" in broadcast.said
    assert listen.end() == 0
    assert "0 missing in 0 gaps" in listen.said
    heard = read(out)
    assert heard.shape[0] >= 960
    assert contains(heard[:-960], sent)


def test_an_own_room_and_exact_seconds_of_it(run: Run, tmp_path: Path) -> None:
    sent = tone(3 * RATE)
    source = str(write(tmp_path / "in.wav", sent))
    first = run("broadcast", source, "--email", EMAIL, "--create", "--buffer-ms", "1000")
    code = first.wait_for(r"room (\w{6})")[1]
    first.wait_for("on air")
    assert first.interrupt() == 0
    again = run("broadcast", source, "--email", EMAIL, "--room", code, "--buffer-ms", "1000")
    out = tmp_path / "out.wav"
    listen = run("listen", "--room", code, "--channels", "1", "--seconds", "0.5", "-o", str(out))
    assert listen.end() == 0
    assert again.interrupt() == 0
    heard = read(out)
    assert heard.shape == (RATE // 2, 1)
    assert contains(heard, sent[:, 1:])


async def test_an_open_room_and_a_break_in_it(
    run: Run, tmp_path: Path, studio: ServerProcess
) -> None:
    source = str(write(tmp_path / "in.wav", tone(RATE)))
    broadcast = run(
        "broadcast", source, "--loop", "--email", EMAIL, "--create", "--open", "--permanent"
    )
    code = broadcast.wait_for(r"room (\w{6})")[1]
    broadcast.wait_for("on air")
    listen = run("listen", "--room", code, "--open")
    listen.wait_for("source:")
    async with aiohttp.ClientSession() as session:
        api = Api(studio.url, session)
        token = (await api.login(EMAIL))["accessToken"]
        path = f"/api/broadcaster/rooms/{code}"
        answer = await api.call("POST", path + "/suspend", token=token, json={})
        assert (answer.status, answer.body["permanent"]) == (200, True)
        await asyncio.to_thread(listen.wait_for, "the source is gone")
        await asyncio.to_thread(broadcast.wait_for, "the room was suspended; connecting again")
        assert (await api.call("POST", path + "/resume", token=token)).status == 200
        await asyncio.to_thread(broadcast.wait_for, "connected again")
        await asyncio.to_thread(listen.wait_for, "the source is back")
    assert await asyncio.to_thread(broadcast.interrupt) == 0
    assert await asyncio.to_thread(listen.interrupt) == 0


def test_raw_pcm_from_a_pipe_to_a_pipe(run: Run) -> None:
    sent = tone(RATE * 3 // 2)
    broadcast = run(
        "broadcast", "-", "--format", "s16le", "--channels", "2", "--rate", str(RATE),
        "--email", EMAIL, "--create", "--buffer-ms", "1000", stdin=subprocess.PIPE,
    )  # fmt: skip
    code = broadcast.wait_for(r"room (\w{6})")[1]
    listen = run("listen", "--room", code, "--once", "-o", "-")
    listen.wait_for("waiting for it|source:")
    assert broadcast.process.stdin is not None
    broadcast.process.stdin.write(sent.tobytes())
    broadcast.process.stdin.close()
    assert listen.process.stdout is not None
    reader = WavReader(listen.process.stdout, "pipe")  # type: ignore[arg-type]
    assert reader.total is None
    heard = reader.read(10**7).astype(np.int16)
    assert broadcast.end() == 0
    assert listen.end() == 0
    assert contains(heard[: sent.shape[0] - 9600], sent)


def test_a_listener_that_is_interrupted_leaves_a_whole_file(run: Run, tmp_path: Path) -> None:
    sent = tone(RATE)
    source = str(write(tmp_path / "in.wav", sent))
    broadcast = run("broadcast", source, "--loop", "--email", EMAIL, "--create")
    code = broadcast.wait_for(r"room (\w{6})")[1]
    out = tmp_path / "out.wav"
    listen = run("listen", "--room", code, "--encoding", "pcm_f32le", "-o", str(out))
    listen.wait_for("recording")
    assert listen.interrupt() == 0
    reader = WavReader.open(out)
    assert reader.total == reader.skip(10**9)
    assert reader.total
    assert reader.encoding is Encoding.F32LE
    reader.close()
    assert broadcast.interrupt() == 0


def test_meters_on_a_terminal(run: Run, tmp_path: Path, studio: ServerProcess) -> None:
    sent = tone(RATE)
    source = str(write(tmp_path / "in.wav", sent))
    broadcast = run(
        "broadcast", source, "--loop", "--email", EMAIL, "--create", "--channel-names", "kick"
    )
    code = broadcast.wait_for(r"room (\w{6})")[1]
    parent, child = pty.openpty()
    listen = subprocess.Popen(
        command("listen", "--room", code, "--seconds", "1.5"),
        stdin=subprocess.DEVNULL,
        stderr=child,
        env=environment(ROOMSERVER_URL=studio.url, TERM="xterm", COLUMNS="100", **SECRETS),
    )
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 65536):
            shown += data
    except OSError:  # how a terminal ends on Linux
        pass
    os.close(parent)
    assert listen.wait(10) == 0
    text = shown.decode()
    for part in ("kick", "█", "delay", "missing"):
        assert part in text
    assert broadcast.interrupt() == 0


def test_a_wrong_password_is_one_line(run: Run, tmp_path: Path) -> None:
    source = str(write(tmp_path / "in.wav", tone(100)))
    wrong = {"ROOMSERVER_ACCOUNT_PASSWORD": "wrong", "ROOMSERVER_PASSWORD": "x"}
    broadcast = run("broadcast", source, "--email", EMAIL, "--create", env=wrong)
    assert broadcast.end() == 1
    assert re.fullmatch(r"error: [^\n]+\n", broadcast.said), broadcast.said
    listen = run("listen", "--room", "ABCDEF", env=wrong)
    assert listen.end() == 1
    assert re.fullmatch(r"error: [^\n]+\n", listen.said), listen.said


def test_a_server_that_goes_away_is_looked_for_again(run: Run, tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data") as server:
        server.add_user()
        source = str(write(tmp_path / "in.wav", tone(RATE)))
        url = ("--url", server.url)
        broadcast = run("broadcast", source, "--loop", "--email", EMAIL, "--create", *url)
        code = broadcast.wait_for(r"room (\w{6})")[1]
        listen = run("listen", "--room", code, *url)
        listen.wait_for("source:")
        server.stop()
        for client in (broadcast, listen):
            client.wait_for("shutting down; connecting again")
            client.wait_for(r"cannot connect .*; next try in \d")
        assert broadcast.interrupt() == 1  # nobody can say that all of it was heard
        broadcast.wait_for("the end could not be confirmed")
        assert listen.interrupt() == 0


def test_a_demo_whose_port_is_taken_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = run("demo", "--port", str(port))
        assert demo.end() == 1
    assert re.fullmatch(rf"error: [^\n]*127\.0\.0\.1:{port}[^\n]*\n", demo.said), demo.said


def test_no_server_is_one_line(run: Run) -> None:
    listen = run("listen", "--room", "ABCDEF", "--url", "http://127.0.0.1:1")
    assert listen.end() == 1
    assert re.fullmatch(r"error: http://127\.0\.0\.1:1/?: cannot connect[^\n]+\n", listen.said)


def test_over_tls_with_a_certificate_of_our_own(run: Run, tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "hall")
    sent = tone(RATE)
    source = str(write(tmp_path / "in.wav", sent))
    tls = ("--tls-cert", str(chain), "--tls-key", str(key))
    with ServerProcess.start(tmp_path / "data", *tls) as server:
        server.add_user()
        url = ("--url", server.url)
        trust = (*url, "--ca-file", str(chain))
        create = ("--email", EMAIL, "--create", "--buffer-ms", "1000")
        broadcast = run("broadcast", source, "--loop", *create, *trust)
        code = broadcast.wait_for(r"room (\w{6})")[1]
        out = tmp_path / "out.wav"
        listen = run("listen", "--room", code, "--seconds", "0.3", "-o", str(out), *trust)
        assert listen.end() == 0
        doubter = run("listen", "--room", code, *url)
        assert doubter.end() == 1
        assert "the certificate is not trusted" in doubter.said
        assert broadcast.interrupt() == 0
    assert contains(read(out), sent)
