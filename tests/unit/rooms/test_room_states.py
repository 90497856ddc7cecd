"""A room's states: what happens to it as its source comes and goes."""

from __future__ import annotations

import json
from dataclasses import replace

from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.store.records import LeaveReason, RoomRecord
from support.control_plane import ControlPlane
from support.fake_media import START_S


async def test_a_source_that_is_lost_suspends_the_room_until_it_returns(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    plane.timers.advance(5)
    plane.hang_up(source)
    assert room.state == "suspended"
    suspended = plane.media.texts(listener, "roomSuspended")
    assert suspended[0]["suspendedUntil"] == int((START_S + 305) * 1e6)

    plane.timers.advance(299)
    plane.add_source(room, sampleRate=44100, channels=4)
    assert room.state == "active"
    assert plane.media.texts(listener, "roomResumed") == [
        {"type": "roomResumed", "roomId": room.id}
    ]
    assert json.loads(plane.media.announces[-1] + "1}")["stream"] == 2
    plane.timers.advance(1000)
    assert room.state == "active"


async def test_a_room_is_closed_when_the_grace_period_is_over(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.hang_up(plane.add_source(room))
    plane.timers.advance(300)
    assert room.state == "closed"
    assert plane.media.closed_rooms[room.media_id] == {
        "code": 4410,
        "type": "roomClosed",
        "roomId": room.id,
        "reason": "source_gone",
    }
    late = plane.add_listener(room)
    assert plane.media.closed[late] == 4410
    assert plane.timers.pending == 0


async def test_a_permanent_room_waits_again_when_the_grace_period_is_over(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    room.record = replace(room.record, permanent=True)
    plane.hang_up(plane.add_source(room))
    assert room.state == "suspended"
    plane.timers.advance(300)
    assert room.state == "waiting"
    plane.timers.advance(1_000_000)
    plane.add_source(room)
    assert room.state == "active"


async def test_restored_rooms_wait_for_their_source_and_keep_their_deadline(
    plane: ControlPlane,
) -> None:
    active = RoomRecord("a", "AAAAAA", "", b"", "owner", START_S, False, {}, RoomState.ACTIVE)
    suspended = replace(
        active, id="b", code="BBBBBB", state=RoomState.SUSPENDED, suspended_until=START_S + 100
    )
    waiting = replace(active, id="c", code="CCCCCC", state=RoomState.WAITING)
    for record in (active, suspended, waiting):
        await plane.store.create_room(record)
    await plane.rooms.restore()
    assert len(plane.rooms) == 3
    states = [room.state.value for room in plane.rooms]
    assert states == ["suspended", "suspended", "waiting"]
    plane.timers.advance(100)
    assert plane.rooms.find("bbbbbb") is None
    plane.timers.advance(199)
    assert plane.rooms.find("AAAAAA") is not None
    plane.timers.advance(1)
    assert [room.id for room in plane.rooms] == ["c"]


async def test_a_waiting_room_has_no_deadline(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.timers.advance(1_000_000)
    assert room.state == "waiting"


async def test_room_status_is_sent_on_change_at_most_once_a_second(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.timers.advance(10)
    first = plane.add_listener(room)
    for _ in range(50):
        plane.hang_up(plane.add_listener(room))
    assert len(plane.media.texts(first, "roomStatus")) == 1
    plane.timers.advance(1)
    statuses = plane.media.texts(first, "roomStatus")
    assert len(statuses) == 2
    assert statuses[-1] == {
        "type": "roomStatus",
        "roomId": room.id,
        "state": "waiting",
        "hasBroadcaster": False,
        "buffering": False,
        "listenerCount": 1,
    }
    plane.timers.advance(100)
    assert len(plane.media.texts(first, "roomStatus")) == 2


async def test_closing_a_room_tells_everyone_and_frees_its_names(plane: ControlPlane) -> None:
    room = await plane.room(public=True)
    plane.add_source(room)
    assert plane.rooms.public(None, 10) == [room]
    room.close(RoomCloseReason.CLOSED_BY_OWNER)
    room.close(RoomCloseReason.CLOSED_BY_OWNER)
    assert plane.media.closed_rooms[room.media_id]["reason"] == "closed_by_owner"
    assert plane.rooms.find(room.id) is None
    assert plane.rooms.closed(room.record.code) == room.record
    assert plane.rooms.public(None, 10) == []


async def test_during_shutdown_rooms_keep_their_state(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.connections.stop()
    plane.rooms.stop()
    plane.hang_up(source, LeaveReason.SHUTDOWN)
    assert room.state == "active"
    assert [stay.reason for stay in plane.store.stays] == ["shutdown"]
    assert plane.timers.pending == 0
