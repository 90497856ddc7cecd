"""What a server's own PostgreSQL holds, as somebody else sees it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import asyncpg

from roomserver.store.embedded import EmbeddedPostgres

POLL_S: Final = 0.02

TAKEN_OVER: Final = "SELECT coalesce(sum(last_seq), 0)::bigint FROM relay.outbox_progress"
STAYS: Final = "SELECT count(*) FROM relay.room_participants"


class Observer:
    """A connection of its own to the private PostgreSQL of a server that runs; close it."""

    def __init__(self, data_dir: Path) -> None:
        self._loop = asyncio.new_event_loop()
        options = EmbeddedPostgres(data_dir).connection
        self._connection = self._loop.run_until_complete(asyncpg.connect(**options))

    def value(self, query: str) -> Any:
        """The first value of the answer."""
        return self._loop.run_until_complete(self._connection.fetchval(query))

    def wait_for(self, query: str, least: int, timeout_s: float) -> float:
        """Waits until the value is at least this; the seconds it took. Raises TimeoutError."""
        began = time.monotonic()
        while (value := self.value(query)) < least:
            if time.monotonic() - began > timeout_s:
                raise TimeoutError(f"{value} instead of {least} after {timeout_s:g} s: {query}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def close(self) -> None:
        """Disconnects."""
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()
