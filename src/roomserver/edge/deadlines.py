"""Clocks that nearly always are stopped in time: one timer for all of them."""

from __future__ import annotations

import asyncio
import math
from itertools import takewhile
from typing import Protocol


class Timed(Protocol):
    """What has to be done with something in time; hashed by its identity."""

    def too_slow(self) -> None:
        """The time is over."""


class Deadlines:
    """Tells whoever has not stopped within a time, which is the same for all.

    So those that began first end first, and one timer is enough. A hall makes thousands of
    connections at once, each of which would make and cancel some. One event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[Timed, float] = {}  # by the loop's clock, soonest first
        self._timer: asyncio.TimerHandle | None = None

    def start(self, waiting: Timed) -> None:
        """Its time begins, anew if it runs already."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        self._ends.pop(waiting, None)
        self._ends[waiting] = end
        if self._timer is None:
            self._timer = loop.call_at(end, self._look)

    def stop(self, waiting: Timed) -> None:
        """It was in time."""
        self._ends.pop(waiting, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        over = list(takewhile(lambda waiting: self._ends[waiting] <= now, self._ends))
        try:
            for waiting in over:
                # What one of them does may have stopped another, or started it anew.
                if self._ends.get(waiting, math.inf) <= now:
                    del self._ends[waiting]
                    waiting.too_slow()
        finally:  # whatever one of them raises: the others still have their time
            soonest = next(iter(self._ends.values()), None)
            self._timer = None if soonest is None else loop.call_at(soonest, self._look)
