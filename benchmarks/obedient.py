"""The `roomserver` command with one thing more: it obeys lines on its standard input.

What the server does is not changed in any way.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import roomserver.app
from roomserver.__main__ import main as command_line
from roomserver.config import Settings


class Obedient(ABC):
    """Obeys standard input, one command a line, in the server's event loop."""

    def __init__(self) -> None:
        self._input = b""
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def obey(self, verb: str, words: Sequence[str]) -> None:
        """Does what a line says; what takes its time is left to `spawn`."""

    def patches(self) -> Sequence[Any]:
        """Further patches under which the server runs, from `unittest.mock`."""
        return ()

    async def run(self, server: Awaitable[int]) -> int:
        """Runs the server, and obeys as long as it runs."""
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self._read)
        try:
            return await server
        finally:
            loop.remove_reader(sys.stdin.fileno())
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def main(self) -> None:
        """Runs the command line."""
        serve = roomserver.app.serve

        def obeying(settings: Settings) -> Awaitable[int]:
            return self.run(serve(settings))

        with ExitStack() as stack:
            for patch in (mock.patch.object(roomserver.app, "serve", obeying), *self.patches()):
                stack.enter_context(patch)
            command_line()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does this beside the server."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            verb, *words = shlex.split(line.decode())
            self.obey(verb, words)
