"""A running server to whose clients nothing is sacred, and a room in it that must not notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import aiohttp
import pytest

from support.api_client import Api, source_wish
from support.hostile import Bystanders, Hostile, all_of, make_room, packet
from support.peer import BINARY, CLOSE, TEXT, mask
from support.server import ServerProcess

# Long enough for those who are slow only because the machine is.
REQUEST_TIMEOUT_S = 6.0
REGISTER_TIMEOUT_S = 6.0


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = {
        "request-timeout-s": REQUEST_TIMEOUT_S,
        "register-timeout-s": REGISTER_TIMEOUT_S,
        # A test that gets no time to read is no slow listener.
        "max-lag-ms": 30_000,
        "evict-after-s": 60,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with ServerProcess.start(tmp_path_factory.mktemp("hostile"), *arguments) as process:
        process.add_user()
        yield process


@pytest.fixture(scope="package")
def everyone(server: ServerProcess) -> Iterator[Bystanders]:
    """The room in which everything is as ever."""
    room, token = asyncio.run(make_room(server))
    with Bystanders.in_room(server, room, token) as bystanders:
        yield bystanders


@pytest.fixture(autouse=True)
def nobody_else_notices(everyone: Bystanders) -> Iterator[None]:
    yield
    everyone.check()


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


@pytest.fixture
def listening(everyone: Bystanders) -> dict[str, Any]:
    """The registration of one more listener in that room."""
    room, token = everyone.room, everyone.token
    return {"type": "registerListener", "roomId": room.id, "roomToken": token}


class SlowSource(NamedTuple):
    """How a source fared."""

    closed: int  # the code, or 0
    received: int  # samples, as the server tells
    seconds: float


async def packets_at_a_byte_a_second(server: ServerProcess) -> dict[str, SlowSource]:
    """Sources of one channel whose packet of one sample comes a byte a second, all at once."""

    async def source(api: Api, access: str, sent: bytes) -> SlowSource:
        room = await api.create_room(access)
        register = {"type": "registerSource", **source_wish(room, channels=1)}
        async with Hostile.upgraded(server, register) as hostile:
            begin = time.monotonic()
            sending = asyncio.create_task(hostile.trickle(mask(BINARY, sent), 1.0))
            received = 0
            while True:
                opcode, payload = await hostile.frame()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    break
                message = json.loads(payload) if opcode == TEXT else {}
                if message.get("type") == "sourceStatus":
                    received = max(received, *message["received"])
                if received and sending.done():
                    code = 0
                    break
            sending.cancel()
            return SlowSource(code, received, time.monotonic() - begin)

    one = packet(bytes(2), channels=1, samples=1)
    async with aiohttp.ClientSession() as session:
        api = Api(server.url, session)
        access = (await api.login())["accessToken"]
        cases = {"good": one, "bad": packet(bytes(2), channels=1, samples=1, flags=1)}
        return await all_of({name: source(api, access, sent) for name, sent in cases.items()})


@pytest.fixture(scope="package")
def slow_packets(
    server: ServerProcess, everyone: Bystanders
) -> Iterator[Future[dict[str, SlowSource]]]:
    """They take 40 s, in which the other tests go on."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(asyncio.run, packets_at_a_byte_a_second(server))
