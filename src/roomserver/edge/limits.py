"""Limits on what clients may try: counted by key, over a window that begins with the first count.

What counts is for each limit to say: failures, where people who are in the right must not be
limited (a hall sits behind one address), else what was done. Attempts under way count too, equal
ones once: a thousand guesses sent at once get no further than a thousand sent one after the other,
and a thousand people with the right password are no failure.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Hashable
from typing import NamedTuple, Self

import limits

from roomserver.config import Settings

# How a brake slows: so much longer with each failure beyond its limit, and no longer than that.
BRAKE_STEP_S = 1.0
BRAKE_MOST_S = 10.0
# Whoever guesses names of rooms, or of accounts, makes a key of each.
MOST_KEYS = 100_000


class Usage(NamedTuple):
    """How much of a limit is left for a key."""

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: float  # until all of it is there again

    @property
    def headers(self) -> dict[str, str]:
        """For the answer, as in the IETF's draft of RateLimit fields."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota};w={self.window_s}',
            "RateLimit": f'"{self.name}";r={self.remaining};t={math.ceil(self.reset_s)}',
        }


class LimitReachedError(Exception):
    """Nothing is left of a limit; `retry_after_s` says when an attempt is admitted again."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name}: limit reached")
        self.name = name
        self.retry_after_s = retry_after_s


class Attempt:
    """One attempt: under way in the block that it manages, over at its end.

    Call `count` when it is one of those that are limited.
    """

    __slots__ = ("_counts", "_key", "_limiter", "_same")

    def __init__(self, limiter: Limiter, key: tuple[str, ...], same: Hashable) -> None:
        self._limiter = limiter
        self._key = key
        self._same = same or self
        self._counts = False

    @property
    def counts(self) -> bool:
        """Whether it is one of those that are limited."""
        return self._counts

    def count(self) -> None:
        """Counts the attempt when it is over."""
        self._counts = True

    async def __aenter__(self) -> Self:
        """Raises LimitReachedError."""
        await self._limiter.learn(self._key)
        self._limiter.begin(self._key, self._same)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._limiter.end(self._key, self._same, counts=self._counts)


class LimitStorage:
    """Counts in memory.

    The library's own looks through all keys for expired ones with every count, which with a key for
    each of some thousand listeners would take longer than the rest of a join.
    """

    shared = False
    """Whether other servers count too, so that `learn` and `share` take their time."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        """most_keys: how many it counts by; of more, it forgets those that end soonest."""
        self.storage: dict[str, int] = {}
        self.expirations: dict[str, float] = {}
        self._most_keys = most_keys
        # When keys end, soonest first; those that have got another end since stand here twice.
        self._ends: list[tuple[float, str]] = []

    def count(self, key: str, expiry: float) -> None:
        """One more, forgotten so many seconds after the first."""
        now = time.time()
        if self.expirations.get(key, 0.0) > now:
            self.storage[key] += 1
        else:
            self.put(key, 1, now + expiry)

    def put(self, key: str, count: int, end: float) -> None:
        """The count of a key until then (Unix s)."""
        self.storage[key] = count
        if self.expirations.get(key) == end:
            return
        self.expirations[key] = end
        heapq.heappush(self._ends, (end, key))
        # One comes and up to two go, so that nobody waits while all are looked through.
        now = time.time()
        for _ in range(2):
            if self._ends and self._ends[0][0] <= now:
                self._forget_next()
        while len(self.expirations) > self._most_keys:
            self._forget_next()

    def usage(self, key: str) -> tuple[int, float]:
        """How much was counted, and for how many seconds it still is."""
        left_s = self.expirations.get(key, 0.0) - time.time()
        return (self.storage[key], left_s) if left_s > 0 else (0, 0.0)

    async def learn(self, key: str) -> None:
        """Takes over what other servers counted, if they count together."""

    async def share(self, key: str, expiry: float) -> None:
        """Tells them of what `count` counted here."""

    def _forget_next(self) -> None:
        end, key = heapq.heappop(self._ends)
        if self.expirations.get(key) == end:
            del self.expirations[key]
            del self.storage[key]


class Limiter:
    """One limit.

    Args:
        name: Keeps the keys of limiters apart that share a storage, and is told to clients.
        limit: `10 per 5 minutes`.
        storage: Where it counts.
    """

    def __init__(self, name: str, limit: str, storage: LimitStorage) -> None:
        self.name = name
        item = limits.parse(limit)
        self._quota = item.amount
        self._window_s = item.get_expiry()
        self._storage = storage
        self._running: dict[tuple[str, ...], dict[Hashable, int]] = {}

    def usage(self, *key: str) -> Usage:
        """How much is left, attempts under way not counted."""
        used, reset_s = self._storage.usage(self._key(key))
        return Usage(self.name, self._quota, self._window_s, max(self._quota - used, 0), reset_s)

    def attempt(self, *key: str, same: Hashable = None) -> Attempt:
        """An attempt; those with an equal `same` are one while they are under way, None is unique.

        Its block raises LimitReachedError at its beginning.
        """
        return Attempt(self, key, same)

    async def learn(self, key: tuple[str, ...]) -> None:
        """Knows of what other servers counted, as far as they count together."""
        await self._storage.learn(self._key(key))

    def begin(self, key: tuple[str, ...], same: Hashable) -> None:
        """An attempt is under way now. Raises LimitReachedError when it may not be."""
        used, reset_s = self._used(key, same)
        if used >= self._quota:
            raise LimitReachedError(self.name, reset_s)
        running = self._running.get(key, {})
        running[same] = running.get(same, 0) + 1
        self._running[key] = running

    async def end(self, key: tuple[str, ...], same: Hashable, *, counts: bool) -> None:
        """It is over, and counts or not."""
        if counts:
            self._storage.count(self._key(key), self._window_s)
        running = self._running[key]
        running[same] -= 1
        if not running[same]:
            del running[same]
        if not running:
            del self._running[key]
        if counts:
            await self._storage.share(self._key(key), self._window_s)

    def admits(self, key: tuple[str, ...], same: Hashable = None) -> bool:
        """Whether an attempt may be made that is over at once; False when others must be asked."""
        return not self._storage.shared and self._used(key, same)[0] < self._quota

    def count(self, key: tuple[str, ...]) -> None:
        """Counts such an attempt."""
        self._storage.count(self._key(key), self._window_s)

    def _used(self, key: tuple[str, ...], same: Hashable) -> tuple[int, float]:
        """Of the quota, by other attempts than this, and seconds until the counted ones are not."""
        used, reset_s = self._storage.usage(self._key(key))
        running = self._running.get(key, ())
        return used + len(running) - (same in running), reset_s

    def _key(self, key: tuple[str, ...]) -> str:
        return "\0".join((self.name, *key))  # which no text from outside contains


class Brake:
    """Slows what fails too often, and refuses nobody: else anyone could lock an account."""

    def __init__(self, name: str, limit: str, storage: LimitStorage) -> None:
        self._name = name
        self._limit = limits.parse(limit)
        self._storage = storage

    async def wait(self, key: str) -> None:
        """Takes the longer the more failures there were beyond the limit."""
        await self._storage.learn(self._key(key))
        failures, _ = self._storage.usage(self._key(key))
        beyond = failures - self._limit.amount + 1
        if beyond > 0:
            await asyncio.sleep(min(beyond * BRAKE_STEP_S, BRAKE_MOST_S))

    async def failed(self, key: str) -> None:
        """Counts a failure."""
        self._storage.count(self._key(key), self._limit.get_expiry())
        await self._storage.share(self._key(key), self._limit.get_expiry())

    def _key(self, key: str) -> str:
        return self._limit.key_for(self._name, key)


class Limits:
    """All limits of the REST interface.

    Who invents names of rooms and accounts has a key for each. So failures count by the address
    alone besides.
    """

    def __init__(self, settings: Settings, storage: LimitStorage) -> None:
        self.login = Limiter("login", settings.login_limit, storage)
        self.login_address = Limiter("login_address", settings.login_address_limit, storage)
        self.login_brake = Brake("login_account", settings.login_account_limit, storage)
        self.refresh = Limiter("refresh", settings.refresh_limit, storage)
        self.register = Limiter("register", settings.register_limit, storage)
        self.create = Limiter("create", settings.create_limit, storage)
        self.join_failures = Limiter("join", settings.join_limit, storage)
        self.join_address = Limiter("join_address", settings.join_address_limit, storage)
        self.joins = Limiter("joins", settings.join_success_limit, storage)
