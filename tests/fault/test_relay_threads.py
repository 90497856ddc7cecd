"""A relay thread that stands still is reported; one that dies takes the process with it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from relaycore import Relay
from roomserver.clients.errors import UnreachableError
from support.freeze import frozen, thread_named, thread_names
from support.hostile import Hostile
from support.live import Capture, live_room, timeline, wav_source
from support.native import compile_with
from support.peer import PING, TEXT, mask
from support.server import ServerProcess

RATE = 48_000
LIMIT_MS = 300
OPTIONS = ("--threads", "1", "--max-lag-ms", "5000", "--watchdog-ms", str(LIMIT_MS))


@asynccontextmanager
async def heard(server: ServerProcess) -> AsyncIterator[Capture]:
    """A listener of a room that is on air for as long as the block lasts."""
    noise = np.random.default_rng(1).integers(-9000, 9000, (60 * RATE, 2)).astype(np.int16)
    async with live_room(server.url, server.add_user()) as room, room.listen() as capture:
        task = asyncio.create_task(room.broadcaster(wav_source(noise, RATE)).run())
        try:
            await capture.wait_frames(10)
            yield capture
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_a_thread_that_stands_still_is_reported_once_and_goes_on(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, *OPTIONS) as server:
        async with heard(server) as capture:
            told = len(server.events)
            with frozen(thread_named(server.pid, "relay-0")):
                stalled = server.wait_for_event(
                    "relay_thread_stalled", where=lambda e: server.events.index(e) >= told
                )
                silent_from = len(capture.messages)
            recovered = await asyncio.to_thread(
                server.wait_for_event,
                "relay_thread_recovered",
                where=lambda e: server.events.index(e) > server.events.index(stalled),
            )
            await capture.wait_frames(10, after=silent_from)
        assert (stalled["level"], stalled["thread"], recovered["thread"]) == ("warning", 0, 0)
        assert LIMIT_MS <= stalled["late_ms"] <= recovered["stalled_ms"]


def server_stands_still(server: ServerProcess, seconds: float) -> None:
    server.signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        server.signal(signal.SIGCONT)


def thread_stands_still(name: str, server: ServerProcess, seconds: float) -> None:
    with frozen(thread_named(server.pid, name)):
        time.sleep(seconds)


@pytest.mark.parametrize(
    "stand_still",
    [
        server_stands_still,
        pytest.param(partial(thread_stands_still, "relay-0"), id="thread_of_room"),
        pytest.param(partial(thread_stands_still, "relay-1"), id="thread_of_listeners"),
    ],
)
async def test_what_piles_up_while_a_thread_stands_still_reaches_everybody(
    tmp_path: Path, stand_still: Callable[[ServerProcess, float], None]
) -> None:
    """Several times what the buffers of a socket take at once, and more than a listener may lag."""
    noise = np.random.default_rng(1).integers(-9000, 9000, (60 * RATE, 8)).astype(np.int16)
    with ServerProcess.start(tmp_path, "--threads", "2", "--max-lag-ms", "1000") as server:
        async with (
            live_room(server.url, server.add_user()) as room,
            room.listen() as one,
            room.listen() as two,
        ):
            # Connections are spread evenly: of the first thread are the room, one and the source.
            captures = (one, two)
            broadcaster = room.broadcaster(wav_source(noise, RATE), buffer_ms=1000)
            source = asyncio.create_task(broadcaster.run())
            for capture in captures:
                await capture.wait_frames(50)
            await asyncio.to_thread(stand_still, server, 1.3)
            for capture in captures:
                await capture.wait_frames(100, after=len(capture.messages))
            source.cancel()
            await asyncio.wait({source})
        for capture in captures:
            timeline(capture.frames)
            assert not any(frame.concealed for frame in capture.frames)


def test_who_wants_no_watchdog_has_none() -> None:
    with Relay(threads=1):
        assert "relay-watchdog" in thread_names()
    with Relay(threads=1, watchdog_ms=0):
        assert "relay-watchdog" not in thread_names()
    assert "relay-watchdog" not in thread_names()


@pytest.fixture
def without_memory(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose relay thread gets no memory for objects once SIGUSR2 has come.

    The test sees to it that it dies of that.
    """
    library = tmp_path / "failing_memory.so"
    source = Path(__file__).with_name("failing_memory.cpp")
    compile_with("g++", ["-shared", "-fPIC", source, "-o", library])
    server = ServerProcess.start(tmp_path / "data", *OPTIONS, env={"LD_PRELOAD": str(library)})
    yield server
    assert server.stop() == -signal.SIGABRT
    assert "relay thread 0 died: std::bad_alloc" in server.output()


async def test_a_thread_that_dies_takes_the_process_with_it_and_says_why(
    without_memory: ServerProcess,
) -> None:
    server = without_memory
    with pytest.raises(UnreachableError):  # noqa: PT012 - it is told as the listener leaves
        async with heard(server):
            server.signal(signal.SIGUSR2)
            await asyncio.to_thread(server.process.wait, 20)


@pytest.mark.parametrize("message", [mask(TEXT, b"{}"), mask(PING, b"")], ids=["text", "ping"])
async def test_so_does_one_that_dies_in_the_middle_of_what_it_reads(
    without_memory: ServerProcess, message: bytes
) -> None:
    """Nobody listens: the message is the first thing for which it needs memory."""
    server = without_memory
    async with Hostile.upgraded(server) as client, asyncio.timeout(20):
        server.signal(signal.SIGUSR2)
        while server.process.poll() is None:  # what comes before the signal is still taken
            client.send(message)
            await asyncio.sleep(0.02)
