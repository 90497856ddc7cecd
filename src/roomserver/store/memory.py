"""The store of `--database-url none`: rooms live as long as the process, history is bounded."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from roomserver.protocol.codes import RoomState
from roomserver.store.figures import StoreFigures
from roomserver.store.interfaces import CodeTakenError
from roomserver.store.records import (
    AuditEvent,
    AuditRecord,
    Elsewhere,
    ParticipantRecord,
    RoomRecord,
)

CODE_REST_S = 30 * 86_400.0
HISTORY = 10_000
QUIET = frozenset({AuditEvent.ROOM_JOINED, AuditEvent.ROOM_LEFT})

LOGGER = "roomserver.audit"

log = structlog.stdlib.get_logger(LOGGER)
_logger = logging.getLogger(LOGGER)


def log_audit(record: AuditRecord) -> None:
    """Says it in the server's log too."""
    # Thousands come and go; what an operator reads by default is the rest.
    level = logging.DEBUG if record.event in QUIET else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    log.log(
        level,
        record.event.value,
        address=record.address,
        user=record.user,
        room=record.room,
        **record.details,
    )


class MemoryRoomStore:
    """Implements `RoomStore`. Everything happens in the event loop's thread."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._rooms: dict[str, RoomRecord] = {}
        self._codes: dict[str, str] = {}  # of open rooms: code -> id
        self._resting: dict[str, float] = {}  # of closed rooms, in order: code -> free again at
        self.stays: deque[ParticipantRecord] = deque(maxlen=HISTORY)
        self.present: dict[str, ParticipantRecord] = {}  # by their stay's id
        self.audit_log: deque[AuditRecord] = deque(maxlen=HISTORY)
        self.audited = 0  # lines, also those that are forgotten

    async def create_room(self, room: RoomRecord) -> bool:
        self._free_codes()
        if room.code in self._codes or room.code in self._resting:
            raise CodeTakenError(room.code)
        self._codes[room.code] = room.id
        self._rooms[room.id] = room
        return False

    def room_changed(self, room: RoomRecord) -> None:
        if room.state is not RoomState.CLOSED:
            self._rooms[room.id] = room
        elif self._rooms.pop(room.id, None) is not None:
            del self._codes[room.code]
            self._resting[room.code] = self._now() + CODE_REST_S

    async def keep_room(self, room: RoomRecord) -> None:
        self.room_changed(room)

    @property
    def shared(self) -> bool:
        return False

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        return None

    async def open_rooms(self) -> Sequence[RoomRecord]:
        return list(self._rooms.values())

    def participant_joined(self, participant: ParticipantRecord) -> None:
        self.present[participant.id] = participant

    def participant_counted(self, participant: ParticipantRecord) -> None:
        if participant.id in self.present:
            self.present[participant.id] = participant

    def participant_left(self, participant: ParticipantRecord) -> None:
        self.present.pop(participant.id, None)
        self.stays.append(participant)

    def audit(self, record: AuditRecord) -> None:
        self.audited += 1
        self.audit_log.append(record)
        log_audit(record)

    def figures(self) -> StoreFigures:
        return StoreFigures()

    async def reachable(self) -> bool:
        return True

    async def written(self) -> None:
        """There is nothing to be written."""

    async def close(self) -> None:
        """Nothing to finish."""

    def _free_codes(self) -> None:
        now = self._now()
        while self._resting:
            code, free_at = next(iter(self._resting.items()))
            if free_at > now:
                break
            del self._resting[code]
