"""What a room's owner decides: kept first, in force then, and taken again when the room changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from roomserver.protocol.codes import RoomCloseReason
from roomserver.rooms.control import RoomClosedError, RoomControl
from roomserver.rooms.room import Room
from roomserver.store.outbox import OutboxError
from roomserver.store.records import RoomRecord
from support.control_plane import ControlPlane

Decision = Callable[[RoomControl, Room], Awaitable[object]]

DECISIONS: list[Decision] = [
    lambda control, room: control.update(room, {"name": "Yard", "channel_names": ("kick",)}),
    lambda control, room: control.suspend(room, 60),
    lambda control, room: control.set_password(room, b"another", drop=True),
    lambda control, room: control.set_password(room, None, drop=False),
    lambda control, room: control.close(room, RoomCloseReason.CLOSED_BY_OWNER),
]


@pytest.mark.parametrize("decide", DECISIONS)
async def test_what_cannot_be_kept_is_not_so(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, decide: Decision
) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    before, told = room.record, (len(plane.media.sent[source]), len(plane.media.sent[listener]))

    async def refuse(record: RoomRecord) -> None:
        raise OutboxError("the disk is full")

    monkeypatch.setattr(plane.store, "keep_room", refuse)
    with pytest.raises(OutboxError):
        await decide(plane.control, room)
    assert room.record is before
    assert (len(plane.media.sent[source]), len(plane.media.sent[listener])) == told
    assert not plane.media.closed
    assert await plane.passwords.check(room.id, b"password", before.password_hash)


async def test_a_room_that_changed_meanwhile_keeps_both_changes(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await plane.room()
    kept: list[RoomRecord] = []

    async def keep(record: RoomRecord) -> None:
        if not kept:
            plane.add_source(room)
        kept.append(record)

    monkeypatch.setattr(plane.store, "keep_room", keep)
    await plane.control.update(room, {"name": "Yard"})
    assert (room.state, room.record.name) == ("active", "Yard")
    assert room.record is kept[-1]
    assert kept[-1].version == kept[0].version + 1


async def test_a_room_that_was_closed_meanwhile_stays_closed(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await plane.room()

    async def keep(record: RoomRecord) -> None:
        room.close(RoomCloseReason.SOURCE_GONE)

    monkeypatch.setattr(plane.store, "keep_room", keep)
    with pytest.raises(RoomClosedError):
        await plane.control.update(room, {"name": "Yard"})
    assert room.state == "closed"


async def test_the_last_word_of_a_room_that_ends_while_it_is_changed_is_its_end(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await plane.room()
    told: list[RoomRecord] = []

    async def keep(record: RoomRecord) -> None:
        told.append(record)
        room.close(RoomCloseReason.SOURCE_GONE)

    monkeypatch.setattr(plane.store, "keep_room", keep)
    monkeypatch.setattr(plane.store, "room_changed", told.append)
    with pytest.raises(RoomClosedError):
        await plane.control.update(room, {"name": "Yard"})
    last = told[-1]
    assert last.state == "closed"
    assert last.version > max(record.version for record in told[:-1])


async def test_a_break_of_a_permanent_room_ends_with_waiting(plane: ControlPlane) -> None:
    room = await plane.room(permanent=True)
    plane.add_source(room)
    await plane.control.suspend(room, 60)
    plane.timers.advance(60)
    assert (room.state, room.record.held) == ("waiting", False)
    plane.add_source(room)
    assert room.state == "active"


async def test_a_room_has_its_own_grace_period(plane: ControlPlane) -> None:
    room = await plane.room(grace_s=7.0)
    plane.hang_up(plane.add_source(room))
    plane.timers.advance(6.9)
    assert room.state == "suspended"
    plane.timers.advance(0.2)
    assert room.state == "closed"


async def test_names_given_before_the_stream_is_live_are_told_again_when_it_is(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    plane.add_source(room, channelNames=["a", "b"])
    listener = plane.add_listener(room)
    await plane.control.update(room, {"channel_names": ("kick", "snare")})
    plane.connections.stream_live(room.media_id, 1, 0)
    told = plane.media.texts(listener, "roomChanged")
    assert [message["channelNames"] for message in told] == [["kick", "snare"]] * 2
