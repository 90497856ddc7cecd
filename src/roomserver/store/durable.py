"""The store that survives: everything goes to the outbox at once, and from there to PostgreSQL.

Start order: what waits in the outbox is taken over, then stays that nobody ended are ended, then
rooms are taken up. While the database is away the snapshot beside the outbox stands in for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence

import structlog

from roomserver.protocol.codes import RoomState
from roomserver.store.database import Database, DatabaseAwayError
from roomserver.store.drain import Drain
from roomserver.store.events import Audited, Joined, Left, RoomChanged
from roomserver.store.figures import DatabaseState, StoreFigures
from roomserver.store.interfaces import CodeTakenError
from roomserver.store.membership import HEARTBEAT_S, Membership
from roomserver.store.memory import CODE_REST_S, log_audit
from roomserver.store.migrations import MigrationError
from roomserver.store.outbox import SHARES, Outbox
from roomserver.store.records import AuditRecord, ParticipantRecord, RoomRecord

# How long a caller waits to hear that the database has it too.
PERSISTED_WITHIN_S = 1.0
# How long a start waits for what an earlier run left.
REPLAY_WITHIN_S = 30.0
RELEASE_WITHIN_S = 2.0
REACHED_WITHIN_S = 1.0
REJOIN_S = 1.0

CODE_TAKEN = """
SELECT EXISTS (
    SELECT FROM relay.audio_rooms
    WHERE code = $1 AND (active OR closed_at > now() - make_interval(secs => $2))
)
"""

log = structlog.stdlib.get_logger("roomserver.store")


class DurableRoomStore:
    """Implements `RoomStore`. One event loop."""

    def __init__(
        self,
        outbox: Outbox,
        database: Database,
        *,
        url: str,
    ) -> None:
        """url: where clients find this server."""
        self._claimed: Callable[[Sequence[RoomRecord]], None] = lambda _: None
        self._outbox = outbox
        self._database = database
        self._rooms: dict[str, RoomRecord] = {}  # open here
        self._drain = Drain(
            outbox, database, server_id=outbox.stream_id, room=lambda room: self._rooms.get(room)
        )
        self._membership = Membership(database, outbox.stream_id, url)
        self._joined = False
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the database is there and has not fallen behind."""
        return self._joined and self._drain.away is None

    def on_claimed(self, claimed: Callable[[Sequence[RoomRecord]], None]) -> None:
        """Tells of rooms that this server takes up while it runs."""
        self._claimed = claimed

    async def open(self) -> None:
        """Begins, with the database if it is there. Raises MigrationError."""
        with contextlib.suppress(DatabaseAwayError):
            await self._join()
        if not self._joined:
            log.warning("database_away_at_start", hint="rooms are those this server last knew")
        self._task = asyncio.create_task(self._live())

    async def create_room(self, room: RoomRecord) -> bool:
        taken = any(room.code == other.code for other in self._rooms.values())
        with contextlib.suppress(DatabaseAwayError):
            if not taken and self._joined:
                async with self._database.transaction(within_s=PERSISTED_WITHIN_S) as connection:
                    taken = await connection.fetchval(CODE_TAKEN, room.code, CODE_REST_S)
        if taken:
            raise CodeTakenError(room.code)
        await self._outbox.append(RoomChanged(room))
        self._rooms[room.id] = room
        return await self._taken_over(PERSISTED_WITHIN_S)

    def room_changed(self, room: RoomRecord) -> None:
        self._remember(room)
        self._outbox.append_soon(RoomChanged(room))

    async def keep_room(self, room: RoomRecord) -> None:
        await self._outbox.append(RoomChanged(room))
        self._remember(room)

    async def open_rooms(self) -> Sequence[RoomRecord]:
        snapshot = await self._outbox.rooms()
        self._rooms = {room.id: room for room in snapshot}
        with contextlib.suppress(DatabaseAwayError):
            if self._joined:
                claimed = {room.id: room for room in await self._membership.claim(own=True)}
                if self._outbox.waiting == 0:
                    self._rooms = claimed
                else:  # what the database has not been told yet is newer here
                    newer = {
                        room.id: room
                        for room in snapshot
                        if room.id not in claimed or claimed[room.id].version < room.version
                    }
                    self._rooms = claimed | newer
                await self._outbox.replace_rooms(list(self._rooms.values()))
        return list(self._rooms.values())

    def participant_joined(self, participant: ParticipantRecord) -> None:
        self._outbox.append_soon(Joined(participant))

    def participant_left(self, participant: ParticipantRecord) -> None:
        self._outbox.append_soon(Left(participant))

    def audit(self, record: AuditRecord) -> None:
        self._outbox.append_soon(Audited(str(uuid.uuid4()), record))
        log_audit(record)

    def figures(self) -> StoreFigures:
        dropped = self._outbox.dropped
        return StoreFigures(
            database=DatabaseState.UP if self.ready else DatabaseState.AWAY,
            waiting=self._outbox.waiting,
            capacity=self._outbox.capacity,
            # Of each that may be dropped, so that the first one is seen as a change.
            dropped={weight.name.lower(): dropped.get(weight, 0) for weight in SHARES},
            dead_letters=self._drain.dead_letters,
        )

    async def reachable(self) -> bool:
        if not self.ready:
            return False
        try:
            async with self._database.transaction(within_s=REACHED_WITHIN_S) as connection:
                await connection.execute("SELECT 1")
        except DatabaseAwayError:
            return False
        return True

    async def written(self) -> None:
        await self._outbox.flush()

    async def close(self) -> None:
        """Hands over what waits, if that is quickly done, and leaves the rooms to others."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._joined and await self._taken_over(RELEASE_WITHIN_S):
            with contextlib.suppress(DatabaseAwayError, TimeoutError):
                await asyncio.wait_for(self._membership.release(), RELEASE_WITHIN_S)
        await self._drain.stop()
        await self._outbox.close()

    def _remember(self, room: RoomRecord) -> None:
        if room.state is RoomState.CLOSED:
            self._rooms.pop(room.id, None)
        else:
            self._rooms[room.id] = room

    async def _join(self) -> None:
        await self._membership.register()
        self._drain.start()
        if not await self._taken_over(REPLAY_WITHIN_S):
            log.warning("outbox_waits", events=self._outbox.waiting)
        await self._membership.end_stays()
        self._joined = True

    async def _taken_over(self, within_s: float) -> bool:
        """Whether the database has everything, waiting for it that long."""
        if self._drain.away is not None:
            return False
        try:
            async with asyncio.timeout(within_s):
                await self._drain.empty()
        except TimeoutError:
            return False
        return True

    async def _live(self) -> None:
        """Heartbeats, and rooms that others left; joins when a database that was away is there."""
        while True:
            await asyncio.sleep(HEARTBEAT_S if self._joined else REJOIN_S)
            try:
                if not self._joined:
                    await self._join()
                    log.info("database_joined")
                await self._membership.beat()
                if claimed := await self._membership.claim(own=False):
                    self._rooms |= {room.id: room for room in claimed}
                    await self._outbox.replace_rooms(list(self._rooms.values()))
                    self._claimed(claimed)
            except DatabaseAwayError as error:
                log.debug("heartbeat_missed", reason=str(error))
            except MigrationError as error:
                log.error("database_unusable", reason=str(error))
