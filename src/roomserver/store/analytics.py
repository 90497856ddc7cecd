"""What rooms were, day by day: `relay.room_analytics`, made of the stays by `sql/analytics.sql`.

A day is made again as long as its stays are kept, and comes out the same. Before stays are deleted
their days become final (`finish_days`): from then on they are left as they are.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files

from roomserver.store.database import Connection, Database

# Of several servers one at a time does it; any number that nothing else locks.
LOCK_KEY = 0x616E616C79  # "analy"
# After so long even what waited in an outbox has come.
SETTLED_AFTER = timedelta(days=8)
DAY = timedelta(days=1)
# How many days are made by one statement, and how long that may take.
STEP = timedelta(days=31)
STEP_S = 300.0
# Somebody waits for it.
REFRESH_S = 5.0
FIRST_DAY = "SELECT (min(joined_at) AT TIME ZONE 'UTC')::date FROM relay.room_participants"
FINISH = "UPDATE relay.room_analytics SET final = true WHERE date < $1 AND NOT final"
COMPUTE = (files("roomserver.store") / "sql" / "analytics.sql").read_text("utf-8")


async def compute_days(
    connection: Connection,
    since: date,
    until: date,
    *,
    room: str | None = None,
    now: datetime | None = None,
) -> None:
    """Makes the days from `since` to before `until` (UTC) that are not final, of a room or of all.

    now: until when stays that go on are counted; None is the database's clock.
    """
    while since < until:
        step = min(until, since + STEP)
        await connection.execute(COMPUTE, since, step, room, now, timeout=STEP_S)
        since = step


async def finish_days(connection: Connection, before: date) -> None:
    """Makes the days before this one a last time, and final.

    For the transaction that deletes stays: those that ended before the midnight (UTC) with which
    `before` begins may go, and no others.
    """
    first = await connection.fetchval(FIRST_DAY)
    if first is not None and first < before:
        await compute_days(connection, first, before)
    await connection.execute(FINISH, before)


class Analytics:
    """Keeps the days up to date. One event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._refreshing = asyncio.Lock()  # readers must not load the database with more than one
        self._settled: date | None = None  # the day on which the days before were made last

    async def compute(self) -> bool:
        """Makes yesterday and today; once a day everything that may have changed.

        False: another server is at it. Raises DatabaseAwayError.
        """
        today = _today()
        since = today - DAY if self._settled == today else today - SETTLED_AFTER
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", LOCK_KEY):
                return False
            await compute_days(connection, since, today + DAY)
        self._settled = today
        return True

    async def refresh(self, room: str, since: date, until: date) -> None:
        """Makes yesterday and today of one room, as far as they are asked for.

        Raises DatabaseAwayError.
        """
        today = _today()
        since, until = max(since, today - DAY), min(until, today + DAY)
        if since < until:
            async with (
                self._refreshing,
                self._database.transaction(within_s=REFRESH_S) as connection,
            ):
                await compute_days(connection, since, until, room=room)


def _today() -> date:
    return datetime.now(UTC).date()
