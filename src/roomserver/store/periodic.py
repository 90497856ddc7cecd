"""What a server does in the database from time to time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import structlog

from roomserver.store.database import DatabaseAwayError

log = structlog.stdlib.get_logger("roomserver.store")


@asynccontextmanager
async def periodically(
    name: str,
    work: Callable[[], Awaitable[object]],
    *,
    interval_s: float,
    ready: Callable[[], bool],
    first_after_s: float | None = None,
) -> AsyncIterator[None]:
    """Does the work again and again; at the end a turn that is under way is broken off.

    A turn that fails is told in the log (`NAME_failed`), and the next one comes all the same.

    Args:
        name: What it is, for the log.
        work: One turn. What it has under way in the database has not happened when it is cancelled.
        interval_s: Between the end of a turn and the next one.
        ready: Whether the database is there and up to date; else a turn is left out.
        first_after_s: Until the first turn; an interval unless told.
    """

    async def run() -> None:
        pause = interval_s if first_after_s is None else first_after_s
        while True:
            await asyncio.sleep(pause)
            pause = interval_s
            try:
                if ready():
                    await work()
            except DatabaseAwayError as error:
                log.debug(f"{name}_waits", reason=str(error))
            except asyncpg.PostgresError as error:
                log.error(f"{name}_failed", reason=str(error))
            except Exception:  # nothing may end this: nobody would notice for as long as it runs
                log.exception(f"{name}_failed")

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
