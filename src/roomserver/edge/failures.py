"""Limits on failures: of logins and joins. A hall sits behind one address, so people don't count.

Attempts under way count too, equal ones once: a thousand guesses sent at once get no further than
a thousand sent one after the other, and a thousand people with the right password are no failure.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter


class TooManyFailuresError(Exception):
    """The limit is reached; `retry_after_s` says when an attempt is admitted again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many failures")
        self.retry_after_s = retry_after_s


class Attempt:
    """One attempt under way; call `failed` when it was a failure."""

    def __init__(self) -> None:
        self.is_failure = False

    def failed(self) -> None:
        """Counts the attempt."""
        self.is_failure = True


class FailureLimiter:
    """Counts failures by key, over a window that begins with the first of them.

    Args:
        name: Keeps the keys of limiters apart that share a storage.
        limit: `10 per 5 minutes`.
        storage: Where it counts.
    """

    def __init__(self, name: str, limit: str, storage: MemoryStorage) -> None:
        self._name = name
        self._limit = limits.parse(limit)
        self._window = FixedWindowRateLimiter(storage)
        self._running: dict[tuple[str, ...], Counter[Hashable]] = {}

    @asynccontextmanager
    async def attempt(self, *key: str, same: Hashable = None) -> AsyncIterator[Attempt]:
        """An attempt; those with an equal `same` are one while they are under way.

        Raises TooManyFailuresError.
        """
        stats = await self._window.get_window_stats(self._limit, self._name, *key)
        running = self._running.setdefault(key, Counter())
        if stats.remaining - len(running.keys() - {same}) <= 0:
            if not running:
                del self._running[key]
            raise TooManyFailuresError(max(stats.reset_time - time.time(), 0.0))
        running[same] += 1
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if attempt.is_failure:
                await self._window.hit(self._limit, self._name, *key)
            running[same] -= 1
            if running[same] <= 0:
                del running[same]
            if not running and self._running.get(key) is running:
                del self._running[key]
