"""Servers on a database that a test kills and cuts off, and a source that plays meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from roomserver.store.database import Connection
from support.api_client import Api, RoomKeys
from support.peer import Frame, source_packet
from support.postgres import Cluster
from support.server import ServerProcess

LEASE_S = 3
SECRET = "one key for all that share a database"
TIMEOUT_S = 60.0
RATE = 48_000
CHANNELS = 2
PACKET = RATE // 50
BUFFER_MS = 1000
Flag: TypeAlias = asyncio.Event | threading.Event


@asynccontextmanager
async def server(
    directory: Path, cluster: Cluster, public_url: str, *options: str, database_url: str = ""
) -> AsyncIterator[ServerProcess]:
    """A server; if it is alive at the end, it has to stop well."""
    variables = cluster.variables() | {"ROOMSERVER_SECRET": SECRET}
    if database_url:
        variables["ROOMSERVER_DATABASE_URL"] = database_url
    process = await asyncio.to_thread(
        ServerProcess.start,
        directory,
        "--lease-s",
        str(LEASE_S),
        "--public-url",
        public_url,
        "--max-lag-ms",
        "5000",
        *options,
        env=variables,
    )
    try:
        yield process
    except BaseException:
        process.process.kill()
        await asyncio.to_thread(process.stop)
        raise
    killed = process.process.poll() is not None
    code = await asyncio.to_thread(process.stop)
    assert killed or code == 0, process.output()


async def until(tables: Connection, condition: str, *arguments: Any) -> None:
    """Until a query gives something other than nothing."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await tables.fetchval(condition, *arguments):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def kill(process: ServerProcess) -> None:
    process.signal(signal.SIGKILL)
    await asyncio.to_thread(process.stop)


async def play(api: Api, room: RoomKeys, playing: Flag, done: Flag) -> None:
    """A source that plays a ramp until told otherwise.

    Its packets are due at the times of its first one's clock, and may be late by as much as there
    is to buffer: the test, not the server, has more to do than one processor can.
    """
    loop = asyncio.get_running_loop()
    async with api.source(room, bufferMs=BUFFER_MS) as source:
        playing.set()
        begin = loop.time()
        for sequence in itertools.count():
            if done.is_set():
                return
            due = begin + sequence * PACKET / RATE
            await asyncio.sleep(due - loop.time())
            late_ms = 1000 * (loop.time() - due)
            assert late_ms < BUFFER_MS, f"the test's own source is {late_ms:.0f} ms late"
            timestamp = sequence * PACKET
            planes = np.broadcast_to(ramp(timestamp, PACKET), (CHANNELS, PACKET))
            await source.ws.send_bytes(source_packet(planes, timestamp, sequence=sequence))


def ramp(begin: int, count: int) -> NDArray[np.int16]:
    """What `play` sends: of each sample its number, as far as 15 bits hold it."""
    return (np.arange(begin, begin + count) & 0x7FFF).astype(np.int16)


def assert_whole(frames: Sequence[Frame]) -> None:
    """These are all that `play` sent from the first to the last: nothing is missing or made up."""
    first = frames[0]
    begin = int(first.data[0, 0]) - first.timestamp
    for before, frame in pairwise(frames):
        assert frame.flags == 0, f"frame {frame.sequence} has flags {frame.flags}"
        assert frame.sequence == before.sequence + 1
        assert frame.timestamp == before.timestamp + before.samples
    for frame in frames:
        expected = ramp(begin + frame.timestamp, frame.samples)
        assert np.array_equal(frame.data, np.stack([expected] * CHANNELS, axis=1))
