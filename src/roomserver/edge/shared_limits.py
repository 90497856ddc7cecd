"""Limits that servers count together, in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import ConfigurationError, StorageError

from roomserver.config import ConfigError
from roomserver.edge.limits import LimitStorage

KEY_PREFIX = "roomserver"
ANSWER_S = 0.5  # somebody waits for it
RETRY_S = 5.0

R = TypeVar("R")

log = structlog.stdlib.get_logger("roomserver.limits")


class SharedLimitStorage(LimitStorage):
    """Counts in Redis, and in memory besides: what was counted here is known without asking.

    While Redis is away that is all there is: nobody is refused for it, and nobody goes unlimited.
    Attempts under way are known to their own server alone, so that of those made at once at several
    servers each may let pass what is left of a limit.
    """

    shared = True

    def __init__(self, url: str) -> None:
        """Raises ConfigError when the package for it is not installed."""
        super().__init__()
        try:
            self._redis = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=KEY_PREFIX,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
            )
        except ConfigurationError:
            raise ConfigError(
                "limits_url needs more packages: pip install 'relaycore[redis]'"
            ) from None
        self._retry_at = 0.0

    async def share(self, key: str, expiry: float) -> None:
        await self._ask(self._redis.incr(key, int(expiry)), None)

    async def learn(self, key: str) -> None:
        count, left_s = await self._ask(self._usage(key), (0, 0.0))
        known, known_s = self.usage(key)
        if count > known:
            # Redis says it by the second: that is no other end.
            same = known and abs(known_s - left_s) < 1
            end = self.expirations[key] if same else time.time() + left_s
            self.put(key, count, end)

    async def close(self) -> None:
        """Ends the connections."""
        bridge = self._redis.bridge
        assert isinstance(bridge, RedispyBridge)
        await bridge.storage.aclose()

    async def _usage(self, key: str) -> tuple[int, float]:
        count = await self._redis.get(key)
        if not count:
            return 0, 0.0
        return count, max(await self._redis.get_expiry(key) - time.time(), 0.0)

    async def _ask(self, question: Awaitable[R], unknown: R) -> R:
        """The answer; after one that did not come nothing is asked for a while."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            if asyncio.iscoroutine(question):
                question.close()
            return unknown
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await question
        except (StorageError, OSError, TimeoutError) as error:
            if not self._retry_at:
                log.warning(
                    "limits_not_shared",
                    reason=type(error).__name__,
                    hint="until it is back this server counts by itself",
                )
            self._retry_at = loop.time() + RETRY_S
            return unknown
        if self._retry_at:
            log.info("limits_shared_again")
            self._retry_at = 0.0
        return answer


@asynccontextmanager
async def open_limit_storage(url: str) -> AsyncIterator[LimitStorage]:
    """Where limits count: in Redis if an address is given. Raises ConfigError."""
    if not url:
        yield LimitStorage()
        return
    storage = SharedLimitStorage(url)
    try:
        yield storage
    finally:
        await storage.close()
