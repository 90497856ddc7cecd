"""What is told to the database: facts, each complete in itself, kept in the outbox until then."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import msgspec

from roomserver.store.records import AuditRecord, ParticipantRecord, RoomRecord


class Weight(IntEnum):
    """What an event is worth when there is no room for all; the lightest go first."""

    COUNTERS = 0
    JOIN = 1
    LEAVE = 2
    AUDIT = 3
    ROOM = 4  # never dropped: somebody was told that it is so


class RoomChanged(msgspec.Struct, frozen=True, tag="room"):
    """A room is now as this says; the highest version counts."""

    weight: ClassVar[Weight] = Weight.ROOM
    room: RoomRecord


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """A stay began."""

    weight: ClassVar[Weight] = Weight.JOIN
    stay: ParticipantRecord


class Left(msgspec.Struct, frozen=True, tag="left"):
    """A stay ended; holds all of it, so that a lost `Joined` costs nothing."""

    weight: ClassVar[Weight] = Weight.LEAVE
    stay: ParticipantRecord


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """How far a stay has come. Absolute: a later one makes up for any that was lost."""

    weight: ClassVar[Weight] = Weight.COUNTERS
    stay: ParticipantRecord


class Audited(msgspec.Struct, frozen=True, tag="audited"):
    """A line of the audit log."""

    weight: ClassVar[Weight] = Weight.AUDIT
    id: str  # so that a line that comes twice is one
    record: AuditRecord


class Unreadable(msgspec.Struct, frozen=True):
    """What stands in the outbox and is no event: of another release, or damaged. Never written."""

    data: bytes
    error: str


Event = RoomChanged | Joined | Left | Counted | Audited

encode_event = msgspec.json.Encoder().encode
decode_events = msgspec.json.Decoder(list[Event]).decode  # of a JSON array of them
