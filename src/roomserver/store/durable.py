"""The store that survives: everything goes to the outbox at once, and from there to PostgreSQL.

Start order: what waits in the outbox is taken over, then stays that nobody ended are ended, then
rooms are taken up. While the database is away the snapshot beside the outbox stands in for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence

import structlog

from roomserver.ids import new_id
from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.database import Database, DatabaseAwayError
from roomserver.store.drain import Drain
from roomserver.store.events import Audited, Counted, Joined, Left, RoomChanged, Weight
from roomserver.store.faultpoints import fault_point
from roomserver.store.figures import DatabaseState, StoreFigures
from roomserver.store.interfaces import CodeTakenError, OpenRooms
from roomserver.store.lookups import Lookups
from roomserver.store.membership import LEASE_S, Membership, Stray
from roomserver.store.memory import CODE_REST_S, log_audit
from roomserver.store.outbox import SHARES, Outbox, OutboxError
from roomserver.store.probe import Probe
from roomserver.store.records import AuditRecord, Elsewhere, ParticipantRecord, RoomRecord

# How long a caller waits to hear that the database has it too.
PERSISTED_WITHIN_S = 1.0
# How long a start waits for what an earlier run left.
REPLAY_WITHIN_S = 30.0
RELEASE_WITHIN_S = 2.0
REJOIN_S = 1.0
# Closings that come by themselves; all others somebody wanted.
LAPSED = frozenset({RoomCloseReason.SOURCE_GONE, RoomCloseReason.EXPIRED})

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
        lease_s: float = LEASE_S,
    ) -> None:
        """url: where clients find this server.
        lease_s: how long it keeps its rooms without a sign of life in the database.
        """
        self._here: OpenRooms | None = None
        self._outbox = outbox
        self._database = database
        self._rooms: dict[str, RoomRecord] = {}  # open here
        self._drain = Drain(
            outbox, database, server_id=outbox.stream_id, room=lambda room: self._rooms.get(room)
        )
        self._membership = Membership(database, outbox.stream_id, url, lease_s)
        self._replay_to = outbox.last_seq
        self._joined = False
        self._cut_off: str | None = None  # why the last heartbeat failed
        self._snapshot_due = False
        self._own_due = False  # rooms may be ours that the answer did not come of
        self._pending: dict[str, RoomRecord] = {}  # on the way to the disk
        self._closed: set[str] | None = None  # rooms closed here while the own ones are asked for
        self._ends_lost = 0  # of stays: so many were lost when those were last looked for
        self._claiming = asyncio.Lock()
        self._lookups = Lookups(
            self._membership.locate, claim=self._claim, is_here=lambda room: room in self._rooms
        )
        self._probe = Probe(database)
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the database is there and has not fallen behind."""
        return self._joined and self._drain.away is None and self._cut_off is None

    def serve(self, rooms: OpenRooms) -> None:
        """Tells these rooms of what other servers do; `open_rooms` comes first."""
        self._here = rooms

    async def open(self) -> None:
        """Begins, with the database if it is there. Raises MigrationError."""
        try:
            await self._join()
        except DatabaseAwayError as error:
            log.warning(
                "database_away_at_start",
                reason=str(error),
                hint="rooms are those this server last knew",
            )
        self._task = asyncio.create_task(self._live())

    async def create_room(self, room: RoomRecord) -> bool:
        taken = any(room.code == other.code for other in self._rooms.values())
        with contextlib.suppress(DatabaseAwayError):
            if not taken and self._joined:
                async with self._database.transaction(within_s=PERSISTED_WITHIN_S) as connection:
                    taken = await connection.fetchval(CODE_TAKEN, room.code, CODE_REST_S)
        if taken:
            raise CodeTakenError(room.code)
        self._pending[room.id] = room
        try:
            seq = await self._outbox.append(RoomChanged(room))
        finally:
            del self._pending[room.id]
        fault_point("create:kept")
        self._rooms[room.id] = room
        return await self._taken_over(seq, PERSISTED_WITHIN_S)

    def room_changed(self, room: RoomRecord) -> None:
        self._remember(room)
        self._outbox.append_soon(RoomChanged(room))

    async def keep_room(self, room: RoomRecord) -> None:
        self._pending[room.id] = room
        try:
            await self._outbox.append(RoomChanged(room))
        finally:
            if self._pending.get(room.id) is room:
                del self._pending[room.id]
        ours = self._rooms.get(room.id)
        if ours is not None and ours.version < room.version:
            self._remember(room)

    async def open_rooms(self) -> Sequence[RoomRecord]:
        self._rooms = {room.id: room for room in await self._outbox.rooms()}
        with contextlib.suppress(DatabaseAwayError):
            if self._joined:
                await self._take_own()
        return list(self._rooms.values())

    def participant_joined(self, participant: ParticipantRecord) -> None:
        self._outbox.append_soon(Joined(participant))

    def participant_counted(self, participant: ParticipantRecord) -> None:
        self._outbox.append_soon(Counted(participant))

    def participant_left(self, participant: ParticipantRecord) -> None:
        self._outbox.append_soon(Left(participant))

    def audit(self, record: AuditRecord) -> None:
        self._outbox.append_soon(Audited(new_id(), record))
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
        return self.ready and await self._probe.answers()

    async def written(self) -> None:
        await self._outbox.flush()

    @property
    def shared(self) -> bool:
        return True

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        if not guess and name in self._rooms:
            return None  # of what is here others know nothing
        try:
            if not self.ready:  # nobody waits for a database that is known to be away
                raise DatabaseAwayError("rooms that are not here can't be looked up")
            return await self._lookups.find(name, guess=guess)
        except DatabaseAwayError as error:
            log.debug("room_not_located", reason=str(error))
            if not guess:
                raise
            return None

    async def close(self) -> None:
        """Hands over what waits, if that is quickly done, and leaves the rooms to others."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._lookups.close()
        await self._probe.close()
        if self._joined and await self._everything_taken_over(RELEASE_WITHIN_S):
            with contextlib.suppress(DatabaseAwayError, TimeoutError):
                await asyncio.wait_for(self._membership.release(), RELEASE_WITHIN_S)
        await self._drain.stop()
        await self._outbox.close()

    def _remember(self, room: RoomRecord) -> None:
        if room.state is RoomState.CLOSED:
            self._rooms.pop(room.id, None)
            if self._closed is not None:
                self._closed.add(room.id)
        else:
            self._rooms[room.id] = room

    # ---- the database, and the other servers on it ----

    async def _join(self) -> None:
        """What an earlier run left is taken over, then its stays are ended.

        Raises DatabaseAwayError and MigrationError.
        """
        await self._membership.register()
        self._drain.start()
        if not await self._taken_over(self._replay_to, REPLAY_WITHIN_S):
            raise DatabaseAwayError(f"{self._outbox.waiting} events wait in the outbox")
        await self._membership.end_stays(self._living)
        self._joined = True

    async def _taken_over(self, seq: int, within_s: float) -> bool:
        """Whether the database has everything up to this number, waiting for it that long."""
        try:
            async with asyncio.timeout(within_s):
                if self._drain.away is None:
                    await self._drain.reached(seq)
                    return True
        except TimeoutError:
            pass
        return False

    async def _everything_taken_over(self, within_s: float) -> bool:
        try:
            return await self._taken_over(await self._outbox.flush(), within_s)
        except OutboxError:
            return False

    async def _live(self) -> None:
        """Heartbeats, and rooms that others left; joins when a database that was away is there."""
        while True:
            await asyncio.sleep(self._membership.heartbeat_s if self._joined else REJOIN_S)
            known = self._joined
            try:
                await self._beat()
                self._cut_off = None
                if not known:
                    log.info("database_joined")
            except DatabaseAwayError as error:
                log.debug("heartbeat_missed", reason=str(error))
                self._cut_off = str(error)
            except Exception as error:  # without heartbeats others would take the rooms
                if self._cut_off is None:
                    log.exception("heartbeat_failed", kind=type(error).__name__)
                self._cut_off = type(error).__name__

    async def _beat(self) -> None:
        if not self._joined:
            await self._join()
            self._own_due = self._here is not None
        if self._own_due and self._here is not None:
            # What was closed here meanwhile is open there until all is told.
            if not await self._everything_taken_over(REPLAY_WITHIN_S):
                raise DatabaseAwayError(f"{self._outbox.waiting} events wait in the outbox")
            await self._take_own()
            self._here.take_up(list(self._rooms.values()))
        await self._membership.beat()
        await self._claim()
        await self._settle()
        await self._end_lost_stays()
        if self._snapshot_due:
            await self._replace_snapshot()
            self._snapshot_due = False

    def _living(self) -> Collection[str]:
        return self._here.stays() if self._here is not None else ()  # nobody comes before `serve`

    async def _end_lost_stays(self) -> None:
        """Stays whose end was dropped or refused on its way would go on there for ever."""
        lost = self._outbox.dropped.get(Weight.LEAVE, 0) + self._drain.dead_letters
        # Not before the database knows that they began.
        if lost != self._ends_lost and await self._everything_taken_over(PERSISTED_WITHIN_S):
            await self._membership.end_stays(self._living)
            self._ends_lost = lost

    async def _replace_snapshot(self) -> None:
        """What is on its way to the disk comes before this, and may not be undone by it."""
        rooms = self._rooms | self._pending
        await self._outbox.replace_rooms(
            [room for room in rooms.values() if room.state is not RoomState.CLOSED]
        )

    async def _claim(self) -> None:
        """Takes up rooms that nobody has."""
        async with self._claiming:  # of two at once, one would not find what the other took
            due, self._own_due = self._own_due, True  # it may be so though no answer comes
            claimed = await self._membership.claim()
            self._own_due = due
            new = [room for room in claimed if room.id not in self._rooms]
            if new and self._here is not None:
                self._rooms |= {room.id: room for room in new}
                self._snapshot_due = True
                log.info("rooms_claimed", rooms=len(new))
                self._here.take_up(new)

    async def _take_own(self) -> None:
        """What the database says of this server's rooms, save where this server knows better."""
        self._own_due = True
        closed = self._closed = set()
        known_here = self._rooms
        try:
            own = {room.id: room for room in await self._membership.claim(own=True)}
            missing = known_here.keys() - own.keys()
            # Closed or another's by now, or of a database that was put back to an earlier day.
            missing -= await self._membership.known(missing)
        finally:
            self._closed = None
        newer = {
            room.id: room
            for room in known_here.values()
            if room.id in missing or (room.id in own and own[room.id].version < room.version)
        }
        for room in newer.values():
            self._outbox.append_soon(RoomChanged(room))
        if self._here is None:
            self._rooms = own | newer
        else:  # they are open already; what became of them meanwhile is settled one by one
            open_there = {r.id: r for r in own.values() if r.id not in closed}
            self._rooms = open_there | self._rooms
        self._own_due = False
        self._snapshot_due = True

    async def _settle(self) -> None:
        """Rooms that are open here and that another server took, changed or closed meanwhile."""
        if self._here is None:
            return
        for stray in await self._membership.strays(dict(self._rooms)):
            ours = self._rooms.get(stray.room.id)
            if ours is not None and ours.state is not RoomState.CLOSED:
                await self._settle_one(self._here, stray, ours)

    async def _settle_one(self, here: OpenRooms, stray: Stray, ours: RoomRecord) -> None:
        room = stray.room
        closed = room.state is RoomState.CLOSED
        if closed and (room.close_reason not in LAPSED or not here.is_running(room.id)):
            self._rooms.pop(room.id, None)
            here.renew(room)
        elif not closed and stray.server in (None, self._outbox.stream_id):
            if room.version > ours.version:
                here.renew(room)
            return
        elif here.is_running(room.id):
            version = await self._membership.reclaim(room.id)
            if version is None:
                log.warning("room_plays_twice", room=room.id, elsewhere=stray.url)
                return
            log.info("room_taken_back", room=room.id)
            here.keep(room.id, version)
        else:
            log.info("room_let_go", room=room.id, to=stray.url)
            self._rooms.pop(room.id, None)
            self._lookups.forget()
            here.let_go(room.id, stray.url or None)
        self._snapshot_due = True
