"""Room tokens that are renewed over the connection."""

from __future__ import annotations

import pytest

from roomserver.protocol.codes import Role
from support.control_plane import ControlPlane


async def test_tokens_are_renewed_over_the_connection_before_they_expire() -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    room = await plane.room()
    token, before = plane.tokens.issue_room(room.id, Role.LISTENER, nickname="Ann")
    listener = plane.add_listener(room, roomToken=token)
    plane.timers.advance(250)
    assert plane.media.texts(listener, "roomToken") == []
    plane.timers.advance(150)
    (renewed,) = plane.media.texts(listener, "roomToken")
    after = plane.tokens.read_room(renewed["roomToken"])
    assert after.expires > before.expires
    assert renewed["expiresAt"] == after.expires * 1_000_000
    assert (after.participant, after.room, after.role) == (
        before.participant,
        before.room,
        before.role,
    )
    plane.timers.advance(3000)
    assert len(plane.media.texts(listener, "roomToken")) >= 8
    plane.close()


@pytest.mark.parametrize(("stepped_s", "renewed_at"), [(250.0, 50.0), (-250.0, 550.0)])
async def test_tokens_are_renewed_by_the_clock_by_which_they_expire(
    stepped_s: float, renewed_at: float
) -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    listener = plane.add_listener(await plane.room())
    plane.stepped_s = stepped_s
    plane.timers.advance(renewed_at - 1)
    assert plane.media.texts(listener, "roomToken") == []
    plane.timers.advance(1)
    assert len(plane.media.texts(listener, "roomToken")) == 1
    plane.close()


async def test_many_tokens_are_renewed_a_hundred_at_a_time() -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    room = await plane.room()
    listeners = [plane.add_listener(room) for _ in range(250)]
    renewed: list[int] = []

    def count() -> None:
        renewed.append(sum(bool(plane.media.texts(c, "roomToken")) for c in listeners))
        if len(renewed) < 4:
            plane.timers.call_later(0, count)

    plane.timers.advance(275)
    plane.hang_up(listeners[0])
    plane.timers.call_later(25, count)  # behind the sweep that is due then
    plane.timers.advance(25)
    assert renewed == [100, 200, 249, 249]
    plane.close()
    assert plane.timers.pending == 0
