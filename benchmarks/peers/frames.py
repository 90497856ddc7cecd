"""The frames that a peer sends, and when: a relay's message, every tick on an absolute deadline."""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.workload import HEADER_BYTES

HEADER: Final = struct.Struct("<BBBBHHIIQQ")
KIND_FRAME: Final = 2


def binary_header(payload: int) -> bytes:
    """What stands before a binary message of so many bytes that a server sends."""
    if payload < 126:
        return struct.pack(">BB", 0x82, payload)
    if payload < 65536:
        return struct.pack(">BBH", 0x82, 126, payload)
    return struct.pack(">BBQ", 0x82, 127, payload)


def unix_offset_us() -> int:
    """Unix time, with which peers stamp their frames, less CLOCK_MONOTONIC."""
    return (time.time_ns() - time.monotonic_ns()) // 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a peer is told on its command line: bytes a message, µs between them, for how long."""

    message: int
    tick_us: int
    max_seconds: float

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("--message", type=int, required=True)
        parser.add_argument("--tick-us", type=int, required=True)
        parser.add_argument("--max-seconds", type=float, required=True)

    def messages(self) -> Iterator[tuple[float, bytes]]:
        """Each message and its deadline, on the clock of `time.monotonic`."""
        payload = b"\x5a" * (self.message - HEADER_BYTES)
        start, unix = time.monotonic(), time.time()
        for sequence in range(int(self.max_seconds * 1e6 / self.tick_us)):
            since = sequence * self.tick_us / 1e6
            header = HEADER.pack(
                *(1, KIND_FRAME, 0, 0, 1, 2, sequence, 0, sequence), round((unix + since) * 1e6)
            )
            yield start + since, header + payload

    async def stream(self, send: Callable[[bytes], object]) -> None:
        """Calls `send` with each message when it is due; late ones at once, none is left out."""
        for deadline, message in self.messages():
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            result = send(message)
            if asyncio.iscoroutine(result):
                await result
