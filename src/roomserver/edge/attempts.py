"""Attempts with a password: bounded, and refused in one way."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from roomserver.auth.passwords import PoolFullError
from roomserver.edge.failures import Attempt, FailureLimiter, TooManyFailuresError
from roomserver.edge.problems import Problem, ProblemCode

BUSY_RETRY_S = 5.0


@asynccontextmanager
async def password_attempt(
    limiter: FailureLimiter, key: tuple[str, ...], same: Hashable
) -> AsyncIterator[Attempt]:
    """An attempt with a password: 429 after too many failures, 503 when too many wait."""
    try:
        async with limiter.attempt(*key, same=same) as attempt:
            yield attempt
    except TooManyFailuresError as error:
        raise Problem.later(
            ProblemCode.RATE_LIMITED, "too many failed attempts", after_s=error.retry_after_s
        ).audited(retry_s=math.ceil(error.retry_after_s)) from None
    except PoolFullError:
        raise busy() from None


def busy() -> Problem:
    """Too many passwords wait to be checked or hashed."""
    return Problem.later(
        ProblemCode.BUSY, "too many passwords are being checked", after_s=BUSY_RETRY_S
    )
