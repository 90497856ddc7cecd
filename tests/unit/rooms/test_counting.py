"""How far stays have come is told from time to time, a few at once."""

from __future__ import annotations

import pytest

from roomserver.rooms.ports import ListenerCount
from roomserver.store.records import ParticipantRecord
from support.control_plane import ControlPlane


async def test_stays_that_go_on_are_told_a_hundred_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane = ControlPlane()
    told: list[ParticipantRecord] = []
    monkeypatch.setattr(plane.store, "participant_counted", told.append)
    plane.connections.start()
    room = await plane.room()
    await plane.room()  # nobody is there
    plane.add_source(room)
    listeners = [plane.add_listener(room) for _ in range(150)]
    plane.timers.advance(30)
    assert [stay.role for stay in told] == ["broadcaster"]
    assert plane.media.inspected == [room.media_id]
    plane.hang_up(listeners[0])
    plane.connections.listeners_counted([ListenerCount(one, 500, 3) for one in listeners])
    plane.timers.advance(0)
    assert len(told) == 1 + 149
    assert {(stay.frames_sent, stay.frames_dropped, stay.left_at) for stay in told[1:]} == {
        (500, 3, None)
    }
    plane.close()
    assert plane.timers.pending == 0
