"""Rooms that are not here, of several servers on a database: asked for once, then answered."""

from __future__ import annotations

import asyncio

import pytest

from roomserver.protocol.codes import Role
from roomserver.store.memory import MemoryRoomStore
from roomserver.store.records import Elsewhere
from support.control_plane import ControlPlane


class SharedStore(MemoryRoomStore):
    """A store of one of several servers, on which every look-up is counted."""

    lookups = 0

    @property
    def shared(self) -> bool:
        return True

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        self.lookups += 1
        return None


@pytest.fixture
def store(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> SharedStore:
    store = SharedStore()
    monkeypatch.setattr(plane.rooms, "_store", store)
    return store


async def test_a_good_token_with_a_wrong_room_is_looked_up_once(
    plane: ControlPlane, store: SharedStore
) -> None:
    room = await plane.room()
    token = plane.token(room, Role.LISTENER)
    connection = plane.connect()
    wish = {"type": "registerListener", "roomId": "NOSUCH", "roomToken": token}
    plane.say(connection, wish)
    async with asyncio.timeout(5):
        while connection not in plane.media.closed:  # noqa: ASYNC110 - the fake relay sends no event
            await asyncio.sleep(0)
    assert plane.media.closed[connection] == 4404
    assert store.lookups == 1
