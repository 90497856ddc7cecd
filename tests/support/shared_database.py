"""Servers on a database that a test kills and cuts off, and a source that plays meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from roomserver.store.database import Connection
from support.api_client import Api, RoomKeys
from support.postgres import Cluster
from support.server import ServerProcess

LEASE_S = 3
SECRET = "one key for all that share a database"
TIMEOUT_S = 60.0


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


async def play(api: Api, room: RoomKeys, playing: asyncio.Event, done: asyncio.Event) -> None:
    """A source that plays until told otherwise."""
    samples = np.zeros((2, 48_000), np.int16)
    async with api.source(room) as source:
        playing.set()
        timestamp = sequence = 0
        while not done.is_set():
            timestamp = await source.play(
                samples[:, :9600], rate=48_000, timestamp=timestamp, sequence=sequence
            )
            sequence += 10
