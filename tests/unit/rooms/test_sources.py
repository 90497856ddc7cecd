"""A source that ends, returns, or is taken over."""

from __future__ import annotations

from roomserver.protocol.server import SourceStatus
from roomserver.store.records import LeaveReason
from support.control_plane import ControlPlane


async def test_unregistering_plays_out_before_the_room_is_suspended(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    assert plane.media.drained == [source]
    assert room.state == "active"
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "suspended"
    assert len(plane.media.texts(source, "roomSuspended")) == 1
    # The same connection may come back.
    plane.add_source(room, connection=source)
    assert room.state == "active"
    assert room.source is not None
    assert room.source.id == source


async def test_a_source_that_hangs_up_while_it_is_played_out_is_played_out(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    plane.hang_up(source, LeaveReason.LEFT)
    assert room.state == "active"
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "suspended"
    assert [stay.reason for stay in plane.store.stays] == ["left"]


async def test_a_source_may_return_while_it_is_played_out(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    plane.add_source(room, connection=source, channels=8)
    assert plane.media.sources[room.media_id][1].stream == 2
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "active"
    assert room.source is not None


async def test_the_same_user_takes_the_source_over(plane: ControlPlane) -> None:
    room = await plane.room()
    first, listener = plane.add_source(room), plane.add_listener(room)
    second = plane.add_source(room)
    assert plane.media.closed == {first: 4409}
    assert plane.media.last(first)["code"] == "source_taken_over"
    plane.connections.stream_ended(room.media_id, 1, drained=False)
    plane.hang_up(first)
    assert room.state == "active"
    assert room.source is not None
    assert room.source.id == second
    assert plane.media.texts(listener, "roomSuspended") == []
    assert [stay.reason for stay in plane.store.stays] == ["taken_over"]


async def test_anybody_else_finds_the_source_taken(plane: ControlPlane) -> None:
    room = await plane.room()
    first = plane.add_source(room, user="one")
    for user in ("two", None):
        other = plane.add_source(room, user=user)
        assert plane.media.last(other)["code"] == "source_exists"
        assert plane.media.closed[other] == 4403
    assert first not in plane.media.closed


async def test_the_source_is_told_what_the_relay_sees_of_it(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.add_listener(room)
    status = SourceStatus(60.0, 80.0, 1.0, -3.0, None, (9, 9), (0, 0), (0, 0), (0, 0), (0, 0))
    plane.connections.source_report(room.media_id, 1, status)
    assert plane.media.last(source) == {
        "type": "sourceStatus",
        "fillMs": 60.0,
        "targetMs": 80.0,
        "jitterMs": 1.0,
        "driftPpm": -3.0,
        "captureOffsetUs": None,
        "listenerCount": 1,
        "received": [9, 9],
        "late": [0, 0],
        "duplicate": [0, 0],
        "lost": [0, 0],
        "concealed": [0, 0],
    }
