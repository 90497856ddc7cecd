"""`python -m benchmarks.tortured_server serve ...`: roomserver, with tortures for its Python.

It obeys (`benchmarks.obedient`), and answers in its log:

    torture NAME SECONDS   "torture_begins", then "torture_over" with what it did to Python
    relay                  "relay": the figures of the relay's first thread, and its clock's offset
                           from CLOCK_MONOTONIC
    feed OPTIONS           a source (`benchmarks.source`) in the event loop: how a relay that lets
                           audio pass through Python would fare
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from unittest import mock

import structlog

import roomserver.rooms.media
from benchmarks import source
from benchmarks.obedient import Obedient
from relaycore import Relay
from roomserver.auth.passwords import PasswordPool

HOLD_S: Final = 1.0
BCRYPT_ROUNDS: Final = 12
BCRYPT_THREADS: Final = 4
HEAP_OBJECTS: Final = 1_500_000
HEARTBEAT_S: Final = 0.005

log = structlog.stdlib.get_logger("torture")


def hold_gil(seconds: float) -> dict[str, Any]:
    """A thread that holds the GIL for a second at a time."""
    usleep = ctypes.PyDLL(None).usleep  # of all ways to call C, this one keeps the GIL
    end = time.monotonic() + seconds
    holds = 0
    while time.monotonic() < end:
        usleep(round(HOLD_S * 1e6))
        holds += 1
    return {"holds": holds}


def collect(seconds: float) -> dict[str, Any]:
    """Full collections of a large heap, one after another."""
    heap: list[list[Any]] = []
    gc.disable()
    for _ in range(HEAP_OBJECTS):
        heap.append([heap])
    gc.enable()
    end = time.monotonic() + seconds
    collections, longest = 0, 0.0
    while (began := time.monotonic()) < end:
        gc.collect()
        collections += 1
        longest = max(longest, time.monotonic() - began)
    heap.clear()
    return {"collections": collections, "longest_ms": round(longest * 1000)}


async def in_thread(torture: Callable[[float], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Beside the loop, which goes on as far as it gets the GIL."""
    return await asyncio.to_thread(torture, seconds)


async def burst_of_bcrypt(seconds: float) -> dict[str, Any]:
    """More passwords at once than there are processors for them: the server's own kind of pool
    leaves one to the rest."""
    end = time.monotonic() + seconds
    pool = PasswordPool("torture", rounds=BCRYPT_ROUNDS, threads=BCRYPT_THREADS, queue=4)
    hashes = 0

    async def hash_on() -> None:
        nonlocal hashes
        while time.monotonic() < end:
            await pool.hash(b"correct horse battery")
            hashes += 1

    await asyncio.gather(*(hash_on() for _ in range(2 * BCRYPT_THREADS)))
    await asyncio.to_thread(pool.close)
    return {"hashes": hashes}


async def block_loop(seconds: float) -> dict[str, Any]:
    """A coroutine that keeps the event loop to itself, without the GIL."""
    time.sleep(seconds)  # noqa: ASYNC251 - that is the torture
    return {}


TORTURES: Final[Mapping[str, Callable[[float], Awaitable[dict[str, Any]]]]] = {
    "gil": lambda seconds: in_thread(hold_gil, seconds),
    "bcrypt": burst_of_bcrypt,
    "gc": lambda seconds: in_thread(collect, seconds),
    "loop": block_loop,
}


class Torturer(Obedient):
    """Tortures on command. The event loop's own."""

    def __init__(self) -> None:
        super().__init__()
        self.relays: list[Relay] = []
        self._last_beat = time.monotonic()
        self._longest_pause = 0.0

    async def run(self, server: Awaitable[int]) -> int:
        """Runs the server, and obeys as long as it runs."""
        self.spawn(self._beat())
        try:
            return await super().run(server)
        finally:
            self.relays.clear()

    def patches(self) -> Sequence[Any]:
        return [mock.patch.object(roomserver.rooms.media, "Relay", self.make_relay)]

    def make_relay(self, **options: Any) -> Relay:
        """The server's relay, remembered for its figures."""
        relay = Relay(**options)
        self.relays.append(relay)
        return relay

    def obey(self, verb: str, words: Sequence[str]) -> None:
        if verb == "torture":
            self.spawn(self._torture(words[0], float(words[1])))
        elif verb == "relay":
            relay = self.relays[0]
            offset_us = relay.clock_us() - time.monotonic_ns() // 1000
            figures = relay.counters().threads[0]._asdict()
            log.info("relay", clock_offset_us=offset_us, **figures)
        elif verb == "feed":
            self.spawn(self._feed(words))
        else:
            raise ValueError(verb)

    async def _feed(self, options: Sequence[str]) -> None:
        stream = await asyncio.to_thread(source.start, options)
        with contextlib.suppress(ConnectionError):  # how it ends: the server says goodbye
            for pause in stream:
                await asyncio.sleep(pause)

    async def _torture(self, name: str, seconds: float) -> None:
        log.info("torture_begins", torture=name)
        await asyncio.sleep(2 * HEARTBEAT_S)
        self._longest_pause = 0.0
        did = await TORTURES[name](seconds)
        await asyncio.sleep(2 * HEARTBEAT_S)
        pause_ms = round(self._longest_pause * 1000)
        log.info("torture_over", torture=name, loop_paused_ms=pause_ms, **did)

    async def _beat(self) -> None:
        while True:
            now = time.monotonic()
            self._longest_pause = max(self._longest_pause, now - self._last_beat)
            self._last_beat = now
            await asyncio.sleep(HEARTBEAT_S)


if __name__ == "__main__":
    Torturer().main()
