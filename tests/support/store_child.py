"""A store in a process of its own, which tells on standard output what it has been acknowledged.

    python -m support.store_child DATA_DIR CONNECTION work|end

`work` makes rooms, with stays and lines of the audit log in each, and closes every other; `end`
only opens and closes. Each line is a JSON list: what was acknowledged, and its id.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from msgspec import structs

from roomserver.protocol.codes import Role, RoomCloseReason, RoomState
from roomserver.store.database import Database
from roomserver.store.durable import DurableRoomStore
from roomserver.store.outbox import Outbox
from roomserver.store.records import (
    AuditEvent,
    AuditRecord,
    LeaveReason,
    ParticipantRecord,
    RoomRecord,
)

ROUNDS = 6
STAYS = 20
START = 1_700_000_000.0


def say(*what: str) -> None:
    print(json.dumps(what), flush=True)


async def work(store: DurableRoomStore) -> None:
    for number in range(ROUNDS):
        room = RoomRecord(
            id=str(uuid4()),
            code=uuid4().hex[:6].upper(),
            name="Hall",
            password_hash=b"$2b$04$hash",
            created_by=None,
            created_at=START + number,
            public=False,
            metadata={},
        )
        await store.create_room(room)
        say("room", room.id)
        marks, stays = [], []
        for _ in range(STAYS):
            stay = ParticipantRecord(
                room=room.id,
                participant=str(uuid4()),
                connection=str(uuid4()),
                role=Role.LISTENER,
                user=None,
                nickname=None,
                address="192.0.2.1",
                joined_at=START,
            )
            store.participant_joined(stay)
            left = structs.replace(stay, left_at=START + 5, duration_s=5.0, reason=LeaveReason.LEFT)
            store.participant_left(left)
            mark = str(uuid4())
            store.audit(AuditRecord(AuditEvent.ROOM_JOINED, START, details={"mark": mark}))
            stays.append(stay.connection)
            marks.append(mark)
        await store.written()
        for stay_id, mark in zip(stays, marks, strict=True):
            say("stay", stay_id)
            say("audit", mark)
        if number % 2:
            closed = replace(
                room,
                version=2,
                state=RoomState.CLOSED,
                closed_at=START + 60,
                close_reason=RoomCloseReason.CLOSED_BY_OWNER,
            )
            store.room_changed(closed)
            await store.written()
            say("closed", room.id)


async def main() -> None:
    directory, connection, task = sys.argv[1:]
    outbox = Outbox(Path(directory), capacity=100_000)
    database = Database(json.loads(connection))
    store = DurableRoomStore(outbox, database, url="http://server.example")
    await store.open()
    for room in await store.open_rooms():
        say("open", room.id)
    if task == "work":
        await work(store)
    await store.close()
    await database.close()
    say("end", "")


if __name__ == "__main__":
    asyncio.run(main())
