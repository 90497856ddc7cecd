"""What happens on a server, as it goes into the outbox."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from msgspec import structs

from roomserver.protocol.codes import Role
from roomserver.store.events import Audited
from roomserver.store.records import AuditEvent, AuditRecord, ParticipantRecord, RoomRecord


def new_room(**fields: Any) -> RoomRecord:
    room = RoomRecord(
        id=str(uuid4()),
        code=uuid4().hex[:6].upper(),
        name="Hall",
        password_hash=b"$2b$04$hash",
        created_by=None,
        created_at=1_700_000_000.25,
        public=True,
        metadata={"stage": [1, {"deep": None}]},
    )
    return replace(room, **fields)


def new_stay(room: RoomRecord, **fields: Any) -> ParticipantRecord:
    stay = ParticipantRecord(
        room=room.id,
        participant=str(uuid4()),
        connection=str(uuid4()),
        role=Role.LISTENER,
        user=None,
        nickname="Grüße",
        address="2001:db8::1",
        joined_at=1_700_000_001.0,
    )
    return structs.replace(stay, **fields)


def new_audit(**fields: Any) -> Audited:
    record = AuditRecord(AuditEvent.ROOM_CREATED, 1_700_000_000.0, details={"code": "ABC234"})
    return Audited(str(uuid4()), structs.replace(record, **fields))
