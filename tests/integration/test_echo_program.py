"""The program that `make conformance` runs the Autobahn suite against, with a client of our own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

PROGRAM = Path(__file__).parents[1] / "conformance" / "echo_server.py"


@pytest.fixture
def url() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        yield program.stdout.readline().strip()
        program.stdin.close()
        assert program.wait(30) == 0


async def test_messages_of_every_size_come_back_and_the_close_is_answered(url: str) -> None:
    # 16 MiB each way: nothing on the way has a limit below that of the program.
    sizes = [0, 1, 125, 126, 65_535, 65_536, 16 << 20]
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(30)) as ws,
    ):
        for size in sizes:
            await ws.send_str("é" * (size // 2))
            assert await ws.receive_str(timeout=60) == "é" * (size // 2)
            await ws.send_bytes(b"\xff" * size)
            assert await ws.receive_bytes(timeout=60) == b"\xff" * size
        await ws.close(code=4001, message=b"enough")
        assert ws.close_code == 4001
