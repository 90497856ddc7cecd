"""What is kept of a stay: each has an id of its own, its packets and its mean latency."""

from __future__ import annotations

from roomserver.protocol.codes import Role
from support.control_plane import ControlPlane


async def test_a_connection_that_registers_again_begins_another_stay(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.media.packets[room.media_id] = 30
    plane.say(source, {"type": "unregisterSource"})
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    plane.add_source(room, connection=source)
    plane.media.packets[room.media_id] = 42
    plane.hang_up(source)
    first, second = plane.store.stays
    assert first.connection == second.connection
    assert first.id != second.id
    assert (first.frames_sent, second.frames_sent) == (30, 12)
    assert not plane.store.present


async def test_the_latency_of_a_stay_is_the_mean_of_what_its_player_measured(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    listener = plane.add_listener(room)
    (there,) = plane.store.present.values()
    assert (there.role, there.latency_ms) == (Role.LISTENER, None)
    for latency in (40, 80.5, None, 0):
        plane.say(listener, {"type": "stats", "latencyMs": latency, "bufferMs": 5})
    plane.hang_up(listener)
    (stay,) = plane.store.stays
    assert stay.latency_ms == 40.166666666666664


async def test_the_store_is_told_how_far_a_source_has_come(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.connections.start()
    plane.media.packets[room.media_id] = 1500
    plane.timers.advance(31)
    (there,) = plane.store.present.values()
    assert (there.frames_sent, there.left_at) == (1500, None)
    plane.hang_up(source)
    assert not plane.store.present
