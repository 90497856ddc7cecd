"""What is kept for a while only: audit lines, people's addresses, who was in a room, and tokens.

Done in batches, each a short transaction of its own. Of several servers one at a time does it:
whoever finds another at it leaves the rest to that one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

import structlog

from roomserver.config import Settings
from roomserver.store.analytics import FIRST_DAY, finish_days
from roomserver.store.analytics import LOCK_KEY as ANALYTICS_LOCK_KEY
from roomserver.store.database import Connection, Database
from roomserver.store.records import KEEP_INVITES_S

LOCK_KEY = 0x7075726765  # "purge"; any number that nothing else locks
LOCK_POLL_S = 0.2
BATCH = 5000
# Days that are made final in one transaction.
STEP = timedelta(days=30)
LOCK_WITHIN_S = 60.0  # computing the figures of some days takes less
EVER = datetime(1, 1, 1, tzinfo=UTC)  # before anything

ADDRESSED = "(ip_address IS NOT NULL OR user_agent IS NOT NULL)"
# What of a dead letter's payload tells where somebody was; what could not be read may, all of it.
PLACES = (
    "'{stay,address}', '{stay,user_agent}', '{record,address}', '{record,user_agent}',"
    " '{room,bans}', '{data}'"
)
PLACED = f"payload #- {' #- '.join(PLACES.split(', '))}"

log = structlog.stdlib.get_logger("roomserver.retention")


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows to which something is done when they are old enough by a column."""

    table: str
    column: str
    where: str
    change: str  # as SQL, up to its WHERE

    @property
    def count(self) -> str:
        """How many rows there are from $1 to before $2."""
        return f"""
            SELECT count(*) FROM {self.table}
            WHERE {self.column} >= $1 AND {self.column} < $2 AND {self.where}
        """  # noqa: S608 - ours

    @property
    def batch(self) -> str:
        """Changes the first $3 of them; how many those were, and up to when."""
        return f"""
            WITH old AS (
                SELECT id, {self.column} AS at FROM {self.table}
                WHERE {self.column} >= $1 AND {self.column} < $2 AND {self.where}
                ORDER BY {self.column} LIMIT $3
            ), done AS ({self.change} WHERE id IN (SELECT id FROM old))
            SELECT count(*) AS rows, max(at) AS until FROM old
        """  # noqa: S608 - ours


