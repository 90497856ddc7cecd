"""Whether the database answers: asked once for all who want to know it in the same second.

Anybody may ask a server whether it is ready, as often as they like.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from roomserver.store.database import Database, DatabaseAwayError

WITHIN_S = 1.0
KEPT_S = 1.0  # how long an answer holds


class Probe:
    """The question and its newest answer. One event loop."""

    def __init__(self, database: Database, now: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._now = now
        self._asking: asyncio.Task[bool] | None = None  # or what was answered
        self._until = 0.0  # it holds so long

    async def answers(self) -> bool:
        """Whether the database answers, within a second."""
        if self._asking is None or (self._asking.done() and self._now() >= self._until):
            self._asking = asyncio.create_task(self._ask())
        # One caller going away must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Ends what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> bool:
        try:
            async with self._database.transaction(within_s=WITHIN_S) as connection:
                await connection.execute("SELECT 1")
        except DatabaseAwayError:
            return False
        finally:
            self._until = self._now() + KEPT_S
        return True
