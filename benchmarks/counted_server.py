"""`python -m benchmarks.counted_server serve ...`: roomserver, whose figures can be asked for.

It obeys (`benchmarks.obedient`), and answers in its log:

    passwords       "passwords": how many bcrypts compared a password so far
    flood ROOM N    N events of that room go into the outbox, as comings and goings of listeners
                    make them, as fast as they can be made; "flooded" when it has them
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final
from unittest import mock

import bcrypt
import structlog
from msgspec import structs

import roomserver.store.stores
from benchmarks.obedient import Obedient
from roomserver.protocol.codes import Role
from roomserver.store.durable import DurableRoomStore
from roomserver.store.records import AuditEvent, AuditRecord, LeaveReason, ParticipantRecord

SLICE: Final = 100
"""Events after which the loop has its turn."""

log = structlog.stdlib.get_logger("counted")


class Counted(Obedient):
    """Counts, and floods on command. The event loop's own."""

    def __init__(self) -> None:
        super().__init__()
        self.bcrypts = 0
        self.stores: list[DurableRoomStore] = []

    def patches(self) -> Sequence[Any]:
        check = bcrypt.checkpw

        def checkpw(password: bytes, hashed: bytes) -> bool:
            self.bcrypts += 1
            return check(password, hashed)

        def make_store(*given: Any, **named: Any) -> DurableRoomStore:
            self.stores.append(DurableRoomStore(*given, **named))
            return self.stores[-1]

        return [
            mock.patch.object(bcrypt, "checkpw", checkpw),
            mock.patch.object(roomserver.store.stores, "DurableRoomStore", make_store),
        ]

    def obey(self, verb: str, words: Sequence[str]) -> None:
        if verb == "passwords":
            log.info("passwords", bcrypts=self.bcrypts)
        elif verb == "flood":
            self.spawn(self._flood(words[0], int(words[1])))
        else:
            raise ValueError(verb)

    async def _flood(self, room: str, events: int) -> None:
        (store,) = self.stores
        told = islice(comings_and_goings(store, room), events)
        while sum(1 for _ in islice(told, SLICE)):  # noqa: ASYNC110 - others have their turn
            await asyncio.sleep(0)
        log.info("flooded", events=events)


def comings_and_goings(store: DurableRoomStore, room: str) -> Iterator[None]:
    """Tells the store of another event with each step: four for a stay."""
    while True:
        connection, now = str(uuid.uuid4()), time.time()
        stay = ParticipantRecord(
            room=room,
            participant=str(uuid.uuid4()),
            connection=connection,
            role=Role.LISTENER,
            user=None,
            nickname="Listener",
            address="127.0.0.1",
            joined_at=now,
        )
        details = {"role": Role.LISTENER, "client": connection}

        def record(event: AuditEvent, at: float = now, of: Any = details) -> AuditRecord:
            return AuditRecord(event, at, "127.0.0.1", None, room, details=of)

        store.participant_joined(stay)
        yield
        store.audit(record(AuditEvent.ROOM_JOINED))
        yield
        gone = structs.replace(stay, left_at=now + 1, duration_s=1.0, reason=LeaveReason.LEFT)
        store.participant_left(gone)
        yield
        store.audit(record(AuditEvent.ROOM_LEFT))
        yield


if __name__ == "__main__":
    Counted().main()