AUDIT = "relay.audit_log"
STAYS = "relay.room_participants"
LETTERS = "relay.dead_letters"
PRESETS = "relay.mix_presets"
TOKENS = "relay.refresh_tokens"
ACCOUNT_INVITES = "relay.account_invites"
ROOM_INVITES = "relay.invites"
# Of listeners without an account, whom nobody knows again once their room token is over.
KEEP_GUESTS_PRESETS_DAYS = 30
NO_ADDRESS = "SET ip_address = NULL, user_agent = NULL"
OLD_AUDIT = Rule(AUDIT, "created_at", "true", f"DELETE FROM {AUDIT}")  # noqa: S608
OLD_LETTERS = Rule(LETTERS, "created_at", "true", f"DELETE FROM {LETTERS}")  # noqa: S608
OLD_PRESETS = Rule(PRESETS, "updated_at", "user_id IS NULL", f"DELETE FROM {PRESETS}")  # noqa: S608
OLD_STAYS = Rule(STAYS, "left_at", "true", f"DELETE FROM {STAYS}")  # noqa: S608
OLD_TOKENS = Rule(TOKENS, "expires_at", "true", f"DELETE FROM {TOKENS}")  # noqa: S608
OLD_ACCOUNT_INVITES = Rule(
    ACCOUNT_INVITES,
    "expires_at",
    "true",
    f"DELETE FROM {ACCOUNT_INVITES}",  # noqa: S608
)
OLD_ROOM_INVITES = Rule(ROOM_INVITES, "expires_at", "true", f"DELETE FROM {ROOM_INVITES}")  # noqa: S608
AUDIT_ADDRESSES = Rule(AUDIT, "created_at", ADDRESSED, f"UPDATE {AUDIT} {NO_ADDRESS}")
STAY_ADDRESSES = Rule(STAYS, "left_at", ADDRESSED, f"UPDATE {STAYS} {NO_ADDRESS}")
LETTER_ADDRESSES = Rule(
    LETTERS,
    "created_at",
    f"payload <> {PLACED}",
    f"UPDATE {LETTERS} SET payload = {PLACED}",  # noqa: S608
)


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows were, or would be, deleted or lost an address."""

    audit: int = 0
    participants: int = 0
    addresses: int = 0
    dead_letters: int = 0
    presets: int = 0
    refresh_tokens: int = 0
    invites: int = 0


class AnotherPurgesError(Exception):
    """Another server is at it."""


class Retention:
    """Forgets what has been kept long enough. One event loop."""

    def __init__(
        self,
        database: Database,
        *,
        audit_days: int,
        addresses_days: int,
        participants_days: int,
        batch: int = BATCH,
    ) -> None:
        """How many days each is kept; 0 is for ever."""
        self._database = database
        self._audit_days = audit_days
        self._addresses_days = addresses_days
        self._participants_days = participants_days
        self._batch = batch

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Retention:
        """As the settings say."""
        return cls(
            database,
            audit_days=settings.keep_audit_days,
            addresses_days=settings.keep_addresses_days,
            participants_days=settings.keep_participants_days,
        )

    async def look(self) -> Purged:
        """What `purge` would do now. Raises DatabaseAwayError."""

        async def count(rule: Rule, since: datetime, before: datetime) -> int:
            async with self._database.transaction() as connection:
                rows: int = await connection.fetchval(rule.count, since, before)
                return rows

        return await self._every(count)

    async def purge(self) -> Purged:
        """Forgets what has to be forgotten now, and says how much that was.

        Raises DatabaseAwayError and AnotherPurgesError; what was done until then stays done.
        """
        return await self._every(self._change)

    async def turn(self) -> None:
        """Purges as a server does it from time to time. Raises DatabaseAwayError."""
        try:
            log.info("purged", **asdict(await self.purge()))
        except AnotherPurgesError:
            log.debug("purge_left_to_another")

    async def _every(self, each: Callable[[Rule, datetime, datetime], Awaitable[int]]) -> Purged:
        """Each rule with the times that it is about."""
        async with self._database.transaction() as connection:
            now: datetime = await connection.fetchval("SELECT now()")

        def before(days: int) -> datetime:
            return now - timedelta(days=days) if days else EVER

        audit, addresses = before(self._audit_days), before(self._addresses_days)
        # Whole days, whose figures are made before their stays go.
        stays = _midnight(before(self._participants_days))
        return Purged(
            audit=await each(OLD_AUDIT, EVER, audit),
            dead_letters=await each(OLD_LETTERS, EVER, audit),
            presets=await each(OLD_PRESETS, EVER, before(KEEP_GUESTS_PRESETS_DAYS)),
            # Nobody can use them any more; those for accounts administrators may look at yet.
            refresh_tokens=await each(OLD_TOKENS, EVER, now),
            invites=await each(OLD_ROOM_INVITES, EVER, now)
            + await each(OLD_ACCOUNT_INVITES, EVER, now - timedelta(seconds=KEEP_INVITES_S)),
            participants=await each(OLD_STAYS, EVER, stays),
            # Of what does not go altogether.
            addresses=await each(AUDIT_ADDRESSES, audit, addresses)
            + await each(LETTER_ADDRESSES, audit, addresses)
            + await each(STAY_ADDRESSES, stays, addresses),
        )

    async def _change(self, rule: Rule, since: datetime, before: datetime) -> int:
        if rule is not OLD_STAYS:
            return await self._batches(rule, since, before)
        if before == EVER:
            return 0
        rows = 0
        async for step in self._finished(before.date()):
            rows += await self._batches(rule, since, _midnight(step))
        return rows

    async def _batches(self, rule: Rule, since: datetime, before: datetime) -> int:
        rows = 0
        while since < before:
            async with self._alone(LOCK_KEY) as connection:
                done = await connection.fetchrow(rule.batch, since, before, self._batch)
            assert done is not None
            rows += done["rows"]
            if done["rows"] < self._batch:
                break
            since = done["until"]  # those of this very moment may not have been all
        return rows

    async def _finished(self, horizon: date) -> AsyncIterator[date]:
        """Makes the days before the horizon final, some at a time: up to when they are now."""
        step = date.min
        while step < horizon:
            async with self._alone(ANALYTICS_LOCK_KEY) as connection:
                first: date | None = await connection.fetchval(FIRST_DAY)
                # Of a stay that still goes on the first day stays the same.
                step = horizon if first is None else min(max(first, step) + STEP, horizon)
                await finish_days(connection, step)
            yield step

    @asynccontextmanager
    async def _alone(self, key: int) -> AsyncIterator[Connection]:
        """A transaction in which nobody else has this lock. Raises AnotherPurgesError."""
        end = time.monotonic() + LOCK_WITHIN_S
        while True:
            async with self._database.transaction() as connection:
                if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", key):
                    yield connection
                    return
            if key == LOCK_KEY or time.monotonic() > end:
                raise AnotherPurgesError("another server is at it")
            await asyncio.sleep(LOCK_POLL_S)


def _midnight(day: date) -> datetime:
    """With which a day begins (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
